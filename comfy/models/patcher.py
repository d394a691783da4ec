"""The MODEL object: a description of a model with patches and options, and no weights. Valid on any lane.

Contract: custom-nodes.md section 6, MODEL object. `model` is a property over the calling lane; two lanes never share a
module, so what a custom node assigns inside one stays there (parallel-hazards.md item 25).
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from comfy.device import context
from comfy.device.context import DeviceContext
from comfy.models import patches as weight_patches
from comfy.models.changes import NOTHING, Changes, Source
from comfy.models.component import network_shapes
from comfy.models.patcher_moments import PatcherMoments
from comfy.models.plain import PlainModule
from comfy.sampling.extension import CallbacksMP, PatcherInjection, copy_nested_dicts

CPU = torch.device("cpu")


class ModelPatcher(PatcherMoments):
    """A model's source, changes to its weights, and options for sampling.

    patches         weight key -> [(strength_patch, value, strength_model, offset, function)], never changed in place
    object_patches  dotted name -> object in its place
    patches_uuid    names the changes: equal ones mean equal weights and modules
    """

    def __init__(
        self, model: Any, load_device: Any = None, offload_device: Any = None, size: int = 0, weight_inplace_update: bool = False
    ) -> None:
        """`model`: a Source, the `.model` of another handle, or a plain nn.Module. The devices are accepted: a lane decides."""
        self.source: Source | None = model if hasattr(model, "components") else getattr(model, "source", None)
        self._module = None if self.source is not None else model
        self._plain = PlainModule(self._module)
        self._given_devices = (load_device, offload_device)
        self.size = size
        self.weight_inplace_update = weight_inplace_update
        self.patches: weight_patches.Patches = {}
        self.object_patches: dict[str, Any] = {}
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.patches_uuid = NOTHING
        self.parent: ModelPatcher | None = None
        self.backup: dict[str, Any] = {}
        self.object_patches_backup: dict[str, Any] = {}
        self.hook_patches: dict[Any, Any] = {}
        self.callbacks = {}
        self.wrappers = {}
        self.attachments: dict[str, Any] = {}
        self.injections: dict[str, list[PatcherInjection]] = {}
        self.additional_models: dict[str, list[ModelPatcher]] = {}
        self.is_injected = False
        self._views: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    # -- the model on this lane -------------------------------------------------------------------------------------------

    @property
    def model(self) -> Any:
        """The model as the calling lane has it; outside a lane everything of it but its network."""
        if self.source is None:
            return self._plain.on(context.current_or_none())
        lane = context.current_or_none() or _NO_LANE
        view = self._views.get(lane)
        if view is None:
            view = self._views[lane] = self.source.view(self.changes())
            for name, value in self.object_patches.items():
                if "." not in name:
                    setattr(view, name, value)
        return view

    @property
    def load_device(self) -> torch.device:
        """Where the model runs: the calling lane's device. A plain module that was made for the CPU stays there."""
        lane, given = context.current_or_none(), self._given_devices[0]
        if self.source is None and given is not None and torch.device(given).type == "cpu":
            return CPU
        return lane.device if lane is not None else self._given_devices[0] or CPU

    @property
    def offload_device(self) -> torch.device:
        """Where weights rest when no lane uses them."""
        return CPU

    def changes(self) -> Changes:
        """What this handle changes, as a value of its own."""
        return Changes(dict(self.patches), dict(self.object_patches), self.patches_uuid, bool(self.injections))

    def network(self, prefix: str, lane: DeviceContext) -> nn.Module:
        """The network under `prefix` on `lane`, with this handle's patches in it."""
        assert self.source is not None
        return self.changes().network(self.source, prefix, lane)

    def _changed(self) -> None:
        self.patches_uuid = uuid.uuid4()
        self._views = weakref.WeakKeyDictionary()

    def name_changes(self, before: uuid.UUID, *facts: Any) -> None:
        """Name the changes since `before` by what they were made of, so that the same ones, made again, find the same weights."""
        self.patches_uuid = uuid.uuid5(before, repr(facts))
        self._views = weakref.WeakKeyDictionary()

    # -- copies -----------------------------------------------------------------------------------------------------------

    def clone(self) -> Any:
        """An equal handle whose patches and options can be changed alone. Callbacks of the kind on_clone see both."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        for name in ("patches", "object_patches", "backup", "object_patches_backup", "hook_patches", "attachments"):
            setattr(other, name, dict(getattr(self, name)))
        for name in ("model_options", "callbacks", "wrappers", "injections", "additional_models"):
            setattr(other, name, copy_nested_dicts(getattr(self, name)))
        other.parent = self
        other.is_injected = False
        other._views = weakref.WeakKeyDictionary()
        for callback in self.get_all_callbacks(CallbacksMP.ON_CLONE):
            callback(self, other)
        return other

    def is_clone(self, other: Any) -> bool:
        """Whether both come from one model, whatever their patches."""
        if self.source is None:
            return getattr(other, "_module", None) is self._module
        return getattr(other, "source", None) == self.source

    def clone_has_same_weights(self, clone: Any) -> bool:
        """Whether the weights of both are equal."""
        return self.is_clone(clone) and self.patches_uuid == clone.patches_uuid

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in ("_views", "parent", "_plain")}
        return {**state, "_given_devices": (None, None)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _views=weakref.WeakKeyDictionary(), parent=None, _plain=PlainModule(state["_module"]))

    # -- changes ----------------------------------------------------------------------------------------------------------

    def add_patches(self, patches: Mapping[Any, Any], strength_patch: float = 1.0, strength_model: float = 1.0) -> list[Any]:
        """Append `patches`, key or (key, offset[, function]) -> value; returns the keys that the model has."""
        taken = weight_patches.add_to(self.patches, patches, strength_patch, strength_model, self._has_weight)
        self._changed()
        return taken

    def add_object_patch(self, name: str, obj: Any) -> None:
        """Let `obj` stand for the attribute `name` of the model."""
        self.object_patches[name] = obj
        self._changed()

    def get_model_object(self, name: str) -> Any:
        """The attribute `name` (dotted) of the calling lane's model, object patches considered. AttributeError."""
        if name in self.object_patches:
            return self.object_patches[name]
        found = self.model
        for part in name.split("."):
            found = found[int(part)] if part.isdigit() and hasattr(found, "__getitem__") else getattr(found, part)
        return found

    def _has_weight(self, key: str) -> bool:
        if self.source is None:
            return key in self._module.state_dict()  # type: ignore[union-attr]
        for prefix, component in self.source.components().items():
            if key.startswith(prefix) and key[len(prefix) :] in network_shapes(component.config):
                return True
        return False

    # -- weights ----------------------------------------------------------------------------------------------------------

    def model_state_dict(self, filter_prefix: str | None = None) -> dict[str, Tensor]:
        """Weight key -> the calling lane's tensor: views, never to be written to."""
        if self.source is None:
            found = self._module.state_dict()  # type: ignore[union-attr]
        else:
            lane = context.current()
            found = {}
            for prefix in self.source.components():
                found |= {prefix + name: tensor for name, tensor in self.network(prefix, lane).state_dict().items()}
        return {key: tensor for key, tensor in found.items() if filter_prefix is None or key.startswith(filter_prefix)}

    def get_key_patches(self, filter_prefix: str | None = None) -> dict[str, list[Any]]:
        """Weight key -> [the unpatched weight, by name, then the patches of it]: what another model can be patched with."""
        found: dict[str, list[Any]] = {}
        if self.source is None:
            return {key: [tensor, *self.patches.get(key, [])] for key, tensor in self.model_state_dict(filter_prefix).items()}
        for prefix, component in self.source.components().items():
            for name in network_shapes(component.config):
                key = prefix + name
                if filter_prefix is None or key.startswith(filter_prefix):
                    found[key] = [weight_patches.WeightRef(component, name), *self.patches.get(key, [])]
        return found

    def model_size(self) -> int:
        """Bytes of the weights as the calling lane runs them."""
        if self.size or self.source is None:
            return self.size or sum(tensor.nbytes for tensor in self._module.state_dict().values())  # type: ignore[union-attr]
        lane = context.current_or_none()
        return sum(c.nbytes(lane.run_dtype(c.dtypes) if lane else c.dtypes[0]) for c in self.source.components().values())

    def loaded_size(self) -> int:
        """Bytes of the weights on the calling lane's device; all or nothing."""
        lane = context.current_or_none()
        if self.source is None:
            return self.model_size() if self._plain.is_on(lane) else 0
        if lane is None:
            return 0
        names = {component.file.name for component in self.source.components().values()}
        return self.model_size() if names <= lane.holds() else 0

    def model_dtype(self) -> torch.dtype:
        """The dtype that the model computes in on the calling lane."""
        return self.model.get_dtype()

    def memory_required(self, input_shape: Any) -> int:
        """Bytes of activations for an input of this shape."""
        return self.model.memory_required(input_shape)

    def current_loaded_device(self) -> torch.device:
        """Where the model is, or will be when it is used."""
        return self.load_device

    # -- moments ----------------------------------------------------------------------------------------------------------

    def load(self, *args: Any, **kwargs: Any) -> None:
        """Bring the model to the calling lane's device."""
        if self.source is not None:
            lane = context.current()
            for prefix in self.source.components():
                self.network(prefix, lane)
        elif (place := context.current_or_none()) is not None and self.load_device == place.device and isinstance(self._module, nn.Module):
            self._plain.bring(place, place.device)
        self._call(CallbacksMP.ON_LOAD, *args)

    def leave_device(self) -> None:
        """Give the calling lane's device free of a plain module; the lane drops weights of files by itself."""
        self._plain.leave(context.current_or_none())

    def patch_model(
        self, device_to: Any = None, lowvram_model_memory: int = 0, load_weights: bool = True, force_patch_weights: bool = False
    ) -> Any:
        """The calling lane's model, patched."""
        if load_weights:
            self.load(device_to, lowvram_model_memory, force_patch_weights, False)
        return self.model

    def partially_load(self, device_to: Any, extra_memory: int = 0, force_patch_weights: bool = False) -> int:
        """Bring all of the model to the lane's device; returns its bytes."""
        self.load(device_to, extra_memory, force_patch_weights, False)
        return self.model_size()

    def partially_unload(self, device_to: Any, memory_to_free: int = 0) -> int:
        """Nothing: the lane drops whole models when it needs room."""
        return 0

    def unpatch_model(self, device_to: Any = None, unpatch_weights: bool = True) -> None:
        """Nothing: patched weights belong to this handle's variant alone."""
        self.eject_model()

    def detach(self, unpatch_all: bool = True) -> Any:
        """Take injections out; returns the model. A plain module leaves the device."""
        self.eject_model()
        self.leave_device()
        self._call(CallbacksMP.ON_DETACH, unpatch_all)
        return self.model

    def pre_run(self) -> None:
        """Before a sampling: the lane's model learns whose it is; see `PatcherMoments`."""
        if self.source is not None:
            self.model.current_patcher = self
        super().pre_run()

    def cleanup(self) -> None:
        """After a sampling, the reverse."""
        if self.source is not None:
            self.model.current_patcher = None
            if hasattr(self.model, "apply_hooks"):
                self.model.apply_hooks(None)
        super().cleanup()

    def add_weight_wrapper(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        """Let `function` change the weight `name` each time the model is brought to a device."""
        self.patches[name] = [*self.patches.get(name, []), (1.0, _Function(function), 1.0, None, None)]
        self._changed()


class _Function:
    """A weight wrapper in the shape of an adapter."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function

    def calculate_weight(self, weight: Tensor, *args: Any) -> Tensor:
        return self._function(weight)


class _NoLane:
    """Stands for the lane in threads that belong to none."""


_NO_LANE = _NoLane()
