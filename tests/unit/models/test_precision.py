"""What a GPU lane does differently, on the CPU: weights copied to the device, networks in 16 bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from comfy.device.context import DeviceContext
from comfy.device.resident import ResidentModels
from comfy.models.loader import Checkpoint
from comfy.weights.cache import WeightCache
from tests.fakes import cpu_context
from tests.hashed_weights import hashed

X = hashed((2, 4, 8, 8), 1) * 3
SIGMA = torch.tensor([1.5, 7.0])
CONTEXT = hashed((2, 7, 64), 2)


class HalfContext(DeviceContext):
    """A lane that computes in the first dtype that a model prefers, on a copy of the weights, as a GPU lane does."""

    def run_dtype(self, supported: Sequence[torch.dtype]) -> torch.dtype:
        return supported[0]


def gpu_like() -> HalfContext:
    weights, device = WeightCache(2**30), torch.device("cpu")
    return HalfContext(0, device, weights, 2**30, ResidentModels(device, 2**30, weights, copies=True))


def results(checkpoint: Checkpoint) -> list[Any]:
    model, clip, vae = checkpoint
    assert clip is not None
    assert vae is not None
    cond, pooled = clip.encode_from_tokens(clip.tokenize("a (small:1.2) cat"), return_pooled=True)
    control = {"output": [torch.full((2, 64, 4, 4), 0.1)], "middle": [torch.full((2, 64, 4, 4), 0.1)]}
    return [
        model.model.apply_model(X, SIGMA, c_crossattn=CONTEXT),
        model.model.apply_model(X, SIGMA, c_crossattn=CONTEXT, control=control),
        cond,
        pooled,
        vae.decode(X[:1, :, :3, :3]),
        vae.encode(hashed((1, 16, 24, 3), 3).abs()),
    ]


def test_sixteen_bit_gives_float32_results_close_to_float32(checkpoint: Checkpoint) -> None:
    half = gpu_like()
    with half.activate():
        mine = results(checkpoint)
        model, clip, vae = checkpoint
        assert clip is not None
        assert vae is not None
        assert next(model.model.diffusion_model.parameters()).dtype == torch.float16
        assert next(vae.first_stage_model.parameters()).dtype == torch.bfloat16
        assert all(t.dtype == torch.float16 for t in clip.get_sd().values())
    with cpu_context().activate():
        exact = results(checkpoint)
    for a, b in zip(mine, exact):
        assert a.dtype == torch.float32
        assert float((a - b).norm() / b.norm()) < 0.05
        assert not torch.equal(a, b)


def test_patches_change_the_devices_copy_alone(checkpoint: Checkpoint) -> None:
    key = "diffusion_model.out.2.bias"
    patched = checkpoint.model.clone()
    patched.add_patches({key: ("diff", (torch.ones(4),))})
    lane = gpu_like()
    with lane.activate():
        plain = checkpoint.model.model_state_dict()[key].clone()
        assert torch.equal(patched.model_state_dict()[key], plain + 1)
        assert torch.equal(checkpoint.model.model_state_dict()[key], plain)
        lane.unload()
        assert torch.equal(checkpoint.model.model_state_dict()[key], plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_extra_inputs_are_cast_and_whole_numbers_are_not(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    seen: dict[str, Any] = {}

    class Lane(HalfContext):
        def run_dtype(self, supported: Sequence[torch.dtype]) -> torch.dtype:
            return dtype

    def look(executor: Any, x: Any, t: Any, context: Any, **kwargs: Any) -> Any:
        seen.update(kwargs, x=x, t=t, context=context)
        return executor(x, t, context, transformer_options=kwargs["transformer_options"])

    model = checkpoint.model.clone()
    model.add_wrapper("diffusion_model", look)
    weights, device = WeightCache(2**30), torch.device("cpu")
    lane = Lane(0, device, weights, 2**30, ResidentModels(device, 2**30, weights, copies=True))
    options = model.model_options["transformer_options"]
    with lane.activate():
        guidance, index = torch.ones(2), torch.ones(2, dtype=torch.int64)
        model.model.apply_model(X, SIGMA, c_crossattn=CONTEXT, transformer_options=options, guidance=guidance, index=index)
    kinds = {name: seen[name].dtype for name in ("x", "t", "context", "guidance", "index")}
    assert kinds == {"x": dtype, "t": torch.float32, "context": dtype, "guidance": dtype, "index": torch.int64}
