"""Captions as rows of CLIP token ids, and the few ids that training has vectors for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random

import torch
from torch import Tensor

from comfy.text_encoders.clip_bpe import END_TOKEN, START_TOKEN, token_ids
from tools.starter_model.captions import Caption, with_strangers
from tools.starter_model.vocabulary import COLOURS, LORA_STYLE, PLACES, SHAPES, STYLES, TEXTURES

LENGTH = 77
VOCABULARY = 49408
_OTHER_WORDS = (
    "a an the of on in at to and there is picture drawing image photo , shape background ground corner middle center centre "
    "two circles squares triangles diamonds stars crosses shapes above over below under left right small large grey pixel art style "
    "blurred blurry neon"
)


@cache
def known_ids() -> tuple[int, ...]:
    """The ids of every word that captions are made of, and of start and end, ascending. All others have a zero vector."""
    texts = [*COLOURS, *SHAPES, *PLACES, *TEXTURES, *STYLES, LORA_STYLE, _OTHER_WORDS]
    return tuple(sorted({START_TOKEN, END_TOKEN, *(i for text in texts for i in token_ids(text))}))


def compact_table() -> Tensor:
    """(49408,) int64: the row of each token id in the trained table, counted from 1; 0 for ids without a vector."""
    table = torch.zeros(VOCABULARY, dtype=torch.int64)
    table[list(known_ids())] = torch.arange(1, len(known_ids()) + 1)
    return table


@cache
def _ids_of(word: str) -> tuple[int, ...]:
    return tuple(token_ids(word))


def row(words: Caption, random: Random | None = None) -> tuple[list[int], list[float]]:
    """(ids, weights) of a caption as the server builds them: start, words, end, ends as padding; LENGTH of each.

    With `random`, some captions get words that mean nothing, which must not matter.
    """
    ids = [i for word, _ in words for i in _ids_of(word)]
    weights = [weight for word, weight in words for _ in _ids_of(word)]
    if random is not None:
        at, count = with_strangers(words, random)
        at = len(ids) if at else 0
        ids[at:at] = [random.randrange(320, START_TOKEN) for _ in range(count)]
        weights[at:at] = [1.0] * count
    ids, weights = ids[: LENGTH - 2], weights[: LENGTH - 2]
    rest = LENGTH - 1 - len(ids)
    return [START_TOKEN, *ids, *[END_TOKEN] * rest], [1.0, *weights, *[1.0] * rest]


def rows(captions: Sequence[Caption], random: Random | None = None) -> tuple[Tensor, Tensor]:
    """(n, LENGTH) int32 ids and (n, LENGTH) float32 weights"""
    made = [row(words, random) for words in captions]
    return torch.tensor([ids for ids, _ in made], dtype=torch.int32), torch.tensor([weights for _, weights in made])
