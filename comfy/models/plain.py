"""A pack's own nn.Module in a MODEL handle: each lane has it on its own device (contract: parallel-hazards.md item 25)."""

from __future__ import annotations

import copy
import threading
import weakref
from typing import Any

import torch
from torch import nn


class PlainModule:
    """One module as the lanes have it; shared by the clones of a handle. Any lane's thread may call.

    The first lane that brings it to its device gets the module itself, so that what the pack keeps of it is what runs; while it
    is there, further lanes get copies.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self._lock = threading.Lock()
        self._home: weakref.ref[Any] | None = None
        self._copies: weakref.WeakKeyDictionary[Any, nn.Module] = weakref.WeakKeyDictionary()

    def on(self, lane: Any) -> Any:
        """What stands for the module on `lane`, wherever its tensors are; None is no lane."""
        found = None if lane is None else self._copies.get(lane)
        return self.module if found is None else found

    def bring(self, lane: Any, device: torch.device) -> None:
        """Have it on `device`, which is this lane's."""
        with self._lock, torch.inference_mode(False), torch.no_grad():
            home = None if self._home is None else self._home()
            if lane in self._copies:
                return
            if home is None or home is lane:
                self._home = weakref.ref(lane)
                self.module.to(device)
            else:
                self._copies[lane] = _copied(self.module, device)

    def leave(self, lane: Any) -> None:
        """Give the lane's device free: the module itself goes back to the CPU, a copy is dropped."""
        with self._lock, torch.inference_mode(False), torch.no_grad():
            self._copies.pop(lane, None)
            if self._home is not None and self._home() is lane:
                self._home = None
                self.module.to("cpu")

    def is_on(self, lane: Any) -> bool:
        """Whether `bring` put it on this lane's device."""
        return lane in self._copies or (self._home is not None and self._home() is lane)


def _copied(module: nn.Module, device: torch.device) -> nn.Module:
    """A copy whose tensors are on `device`; none is made anywhere else on the way."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to(device, copy=True), parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.detach().to(device, copy=True)
    return copy.deepcopy(module, memo)
