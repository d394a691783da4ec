"""A pack that seeds the process's generators and draws from them, with pauses in which other lanes may run."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


class SeederDraw:
    """Numbers of the three global generators after seeding them."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "seeder", "run", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"seed": ("INT", {"default": 0}), "n": ("INT", {"default": 5})}}

    def run(self, seed: int, n: int) -> dict[str, Any]:
        seed_all(seed)
        numbers = []
        for _ in range(n):
            numbers.append(draw())
            time.sleep(0.0005)  # gives the interpreter to the other lanes
        return {"ui": {"text": [json.dumps(numbers)]}}


class SeederDrawLater(SeederDraw):
    """The same, awaiting between the draws."""

    async def run(self, seed: int, n: int) -> dict[str, Any]:  # type: ignore[override]
        seed_all(seed)
        numbers = []
        for _ in range(n):
            numbers.append(draw())
            await asyncio.sleep(0.0005)
        return {"ui": {"text": [json.dumps(numbers)]}}


NODE_CLASS_MAPPINGS = {"SeederDraw": SeederDraw, "SeederDrawLater": SeederDrawLater}
