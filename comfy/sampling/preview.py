"""Pictures of an unfinished latent (contract: goldens README F, custom-nodes.md latent_preview)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from comfy import folders
from comfy.config import LatentPreviewMethod

#: longest side of a preview, in pixels, unless --preview-size says otherwise
MAX_PREVIEW_RESOLUTION = 512
#: least time between two previews of one run: more are not seen, and each costs a picture to encode
INTERVAL_S = 0.1
#: asked at the start of each run: the method may be changed while the server runs
_method: Callable[[], Any] = lambda: LatentPreviewMethod.NoPreviews  # noqa: E731


def chosen_method() -> Any:
    """The preview method as it is now."""
    return _method()


def use_method(source: Callable[[], Any]) -> None:
    """Take the preview method from `source` from now on. Called once, at the start."""
    global _method
    _method = source


class LatentPreviewer:
    """Makes a PIL image of the estimate x0."""

    def decode_latent_to_preview(self, x0: Tensor) -> Any:
        """x0 (b, c, h, w) in the model's scale -> picture of the first item."""
        raise TypeError(f"{type(self).__name__} makes no pictures")

    def decode_latent_to_preview_image(self, preview_format: str, x0: Tensor) -> tuple[str, Any, int]:
        """(format, picture, longest side) as a progress message carries it."""
        return "JPEG", self.decode_latent_to_preview(x0), folders.current().config.preview_size


class TAESDPreviewerImpl(LatentPreviewer):
    """The picture that a small decoder makes."""

    def __init__(self, taesd: Any) -> None:
        """taesd: has `decode`, x0 (1, c, h, w) -> (1, 3, H, W), about -1..1."""
        self.taesd = taesd

    def decode_latent_to_preview(self, x0: Tensor) -> Any:
        return preview_to_image(self.taesd.decode(x0[:1])[0].movedim(0, -1))


class Latent2RGBPreviewer(LatentPreviewer):
    """A linear map from latent channels to colours."""

    def __init__(self, latent_rgb_factors: Any, latent_rgb_factors_bias: Any = None) -> None:
        """factors [channels][3]; bias [3] or None."""
        self.factors = torch.tensor(latent_rgb_factors, dtype=torch.float32)
        self.bias = None if latent_rgb_factors_bias is None else torch.tensor(latent_rgb_factors_bias, dtype=torch.float32)

    def decode_latent_to_preview(self, x0: Tensor) -> Any:
        return preview_to_image(rgb_of(x0, self.factors, self.bias))


def rgb_of(x0: Tensor, factors: Tensor, bias: Tensor | None) -> Tensor:
    """x0 (b, c, h, w) or (b, c, t, h, w) -> (h, w, 3), about -1..1: first item, first frame."""
    first = x0[0] if x0.ndim == 4 else x0[0, :, 0]
    factors = factors.to(first)
    rgb_hwc = first.movedim(0, -1) @ factors
    return rgb_hwc if bias is None else rgb_hwc + bias.to(first)


def preview_to_image(rgb_hwc: Tensor) -> Any:
    """(h, w, 3) in -1..1 -> PIL image, truncated to bytes."""
    from PIL import Image

    pixels = (rgb_hwc.float() + 1.0).div(2.0).clamp(0, 1).mul(255).to(device="cpu", dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def latent2rgb(latent_format: Any) -> Latent2RGBPreviewer | None:
    """The linear previewer of a latent format, or None when it has no colours."""
    factors = getattr(latent_format, "latent_rgb_factors", None)
    return None if factors is None else Latent2RGBPreviewer(factors, getattr(latent_format, "latent_rgb_factors_bias", None))


class PreviewClock:
    """Says which steps of one run are shown: the first, the last, and between them one in INTERVAL_S."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._next: float | None = None

    def due(self, last: bool) -> bool:
        """Whether the step that is done now is shown."""
        now = self._now()
        if not last and self._next is not None and now < self._next:
            return False
        self._next = now + INTERVAL_S
        return True
