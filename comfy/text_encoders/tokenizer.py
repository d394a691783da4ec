"""A prompt -> chunks of weighted tokens. Contract: goldens README, section E.1.

A token is an id or, for a textual inversion, the embedding row itself: a (width,) float32 tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from comfy.text_encoders import clip_bpe
from comfy.text_encoders.weights_grammar import weighted_pieces

Token = int | Tensor
#: (token, weight), or (token, weight, number of the group that it came from, 0 for padding and special tokens)
Weighted = tuple[Any, ...]
#: name -> the rows of a textual inversion (rows, width), or None when there is none of that name
EmbeddingLookup = Callable[[str], Tensor | None]

#: groups of at least this many tokens may be cut at the end of a chunk
LONG_GROUP = 8
_EMBEDDING = "embedding:"
_EMBEDDING_STARTS = re.compile(r"[ \n](?=embedding:)")


@dataclass(frozen=True)
class PromptTokenizer:
    """How the prompts of one text encoder become chunks.

    encode        text -> ids without special tokens
    start         id before each chunk, or None
    end           id after each chunk
    pad           id that fills a chunk up
    chunk_length  tokens of a chunk, start and end included; None: one chunk without bound
    min_length    least length of an unbounded chunk
    min_padding   pads that follow the end of an unbounded chunk at least
    width         width of embedding rows that fit
    """

    encode: Callable[[str], list[int]]
    start: int | None
    end: int
    pad: int
    chunk_length: int | None = 77
    min_length: int = 0
    min_padding: int = 0
    width: int = 768
    names: Callable[[], dict[int, str]] = field(default=dict)

    def groups(self, text: str, find: EmbeddingLookup | None, disable_weights: bool = False) -> Iterator[list[tuple[Token, float]]]:
        """The tokens of each stretch of text and of each embedding, in order; an empty stretch gives no group."""
        for piece, weight in weighted_pieces(text, disable_weights):
            for part in _EMBEDDING_STARTS.split(piece):
                rest = part
                if find is not None and part.startswith(_EMBEDDING):
                    rows, rest = _find_embedding(part[len(_EMBEDDING) :], find)
                    if rows is not None:
                        yield [(row, weight) for row in rows]
                if ids := self.encode(rest):
                    yield [(token, weight) for token in ids]

    def tokenize_with_weights(
        self, text: str, find: EmbeddingLookup | None = None, return_word_ids: bool = False, disable_weights: bool = False
    ) -> list[list[Weighted]]:
        """The chunks of `text`: at least one, each of exactly `chunk_length` when there is one.

        Embeddings that are not found are dropped; without `find` the word `embedding:` means nothing.
        """
        numbered = [
            [(token, weight, number) for token, weight in group] for number, group in enumerate(self.groups(text, find, disable_weights), 1)
        ]
        chunks = self._pack(numbered)
        if return_word_ids:
            return chunks
        return [[(token, weight) for token, weight, _ in chunk] for chunk in chunks]

    def untokenize(self, chunk: list[Weighted]) -> list[tuple[Weighted, str]]:
        """Each token of `chunk` with the text that it stands for; an embedding row has none."""
        names = self.names()
        return [(token, names.get(token[0], "") if isinstance(token[0], int) else "") for token in chunk]

    def _pack(self, groups: list[list[Weighted]]) -> list[list[Weighted]]:
        first: list[Weighted] = [] if self.start is None else [(self.start, 1.0, 0)]
        if self.chunk_length is None:
            chunk = first + [token for group in groups for token in group] + [(self.end, 1.0, 0)]
            chunk += [(self.pad, 1.0, 0)] * self.min_padding
            return [chunk + [(self.pad, 1.0, 0)] * (self.min_length - len(chunk))]
        room = self.chunk_length - 1  # the end token's place is kept
        chunks: list[list[Weighted]] = []
        chunk = list(first)
        for group in groups:
            left = group
            while len(chunk) + len(left) > room:
                if len(group) >= LONG_GROUP:
                    taken = room - len(chunk)
                    chunk, left = chunk + left[:taken], left[taken:]
                chunks.append(chunk)
                chunk = list(first)
            chunk = chunk + left
        chunks.append(chunk)
        return [self._close(chunk, self.chunk_length) for chunk in chunks]

    def _close(self, chunk: list[Weighted], length: int) -> list[Weighted]:
        closed = [*chunk, (self.end, 1.0, 0)]
        return closed + [(self.pad, 1.0, 0)] * (length - len(closed))


def _find_embedding(text: str, find: EmbeddingLookup) -> tuple[Tensor | None, str]:
    """The embedding that `text` starts with the name of, and the text that goes on after the name.

    The name ends at white space; one that is not found is tried again without the commas at its ends, and the commas
    after it are then text.
    """
    name = re.split(r"\s", text, maxsplit=1)[0]
    rest = text[len(name) :]
    rows = find(name)
    bare = name.strip(",")
    if rows is None and bare != name:
        rows = find(bare) if bare else None
        if rows is not None:
            rest = name[len(name.rstrip(",")) :] + rest
    return rows, rest


CLIP_L = PromptTokenizer(clip_bpe.token_ids, clip_bpe.START_TOKEN, clip_bpe.END_TOKEN, pad=clip_bpe.END_TOKEN, names=clip_bpe.vocabulary)
CLIP_G = PromptTokenizer(clip_bpe.token_ids, clip_bpe.START_TOKEN, clip_bpe.END_TOKEN, pad=0, width=1280, names=clip_bpe.vocabulary)
CLIP_H = replace(CLIP_G, width=1024)
