"""comfy.utils and node_helpers as custom nodes use them (contract: custom-nodes.md section 6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import comfy.utils
import node_helpers
from comfy import control
from comfy.errors import Interrupted, WeightFileInvalid, WeightFileMissing
from tests import goldens


def test_progress_goes_to_the_running_job_and_is_capped() -> None:
    seen: list[tuple[Any, ...]] = []
    job = control.JobControl("p", progress=lambda *report: seen.append(report), node_id="3")
    with control.entered(job):
        bar = comfy.utils.ProgressBar(10)
        bar.update(4)
        bar.update_absolute(99, preview="picture")
        comfy.utils.ProgressBar(2, node_id="7").update_absolute(1, total=5)
    assert seen == [(4, 10, None, "3"), (10, 10, "picture", "3"), (1, 5, None, "7")]
    comfy.utils.ProgressBar(10).update(1)
    assert len(seen) == 3


def test_a_stopped_job_notices_in_the_bar() -> None:
    job = control.JobControl("p")
    with control.entered(job):
        bar = comfy.utils.ProgressBar(2)
        job.stop.set()
        with pytest.raises(Interrupted):
            bar.update(1)


def test_a_hook_counts_for_bars_made_after_it() -> None:
    seen: list[Any] = []
    before, former = comfy.utils.ProgressBar(2), comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, prompt_id=None, node_id=None: seen.append((value, node_id)))
    try:
        after = comfy.utils.ProgressBar(2, node_id="n")
    finally:
        comfy.utils.set_progress_bar_global_hook(former)
    before.update(1)
    after.update(2)
    assert seen == [(2, "n")]


def test_weight_files_come_back_with_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.bfloat16)}
    comfy.utils.save_torch_file(weights, path, {"note": "x"})
    loaded, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
    assert metadata == {"note": "x"}
    assert {name: tensor.dtype for name, tensor in loaded.items()} == {name: tensor.dtype for name, tensor in weights.items()}
    assert all(loaded[name].equal(weights[name]) for name in weights)
    assert b'"note"' in (comfy.utils.safetensors_header(path) or b"")
    assert comfy.utils.safetensors_header(path, max_size=3) is None
    torch.save({"state_dict": weights}, tmp_path / "w.pt")
    assert comfy.utils.load_torch_file(tmp_path / "w.pt")["a.weight"].equal(weights["a.weight"])


def test_weight_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"1234")
    for read in (comfy.utils.load_torch_file, comfy.utils.safetensors_header):
        with pytest.raises(WeightFileInvalid):
            read(tmp_path / "bad.safetensors")
    with pytest.raises(WeightFileMissing):
        comfy.utils.load_torch_file(tmp_path / "missing.safetensors")


def test_an_assigned_loader_is_the_one_that_is_called() -> None:
    former = comfy.utils.load_torch_file
    comfy.utils.load_torch_file = lambda path: {"patched": path}
    try:
        assert comfy.utils.load_torch_file("x") == {"patched": "x"}
    finally:
        comfy.utils.load_torch_file = former
    with pytest.raises(WeightFileMissing):
        comfy.utils.load_torch_file("/no/such/file.safetensors")


def test_tools_on_state_dicts() -> None:
    sd = {"a.x": torch.zeros(2, dtype=torch.float16), "a.y": torch.zeros(3), "b": torch.zeros(1, dtype=torch.int64)}
    assert comfy.utils.calculate_parameters(sd, "a.") == 5
    assert comfy.utils.weight_dtype(sd) == torch.float32
    assert comfy.utils.weight_dtype(sd, "b") is None
    picked = comfy.utils.state_dict_prefix_replace(dict(sd), {"a.": "c."}, filter_keys=True)
    assert sorted(picked) == ["c.x", "c.y"]
    assert comfy.utils.state_dict_prefix_replace(sd, {"a.": ""}) is sd
    assert sorted(sd) == ["b", "x", "y"]
    assert sorted(comfy.utils.state_dict_key_replace(sd, {"b": "z", "no": "p"})) == ["x", "y", "z"]
    assert {tensor.dtype for tensor in comfy.utils.convert_sd_to(sd, torch.bfloat16).values()} == {torch.bfloat16}


def test_attributes_by_dotted_name() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    former = comfy.utils.get_attr(module, "0.weight")
    assert comfy.utils.set_attr_param(module, "0.weight", torch.zeros(2, 2)) is former
    comfy.utils.copy_to_param(module, "0.weight", torch.ones(2, 2))
    assert module[0].weight.eq(1).all()
    assert comfy.utils.set_attr(module, "0.in_features", 5) == 2
    assert module[0].in_features == 5
    with pytest.raises(AttributeError):
        comfy.utils.get_attr(module, "0.nothing")


@pytest.mark.parametrize("name", sorted(goldens.facts("c_noise")["mask_target_shape"]))
def test_masks_are_brought_to_a_latents_shape_as_recorded(name: str) -> None:
    noise, shapes = goldens.tensors("c_noise"), goldens.facts("c_noise")["mask_target_shape"]
    made = comfy.utils.reshape_mask(noise[f"mask/{name}/in"], tuple(shapes[name]))
    goldens.assert_close(made, noise[f"mask/{name}/out"], 0.0, what=name)


def test_conditionings_are_copied_when_values_are_set() -> None:
    given = [[torch.zeros(1), {"area": 1, "refs": [1]}]]
    made = node_helpers.conditioning_set_values(given, {"area": 2, "refs": [2]}, append=False)
    assert made[0][1] == {"area": 2, "refs": [2]}
    appended = node_helpers.conditioning_set_values(given, {"refs": [2], "new": [3]}, append=True)
    assert appended[0][1] == {"area": 1, "refs": [1, 2], "new": [3]}
    assert given[0][1] == {"area": 1, "refs": [1]}


def test_a_truncated_picture_is_read_on_the_second_try(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.new("RGB", (200, 200), "red").save(path, compress_level=0)
    path.write_bytes(path.read_bytes()[:-5000])

    def load(name: Path) -> Image.Image:
        with Image.open(name) as picture:
            return picture.convert("RGB")

    with pytest.raises(OSError):
        load(path)
    assert node_helpers.pillow(load, path).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(OSError):
        load(path)


def test_names_of_dtypes_and_hashes() -> None:
    assert node_helpers.string_to_torch_dtype("bf16") is torch.bfloat16
    assert node_helpers.string_to_torch_dtype("fp64") is None
    assert node_helpers.hasher()(b"x").hexdigest().startswith("2d711642")
