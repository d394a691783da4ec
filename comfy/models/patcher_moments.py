"""The part of a MODEL handle for packs that change a network in place: injections, callbacks at the moments of a model's
life, and what packs hang on a handle. Contract: custom-nodes.md section 6, MODEL object.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from comfy.models import patches as weight_patches
from comfy.models.patcher_options import PatcherOptions
from comfy.sampling.extension import CallbacksMP, PatcherInjection


class PatcherMoments(PatcherOptions):
    """Injections belong to one handle: its module is a variant of its own, which no other handle and no other lane has."""

    injections: dict[str, list[PatcherInjection]]
    additional_models: dict[str, list[Any]]
    attachments: dict[str, Any]
    is_injected: bool

    def _changed(self) -> None:
        """The handle's weights or code are other ones now."""
        raise TypeError(f"{type(self).__name__} cannot be changed")

    def _call(self, kind: str, *args: Any) -> None:
        for callback in self.get_all_callbacks(kind):
            callback(self, *args)

    def pre_run(self) -> None:
        """Before a sampling: injections go in, callbacks of the kind on_pre_run."""
        self.inject_model()
        self._call(CallbacksMP.ON_PRE_RUN)

    def prepare_state(self, timestep: Any) -> None:
        """Before each step: callbacks of the kind on_prepare_state."""
        self._call(CallbacksMP.ON_PREPARE_STATE, timestep)

    def cleanup(self) -> None:
        """After a sampling: injections come out, callbacks of the kind on_cleanup."""
        self.eject_model()
        self._call(CallbacksMP.ON_CLEANUP)

    def load(self, *args: Any, **kwargs: Any) -> None:
        """Bring the model to the calling lane's device."""
        raise TypeError(f"{type(self).__name__} cannot be brought to a device")

    def patch_weight_to_device(self, key: str, device_to: Any = None, inplace_update: bool = False) -> None:
        """Bring the model, patched, to the lane's device: all of it, since a variant has all of its patches or none."""
        self.load(device_to)

    def calculate_weight(self, patches: Any, weight: Tensor, key: str, intermediate_dtype: torch.dtype = torch.float32) -> Tensor:
        """`weight` with `patches` applied: `comfy.lora.calculate_weight`, by its former name."""
        result: Tensor = weight_patches.calculate_weight(patches, weight, key, intermediate_dtype)
        return result

    def set_injections(self, key: str, injections: list[PatcherInjection]) -> None:
        """Pairs of functions that change the network in place for a sampling, and back."""
        self.injections = {**self.injections, key: injections}
        self._changed()

    def get_injections(self, key: str) -> list[PatcherInjection] | None:
        return self.injections.get(key)

    def remove_injections(self, key: str) -> None:
        if key in self.injections:
            self.injections = {name: value for name, value in self.injections.items() if name != key}
            self._changed()

    def inject_model(self) -> None:
        """Run the injections, once, on this handle's own module."""
        if self.is_injected or not self.injections:
            return
        for injections in self.injections.values():
            for injection in injections:
                injection.inject(self)
                self.is_injected = True
        self._call(CallbacksMP.ON_INJECT_MODEL)

    def eject_model(self) -> None:
        """Undo `inject_model`."""
        if not self.is_injected:
            return
        self.is_injected = False
        for injections in self.injections.values():
            for injection in injections:
                injection.eject(self)
        self._call(CallbacksMP.ON_EJECT_MODEL)

    @contextmanager
    def use_ejected(self, skip_and_inject_on_exit_only: bool = False) -> Iterator[None]:
        """Without the injections inside the block."""
        was_injected = self.is_injected and not skip_and_inject_on_exit_only
        if was_injected:
            self.eject_model()
        try:
            yield
        finally:
            if was_injected or skip_and_inject_on_exit_only:
                self.inject_model()

    def set_additional_models(self, key: str, models: list[Any]) -> None:
        """Further handles that are loaded with this one."""
        self.additional_models = {**self.additional_models, key: models}

    def get_additional_models_with_key(self, key: str) -> list[Any]:
        return self.additional_models.get(key, [])

    def get_additional_models(self) -> list[Any]:
        return [model for models in self.additional_models.values() for model in models]

    def remove_additional_models(self, key: str) -> None:
        self.additional_models.pop(key, None)

    def set_attachments(self, key: str, attachment: Any) -> None:
        """Anything that a pack wants to find on the handle and its clones."""
        self.attachments = {**self.attachments, key: attachment}

    def get_attachment(self, key: str) -> Any:
        return self.attachments.get(key)

    def remove_attachments(self, key: str) -> None:
        self.attachments.pop(key, None)
