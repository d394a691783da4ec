"""Model folders, extra path files, folder_paths: cli.md sections 2 and 3, custom-nodes.md section 6."""

import os

import pytest

import folder_paths
from comfy import folders as comfy_folders
from comfy.errors import ConfigError, FileMissing, FileNameInvalid, FolderUnknown, PathOutside
from tests.unit.folders.helpers import config_in, folders_in, put

CONTRACT_ORDER = [
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "upscale_models",
    "custom_nodes",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
]


@pytest.fixture
def process(tmp_path, monkeypatch):
    monkeypatch.setattr(comfy_folders, "_current", None)
    return comfy_folders.configure(config_in(tmp_path), tmp_path)


def test_kinds_are_those_of_the_contract_in_order(tmp_path):
    folders = folders_in(tmp_path)
    assert list(folders.names) == CONTRACT_ORDER
    models = str(tmp_path / "models")
    assert folders.names["text_encoders"][0] == [f"{models}/text_encoders", f"{models}/clip", str(tmp_path / "output" / "clip")]
    assert folders.names["custom_nodes"] == ([str(tmp_path / "custom_nodes")], set())
    assert folders.names["controlnet"][0] == [f"{models}/controlnet", f"{models}/t2i_adapter"]


def test_list_is_the_sorted_union_over_folders(tmp_path):
    models = tmp_path / "models"
    for name in ("unet/b.safetensors", "diffusion_models/sub/A.SFT", "diffusion_models/.hid.pt", "unet/.git/x.pt", "unet/readme.txt"):
        put(models / name)
    put(tmp_path / "output" / "diffusion_models" / "saved.safetensors")
    folders = folders_in(tmp_path)
    assert folders.filename_list("diffusion_models") == [".hid.pt", "b.safetensors", "saved.safetensors", "sub/A.SFT"]
    assert folders.filename_list("unet") == folders.filename_list("diffusion_models")


def test_special_suffixes(tmp_path):
    for name in ("classifiers/bare", "classifiers/x.pt", "diffusers/m/model_index.json", "configs/v1.yaml", "configs/v1.json"):
        put(tmp_path / "models" / name)
    folders = folders_in(tmp_path)
    assert folders.filename_list("classifiers") == ["bare"]
    assert folders.filename_list("diffusers") == []
    assert folders.filename_list("configs") == ["v1.yaml"]


def test_links_are_followed_and_loops_end(tmp_path):
    put(tmp_path / "elsewhere" / "x.pt")
    (tmp_path / "models" / "loras").mkdir(parents=True)
    (tmp_path / "models" / "loras" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "models" / "loras")
    folders = folders_in(tmp_path)
    assert folders.filename_list("loras") == ["more/x.pt"]
    assert folders.full_path("loras", "more/x.pt") == str(tmp_path / "models" / "loras" / "more" / "x.pt")


def test_new_files_are_seen_even_within_one_tick_of_the_clock(tmp_path):
    folders = folders_in(tmp_path)
    for index in range(20):
        put(tmp_path / "models" / "vae" / f"{index:02}.pt")
        assert len(folders.filename_list("vae")) == index + 1


def test_settled_list_is_kept_until_the_folder_changes(tmp_path, monkeypatch):
    put(tmp_path / "models" / "vae" / "a.pt")
    for path in (tmp_path / "models" / "vae",):
        os.utime(path, (1, 1))
    folders = folders_in(tmp_path)
    first = folders.filename_list("vae")
    monkeypatch.setattr(os, "scandir", lambda path: pytest.fail("read again"))
    first.append("callers own their copy")
    assert folders.filename_list("vae") == ["a.pt"]
    monkeypatch.undo()
    put(tmp_path / "models" / "vae" / "b.pt")
    assert folders.filename_list("vae") == ["a.pt", "b.pt"]


@pytest.mark.parametrize("name", ["../../secret.pt", "/etc/passwd", "", ".", "no.pt", "a\0", "\ud800", None, 4])
def test_full_path_of_a_bad_name_is_none(tmp_path, name):
    put(tmp_path / "secret.pt")
    put(tmp_path / "models" / "loras" / "a.pt")
    folders = folders_in(tmp_path)
    assert folders.full_path("loras", name) is None
    with pytest.raises((FileMissing, FileNameInvalid)):
        folders.full_path_or_raise("loras", name)


def test_dots_stop_at_the_folder_and_unknown_kinds_have_nothing(tmp_path):
    put(tmp_path / "models" / "loras" / "a.pt")
    folders = folders_in(tmp_path)
    assert folders.full_path("loras", "../../a.pt") == str(tmp_path / "models" / "loras" / "a.pt")
    assert folders.full_path("nope", "a.pt") is None
    with pytest.raises(FolderUnknown):
        folders.filename_list("nope")
    with pytest.raises(KeyError):
        folders.models.folders("nope")


def extra(tmp_path, text):
    program = tmp_path / "program"
    put(program / "extra_model_paths.yaml", text)
    return folders_in(tmp_path, program_dir=program)


def test_extra_paths_of_the_program_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SHARED_MODELS", str(tmp_path / "env"))
    folders = extra(
        tmp_path,
        "empty:\n"
        "rel:\n    base_path: ../shared\n    checkpoints: ckpt\n    unet: u\n    loras: |\n        lora_a\n        lora_b\n"
        "    my_kind: other\n"
        "here:\n    vae: v\n    custom_nodes: absent\n"
        "env:\n    base_path: $SHARED_MODELS\n    clip: c\n    loras: $SHARED_MODELS\n",
    )
    names = folders.names
    assert names["checkpoints"][0][1:] == [str(tmp_path / "shared" / "ckpt"), str(tmp_path / "output" / "checkpoints")]
    assert str(tmp_path / "shared" / "u") in names["diffusion_models"][0]
    assert names["loras"][0][1:3] == [str(tmp_path / "shared" / "lora_a"), str(tmp_path / "shared" / "lora_b")]
    assert names["loras"][0][3] == str(tmp_path / "env" / "$SHARED_MODELS")  # only base_path expands
    assert names["my_kind"] == ([str(tmp_path / "shared" / "other")], set())
    assert str(tmp_path / "program" / "v") in names["vae"][0]
    assert str(tmp_path / "program" / "absent") in names["custom_nodes"][0]
    assert str(tmp_path / "env" / "c") in names["text_encoders"][0]
    put(tmp_path / "shared" / "other" / "any.thing")
    assert folders.filename_list("my_kind") == ["any.thing"]
    assert folders.filename_list("custom_nodes") == []


def test_default_folders_come_first_in_the_order_of_their_lines(tmp_path):
    folders = extra(tmp_path, "a:\n    base_path: /m\n    is_default: true\n    loras: |\n        one\n        two\n")
    assert folders.names["loras"][0][:3] == ["/m/one", "/m/two", str(tmp_path / "models" / "loras")]


def test_duplicates_are_kept_once(tmp_path):
    folders = extra(tmp_path, "a:\n    vae: /m/v\nb:\n    vae: /m/v\nc:\n    is_default: true\n    vae: /m/v\n")
    assert folders.names["vae"][0] == ["/m/v", str(tmp_path / "models" / "vae"), str(tmp_path / "output" / "vae")]


@pytest.mark.parametrize(
    "text",
    ["[1, 2]", "a: [", "a: text", "a:\n  loras: 3", "a:\n  is_default: maybe", 'a:\n  loras: "x\\0"', "\tx", "a: !!python/object:os.x {}"],
)
def test_unusable_extra_files_stop_the_start_with_a_clear_error(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        extra(tmp_path, text)
    assert caught.value.facts["file"].endswith("extra_model_paths.yaml")


def test_absent_extra_file_from_the_command_line_is_told(tmp_path):
    with pytest.raises(ConfigError):
        folders_in(tmp_path, extra_model_paths=(tmp_path / "no.yaml",))


def test_failed_configure_keeps_the_present_folders(process, tmp_path):
    with pytest.raises(ConfigError):
        comfy_folders.configure(config_in(tmp_path, extra_model_paths=(tmp_path / "no.yaml",)), tmp_path)
    assert comfy_folders.current() is process


NAMES = [
    "get_filename_list",
    "get_full_path",
    "get_output_directory",
    "get_temp_directory",
    "get_input_directory",
    "get_user_directory",
    "models_dir",
    "folder_names_and_paths",
    "get_folder_paths",
    "get_annotated_filepath",
    "get_save_image_path",
    "add_model_folder_path",
    "output_directory",
    "input_directory",
    "temp_directory",
    "user_directory",
    "supported_pt_extensions",
    "get_full_path_or_raise",
    "base_path",
    "get_directory_by_type",
    "__file__",
    "exists_annotated_filepath",
    "annotated_filepath",
    "filter_files_content_types",
    "filter_files_extensions",
    "recursive_search",
    "get_filename_list_",
    "cached_filename_list_",
    "filename_list_cache",
    "cache_helper",
    "map_legacy",
    "set_output_directory",
    "set_temp_directory",
    "set_input_directory",
    "set_user_directory",
    "get_input_subfolders",
]


@pytest.mark.parametrize("name", NAMES)
def test_folder_paths_has_every_name_of_the_contract(process, name):
    assert getattr(folder_paths, name) is not None


def test_folder_paths_lies_beside_main_py(process):
    assert os.path.samefile(os.path.dirname(folder_paths.__file__), comfy_folders.PROGRAM_DIR)


def test_setters_and_assignments_write_through(process, tmp_path):
    folder_paths.set_output_directory("/o")
    assert (folder_paths.output_directory, folder_paths.get_output_directory(), process.output_dir) == ("/o", "/o", "/o")
    folder_paths.temp_directory = "/t"
    assert (folder_paths.get_temp_directory(), process.by_type("temp")) == ("/t", "/t")
    folder_paths.set_input_directory("/i")
    folder_paths.set_user_directory("/u")
    assert (folder_paths.input_directory, folder_paths.user_directory) == ("/i", "/u")
    assert "output_directory" not in vars(folder_paths)


def test_packs_may_change_the_table_in_every_way_they_do(process, tmp_path):
    put(tmp_path / "p" / "x.onnx")
    put(tmp_path / "p" / "y.PT")
    folder_paths.folder_names_and_paths["pack"] = ([str(tmp_path / "p")], {".onnx"})
    assert folder_paths.get_filename_list("pack") == ["x.onnx"]
    folder_paths.folder_names_and_paths["pack"][1].add(".pt")
    assert folder_paths.get_filename_list("pack") == ["x.onnx", "y.PT"]
    folder_paths.folder_names_and_paths["pair"] = [(), [".onnx"]]
    assert folder_paths.get_filename_list("pair") == []
    folder_paths.add_model_folder_path("pair", str(tmp_path / "p"))
    assert folder_paths.get_filename_list("pair") == ["x.onnx"]
    folder_paths.add_model_folder_path("fresh", str(tmp_path / "p"))
    folder_paths.add_model_folder_path("fresh", str(tmp_path / "q"), is_default=True)
    assert folder_paths.get_folder_paths("fresh") == [str(tmp_path / "q"), str(tmp_path / "p")]
    assert folder_paths.get_full_path("fresh", "x.onnx") == str(tmp_path / "p" / "x.onnx")
    folder_paths.get_folder_paths("fresh").clear()
    assert len(folder_paths.get_folder_paths("fresh")) == 2


def test_suffix_set_is_shared_with_every_weight_folder(process, monkeypatch):
    assert folder_paths.folder_names_and_paths["loras"][1] is folder_paths.supported_pt_extensions
    assert folder_paths.supported_pt_extensions == {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}


def test_lookups_of_packs(process, tmp_path):
    put(tmp_path / "input" / "d" / "e" / "a.webp")
    assert folder_paths.get_input_subfolders() == ["d", "d/e"]
    assert folder_paths.get_annotated_filepath("d/e/a.webp") == str(tmp_path / "input" / "d" / "e" / "a.webp")
    assert folder_paths.get_annotated_filepath("x", str(tmp_path / "elsewhere")) == str(tmp_path / "elsewhere" / "x")
    assert folder_paths.exists_annotated_filepath("d/e/a.webp [input]")
    with pytest.raises(PathOutside):
        folder_paths.get_annotated_filepath("../../x")
    assert folder_paths.annotated_filepath("a [temp]") == ("a", str(tmp_path / "temp"))
    assert folder_paths.filter_files_content_types(["a.png", "b.mp4", "c.glb", "d.flac", "e.txt"], ["image", "model"]) == ["a.png", "c.glb"]
    assert folder_paths.filter_files_extensions(["b.PT", "a.pt", "c"], [".pt"]) == ["a.pt", "b.PT"]
    assert folder_paths.recursive_search(str(tmp_path / "input"))[0] == ["d/e/a.webp"]
    with pytest.raises(FileNotFoundError):
        folder_paths.get_full_path_or_raise("loras", "no.pt")
    with pytest.raises(KeyError):
        folder_paths.get_folder_paths("nope")
    with folder_paths.cache_helper:
        assert folder_paths.get_filename_list("loras") == []


def test_get_save_image_path_is_the_five_tuple(process, tmp_path):
    answer = folder_paths.get_save_image_path("a/b", folder_paths.get_output_directory(), 8, 8)
    assert answer == (str(tmp_path / "output" / "a"), "b", 1, "a", "a/b")


def test_packs_may_teach_a_suffix_its_class(process, monkeypatch):
    assert folder_paths.filter_files_content_types(["a.odd"], ["video"]) == []
    monkeypatch.setitem(folder_paths.extension_mimetypes_cache, "odd", "video")
    assert folder_paths.filter_files_content_types(["a.ODD", "b.webp"], ["video"]) == ["a.ODD"]
