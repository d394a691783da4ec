"""What each network is trained to do: a loss over one batch each. All run in the dtype of the weights that they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tools.starter_model import tokens
from tools.starter_model.data import CAPTIONS, Data
from tools.starter_model.networks import TOKEN_TABLE, TextNetwork, VaeTraining, Weights
from tools.starter_model.render import draw, draw_edges
from tools.starter_model.steps import Batch, Fill, Loss

#: weight of the distance of the latent's distribution from the standard normal one
_KL = 3e-4
#: the values of a picture that stray the most count extra
_WORST = 64
#: noise on latents while the decoder is polished; they have a deviation of about 5.5
_LATENT_NOISE = 0.25
#: share of captions replaced by the empty prompt. Ho and Salimans 2022, arXiv:2207.12598
_DROPPED = 0.12
#: Hang et al. 2023, arXiv:2303.09556
_MIN_SNR = 5.0
#: share of the time steps drawn from the noisy end, where places and shapes are decided
_NOISY, _NOISY_FROM = 0.35, 650


def alphas(device: torch.device) -> Tensor:
    """(1000,) the signal's share of the variance at each time step of SD1: betas (linspace(√0.00085, √0.012))²."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float().to(device)


def fill_pictures(data: Data, batch: int, height: int, width: int) -> Fill:
    """Batches of freshly drawn pictures, with noise for the latents."""

    def fill(generator: torch.Generator) -> Batch:
        device = data.rows.device
        chosen = torch.randint(len(data), (batch,), generator=generator, device=device)
        noise = torch.randn((batch, 4, height // 8, width // 8), generator=generator, device=device)
        return {"rows": data.rows[chosen], "noise": noise, "size": torch.empty(height, width, device=device)}

    return fill


def vae_loss(network: VaeTraining) -> Loss:
    """Mean absolute and squared error of pictures and of their edges, plus a little of the variational term.

    Kingma and Welling 2013, arXiv:1312.6114; no adversarial part: the pictures are flat.
    """

    def loss(weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        dtype = next(iter(weights.values())).dtype
        x = draw(batch["rows"], *batch["size"].shape) * 2 - 1
        y, mean, spread = functional_call(network, dict(weights), (x.to(dtype), batch["noise"].to(dtype)))
        error = y.float() - x
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        mean, spread = mean.float(), spread.float()
        prior = 0.5 * (mean**2 + spread.exp() - 1 - spread).mean()
        return error.abs().mean() + 2 * (error**2).mean() + 0.5 * edges + _KL * prior

    return loss


def fill_pairs(data: Data, batch: int, side: int) -> Fill:
    """Batches of pairs of pictures (2·batch rows), with a border in each pair: columns, or rows, before it are the first's."""

    def fill(generator: torch.Generator) -> Batch:
        device = data.rows.device
        chosen = torch.randint(len(data), (2 * batch,), generator=generator, device=device)
        place = torch.arange(side // 8, device=device)
        border = torch.randint(3, side // 8 - 2, (batch, 1), generator=generator, device=device)
        first = (place[None] < border)[:, None, None, :].expand(-1, 1, side // 8, -1)
        upright = torch.rand((batch, 1, 1, 1), generator=generator, device=device) < 0.5
        first = torch.where(upright, first, first.transpose(2, 3))
        noise = torch.randn((batch, 4, side // 8, side // 8), generator=generator, device=device)
        return {"rows": data.rows[chosen], "first": first, "noise": noise, "size": torch.empty(side, side, device=device)}

    return fill


def polish_loss(network: nn.Module, frozen: Weights) -> Loss:
    """The decoder alone, on latents that are put together of two pictures' and a little noisy: each part must come out as if
    it were alone, so that a change of one part of a latent (inpainting) leaves the rest of the picture as it was.

    frozen  the encoder's weights; those in training are the decoder's
    """

    def loss(weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        dtype = next(iter(weights.values())).dtype
        height, width = batch["size"].shape
        x = draw(batch["rows"], height, width) * 2 - 1
        with torch.no_grad():
            z = functional_call(_Half(network, "encode"), _named({**frozen, **weights}), (x.to(dtype),))
        one, other = z.chunk(2)
        one = one + _LATENT_NOISE * batch["noise"].to(dtype)
        mixed = torch.where(batch["first"], one, other)
        y = functional_call(_Half(network, "decode"), _named({**frozen, **weights}), (torch.cat([mixed, one]),)).float()
        y_mixed, y_one = y.chunk(2)
        x_one, x_other = x.chunk(2)
        first = F.interpolate(batch["first"].float(), scale_factor=8)
        near = F.max_pool2d(first, 33, 1, 16) * F.max_pool2d(1 - first, 33, 1, 16)
        far = 1 - near
        error = y_mixed - torch.where(first > 0.5, x_one, x_other)
        own = y_one - x_one
        strayed = (y_mixed - y_one) * first * far
        terms = [(e.abs() * w).mean() + 2 * (e**2 * w).mean() for e, w in ((error, 0.2 + 0.8 * far), (own, torch.ones_like(far)))]
        edges = own.diff(dim=2).abs().mean() + own.diff(dim=3).abs().mean()
        worst = strayed.abs().flatten(1).topk(_WORST, dim=1).values.mean()
        return terms[0] + terms[1] + 0.5 * edges + 2 * strayed.abs().mean() + 20 * (strayed**2).mean() + 0.5 * worst

    return loss


class _Half(nn.Module):
    """One of an autoencoder's two functions as a module's forward."""

    def __init__(self, engine: Any, name: str) -> None:
        super().__init__()
        self.engine, self.name = engine, name

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = getattr(self.engine, self.name)(x)
        return result


def _named(weights: Mapping[str, Tensor]) -> Weights:
    return {f"engine.{name}": tensor for name, tensor in weights.items()}


def fill_latents(data: Data, latents: Tensor, batch: int, hint: tuple[int, int] | None = None) -> Fill:
    """Batches of latents (n, 4, h, w) with noise, time steps and captions; with `hint` (pixels) also what edges are drawn from."""
    empty_ids, _ = (t.to(latents.device) for t in tokens.rows([[]]))

    def fill(generator: torch.Generator) -> Batch:
        device = latents.device
        chosen = torch.randint(len(data), (batch,), generator=generator, device=device)
        which = torch.randint(CAPTIONS, (batch,), generator=generator, device=device)
        x0 = latents[chosen].float()
        dropped = torch.rand((batch, 1), generator=generator, device=device) < _DROPPED
        ids = torch.where(dropped, empty_ids, data.ids[chosen, which])
        emphasis = torch.where(dropped, 1.0, data.weights[chosen, which].float())
        filled = {
            "x0": x0,
            "noise": torch.randn(x0.shape, generator=generator, device=device),
            "t": _time_steps(batch, generator, device),
            "ids": torch.cat([ids, empty_ids]),
            "emphasis": torch.cat([emphasis, torch.ones_like(emphasis[:1])]),
        }
        if hint is not None:
            line = torch.rand((batch,), generator=generator, device=device) * 1.6 + 0.9
            filled |= {"rows": data.rows[chosen], "line": line, "size": torch.empty(hint, device=device)}
        return filled

    return fill


def _time_steps(batch: int, generator: torch.Generator, device: torch.device) -> Tensor:
    anywhere = torch.randint(1000, (batch,), generator=generator, device=device)
    noisy = torch.randint(_NOISY_FROM, 1000, (batch,), generator=generator, device=device)
    return torch.where(torch.rand((batch,), generator=generator, device=device) < _NOISY, noisy, anywhere)


#: (weights, noisy latent, time steps, context, batch) -> predicted noise
Predict = Callable[[Mapping[str, Tensor], Tensor, Tensor, Tensor, Batch], Tensor]


def noise_loss(text: TextNetwork, text_weights: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]], predict: Predict) -> Loss:
    """Squared error of the predicted noise, weighted by signal to noise. Ho et al. 2020, arXiv:2006.11239.

    text_weights  picks the text encoder's weights out of those in training, or gives frozen ones
    """
    device = text.weights[TOKEN_TABLE].device
    table = alphas(device)

    def loss(weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        dtype = next(iter(weights.values())).dtype
        context = text.encode(text_weights(weights), batch["ids"], batch["emphasis"])
        alpha = table[batch["t"]][:, None, None, None]
        x = alpha.sqrt() * batch["x0"] + (1 - alpha).sqrt() * batch["noise"]
        predicted = predict(weights, x.to(dtype), batch["t"].float(), context, batch).float()
        snr = (alpha / (1 - alpha)).flatten()
        error = ((predicted - batch["noise"]) ** 2).mean(dim=(1, 2, 3))
        return (error * snr.clamp(max=_MIN_SNR) / snr).mean()

    return loss


def under(weights: Mapping[str, Tensor], prefix: str) -> Weights:
    """Those whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}


def with_control(unet: nn.Module, unet_weights: Weights, control: nn.Module) -> Predict:
    """The frozen UNet under a ControlNet in training, which sees the edges of the picture."""

    def predict(weights: Mapping[str, Tensor], x: Tensor, t: Tensor, context: Tensor, batch: Batch) -> Tensor:
        height, width = batch["size"].shape
        hint = draw_edges(batch["rows"], height, width, batch["line"]).to(x.dtype)
        residuals = functional_call(control, dict(weights), (x, hint, t, context))
        return functional_call(unet, unet_weights, (x, t, context), {"control": residuals})

    return predict


def with_lora(unet: nn.Module, unet_weights: Weights) -> Predict:
    """The frozen UNet with low-rank changes in training. Hu et al. 2021, arXiv:2106.09685."""

    def predict(weights: Mapping[str, Tensor], x: Tensor, t: Tensor, context: Tensor, batch: Batch) -> Tensor:
        changed = dict(unet_weights)
        for name in {name.rsplit(".", 1)[0] for name in weights}:
            change = weights[f"{name}.up"] @ weights[f"{name}.down"]
            changed[f"{name}.weight"] = changed[f"{name}.weight"] + change
        return functional_call(unet, changed, (x, t, context))

    return predict


def preview_loss(network: nn.Module) -> Loss:
    """Mean absolute and squared error of pictures made from latents."""

    def loss(weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
        dtype = next(iter(weights.values())).dtype
        picture = draw(batch["rows"], *batch["size"].shape)
        error = functional_call(network, dict(weights), (batch["x0"].to(dtype),)).float() - picture
        return F.l1_loss(error, torch.zeros_like(error)) + (error**2).mean()

    return loss
