"""A difference of weights -> a LoRA file: the best low-rank approximation, by singular values (Eckart and Young 1936)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

STANDARD, FULL = "standard", "full_diff"
KINDS = (STANDARD, FULL)


def extracted(differences: Mapping[str, Tensor], kind: str, rank: int, biases: bool) -> Iterator[tuple[str, Tensor]]:
    """Name in the LoRA file -> float16 tensor on the CPU, for each weight of `differences` (by its name in the file, suffix on).

    kind    STANDARD: matrices and convolutions by factors of `rank`, or fewer where the weight is smaller; FULL: as they are
    biases  biases and other vectors too, as they are
    """
    for key, difference in differences.items():
        if key.endswith(".weight"):
            name = key.removesuffix(".weight")
            if kind == STANDARD and difference.ndim >= 2:
                up, down = factors(difference.float(), rank)
                yield f"{name}.lora_up.weight", _stored(up)
                yield f"{name}.lora_down.weight", _stored(down)
            elif difference.ndim >= 2 or biases:
                yield f"{name}.diff", _stored(difference)
        elif biases and key.endswith(".bias"):
            yield f"{key.removesuffix('.bias')}.diff_b", _stored(difference)


def factors(difference: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(o, i, …) -> up (o, r, 1 …), down (r, i, …) with up·down as near to it as rank r allows; r = min(rank, o, i·…)."""
    flat = difference.flatten(1)
    rank = min(rank, *flat.shape)
    u, s, vh = torch.linalg.svd(flat, full_matrices=False)
    up = u[:, :rank] * s[:rank]
    return up.reshape(-1, rank, *[1] * (difference.ndim - 2)), vh[:rank].reshape(rank, *difference.shape[1:])


def _stored(tensor: Tensor) -> Tensor:
    return tensor.detach().to(device="cpu", dtype=torch.float16).contiguous()
