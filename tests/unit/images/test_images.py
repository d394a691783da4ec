"""What the recorded cases leave open: bad input, video latents, edges, saved animations."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from comfy import config, folders, images
from comfy.errors import InputUnusable
from comfy.nodes.image_ops import ImageScale
from comfy.nodes.v3.values import SVG
from comfy.pixels import batch, blend, compositing, latents, masks, morphology, quantize, tiling
from comfy_extras import nodes_images, nodes_mask
from comfy_extras.nodes_rebatch import RebatchImages

A = torch.rand(2, 9, 7, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "call",
    [
        lambda: images.common_upscale(A.movedim(-1, 1), 0, 4, "bilinear", "disabled"),
        lambda: images.common_upscale(A.movedim(-1, 1), 4, 4, "wishful", "disabled"),
        lambda: blend.blend(A, A, 0.5, "wishful"),
        lambda: blend.blur(A, 8, 1.0),
        lambda: quantize.quantize(A, 4, "wishful"),
        lambda: quantize.quantize(A[..., :1], 4, "none"),
        lambda: quantize.quantize(A, 4, "bayer-3"),
        lambda: morphology.morphology(A, "wishful", 3),
        lambda: morphology.canny(A, 0.8, 0.4),
        lambda: compositing.porter_duff(A, A[..., 0], A, A[..., 0], "WISHFUL"),
        lambda: masks.composite(A[..., 0], torch.zeros(3, 9, 7), 0, 0, "add"),
        lambda: masks.composite(A[..., 0], A[..., 0], 0, 0, "wishful"),
        lambda: masks.crop(A[..., 0], 100, 0, 4, 4),
        lambda: images.stitch(A, A, "wishful", True, 0, "white"),
        lambda: images.stitch(A, A, "right", True, 2, "wishful"),
        lambda: images.tiled_scale(torch.zeros(1, 4, 40, 40), lambda x: x, 8, 8, 8, 1, 4),
        lambda: nodes_images.ImageScaleToMaxDimension().upscale(A, "area", 0),
        lambda: nodes_mask.ImageToMask().image_to_mask(A, "alpha"),
    ],
)
def test_what_cannot_be_done_is_said(call: Any) -> None:
    with pytest.raises(InputUnusable):
        call()


def test_both_sides_zero_leave_a_picture_as_it_is() -> None:
    assert ImageScale().upscale(A, "area", 0, 0, "disabled")[0] is A


@pytest.mark.parametrize("method", ["bilinear", "bislerp", "nearest-exact"])
def test_frames_are_resized_one_by_one(method: str) -> None:
    video = torch.rand(2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    made = images.common_upscale(video, 9, 8, method, "center")
    assert made.shape == (2, 4, 3, 8, 9)
    assert made[:, :, 1].allclose(images.common_upscale(video[:, :, 1], 9, 8, method, "center"))


def test_bislerp_keeps_lengths_between_opposite_and_zero_vectors() -> None:
    x = torch.zeros(1, 4, 1, 3)
    x[0, 0, 0] = torch.tensor([1.0, -1.0, 0.0])
    made = images.bislerp(x, 6, 1)
    assert made.isfinite().all()
    assert made[0, 0, 0, 0] == 1.0
    assert made.abs().max() <= 1.0


def test_half_precision_stays_half() -> None:
    x = A.movedim(-1, 1).half()
    assert {images.common_upscale(x, 5, 5, method, "disabled").dtype for method in ("bislerp", "lanczos")} == {torch.float16}


@pytest.mark.parametrize(("width", "height"), [(64, 64), (26, 20), (200, 33)])
def test_the_number_of_steps_is_the_number_of_tiles(width: int, height: int) -> None:
    calls: list[tuple[int, ...]] = []

    def function(tile: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(tile.shape))
        return tile

    class Bar:
        done = 0

        def update(self, value: int) -> None:
            self.done += value

    bar = Bar()
    x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(2))
    made = images.tiled_scale(x, function, 32, 16, 4, 1, 3, pbar=bar)
    assert len(calls) == bar.done == images.get_tiled_scale_steps(width, height, 32, 16, 4)
    assert torch.allclose(made, x, atol=1e-6)


def test_videos_are_tiled_in_time_too() -> None:
    x = torch.rand(1, 4, 6, 12, 10, generator=torch.Generator().manual_seed(3))
    made = tiling.tiled_scale_multidim(x, lambda t: t[:, :3].repeat_interleave(2, -1), (4, 6, 5), (1, 2, 2), [1, 1, 2], 3)
    assert made.shape == (1, 3, 6, 12, 20)
    assert torch.allclose(made, x[:, :3].repeat_interleave(2, -1), atol=1e-6)


def test_a_mask_that_fills_everything_stops_growing() -> None:
    mask = torch.zeros(1, 5, 5)
    mask[0, 2, 2] = 1
    assert masks.grow(mask, 16384, tapered_corners=True).eq(1).all()


def test_what_lies_outside_changes_nothing() -> None:
    mask = A[..., 0]
    assert masks.composite(mask, mask, 50, 0, "add").equal(mask)
    x = torch.rand(1, 4, 4, 4, generator=torch.Generator().manual_seed(4))
    assert compositing.composite(x, x + 1, 64, 0).equal(x)
    assert latents.composite(x, x + 1, 64, 0, 0).equal(x)


def test_missing_alpha_is_opaque() -> None:
    rgba = torch.zeros(1, 9, 7, 4)
    assert images.batch_images(A, rgba)[0, ..., 3].eq(1).all()
    assert batch.batch_images(rgba, A).shape == (3, 9, 7, 4)
    _, fitted = nodes_mask.image_alpha_fix(rgba, A)
    assert fitted[..., 3].eq(1).all()


def test_pictures_are_rebatched_in_order() -> None:
    made = RebatchImages.execute([A, A[:1], torch.zeros(1, 3, 3, 3)], [2]).args[0]
    assert [len(one) for one in made] == [2, 1, 1]


def test_edges_are_thin_and_joined() -> None:
    picture = torch.zeros(1, 20, 20, 3)
    picture[:, :, 10:] = 1.0
    edges = morphology.canny(picture, 0.4, 0.8)  # what the node offers by default
    assert edges.shape == picture.shape
    columns = edges[0, :, :, 0].sum(0)
    assert columns[[9, 10]].sum() == 20
    assert columns.sum() == 20
    assert morphology.canny(torch.full((1, 8, 8, 3), 0.5), 0.01, 0.01).sum() == 0


def test_weak_edges_stay_only_beside_strong_ones() -> None:
    weak = torch.zeros(1, 1, 5, 9, dtype=torch.bool)
    weak[..., 2, 1:4] = weak[..., 2, 6:8] = True
    strong = torch.zeros_like(weak)
    strong[..., 2, 1] = True
    kept = morphology._hysteresis(weak, strong)
    assert kept[0, 0, 2].tolist() == [False, True, True, True, False, False, False, False, False]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (lambda: nodes_images.GetImageSize().get_size(A), (7, 9, 2)),
        (lambda: nodes_images.ImageRotate().rotate(A, "90 degrees")[0].shape, (2, 7, 9, 3)),
        (lambda: nodes_images.ImageScaleToMaxDimension().upscale(A, "area", 18)[0].shape, (2, 18, 14, 3)),
        (lambda: nodes_images.ResizeAndPadImage().resize_and_pad(A, 20, 18, "white", "area")[0].shape, (2, 18, 20, 3)),
        (lambda: nodes_images.ImageFlip().flip(A, "y-axis: horizontally")[0][0, 0, 0].tolist(), A[0, 0, -1].tolist()),
        (lambda: nodes_images.ImageRotate().rotate(A, "90 degrees")[0][0, 0, -1].tolist(), A[0, 0, 0].tolist()),
    ],
)
def test_small_picture_nodes(node: Any, expected: Any) -> None:
    assert node() == expected


def test_the_border_of_a_padded_picture_has_its_colour() -> None:
    made = nodes_images.ResizeAndPadImage().resize_and_pad(A, 20, 18, "white", "area")[0]
    assert made[:, :, :3].eq(1).all()
    assert not made[:, :, 3:17].eq(1).all()


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    folders.configure(config.load(["--base-directory", str(tmp_path)], {}))
    yield tmp_path
    folders.configure(config.Config())


def test_animations_are_saved(base: Path) -> None:
    webp = nodes_images.SaveAnimatedWEBP().save_images(A, 6.0, "w", True, 80, "fastest")
    assert webp["ui"] == {"images": [{"filename": "w_00001_.webp", "subfolder": "", "type": "output"}], "animated": (True,)}
    single = nodes_images.SaveAnimatedWEBP().save_images(A, 6.0, "s", True, 80, "default", num_frames=1)
    assert [one["filename"] for one in single["ui"]["images"]] == ["s_00001_.webp", "s_00002_.webp"]
    assert single["ui"]["animated"] == (False,)
    png = nodes_images.SaveAnimatedPNG().save_images(A, 6.0, 1, "p", prompt={"1": {}})
    with Image.open(base / "output" / png["ui"]["images"][0]["filename"]) as picture:
        assert picture.n_frames == 2  # type: ignore[attr-defined]


def test_masks_are_previewed_in_the_temp_folder(base: Path) -> None:
    shown = nodes_mask.MaskPreview().execute(A[..., 0])["ui"]["images"]
    assert [one["type"] for one in shown] == ["temp", "temp"]


def test_a_drawing_carries_its_metadata_unless_that_is_off(base: Path) -> None:
    svg = SVG([io.BytesIO(b'<?xml version="1.0"?><svg width="1"><g/></svg>')])
    name = nodes_images.SaveSVGNode().save_svg(svg, "d", {"1": "]]>"}, {"workflow": 2})["ui"]["images"][0]["filename"]
    text = (base / "output" / name).read_text()
    assert text.index("<svg") < text.index("<metadata><![CDATA[") < text.index("<g/>")
    assert '"workflow": 2' in text
    assert "]]]]><![CDATA[>" in text
    folders.configure(config.load(["--base-directory", str(base), "--disable-metadata"], {}))
    name = nodes_images.SaveSVGNode().save_svg(svg, "e", {"1": {}}, {})["ui"]["images"][0]["filename"]
    assert "metadata" not in (base / "output" / name).read_text()


def test_a_drawing_without_a_tag_is_refused(base: Path) -> None:
    with pytest.raises(InputUnusable):
        nodes_images.SaveSVGNode().save_svg(SVG([io.BytesIO(b"no drawing")]), "d", {"1": {}}, {})
