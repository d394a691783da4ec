"""The VAE object: pictures <-> latents, no weights of its own. Valid on any lane.

Contract: models.md section 7, custom-nodes.md section 6 (comfy.sd), goldens README sections F and G (tiled).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from comfy.device import context
from comfy.errors import InputUnusable, WeightFileInvalid
from comfy.models.changes import Changes
from comfy.models.component import Component, build_network
from comfy.models.detect import Shapes, is_diffusers_vae, vae_config
from comfy.models.diffusers_names import vae_names
from comfy.models.family import BFLOAT_FIRST, VaeConfig
from comfy.models.patcher import ModelPatcher
from comfy.pixels.tiling import tiled_scale

log = logging.getLogger(__name__)
CPU = torch.device("cpu")
#: the only key of a "file" without a network: `VAE({PIXEL_SPACE: …})`
PIXEL_SPACE = "pixel_space_vae"
#: of a GPU's budget: what one picture may take before it is done in tiles
ACTIVATION_SHARE = 0.5


class PixelSpace(nn.Module):
    """The identity: for models whose latents are pictures in -1..1."""

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels

    def decode(self, latent: Tensor) -> Tensor:
        return latent


@dataclass(frozen=True)
class VaeSource:
    """What a VAE handle holds: a description of the network."""

    component: Component

    @property
    def config(self) -> VaeConfig:
        """The network's structure."""
        assert isinstance(self.component.config, VaeConfig)
        return self.component.config

    def components(self) -> dict[str, Component]:
        return {"": self.component}

    def view(self, changes: Changes) -> VaeView:
        return VaeView(self, changes)


class VaeView:
    """The network of one handle on one lane."""

    def __init__(self, source: VaeSource, changes: Changes) -> None:
        self.source, self.changes = source, changes

    @property
    def network(self) -> nn.Module:
        return self.changes.network(self.source, "", context.current())

    def get_dtype(self) -> torch.dtype:
        """The dtype that it computes in on the calling lane."""
        return context.current().run_dtype(self.source.component.dtypes)


class VAE:
    """Pictures (b, height, width, 3) in 0..1 <-> latents (b, c, height/ratio, width/ratio), both float32 on the CPU.

    Pictures are done one at a time, so a batch has the bytes of its pictures done alone.
    """

    latent_dim = 2
    output_channels = 3
    not_video = True
    size = None
    disable_offload = False
    extra_1d_channel = None

    def __init__(
        self, sd: Any = None, device: Any = None, config: Any = None, dtype: torch.dtype | None = None, metadata: Any = None
    ) -> None:
        """`sd`: a VaeSource, or the tensors of a VAE by name. Raises ModelUnknown or WeightFileInvalid."""
        if isinstance(sd, VaeSource):
            self.config = sd.config
            self.patcher = ModelPatcher(sd)
        else:
            self.config, network = _from_tensors(sd or {})
            self.patcher = ModelPatcher(network)
        self.latent_channels = self.config.z_channels
        self.downscale_ratio: Any = self.config.ratio
        self.upscale_ratio: Any = self.config.ratio

    # -- what it is -------------------------------------------------------------------------------------------------------

    @property
    def first_stage_model(self) -> Any:
        """The calling lane's network."""
        model = self.patcher.model
        return model.network if isinstance(model, VaeView) else model

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.patcher.load_device if self.patcher.source is not None else CPU

    @property
    def output_device(self) -> torch.device:
        """Where its results are."""
        return CPU

    @property
    def vae_dtype(self) -> torch.dtype:
        """The dtype that it computes in on the calling lane."""
        return self.patcher.model_dtype() if self.patcher.source is not None else torch.float32

    @property
    def working_dtypes(self) -> list[torch.dtype]:
        return list(BFLOAT_FIRST)

    def throw_exception_if_invalid(self) -> None:
        """Nothing: an invalid file is refused when it is loaded."""

    def spacial_compression_encode(self) -> int:
        """Pixels per latent cell along one side."""
        return self.config.ratio

    def spacial_compression_decode(self) -> int:
        return self.config.ratio

    def temporal_compression_decode(self) -> int | None:
        """Frames per latent frame; None for pictures."""
        return None

    def get_sd(self) -> dict[str, Tensor]:
        """Every weight by its name in a VAE file: the lane's tensors, never to be written to."""
        return self.patcher.model_state_dict()

    def process_input(self, pixels: Tensor) -> Tensor:
        """0..1 -> -1..1"""
        return pixels * 2.0 - 1.0

    def process_output(self, pixels: Tensor) -> Tensor:
        """About -1..1 -> 0..1, clamped"""
        return torch.clamp((pixels + 1.0) / 2.0, min=0.0, max=1.0)

    def memory_used_encode(self, shape: Any, dtype: torch.dtype) -> int:
        """Bytes of activations to encode pixels (b, 3, height, width): about 14 maps of the first level for one picture."""
        return int(shape[-2] * shape[-1] * self.config.ch * 14 * dtype.itemsize)

    def memory_used_decode(self, shape: Any, dtype: torch.dtype) -> int:
        """Bytes of activations to decode a latent (b, c, height, width): about 17 maps of the last level for one picture."""
        return int(shape[-2] * shape[-1] * self.config.ratio**2 * self.config.ch * 17 * dtype.itemsize)

    def vae_encode_crop_pixels(self, pixels: Tensor) -> Tensor:
        """The centre of (b, height, width, c) whose sides are multiples of the ratio."""
        ratio = self.config.ratio
        for axis in (1, 2):
            size = pixels.shape[axis]
            pixels = pixels.narrow(axis, (size % ratio) // 2, size // ratio * ratio)
        return pixels

    # -- what it does -----------------------------------------------------------------------------------------------------

    def decode(self, samples_in: Tensor, vae_options: Mapping[str, Any] | None = None) -> Tensor:
        """(b, c, h, w) -> (b, ratio·h, ratio·w, 3). Raises InputUnusable for a latent of another kind."""
        self._check_latent(samples_in)
        if self._too_large(self.memory_used_decode(samples_in.shape, self.vae_dtype)):
            log.info("the picture is decoded in tiles to fit the device")
            return self.decode_tiled(samples_in)
        run = self._decoder()
        return self._pictures(torch.cat([run(samples_in[i : i + 1]) for i in range(samples_in.shape[0])]))

    def decode_tiled(
        self,
        samples: Tensor,
        tile_x: int | None = None,
        tile_y: int | None = None,
        overlap: int | None = None,
        tile_t: int | None = None,
        overlap_t: int | None = None,
    ) -> Tensor:
        """As `decode`, in tiles of tile_x by tile_y latent cells: the mean of three tilings, two with other proportions."""
        self._check_latent(samples)
        x, y, lap = tile_x or 64, tile_y or 64, 16 if overlap is None else overlap
        run = self._decoder()
        sizes = ((x // 2, y * 2), (x * 2, y // 2), (x, y))
        total = sum(tiled_scale(samples, run, w, h, lap, upscale_amount=self.config.ratio, out_channels=3) for w, h in sizes)
        return self._pictures(torch.as_tensor(total) / len(sizes))

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """(b, height, width, 3 or more) -> (b, c, h, w): the mean, of the central part that is whole latent cells."""
        pixels = self._pixels(pixel_samples)
        if self._too_large(self.memory_used_encode(pixels.shape, self.vae_dtype)):
            log.info("the picture is encoded in tiles to fit the device")
            return self.encode_tiled(pixel_samples)
        run = self._encoder()
        return torch.cat([run(pixels[i : i + 1]) for i in range(pixels.shape[0])])

    def encode_tiled(
        self,
        pixel_samples: Tensor,
        tile_x: int | None = None,
        tile_y: int | None = None,
        overlap: int | None = None,
        tile_t: int | None = None,
        overlap_t: int | None = None,
    ) -> Tensor:
        """As `encode`, in tiles of tile_x by tile_y pixels: the mean of three tilings, two with other proportions."""
        pixels = self._pixels(pixel_samples)
        x, y, lap = tile_x or 512, tile_y or 512, 64 if overlap is None else overlap
        run = self._encoder()
        sizes = ((x, y), (x * 2, y // 2), (x // 2, y * 2))
        ratio = 1 / self.config.ratio
        total = sum(tiled_scale(pixels, run, w, h, lap, upscale_amount=ratio, out_channels=self.latent_channels) for w, h in sizes)
        return torch.as_tensor(total) / len(sizes)

    def _decoder(self) -> Callable[[Tensor], Tensor]:
        """(1, c, h, w) -> (1, 3, ratio·h, ratio·w) float32 on the CPU, about -1..1"""
        network, device, dtype = self.first_stage_model, self.device, self.vae_dtype
        return lambda latent: network.decode(latent.to(device=device, dtype=dtype)).to(device=CPU, dtype=torch.float32)

    def _encoder(self) -> Callable[[Tensor], Tensor]:
        """(1, 3, height, width) in -1..1 -> (1, c, h, w) float32 on the CPU"""
        network, device, dtype = self.first_stage_model, self.device, self.vae_dtype
        return lambda pixels: network.encode(pixels.to(device=device, dtype=dtype)).to(device=CPU, dtype=torch.float32)

    def _pictures(self, pixels_bchw: Tensor) -> Tensor:
        return self.process_output(pixels_bchw).movedim(1, -1).contiguous()

    def _pixels(self, pixels: Tensor) -> Tensor:
        """Checked pictures, cropped, as (b, 3, height, width) in -1..1."""
        if pixels.ndim != 4 or pixels.shape[-1] < 3 or pixels.shape[0] == 0:
            raise InputUnusable("The VAE encodes pictures with three channels.", shape=list(pixels.shape))
        pixels = self.vae_encode_crop_pixels(pixels[..., :3])
        if 0 in pixels.shape:
            raise InputUnusable("The picture is smaller than one latent cell.", shape=list(pixels.shape), cell=self.config.ratio)
        return self.process_input(pixels.movedim(-1, 1)).float()

    def _check_latent(self, latent: Tensor) -> None:
        if latent.ndim != 4 or latent.shape[1] != self.latent_channels or 0 in latent.shape:
            raise InputUnusable("The latent is not one of this VAE.", shape=list(latent.shape), channels=self.latent_channels)

    def _too_large(self, needed_bytes: int) -> bool:
        """Decided by shapes and the lane's fixed budget, never by what is free: one picture, one way to make it."""
        lane = context.current_or_none()
        return lane is not None and lane.device.type != "cpu" and needed_bytes > lane.budget_bytes * ACTIVATION_SHARE


def _from_tensors(tensors: Mapping[str, Tensor]) -> tuple[VaeConfig, nn.Module]:
    """A VAE out of tensors that a custom node read itself: it runs where they are, in float32."""
    if PIXEL_SPACE in tensors:
        return VaeConfig(ch=1, ch_mult=(1,), num_res_blocks=0, z_channels=3, use_quant=False), PixelSpace()
    names = Shapes("state dict", {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    config = vae_config(names)
    if is_diffusers_vae(names):
        renamed = vae_names(tensors)
        tensors = {renamed[name]: tensor for name, tensor in tensors.items()}
    with torch.device("meta"):
        network = build_network(config)
    wanted = network.state_dict()
    given = {name: tensor.to(CPU, torch.float32) for name, tensor in tensors.items() if name in wanted}
    for name, tensor in wanted.items():
        if name not in given or given[name].numel() != tensor.numel():
            raise WeightFileInvalid("A tensor is missing or has another size.", tensor=name, expected_shape=list(tensor.shape))
    network.load_state_dict({name: tensor.reshape(wanted[name].shape) for name, tensor in given.items()}, assign=True)
    return config, network.eval().requires_grad_(False)
