"""The stages of the training, each from data to weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from comfy.cldm.cldm import ControlNet
from tools.starter_model import objectives, taesd
from tools.starter_model.data import Data
from tools.starter_model.export import whitened
from tools.starter_model.networks import LATENT_SCALE, UNET, VAE, TextNetwork, VaeTraining, Weights, fresh, on_meta
from tools.starter_model.render import draw
from tools.starter_model.steps import Batch, Source, Training

LORA_RANK = 16
_LORA_LAYERS = (".to_q", ".to_k", ".to_v", ".to_out.0", ".ff.net.0.proj", ".ff.net.2")


@dataclass(frozen=True)
class Effort:
    """How much one stage may cost: seconds or steps, and pictures of 128 × 128 pixels in a batch."""

    batch: int
    seconds: float | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Place:
    """Where and how the training computes."""

    device: torch.device
    dtype: torch.dtype
    seed: int


@dataclass(frozen=True)
class Shaped:
    """A training set for pictures of one size, and its latents (n, 4, height/8, width/8) float16 on the UNet's scale."""

    data: Data
    height: int
    width: int
    share: float
    latents: Tensor | None = None

    def batch(self, base: int) -> int:
        """As many pictures as have the pixels of `base` pictures of 128 × 128."""
        return max(1, base * 128 * 128 // (self.height * self.width))


def train_vae(sets: list[Shaped], effort: Effort, place: Place) -> tuple[Weights, list[str]]:
    """The autoencoder, its latents whitened."""
    network = VaeTraining(on_meta(VAE))
    sources = [Source(objectives.fill_pictures(s.data, s.batch(effort.batch), s.height, s.width), s.share) for s in sets]
    weights = fresh(network, place.seed, place.device)
    training = Training("vae", weights, objectives.vae_loss(network), sources, 1.5e-3, place.device, place.seed, 0.995, place.dtype)
    training.run(effort.seconds, effort.steps)
    average = objectives.under(training.average, "engine.")
    first = sets[0]
    found = encode(average, first.data.head(4096), first.height, first.width, place).float() / LATENT_SCALE
    mean, std = found.mean(dim=(0, 2, 3)), found.std(dim=(0, 2, 3))
    log = [f"vae: latents had mean {mean.tolist()} and deviation {std.tolist()}"]
    average = whitened(average, mean.to(place.device), std.to(place.device))
    log.append(f"vae: {_psnr(average, first, place):.2f} dB on {first.height} × {first.width} pictures")
    return average, training.log + log


def polish_decoder(vae: Weights, data: Data, effort: Effort, place: Place) -> tuple[Weights, list[str]]:
    """The same autoencoder with a better decoder: its latents, and so what a UNet has learnt, stay as they are."""
    decoder = ("decoder.", "post_quant_conv.")
    weights = {n: t.detach().clone().to(place.device).requires_grad_(True) for n, t in vae.items() if n.startswith(decoder)}
    frozen = {name: tensor.detach().to(place.device, place.dtype) for name, tensor in vae.items() if name not in weights}
    loss = objectives.polish_loss(on_meta(VAE), frozen)
    sources = [Source(objectives.fill_pairs(data, effort.batch // 2, 128))]
    training = Training("decoder", weights, loss, sources, 8e-4, place.device, place.seed, 0.995, place.dtype)
    training.run(effort.seconds, effort.steps)
    whole = {**vae, **training.average}
    log = f"decoder: {_psnr(whole, Shaped(data, 128, 128, 1.0), place):.2f} dB on 128 × 128 pictures"
    print(log, flush=True)
    return whole, [*training.log, log]


@torch.inference_mode()
def encode(vae: Mapping[str, Tensor], data: Data, height: int, width: int, place: Place) -> Tensor:
    """(n, 4, h/8, w/8) float16 latents of freshly drawn pictures, on the UNet's scale."""
    network = on_meta(VAE)
    cast = {f"engine.{name}": tensor.to(place.dtype) for name, tensor in vae.items()}
    wrapped = VaeTraining(network)
    made = []
    for rows in data.rows.split(256):
        x = (draw(rows, height, width) * 2 - 1).to(place.dtype)
        zero = torch.zeros((len(rows), 4, height // 8, width // 8), dtype=place.dtype, device=place.device)
        mean = functional_call(_EncodeOnly(wrapped), {f"whole.{name}": tensor for name, tensor in cast.items()}, (x, zero))
        made.append((mean.float() * LATENT_SCALE).half())
    return torch.cat(made).clone()


class _EncodeOnly(nn.Module):
    def __init__(self, whole: VaeTraining) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor, zero: Tensor) -> Tensor:
        mean: Tensor = self.whole.engine.encode(x)
        return mean + zero


@torch.inference_mode()
def _psnr(vae: Weights, shaped: Shaped, place: Place) -> float:
    """Peak signal to noise ratio of pictures through the whole autoencoder, in float32."""
    x = draw(shaped.data.head(64).rows, shaped.height, shaped.width)
    y = (functional_call(on_meta(VAE), vae, (x * 2 - 1,)) + 1) / 2
    return -10 * math.log10(((y.clamp(0, 1) - x) ** 2).mean().item())


def train_denoiser(sets: list[Shaped], effort: Effort, place: Place) -> tuple[Weights, TextNetwork, Weights, list[str]]:
    """UNet and text encoder together: (UNet, text network, its weights, log)."""
    unet, text = on_meta(UNET), TextNetwork(place.seed, place.device)
    weights = {f"unet.{name}": tensor for name, tensor in fresh(unet, place.seed, place.device).items()}
    weights |= {f"text.{name}": tensor for name, tensor in text.weights.items()}

    def predict(given: Mapping[str, Tensor], x: Tensor, t: Tensor, context: Tensor, batch: Batch) -> Tensor:
        return functional_call(unet, objectives.under(given, "unet."), (x, t, context))

    loss = objectives.noise_loss(text, lambda given: objectives.under(given, "text."), predict)
    training = Training("denoiser", weights, loss, _sources(sets, effort), 1.2e-3, place.device, place.seed, 0.9995, place.dtype)
    training.run(effort.seconds, effort.steps)
    average = training.average
    return objectives.under(average, "unet."), text, objectives.under(average, "text."), training.log


def _sources(sets: list[Shaped], effort: Effort, hint: bool = False) -> list[Source]:
    made = []
    for s in sets:
        assert s.latents is not None
        fill = objectives.fill_latents(s.data, s.latents, s.batch(effort.batch), (s.height, s.width) if hint else None)
        made.append(Source(fill, s.share))
    return made


def _frozen(weights: Weights, place: Place) -> Weights:
    return {name: tensor.detach().to(place.dtype) for name, tensor in weights.items()}


def train_lora(
    shaped: Shaped, unet: Weights, text: TextNetwork, text_weights: Weights, effort: Effort, place: Place
) -> tuple[Weights, list[str]]:
    """Low-rank changes of the UNet's attention and feed-forward layers that make its pictures those of another style."""
    generator = torch.Generator("cpu").manual_seed(place.seed)
    weights = {}
    for name, tensor in unet.items():
        layer = name.removesuffix(".weight")
        if layer.endswith(_LORA_LAYERS) and name != layer:
            rows, columns = tensor.shape
            down = torch.randn((LORA_RANK, columns), generator=generator) * columns**-0.5
            weights[f"{layer}.down"] = down.to(place.device).requires_grad_(True)
            weights[f"{layer}.up"] = torch.zeros((rows, LORA_RANK), device=place.device).requires_grad_(True)
    frozen_text = _frozen(text_weights, place)
    loss = objectives.noise_loss(text, lambda _: frozen_text, objectives.with_lora(on_meta(UNET), _frozen(unet, place)))
    training = Training("lora", weights, loss, _sources([shaped], effort), 2e-3, place.device, place.seed, 0.99, place.dtype)
    training.run(effort.seconds, effort.steps)
    return training.average, training.log


def train_control(
    shaped: Shaped, unet: Weights, text: TextNetwork, text_weights: Weights, effort: Effort, place: Place
) -> tuple[Weights, list[str]]:
    """A ControlNet for edges over the frozen UNet; it starts as a copy of its way down."""
    with torch.device("meta"):
        control = ControlNet(UNET.__dict__)
    weights = fresh(control, place.seed + 1, place.device)
    for name in weights:
        if name in unet:
            weights[name] = unet[name].detach().clone().requires_grad_(True)
        elif name.startswith(("zero_convs.", "middle_block_out.", "input_hint_block.14.")):
            weights[name] = torch.zeros_like(weights[name]).requires_grad_(True)
    frozen_text = _frozen(text_weights, place)
    loss = objectives.noise_loss(text, lambda _: frozen_text, objectives.with_control(on_meta(UNET), _frozen(unet, place), control))
    training = Training("controlnet", weights, loss, _sources([shaped], effort, True), 8e-4, place.device, place.seed, 0.995, place.dtype)
    training.run(effort.seconds, effort.steps)
    return training.average, training.log


def train_preview(shaped: Shaped, effort: Effort, place: Place) -> tuple[Weights, list[str]]:
    """The small decoder for previews."""
    with torch.device("meta"):
        network = taesd.decoder()
    weights = fresh(network, place.seed, place.device)
    loss = objectives.preview_loss(network)
    training = Training("preview", weights, loss, _sources([shaped], effort, True), 2e-3, place.device, place.seed, 0.99, place.dtype)
    training.run(effort.seconds, effort.steps)
    return training.average, training.log
