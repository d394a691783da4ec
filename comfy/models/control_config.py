"""Structure of a ControlNet, as a value."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import nn

from comfy.cldm.cldm import ControlNet
from comfy.models.family import UNetConfig


@dataclass(frozen=True)
class ControlConfig:
    """unet: whose way down it copies; hint_channels: of the picture; hint_widths: of the convolutions over it, but the last."""

    unet: UNetConfig
    hint_channels: int
    hint_widths: tuple[int, ...]

    def build(self) -> nn.Module:
        """The network, on torch's current device."""
        return ControlNet(asdict(self.unet), self.hint_channels, self.hint_widths)
