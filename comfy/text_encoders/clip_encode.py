"""Chunks of weighted tokens -> conditioning, for one text encoder. Contract: goldens README, section E.2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from comfy.text_encoders.clip_text import ClipTextModel
from comfy.text_encoders.tokenizer import PromptTokenizer, Weighted

#: (rows of token vectors (b, l, c), place of each row's first end token (b,)) -> hidden states (b, l, c), pooled (b, p) or None
Run = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


class TokenNetwork(Protocol):
    """A text network as encoding needs it."""

    def embed(self, ids_bl: Tensor) -> Tensor: ...

    def get_input_embeddings(self) -> Any: ...


@dataclass(frozen=True)
class ClipRule:
    """Which state of a CLIP text transformer is the conditioning.

    layer      None: the last with the final norm; -1, -2 …: that layer from the end (an absent one means None)
    norm_layer apply the final norm to that layer's output as well
    projected  pooled goes through `text_projection`
    """

    layer: int | None = None
    norm_layer: bool = True
    projected: bool = False


def run_clip(network: ClipTextModel, rule: ClipRule) -> Run:
    """The network as a `Run` that follows `rule`."""

    def run(embeds_blc: Tensor, pool_at_b: Tensor) -> tuple[Tensor, Tensor]:
        out = network(embeds_blc, pool_at_b, layer=rule.layer, norm_layer=rule.norm_layer)
        projection = network.text_projection if rule.projected else None
        return out.hidden, out.pooled if projection is None else projection(out.pooled)

    return run


def encode(
    network: TokenNetwork, run: Run, tokenizer: PromptTokenizer, chunks: Sequence[Sequence[Weighted]]
) -> tuple[Tensor, Tensor | None]:
    """Encode `chunks` in one batch, weigh their tokens, join them.

    When any weight differs from 1, the empty prompt is encoded in the same batch and each token of such a weight w
    becomes empty + w·(token - empty) at its place.
    Returns (1, chunks·length, c) and the first chunk's pooled state (1, p), both float32 on the CPU.
    """
    length = max(len(chunk) for chunk in chunks)
    rows = [_fitting(chunk, network.get_input_embeddings().weight.shape[1], tokenizer.pad, length) for chunk in chunks]
    weights = torch.tensor([[float(token[1]) for token in row] for row in rows])
    weighted = bool((weights != 1.0).any())
    if weighted:
        rows.append(_empty(tokenizer, length))
    embeds, pool_at = _vectors(network, rows, tokenizer.end)
    hidden, pooled = run(embeds, pool_at)
    z = hidden.float().cpu()
    if weighted:
        empty, z = z[-1:], z[:-1]
        w = weights[:, :, None]
        z = torch.where(w == 1.0, z, empty + w * (z - empty))
    return z.reshape(1, -1, z.shape[-1]), None if pooled is None else pooled[:1].float().cpu()


def _fitting(chunk: Sequence[Weighted], width: int, pad: int, length: int) -> list[Weighted]:
    """The chunk without embedding rows of another width, padded to `length`."""
    kept = [token for token in chunk if isinstance(token[0], int) or token[0].shape[-1] == width]
    return kept + [(pad, 1.0)] * (length - len(kept))


def _empty(tokenizer: PromptTokenizer, length: int) -> list[Weighted]:
    start: list[Weighted] = [] if tokenizer.start is None else [(tokenizer.start, 1.0)]
    row: list[Weighted] = [*start, (tokenizer.end, 1.0)]
    return row + [(tokenizer.pad, 1.0)] * (length - len(row))


def _vectors(network: TokenNetwork, rows: Sequence[Sequence[Weighted]], end: int) -> tuple[Tensor, Tensor]:
    """Token vectors (b, l, c) with embedding rows in their places, and each row's first end token (b,)."""
    device = network.get_input_embeddings().weight.device
    ids = torch.tensor([[token[0] if isinstance(token[0], int) else 0 for token in row] for row in rows], device=device)
    embeds = network.embed(ids)
    own = [(b, i, token[0]) for b, row in enumerate(rows) for i, token in enumerate(row) if not isinstance(token[0], int)]
    if own:
        embeds = embeds.clone()
        for b, i, vector in own:
            embeds[b, i] = vector.to(embeds)
    ends = [next((i for i, token in enumerate(row) if isinstance(token[0], int) and token[0] == end), 0) for row in rows]
    return embeds, torch.tensor(ends, device=device)
