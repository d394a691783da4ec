"""Which previewer a run gets (contract: websocket.md section 5, custom-nodes.md latent_preview)."""

from __future__ import annotations

from typing import Any

from comfy.config import LatentPreviewMethod
from comfy.models.tiny import preview_decoder
from comfy.replaceable import replaceable
from comfy.sampling.preview import LatentPreviewer, TAESDPreviewerImpl, chosen_method, latent2rgb


@replaceable("latent_preview.get_previewer")
def get_previewer(device: Any, latent_format: Any) -> LatentPreviewer | None:
    """The previewer for a latent format, or None when previews are off or the format has no colours.

    The method `taesd` needs a decoder in `vae_approx`; without one it is the linear previewer.
    """
    method = chosen_method()
    if method == LatentPreviewMethod.NoPreviews:
        return None
    if method == LatentPreviewMethod.TAESD:
        decoder = preview_decoder(latent_format)
        if decoder is not None:
            return TAESDPreviewerImpl(decoder)
    return latent2rgb(latent_format)
