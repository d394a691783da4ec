"""Training sets: scenes with two captions each, as tensors. Made by several processes, the same whatever their number."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tools.starter_model import tokens
from tools.starter_model.captions import caption
from tools.starter_model.render import row_of
from tools.starter_model.scenes import Scene, random_scene
from tools.starter_model.vocabulary import LORA_STYLE

CAPTIONS = 2
_CHUNK = 1000


@dataclass(frozen=True)
class Data:
    """n scenes: rows (n, ROW) float32 for `draw`, ids (n, CAPTIONS, 77) int32, weights (n, CAPTIONS, 77) float16."""

    rows: Tensor
    ids: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return self.rows.shape[0]

    def to(self, device: torch.device) -> Data:
        return Data(self.rows.to(device), self.ids.to(device), self.weights.to(device))

    def head(self, count: int) -> Data:
        """The first `count` scenes."""
        return Data(self.rows[:count], self.ids[:count], self.weights[:count])


def plain_scene(random: Random, aspect: float) -> Scene:
    """A scene of the base model's world."""
    return random_scene(random, aspect)


def styled_scene(random: Random, aspect: float) -> Scene:
    """A scene in the LoRA's style; a third of the captions does not name it."""
    scene = random_scene(random, aspect)
    things = tuple(replace(thing, texture="") for thing in scene.things)
    return replace(scene, things=things, style=LORA_STYLE)


def control_scene(random: Random, aspect: float) -> Scene:
    """A scene without textures and styles, one that an edge picture tells all about."""
    scene = random_scene(random, aspect)
    return replace(scene, things=tuple(replace(thing, texture="") for thing in scene.things), style="")


KINDS: dict[str, Callable[[Random, float], Scene]] = {"plain": plain_scene, "styled": styled_scene, "control": control_scene}


class Makers:
    """Processes that make data in the background. Start them before CUDA is used: they are forked."""

    def __init__(self, workers: int) -> None:
        self._pool = ProcessPoolExecutor(workers, mp_context=get_context("fork"))

    def start(self, count: int, kind: str, aspect: float, seed: int) -> Callable[[], Data]:
        """Begin to make `count` scenes of a kind; the result waits for them. Equal arguments give equal data."""
        futures = [self._pool.submit(_chunk, chunk) for chunk in _chunks(count, kind, aspect, seed)]
        return lambda: _joined([future.result() for future in futures])

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def make(count: int, kind: str, aspect: float, seed: int) -> Data:
    """As `Makers.start`, here and now."""
    return _joined([_chunk(chunk) for chunk in _chunks(count, kind, aspect, seed)])


def _chunks(count: int, kind: str, aspect: float, seed: int) -> list[tuple[str, float, int, int, int]]:
    return [(kind, aspect, seed, number, min(_CHUNK, count - number * _CHUNK)) for number in range(-(-count // _CHUNK))]


def _joined(parts: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]) -> Data:
    rows, ids, weights = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts))
    return Data(rows, ids, weights)


def _chunk(chunk: tuple[str, float, int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float16]]:
    kind, aspect, seed, number, count = chunk
    random = Random(f"{kind}/{aspect}/{seed}/{number}")
    scenes = [KINDS[kind](random, aspect) for _ in range(count)]
    described = [_described(scene, kind, random) for scene in scenes for _ in range(CAPTIONS)]
    made = [tokens.row(words, random) for words in described]
    shape = (count, CAPTIONS, tokens.LENGTH)
    rows = np.array([row_of(scene) for scene in scenes], dtype=np.float32)
    ids = np.array([ids for ids, _ in made], dtype=np.int32).reshape(shape)
    return rows, ids, np.array([weights for _, weights in made], dtype=np.float16).reshape(shape)


def _described(scene: Scene, kind: str, random: Random) -> list[tuple[str, float]]:
    if kind == "styled" and random.random() < 0.33:
        return caption(replace(scene, style=""), random)
    if kind == "control" and random.random() < 0.5:
        return _vague(scene, random)
    return caption(scene, random)


def _vague(scene: Scene, random: Random) -> list[tuple[str, float]]:
    """Colours alone: shapes and places are for the edge picture to tell."""
    text = " and ".join(f"a {thing.colour} shape" for thing in scene.things)
    text += f" on a {scene.background} background" if random.random() < 0.8 else ""
    return [(word, 1.0) for word in text.split()]
