"""T2I adapters as a CONTROL_NET. Mou et al. 2023, arXiv:2302.08453. Contract: models.md section 8."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from comfy.ldm.t2i_adapter import UNSHUFFLE, AdapterConfig
from comfy.models.component import Component
from comfy.models.control import ControlBase, ControlSource, broadcast_image_to
from comfy.models.detect import Shapes
from comfy.models.family import HALF_FIRST
from comfy.models.patcher import ModelPatcher
from comfy.pixels.resize import common_upscale
from comfy.weights.files import FileIndex

#: a level of SD1's UNet has three numbered blocks, the last of which takes the level's feature
BLOCKS_PER_LEVEL = 3


def is_adapter(names: Shapes) -> bool:
    """Whether a file holds an adapter of either kind."""
    return "body.0.in_conv.weight" in names or ("conv_in.weight" in names and "body.0.block1.weight" in names)


def adapter_config(names: Shapes) -> AdapterConfig:
    """The structure. Raises ModelUnknown for the adapters of other families, WeightFileInvalid."""
    levels = names.count("body.{}.")
    if "conv_in.weight" not in names:
        widths = tuple(names.shape(f"body.{i}.out_conv.weight", 4)[0] for i in range(levels))
        inner = tuple(names.shape(f"body.{i}.in_conv.weight", 4)[0] for i in range(levels))
        channels = names.shape("body.0.in_conv.weight", 4)[1]
        return AdapterConfig(True, _of_picture(names, channels), widths, names.count("body.0.body.{}."), inner=inner)
    channels = names.shape("conv_in.weight", 4)[1]
    outs = [names.shape(f"body.{i}.block1.weight", 4)[0] for i in range(levels)]
    blocks = 2
    if levels % blocks or levels < blocks:
        names.refuse("It has another number of blocks than an adapter of SD1.")
    kernel = names.shape("body.0.block2.weight", 4)[2]
    return AdapterConfig(False, _of_picture(names, channels), tuple(outs[::blocks]), blocks, kernel)


def _of_picture(names: Shapes, channels: int) -> int:
    if channels not in (UNSHUFFLE**2, 3 * UNSHUFFLE**2):
        names.refuse("It is a T2I adapter of another family than SD1.")
    return channels // UNSHUFFLE**2


class T2IAdapter(ControlBase):
    """An adapter: its features do not depend on the step, so they are made once a run and size."""

    def __init__(self, t2i_model: ModelPatcher | None = None, channels_in: int = 3) -> None:
        super().__init__()
        self.t2i_model_wrapped = t2i_model
        self.channels_in = channels_in
        self._features: list[Tensor] | None = None

    def copy(self) -> Any:
        copied = type(self)(self.t2i_model_wrapped, self.channels_in)
        self.copy_to(copied)
        return copied

    def cleanup(self) -> None:
        self._features = None
        super().cleanup()

    def get_models(self) -> list[Any]:
        return [*super().get_models(), self.t2i_model_wrapped]

    def get_control(self, x_noisy: Tensor, t: Tensor, cond: dict[str, Any], batched_number: int, transformer_options: Any = None) -> Any:
        """The features for the way down, in the order in which the UNet takes them from the end."""
        before = self._previous(x_noisy, t, cond, batched_number, transformer_options)
        if not self._active(t) or self.t2i_model_wrapped is None:
            return before
        places: list[Tensor | None] = []
        for feature in self._of(x_noisy):
            rows = broadcast_image_to(feature, len(x_noisy), batched_number)
            places += [*[None] * (BLOCKS_PER_LEVEL - 1), rows]
        return self.control_merge({"input": places[::-1]}, before, None)

    def _of(self, x_noisy: Tensor) -> list[Tensor]:
        size, device = tuple(x_noisy.shape[-2:]), x_noisy.device
        if self._features is None or tuple(self._features[0].shape[-2:]) != size or self._features[0].device != device:
            assert self.cond_hint_original is not None
            assert self.t2i_model_wrapped is not None
            height, width = (side * UNSHUFFLE for side in size)
            hint = common_upscale(self.cond_hint_original.float(), width, height, self.upscale_algorithm, "center")
            if self.channels_in == 1 and hint.shape[1] > 1:
                hint = hint.mean(dim=1, keepdim=True)
            model = self.t2i_model_wrapped.model
            features = [model.network(hint[i : i + 1].to(device=device, dtype=model.get_dtype())) for i in range(len(hint))]
            self._features = [torch.cat(level) for level in zip(*features)]
        return self._features


def load_t2i_adapter(index: FileIndex, names: Shapes) -> T2IAdapter:
    """The adapter of a file. Raises as `load_controlnet`."""
    config = adapter_config(names)
    component = Component(index.identity, "t2i_adapter", "", config, HALF_FIRST)
    component.entries(HALF_FIRST[0], index)
    return T2IAdapter(ModelPatcher(ControlSource(component)), config.channels)
