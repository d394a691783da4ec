"""The small autoencoders of `vae_approx`: a decoder for previews, and encoder and decoder together as a VAE.

Contract: models.md section 7 (file names), goldens README section F (scales), cli.md (names that VAELoader adds).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from comfy import folders, latent_formats
from comfy.device import context
from comfy.errors import ComfyError, FileMissing
from comfy.ldm.tiny import RATIO, TinyConfig
from comfy.models.changes import Changes
from comfy.models.component import Component
from comfy.models.detect import Shapes
from comfy.models.family import BFLOAT_FIRST, VaeConfig
from comfy.models.vae import VAE, VaeSource, VaeView
from comfy.weights.header import open_index

log = logging.getLogger(__name__)

FOLDER = "vae_approx"
#: name of the VAE -> whose latents it makes; the files are <name>_encoder.* and <name>_decoder.*
FORMATS: dict[str, type[latent_formats.LatentFormat]] = {
    "taesd": latent_formats.SD15,
    "taesdxl": latent_formats.SDXL,
    "taesd3": latent_formats.SD3,
    "taef1": latent_formats.Flux,
}
#: the tensor whose shape tells the sizes, and in which order it has them
_FIRST = {"decoder": "1.weight", "encoder": "14.weight"}


def tiny_component(path: str, half: str) -> Component:
    """The encoder or the decoder that a file holds. Raises WeightFileMissing or WeightFileInvalid."""
    index = open_index(path)
    names = Shapes(index.identity.name, {name: info.shape for name, info in index.tensors.items()})
    out, inside = names.shape(_FIRST[half], 4)[:2]
    z_channels, ch = (inside, out) if half == "decoder" else (out, inside)
    component = Component(index.identity, f"taesd_{half}", "", TinyConfig(half, z_channels, ch), BFLOAT_FIRST)
    component.entries(BFLOAT_FIRST[0], index)
    return component


def find_tiny(stem: str) -> str | None:
    """The first file of `vae_approx` whose name begins with `stem` and a dot, like `taesd_decoder.safetensors`."""
    here = folders.current()
    for name in here.filename_list(FOLDER):
        if name.rsplit("/", 1)[-1].startswith(stem + "."):
            return here.full_path_or_raise(FOLDER, name)
    return None


def tiny_vae_names() -> list[str]:
    """The VAEs whose two files are there, as VAELoader lists them."""
    return [name for name in FORMATS if find_tiny(f"{name}_encoder") and find_tiny(f"{name}_decoder")]


def load_tiny_vae(name: str) -> VAE:
    """The VAE of that name. Raises FileMissing, WeightFileMissing or WeightFileInvalid."""
    parts = {}
    for half in ("encoder", "decoder"):
        path = find_tiny(f"{name}_{half}")
        if name not in FORMATS or path is None:
            raise FileMissing(filename=f"{name}_{half}")
        parts[half] = tiny_component(path, half)
    return VAE(TinySource(parts["decoder"], parts["encoder"], FORMATS[name].__name__))


@dataclass(frozen=True)
class TinySource(VaeSource):
    """Two files as one VAE. `component` is the decoder; latents are those that nodes of `latent_format` hand around."""

    encoder: Component
    latent_format: str

    @property
    def config(self) -> VaeConfig:
        """As a VAE sees itself: sizes that its limits and memory are reckoned from."""
        inside = self.component.config
        assert isinstance(inside, TinyConfig)
        return VaeConfig(inside.ch, (1,) * (RATIO.bit_length()), 1, inside.z_channels, use_quant=False)

    def components(self) -> dict[str, Component]:
        return {"taesd_encoder.": self.encoder, "taesd_decoder.": self.component}

    def view(self, changes: Changes) -> VaeView:
        return TinyView(self, changes)


class TinyView(VaeView):
    """Both networks of one handle on one lane, with the `encode` and `decode` of a VAE network."""

    source: TinySource

    @property
    def network(self) -> Any:
        return self

    def decode(self, latent: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, 3, 8 h, 8 w), about -1..1"""
        return self._half("taesd_decoder.")(self._format().process_in(latent)) * 2.0 - 1.0

    def encode(self, pixels: Tensor) -> Tensor:
        """(b, 3, 8 h, 8 w) in -1..1 -> (b, c, h, w)"""
        return self._format().process_out(self._half("taesd_encoder.")((pixels + 1.0) / 2.0))

    def _half(self, prefix: str) -> Any:
        return self.changes.network(self.source, prefix, context.current())

    def _format(self) -> latent_formats.LatentFormat:
        made: latent_formats.LatentFormat = getattr(latent_formats, self.source.latent_format)()
        return made


class TinyDecoder:
    """The decoder of one file, for previews: `decode` of latents in the model's own scale. It holds no weights."""

    def __init__(self, component: Component) -> None:
        self.component = component

    def decode(self, x0: Tensor) -> Tensor:
        """(b, c, h, w) on the lane's device -> (b, 3, 8 h, 8 w), about -1..1. Raises OutsideLane."""
        lane = context.current()
        dtype = lane.run_dtype(self.component.dtypes)
        made: Tensor = self.component.module(lane)(x0.to(device=lane.device, dtype=dtype))
        return made * 2.0 - 1.0


def preview_decoder(latent_format: Any) -> TinyDecoder | None:
    """The decoder for a latent format, when the calling thread is a lane's and a file that fits is there."""
    stem = getattr(latent_format, "taesd_decoder_name", None)
    path = None if stem is None or context.current_or_none() is None else find_tiny(stem)
    if path is None:
        return None
    try:
        component = tiny_component(path, "decoder")
    except ComfyError as error:  # a preview must not cost the job
        log.warning("%s makes no previews: %s", path, error)
        return None
    fits = isinstance(component.config, TinyConfig) and component.config.z_channels == latent_format.latent_channels
    return TinyDecoder(component) if fits else None
