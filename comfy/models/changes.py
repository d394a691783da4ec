"""What one handle changes in a model, as a value: it makes the network of a lane without the handle itself.

A view of a model holds this and not the handle: a cycle between the two would keep patches in memory until the collector
runs, which on a busy server is rare.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from comfy.device.context import DeviceContext
from comfy.models import patches as weight_patches
from comfy.models.component import Component
from comfy.models.lora.tensors import holding

NOTHING = uuid.UUID(int=0)


class Source(Protocol):
    """What a handle is made of: frozen and picklable."""

    def components(self) -> Mapping[str, Component]:
        """Prefix of the weight keys that patches use -> component."""
        ...

    def view(self, changes: Changes) -> Any:
        """The object behind a handle's `model` for one lane."""
        ...


@dataclass(frozen=True)
class Changes:
    """patches and object_patches as in `ModelPatcher`; `name` is equal for equal changes; `in_place`: code changes the module."""

    patches: Mapping[str, list[weight_patches.Patch]] = field(default_factory=dict)
    object_patches: Mapping[str, Any] = field(default_factory=dict)
    name: uuid.UUID = NOTHING
    in_place: bool = False

    def variant(self, prefix: str) -> Any:
        """() when nothing changes the network under `prefix`, else what names the change."""
        changed = any(key.startswith(prefix) for key in self.patches)
        changed = changed or any("." in name and name.startswith(prefix) for name in self.object_patches)
        return ("patches", self.name) if changed or self.in_place else ()

    def network(self, source: Source, prefix: str, lane: DeviceContext) -> nn.Module:
        """The network of `source` under `prefix` on `lane`, changed; brought there when it is not."""
        component = source.components()[prefix]
        variant = self.variant(prefix)
        if variant == ():
            return component.module(lane)
        with holding():
            module = component.module(lane, variant, lambda name, weight: self._patched(prefix + name, weight))
        self._put_objects(prefix, module, variant)
        return module

    def _patched(self, key: str, weight: Tensor) -> Tensor:
        found = self.patches.get(key)
        return weight if not found else weight_patches.patched(found, weight, key)

    def _put_objects(self, prefix: str, module: nn.Module, variant: Any) -> None:
        """Put dotted object patches into a variant's own module, once."""
        if getattr(module, "patched_as", None) == variant:
            return
        for name, value in self.object_patches.items():
            if "." in name and name.startswith(prefix):
                owner, _, attribute = name[len(prefix) :].rpartition(".")
                setattr(module.get_submodule(owner), attribute, value)
        module.patched_as = variant
