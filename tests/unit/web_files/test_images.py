"""Pixels to files and back, and the nodes that do it: files.md sections 1 to 4."""

import io
import json
import random
import struct
import threading
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from comfy import control
from comfy import folders as comfy_folders
from comfy.errors import FileMissing, FileNameInvalid, ImageUnreadable, InputUnusable, Interrupted, PathOutside
from comfy.images_io import apng_bytes, jpeg_bytes, load_channel, load_image, metadata, png_bytes, to_uint8, webp_bytes
from comfy.nodes.image import (
    NODE_CLASS_MAPPINGS,
    NODE_DISPLAY_NAME_MAPPINGS,
    EmptyImage,
    LoadImage,
    LoadImageMask,
    LoadImageOutput,
    PreviewImage,
    SaveImage,
)
from comfy.nodes.registry import NodeRegistry
from tests.unit.folders.helpers import config_in, put
from tests.unit.web_files.helpers import png


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(comfy_folders, "_current", None)
    return comfy_folders.configure(config_in(tmp_path), tmp_path)


def chunks(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, found = 8, []
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        found.append((data[place + 4 : place + 8].decode(), data[place + 8 : place + 8 + size]))
        place += 12 + size
    return found


# -- encoding ---------------------------------------------------------------------------------------------------------------


def test_pixels_are_scaled_clipped_and_truncated():
    values = torch.tensor([0.0, 0.5, 0.999, 1.0, 1.5, -1.0, float("nan"), float("inf"), float("-inf")])
    assert to_uint8(values).tolist() == [0, 127, 254, 255, 255, 0, 0, 255, 0]
    assert to_uint8(values.to(torch.bfloat16))[1] == 127


def test_png_has_the_chunks_of_the_reference_in_order():
    texts = metadata({"1": {"class_type": "X", "inputs": {}, "is_changed": ["ab"]}}, {"workflow": {"v": 1}, "other": "é"})
    found = chunks(png_bytes(np.zeros((2, 3, 3), np.uint8), texts, 4))
    assert [kind for kind, _ in found] == ["IHDR", "tEXt", "tEXt", "tEXt", "IDAT", "IEND"]
    assert found[1][1] == b'prompt\0{"1": {"class_type": "X", "inputs": {}}}'
    assert found[2][1] == b'workflow\0{"v": 1}'
    assert found[3][1] == b'other\0"\\u00e9"'


def test_text_that_is_not_latin_1_becomes_itxt():
    found = chunks(png_bytes(np.zeros((1, 1, 3), np.uint8), {"k": "日"}, 4))
    assert [kind for kind, _ in found] == ["IHDR", "iTXt", "IDAT", "IEND"]


@pytest.mark.parametrize("key", ["", "k" * 80, "日", "a\0b"])
def test_keys_that_png_cannot_hold_do_not_cost_the_picture(key):
    found = chunks(png_bytes(np.zeros((1, 1, 3), np.uint8), {key: "1", "good": "2"}, 4))
    assert [data for kind, data in found if kind == "tEXt"] == [b"good\x002"]


def test_metadata_holds_neither_markers_nor_secrets():
    prompt = {"1": {"inputs": {"is_changed": 3}, "is_changed": ["x"]}, "2": 7}
    texts = metadata(prompt, {"workflow": {}, "auth_token_comfy_org": "s3cret", "api_key_comfy_org": "s3cret"})
    assert texts == {"prompt": '{"1": {"inputs": {"is_changed": 3}}, "2": 7}', "workflow": "{}"}
    assert "is_changed" in prompt["1"]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_gives_the_pixels_back(channels):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 4, channels), np.uint8)
    again = np.asarray(Image.open(io.BytesIO(png_bytes(pixels))))
    assert np.array_equal(again.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (0, 4, 3), (4, 4, 5)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputUnusable):
        png_bytes(np.zeros(shape, np.uint8))


def test_apng_keeps_frames_and_texts_behind_the_data():
    frames = np.stack([np.full((2, 2, 3), value, np.uint8) for value in (0, 90, 200)])
    data = apng_bytes(frames, {"prompt": "{}"}, 4, fps=6.0)
    kinds = [kind for kind, _ in chunks(data)]
    assert kinds.index("comf") > kinds.index("IDAT")
    assert ("comf", b"prompt\0{}") in chunks(data)
    image = Image.open(io.BytesIO(data))
    assert (image.n_frames, image.info["duration"]) == (3, 166)


def test_webp_holds_texts_in_exif_counting_down():
    frames = [np.full((4, 4, 3), value, np.uint8) for value in (0, 200)]
    image = Image.open(io.BytesIO(webp_bytes(frames, {"prompt": "{}", "workflow": "1", "x": "2"})))
    exif = image.getexif()
    assert (image.n_frames, exif[0x0110], exif[0x010F], exif[0x010E]) == (2, "prompt:{}", "workflow:1", "x:2")


def test_jpeg_drops_alpha():
    assert Image.open(io.BytesIO(jpeg_bytes(np.zeros((4, 4, 4), np.uint8)))).mode == "RGB"


# -- decoding ---------------------------------------------------------------------------------------------------------------


def test_picture_without_alpha_has_an_empty_mask(tmp_path):
    image, mask = load_image(put(tmp_path / "a.png", png(4, 3)))
    assert (tuple(image.shape), image.dtype, tuple(mask.shape), mask.sum().item()) == ((1, 3, 4, 3), torch.float32, (1, 64, 64), 0.0)
    pixels = np.asarray(Image.open(tmp_path / "a.png"), np.float32) / 255.0
    assert np.array_equal(image[0].numpy(), pixels)


def test_mask_is_one_minus_alpha(tmp_path):
    image, mask = load_image(put(tmp_path / "a.png", png(2, 2, "RGBA", (255, 0, 0, 51))))
    assert torch.equal(mask, torch.full((1, 2, 2), 1.0 - np.float32(51) / np.float32(255)))
    assert image[0, 0, 0].tolist() == [1.0, 0.0, 0.0]


def test_transparent_palette_entries_count_as_alpha(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=1)
    assert load_image(tmp_path / "p.png")[1].tolist() == [[[0.0, 1.0]]]


def test_every_frame_of_an_animation_is_a_batch_item(tmp_path):
    frames = [Image.new("RGB", (3, 2), (value, 0, 0)) for value in (0, 100, 200)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    image, mask = load_image(tmp_path / "a.webp")
    assert (tuple(image.shape), tuple(mask.shape)) == ((3, 2, 3, 3), (3, 64, 64))
    assert (image[:, 0, 0, 0] * 255).tolist() == [0, 100, 200]


def test_pages_of_another_size_are_skipped(tmp_path):
    pages = [Image.new("RGB", size) for size in ((3, 2), (5, 5), (3, 2))]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    assert tuple(load_image(tmp_path / "a.tiff")[0].shape) == (2, 2, 3, 3)


def test_frames_with_and_without_alpha_go_together(tmp_path):
    first = Image.new("RGBA", (3, 2), (0, 0, 0, 0))
    first.save(tmp_path / "a.tiff", save_all=True, append_images=[Image.new("RGB", (3, 2))])
    assert load_image(tmp_path / "a.tiff")[1].sum(dim=(1, 2)).tolist() == [6.0, 0.0]


def test_only_the_first_picture_of_an_mpo_is_taken(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.mpo", save_all=True, append_images=[Image.new("RGB", (4, 4), "white")])
    image, _ = load_image(tmp_path / "a.mpo")
    assert tuple(image.shape) == (1, 4, 4, 3)
    assert image.max() < 0.1


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif)
    assert tuple(load_image(tmp_path / "a.jpg")[0].shape) == (1, 4, 2, 3)


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png")[0][0, 0, :, 0].tolist() == pytest.approx([0.0, 32768 / 65535, 1.0])


@pytest.mark.parametrize(
    ("channel", "expected"), [("red", 255 / 255), ("green", 0.0), ("blue", 51 / 255), ("alpha", 1 - np.float32(102) / np.float32(255))]
)
def test_one_channel_as_a_mask(tmp_path, channel, expected):
    mask = load_channel(put(tmp_path / "a.png", png(2, 2, "RGBA", (255, 0, 51, 102))), channel)
    assert tuple(mask.shape) == (1, 2, 2)
    assert mask[0, 0, 0].item() == pytest.approx(expected)


def test_alpha_of_an_opaque_picture_is_an_empty_mask_of_its_size(tmp_path):
    assert torch.equal(load_channel(put(tmp_path / "a.png", png(4, 3)), "alpha"), torch.zeros(1, 3, 4))
    with pytest.raises(InputUnusable):
        load_channel(tmp_path / "a.png", "magenta")


@pytest.mark.parametrize("data", [b"", b"not a picture", png()[:40], png()[:-30], b"GIF89a\x00", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_broken_files_are_typed_errors_without_a_server_path(tmp_path, data):
    for load in (load_image, lambda path: load_channel(path, "red")):
        with pytest.raises(ImageUnreadable) as caught:
            load(put(tmp_path / "broken.png", data))
        assert str(tmp_path) not in str(caught.value)


def test_picture_that_claims_to_be_huge_is_refused(tmp_path):
    data = bytearray(png())
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    with pytest.raises(ImageUnreadable):
        load_image(put(tmp_path / "bomb.png", bytes(data)))


GIF = io.BytesIO()
Image.new("P", (3, 3)).save(GIF, "GIF", save_all=True, append_images=[Image.new("P", (3, 3), 1)], transparency=0)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([png(), png(3, 3, "RGBA"), GIF.getvalue()]), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)
)
def test_damaged_files_never_raise_anything_untyped(tmp_path, data, damage):
    damaged = bytearray(data)
    for place, value in damage:
        damaged[place % len(damaged)] = value
    try:
        image, _ = load_image(put(tmp_path / "f.png", bytes(damaged)))
        assert image.ndim == 4
    except ImageUnreadable:
        pass


# -- nodes ------------------------------------------------------------------------------------------------------------------


def test_classes_describe_themselves_as_the_reference_does(folders):
    with open("tests/data/object_info.json") as file:
        stored = json.load(file)
    registry = NodeRegistry()
    registry.add(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, module="nodes")
    for name in NODE_CLASS_MAPPINGS:
        mine = json.loads(json.dumps(registry.describe(name)))
        mine.pop("description")
        for group in mine["input"].values():
            for spec in group.values():
                if isinstance(spec, list) and len(spec) > 1:
                    spec[1].pop("tooltip", None)
        assert mine == stored[name]


def test_choices_are_the_pictures_directly_in_the_input_folder(folders, tmp_path):
    assert LoadImage.INPUT_TYPES()["required"]["image"][0] == []
    for name in ("b.png", "a.WEBP", "c.txt", "s/d.png", "e.mp4"):
        put(tmp_path / "input" / name)
    assert LoadImage.INPUT_TYPES()["required"]["image"][0] == ["a.WEBP", "b.png"]
    assert LoadImageMask.INPUT_TYPES()["required"]["image"][0] == ["a.WEBP", "b.png", "c.txt", "e.mp4"]


def test_load_image_takes_annotated_names_and_notices_changes(folders, tmp_path):
    put(tmp_path / "output" / "s" / "a.png", png(4, 3))
    assert LoadImage.VALIDATE_INPUTS("s/a.png [output]") is True
    image, _ = LoadImage().load_image("s/a.png [output]")
    assert tuple(image.shape) == (1, 3, 4, 3)
    assert tuple(LoadImageOutput().load_image("s/a.png[output]")[1].shape) == (1, 64, 64)
    before = LoadImage.IS_CHANGED("s/a.png [output]")
    assert before == LoadImageMask.IS_CHANGED("s/a.png [output]", "red")
    put(tmp_path / "output" / "s" / "a.png", png(5, 3))
    assert LoadImage.IS_CHANGED("s/a.png [output]") != before


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "no.png", "s", "a\0", "..\\secret.png", "link.png", "\ud800"])
def test_loaders_reach_no_file_outside(folders, tmp_path, name):
    put(tmp_path / "secret.png", png())
    put(tmp_path / "input" / "s" / "x.png", png())
    (tmp_path / "input" / "link.png").symlink_to(tmp_path / "secret.png")
    for cls in (LoadImage, LoadImageMask, LoadImageOutput):
        assert isinstance(cls.VALIDATE_INPUTS(name), str)
    for call in (LoadImage().load_image, lambda given: LoadImageMask().load_image(given, "red"), LoadImage.IS_CHANGED):
        with pytest.raises((PathOutside, FileMissing, FileNameInvalid, InputUnusable, ImageUnreadable)):
            call(name)


def test_save_image_writes_consecutive_files_with_metadata(folders, tmp_path):
    prompt, extra = {"1": {"class_type": "LoadImage", "inputs": {}, "is_changed": ["x"]}}, {"workflow": {"v": 1}}
    answer = SaveImage().save_images(torch.rand(2, 3, 4, 3), "t1/x_%width%x%height%", prompt, extra)
    assert answer == {
        "ui": {
            "images": [
                {"filename": "x_4x3_00001_.png", "subfolder": "t1", "type": "output"},
                {"filename": "x_4x3_00002_.png", "subfolder": "t1", "type": "output"},
            ]
        }
    }
    text = Image.open(tmp_path / "output" / "t1" / "x_4x3_00002_.png").text
    assert text == {"prompt": '{"1": {"class_type": "LoadImage", "inputs": {}}}', "workflow": '{"v": 1}'}


def test_disable_metadata_writes_none(tmp_path, monkeypatch):
    monkeypatch.setattr(comfy_folders, "_current", None)
    comfy_folders.configure(config_in(tmp_path, disable_metadata=True), tmp_path)
    SaveImage().save_images([torch.rand(3, 4, 4)], prompt={"1": {}}, extra_pnginfo={"workflow": 1})
    assert Image.open(tmp_path / "output" / "ComfyUI_00001_.png").text == {}


def test_preview_image_goes_to_temp_under_letters_that_seeding_does_not_fix(folders, tmp_path):
    names = set()
    for _ in range(3):
        random.seed(1)
        np.random.seed(1)
        (image,) = PreviewImage().save_images(torch.zeros(1, 2, 2, 3))["ui"]["images"]
        assert (image["type"], image["subfolder"]) == ("temp", "")
        names.add(image["filename"])
    assert len(names) == 3
    assert all(name.startswith("ComfyUI_temp_") and name.endswith("_00001_.png") and len(name) == 29 for name in names)


def test_packs_derive_from_save_image_and_set_its_attributes(folders, tmp_path):
    class PackSaver(SaveImage):
        def __init__(self):
            self.output_dir = str(tmp_path / "elsewhere")
            self.type = "output"
            self.prefix_append = "_pack"
            self.compress_level = 1

    PackSaver().save_images(images=torch.zeros(1, 2, 2, 4), filename_prefix="x")
    assert (tmp_path / "elsewhere" / "x_pack_00001_.png").exists()


def test_four_lanes_with_one_prefix_save_200_pictures(folders, tmp_path):
    saver, failures = SaveImage(), []

    def lane():
        try:
            for _ in range(50):
                saver.save_images(torch.zeros(1, 1, 1, 3), "same")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=lane) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == [f"same_{number:05}_.png" for number in range(1, 201)]


@pytest.mark.parametrize("images", [torch.zeros(0, 2, 2, 3), torch.zeros(2, 2, 3), torch.zeros(1, 2, 2, 2), []])
def test_save_image_refuses_what_is_no_picture(folders, images):
    with pytest.raises(InputUnusable):
        SaveImage().save_images(images)


def test_save_image_stays_in_its_folder(folders):
    with pytest.raises(PathOutside):
        SaveImage().save_images(torch.zeros(1, 2, 2, 3), "../x")


def test_interrupt_ends_a_long_save_between_two_files(folders, tmp_path):
    job = control.JobControl("a")

    class StoppedAfterOne(SaveImage):
        def _encode(self, image, texts):
            data = super()._encode(image, texts)
            job.stop.set()
            return data

    with control.entered(job), pytest.raises(Interrupted):
        StoppedAfterOne().save_images(torch.zeros(5, 2, 2, 3), "x")
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["x_00001_.png"]
    assert folders.save_names.statistics() == (0, 0)


def test_empty_image_has_its_colour():
    (image,) = EmptyImage().generate(3, 2, 2, 0xFF8000)
    assert tuple(image.shape) == (2, 2, 3, 3)
    assert (image[1, 1, 2] * 255).round().tolist() == [255.0, 128.0, 0.0]
