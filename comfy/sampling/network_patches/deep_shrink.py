"""Deep Shrink (Kohya 2023, a blog post, no paper): the deep blocks work on a smaller map in the first steps.

It keeps models from repeating their subject in pictures larger than those that they learned from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from comfy.pixels.resize import common_upscale


@dataclass(frozen=True)
class DeepShrink:
    """The two patches. It shrinks after input block `block` by `factor` while end_sigma <= sigma <= start_sigma."""

    block: int
    factor: float
    start_sigma: float
    end_sigma: float
    down: str
    up: str

    def shrink(self, h: Tensor, options: dict[str, Any]) -> Tensor:
        """An input block patch: (b, c, height, width) -> smaller by the factor, at least one cell."""
        if options["block"] != ("input", self.block) or not self.end_sigma <= float(options["sigmas"][0]) <= self.start_sigma:
            return h
        height, width = (max(round(size / self.factor), 1) for size in h.shape[-2:])
        return common_upscale(h, width, height, self.down, "disabled")

    def grow(self, h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """An output block patch: h in the size of the skip that it is joined to."""
        if h.shape[-2:] != skip.shape[-2:]:
            h = common_upscale(h, skip.shape[-1], skip.shape[-2], self.up, "disabled")
        return h, skip
