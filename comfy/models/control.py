"""The CONTROL_NET object: a picture that steers a sampling. Contract: custom-nodes.md section 6 (comfy.controlnet).

Zhang et al. 2023, arXiv:2302.05543. An object holds no weights. It carries state of one run (the hint in the latent's
size, the range in sigmas); nodes give each conditioning a copy of its own.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from comfy.device import context
from comfy.models.changes import Changes
from comfy.models.component import Component
from comfy.models.control_files import DIFFERENCE, ControlComponent, control_config, control_prefix
from comfy.models.family import HALF_FIRST
from comfy.models.loader import shapes_of
from comfy.models.patcher import ModelPatcher
from comfy.pixels.resize import common_upscale
from comfy.weights.header import open_index

#: place in the network -> residuals for it
Control = dict[str, list[Tensor | None]]
PLACES = ("input", "middle", "output")


class StrengthType(enum.Enum):
    """How the strength acts on the residuals."""

    CONSTANT = 1
    LINEAR_UP = 2


def broadcast_image_to(tensor: Tensor, target_batch_size: int, batched_number: int) -> Tensor:
    """(b, c, h, w) -> (target_batch_size, c, h, w): for each of the `batched_number` parts the pictures, cyclically or cut."""
    part = target_batch_size // batched_number
    repeated = tensor.repeat((-(-part // len(tensor)), 1, 1, 1))[:part]
    return repeated if batched_number == 1 else torch.cat([repeated] * batched_number)


class ControlBase:
    """What every kind of control has: the hint, its strength and range, and the control that came before it."""

    def __init__(self) -> None:
        self.cond_hint_original: Tensor | None = None
        self.cond_hint: Tensor | None = None
        self.strength = 1.0
        self.strength_type = StrengthType.CONSTANT
        self.timestep_percent_range = (0.0, 1.0)
        self.timestep_range: tuple[float, float] | None = None
        self.global_average_pooling = False
        self.compression_ratio = 8
        self.upscale_algorithm = "nearest-exact"
        self.extra_args: dict[str, Any] = {}
        self.extra_concat_orig: list[Any] = []
        self.vae: Any = None
        self.previous_controlnet: Any = None

    def set_cond_hint(
        self,
        cond_hint: Tensor,
        strength: float = 1.0,
        timestep_percent_range: tuple[float, float] = (0.0, 1.0),
        vae: Any = None,
        extra_concat: Sequence[Any] = (),
    ) -> Any:
        """Take the picture (b, c, h, w) in 0..1; returns the object."""
        self.cond_hint_original, self.strength, self.timestep_percent_range = cond_hint, strength, timestep_percent_range
        self.vae, self.extra_concat_orig = vae, list(extra_concat)
        return self

    def set_previous_controlnet(self, controlnet: Any) -> Any:
        """Let `controlnet` act as well; returns the object."""
        self.previous_controlnet = controlnet
        return self

    def set_extra_arg(self, argument: str, value: Any = None) -> None:
        self.extra_args[argument] = value

    def copy(self) -> Any:
        """An object of the same kind with the same settings, and no state of a run."""
        copied = type(self)()
        self.copy_to(copied)
        return copied

    def copy_to(self, c: ControlBase) -> None:
        """Give `c` this object's settings."""
        names = ("cond_hint_original", "strength", "strength_type", "timestep_percent_range", "global_average_pooling")
        for name in (*names, "compression_ratio", "upscale_algorithm", "vae"):
            setattr(c, name, getattr(self, name))
        c.extra_args, c.extra_concat_orig = dict(self.extra_args), list(self.extra_concat_orig)

    def pre_run(self, model: Any, percent_to_timestep_function: Callable[[float], float]) -> None:
        """Before a run of the lane's `model`: the range in sigmas."""
        start, end = self.timestep_percent_range
        self.timestep_range = (float(percent_to_timestep_function(start)), float(percent_to_timestep_function(end)))
        if self.previous_controlnet is not None:
            self.previous_controlnet.pre_run(model, percent_to_timestep_function)

    def cleanup(self) -> None:
        """After a run: drop what belonged to it."""
        self.cond_hint = self.timestep_range = None
        if self.previous_controlnet is not None:
            self.previous_controlnet.cleanup()

    def get_models(self) -> list[Any]:
        """The models that the run needs on the device."""
        return [] if self.previous_controlnet is None else list(self.previous_controlnet.get_models())

    def inference_memory_requirements(self, dtype: Any) -> int:
        """Bytes of activations beyond the denoiser's own."""
        return 0 if self.previous_controlnet is None else int(self.previous_controlnet.inference_memory_requirements(dtype))

    def get_control(self, x_noisy: Tensor, t: Tensor, cond: dict[str, Any], batched_number: int, transformer_options: Any = None) -> Any:
        """What is added to the network's features at x_noisy (b, c, h, w) and sigma t (b,). Subclasses override it."""
        return self._previous(x_noisy, t, cond, batched_number, transformer_options)

    def control_merge(self, control: Control, control_prev: Control | None, output_dtype: torch.dtype | None) -> Control:
        """The residuals times the strength, plus those of the control before."""
        merged: Control = {place: [] for place in PLACES}
        for place, residuals in control.items():
            merged.setdefault(place, []).extend(self._scaled(residual, output_dtype) for residual in residuals)
        for place, residuals in (control_prev or {}).items():
            mine = merged.setdefault(place, [])
            mine.extend([None] * (len(residuals) - len(mine)))
            for i, before in enumerate(residuals):
                if before is not None:
                    now = mine[i]
                    mine[i] = before if now is None else now + before
        return merged

    def _scaled(self, residual: Tensor | None, dtype: torch.dtype | None) -> Tensor | None:
        if residual is None:
            return None
        if self.global_average_pooling:
            residual = residual.mean(dim=(2, 3), keepdim=True).expand_as(residual)
        residual = residual * self.strength
        return residual if dtype is None else residual.to(dtype)

    def _previous(self, x_noisy: Tensor, t: Tensor, cond: dict[str, Any], batched_number: int, options: Any) -> Any:
        previous = self.previous_controlnet
        return None if previous is None else previous.get_control(x_noisy, t, cond, batched_number, options)

    def _active(self, t: Tensor) -> bool:
        if self.timestep_range is None:
            return True
        start, end = self.timestep_range
        return end <= float(t[0]) <= start


@dataclass(frozen=True)
class ControlSource:
    """What a ControlNet's patcher holds: a description of the network."""

    component: Component

    def components(self) -> dict[str, Component]:
        return {"": self.component}

    def view(self, changes: Changes) -> ControlView:
        return ControlView(self, changes)


class ControlView:
    """The network of one handle on one lane."""

    def __init__(self, source: ControlSource, changes: Changes) -> None:
        self.source, self.changes = source, changes

    @property
    def network(self) -> nn.Module:
        return self.changes.network(self.source, "", context.current())

    def get_dtype(self) -> torch.dtype:
        """The dtype that it computes in on the calling lane."""
        return context.current().run_dtype(self.source.component.dtypes)


class ControlNet(ControlBase):
    """A ControlNet of the SD family."""

    def __init__(self, control_model: ModelPatcher | None = None, global_average_pooling: bool = False) -> None:
        super().__init__()
        self.control_model_wrapped = control_model
        self.global_average_pooling = global_average_pooling
        self.model_sampling_current: Any = None

    @property
    def control_model(self) -> nn.Module:
        """The calling lane's network."""
        assert self.control_model_wrapped is not None
        network: nn.Module = self.control_model_wrapped.model.network
        return network

    def copy(self) -> Any:
        copied = type(self)(self.control_model_wrapped, self.global_average_pooling)
        self.copy_to(copied)
        return copied

    def pre_run(self, model: Any, percent_to_timestep_function: Callable[[float], float]) -> None:
        super().pre_run(model, percent_to_timestep_function)
        self.model_sampling_current = model.model_sampling

    def cleanup(self) -> None:
        self.model_sampling_current = None
        super().cleanup()

    def get_models(self) -> list[Any]:
        return [*super().get_models(), self.control_model_wrapped]

    def get_control(self, x_noisy: Tensor, t: Tensor, cond: dict[str, Any], batched_number: int, transformer_options: Any = None) -> Any:
        """The residuals for x_noisy; those of the control before alone outside of the range."""
        before = self._previous(x_noisy, t, cond, batched_number, transformer_options)
        if not self._active(t) or self.control_model_wrapped is None:
            return before
        dtype = self.control_model_wrapped.model.get_dtype()
        hint, sampling = self._hint(x_noisy, batched_number), self.model_sampling_current
        prompt = cond.get("crossattn_controlnet", cond.get("c_crossattn"))
        vector = cond.get("y")
        control = self.control_model(
            x=sampling.calculate_input(t, x_noisy).to(dtype),
            hint=hint.to(dtype),
            timesteps=sampling.timestep(t).float(),
            context=None if prompt is None else prompt.to(device=x_noisy.device, dtype=dtype),
            y=None if vector is None else vector.to(device=x_noisy.device, dtype=dtype),
            **self.extra_args,
        )
        return self.control_merge(control, before, None)

    def _hint(self, x_noisy: Tensor, batched_number: int) -> Tensor:
        """The picture at the latent's size, on its device, a row for each of its rows; kept for the steps to come."""
        height, width = (side * self.compression_ratio for side in x_noisy.shape[-2:])
        if self.cond_hint is None or tuple(self.cond_hint.shape[-2:]) != (height, width) or self.cond_hint.device != x_noisy.device:
            assert self.cond_hint_original is not None
            picture = self.cond_hint_original.float()
            self.cond_hint = common_upscale(picture, width, height, self.upscale_algorithm, "center").to(x_noisy.device)
        return broadcast_image_to(self.cond_hint, len(x_noisy), batched_number)


def load_controlnet(ckpt_path: str | os.PathLike[str], model: Any = None, model_options: Any = None) -> ControlBase:
    """The ControlNet or the T2I adapter of a file. model: the MODEL to whose weights a file of differences is added.

    Raises WeightFileMissing, WeightFileInvalid, or ModelUnknown with what was seen.
    """
    from comfy.models import t2i_adapter  # its class is a ControlBase

    index = open_index(ckpt_path)
    names = shapes_of(index)
    if t2i_adapter.is_adapter(names):
        return t2i_adapter.load_t2i_adapter(index, names)
    prefix = control_prefix(names)
    component = ControlComponent(index.identity, "controlnet", prefix, control_config(names.under(prefix)), HALF_FIRST)
    component.entries(HALF_FIRST[0], index)
    patcher = ModelPatcher(ControlSource(component))
    if DIFFERENCE in names and model is not None:
        base = {key.removeprefix("diffusion_model."): value for key, value in model.get_key_patches("diffusion_model.").items()}
        patcher.add_patches({key: value for key, value in base.items() if not key.startswith(("output_blocks.", "out."))})
    stem = os.path.splitext(os.path.basename(ckpt_path))[0]
    return ControlNet(patcher, global_average_pooling=stem.endswith(("_shuffle", "_shuffle_fp16")))
