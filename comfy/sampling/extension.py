"""Hook points around sampling: wrappers, callbacks and injections that packs add to a MODEL by type and key.

A wrapper is `fn(executor, *args, **kwargs)` and calls `executor(*args, **kwargs)` for what it wraps; wrappers of one
type nest in the order they were added, the first outermost. They live in a transformer_options dict under "wrappers",
callbacks under "callbacks" (contract: custom-nodes.md, comfy.patcher_extension).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class CallbacksMP:
    """Moments of a MODEL's life at which callbacks run."""

    ON_CLONE = "on_clone"
    ON_LOAD = "on_load_after"
    ON_DETACH = "on_detach_after"
    ON_CLEANUP = "on_cleanup"
    ON_PRE_RUN = "on_pre_run"
    ON_PREPARE_STATE = "on_prepare_state"
    ON_APPLY_HOOKS = "on_apply_hooks"
    ON_REGISTER_ALL_HOOK_PATCHES = "on_register_all_hook_patches"
    ON_INJECT_MODEL = "on_inject_model"
    ON_EJECT_MODEL = "on_eject_model"

    @classmethod
    def init_callbacks(cls) -> dict[str, dict[Any, list[Callable[..., Any]]]]:
        """An empty collection."""
        return {}


class WrappersMP:
    """Calls that wrappers can stand around; each value is the lower-case name."""

    OUTER_SAMPLE = "outer_sample"
    PREPARE_SAMPLING = "prepare_sampling"
    SAMPLER_SAMPLE = "sampler_sample"
    PREDICT_NOISE = "predict_noise"
    CALC_COND_BATCH = "calc_cond_batch"
    APPLY_MODEL = "apply_model"
    DIFFUSION_MODEL = "diffusion_model"

    @classmethod
    def init_wrappers(cls) -> dict[str, dict[Any, list[Callable[..., Any]]]]:
        """An empty collection."""
        return {}


class WrapperExecutor:
    """A call with wrappers around it. `executor(...)` inside wrapper i runs wrapper i + 1, and at last the original."""

    def __init__(self, original: Callable[..., Any], class_obj: Any, wrappers: list[Callable[..., Any]], idx: int = 0) -> None:
        self.original = original
        #: the object that the original is a method of, or None
        self.class_obj = class_obj
        self.wrappers = list(wrappers)
        self.idx = idx
        self.is_last = idx == len(self.wrappers)

    @classmethod
    def new_executor(cls, original: Callable[..., Any], wrappers: list[Callable[..., Any]], idx: int = 0) -> WrapperExecutor:
        """Around a function."""
        return cls(original, None, wrappers, idx)

    @classmethod
    def new_class_executor(
        cls, original: Callable[..., Any], class_obj: Any, wrappers: list[Callable[..., Any]], idx: int = 0
    ) -> WrapperExecutor:
        """Around a bound method of `class_obj`."""
        return cls(original, class_obj, wrappers, idx)

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Run this executor's wrapper, or the original when none is left."""
        if self.is_last:
            return self.original(*args, **kwargs)
        return self.wrappers[self.idx](self._next(), *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What a wrapper calls: the executor that it was given already stands one further."""
        return self.execute(*args, **kwargs)

    def _next(self) -> WrapperExecutor:
        return type(self)(self.original, self.class_obj, self.wrappers, self.idx + 1)


class PatcherInjection:
    """A pair of functions that change a model in place for a sampling, and back; each is given the patcher."""

    def __init__(self, inject: Callable[[Any], None], eject: Callable[[Any], None]) -> None:
        self.inject = inject
        self.eject = eject


def add_wrapper_with_key(kind: str, key: Any, wrapper: Callable[..., Any], options: dict[str, Any], is_model_options: bool = False) -> None:
    """Append `wrapper` of type `kind` under `key`; `options` are transformer_options, or the model_options that hold them."""
    _add("wrappers", kind, key, wrapper, options, is_model_options)


def add_callback_with_key(
    kind: str, key: Any, callback: Callable[..., Any], options: dict[str, Any], is_model_options: bool = False
) -> None:
    """Append `callback` of type `kind` under `key`."""
    _add("callbacks", kind, key, callback, options, is_model_options)


def add_wrapper(kind: str, wrapper: Callable[..., Any], options: dict[str, Any], is_model_options: bool = False) -> None:
    """Append `wrapper` without a key."""
    add_wrapper_with_key(kind, None, wrapper, options, is_model_options)


def add_callback(kind: str, callback: Callable[..., Any], options: dict[str, Any], is_model_options: bool = False) -> None:
    """Append `callback` without a key."""
    add_callback_with_key(kind, None, callback, options, is_model_options)


def get_wrappers_with_key(kind: str, key: Any, options: dict[str, Any], is_model_options: bool = False) -> list[Callable[..., Any]]:
    """The wrappers of type `kind` under `key`."""
    return list(_stored("wrappers", kind, options, is_model_options).get(key, []))


def get_all_wrappers(kind: str, options: dict[str, Any], is_model_options: bool = False) -> list[Callable[..., Any]]:
    """The wrappers of type `kind` of every key, in order."""
    return [fn for fns in _stored("wrappers", kind, options, is_model_options).values() for fn in fns]


def get_callbacks_with_key(kind: str, key: Any, options: dict[str, Any], is_model_options: bool = False) -> list[Callable[..., Any]]:
    """The callbacks of type `kind` under `key`."""
    return list(_stored("callbacks", kind, options, is_model_options).get(key, []))


def get_all_callbacks(kind: str, options: dict[str, Any], is_model_options: bool = False) -> list[Callable[..., Any]]:
    """The callbacks of type `kind` of every key, in order."""
    return [fn for fns in _stored("callbacks", kind, options, is_model_options).values() for fn in fns]


def _stored(what: str, kind: str, options: dict[str, Any], is_model_options: bool) -> dict[Any, list[Callable[..., Any]]]:
    if is_model_options:
        options = options.get("transformer_options", {})
    found: dict[Any, list[Callable[..., Any]]] = options.get(what, {}).get(kind, {})
    return found


def _add(what: str, kind: str, key: Any, fn: Callable[..., Any], options: dict[str, Any], is_model_options: bool) -> None:
    if is_model_options:
        options = options.setdefault("transformer_options", {})
    options.setdefault(what, {}).setdefault(kind, {}).setdefault(key, []).append(fn)


def copy_nested_dicts(nested: dict[Any, Any]) -> dict[Any, Any]:
    """A copy in which every dict and list is new, at any depth, and every other value is the same object."""

    def copied(value: Any) -> Any:
        if isinstance(value, dict):
            return copy_nested_dicts(value)
        return list(value) if isinstance(value, list) else value

    return {key: copied(value) for key, value in nested.items()}


def merge_nested_dicts(first: dict[Any, Any], second: dict[Any, Any], copy_dict1: bool = True) -> dict[Any, Any]:
    """`second` laid over `first`: dicts are merged, lists appended, other values replaced."""
    merged = copy_nested_dicts(first) if copy_dict1 else first
    for key, value in second.items():
        if isinstance(value, dict):
            here = merged.get(key)
            merged[key] = merge_nested_dicts(here if isinstance(here, dict) else {}, value)
        elif isinstance(value, list):
            here = merged.get(key)
            merged[key] = [*here, *value] if isinstance(here, list) else list(value)
        else:
            merged[key] = value
    return merged
