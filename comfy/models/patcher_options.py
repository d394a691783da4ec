"""The part of a MODEL handle that sampling reads: `model_options`, and the setters by which nodes fill it.

Contract: custom-nodes.md section 6, MODEL object.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from comfy.sampling import extension

Function = Callable[..., Any]


class PatcherOptions:
    """Setters over `self.model_options`. Lists and tables are replaced, not changed, so that clones stay as they were."""

    model_options: dict[str, Any]
    callbacks: dict[str, dict[Any, list[Function]]]
    wrappers: dict[str, dict[Any, list[Function]]]

    # -- guidance ---------------------------------------------------------------------------------------------------------

    def set_model_sampler_cfg_function(self, fn: Function, disable_cfg1_optimization: bool = False) -> None:
        """fn(args) -> guided prediction; the old form fn(cond, uncond, scale) is accepted."""
        if len(inspect.signature(fn).parameters) == 3:
            old = fn
            fn = _three_arguments(old)
        self.model_options["sampler_cfg_function"] = fn
        self._keep_negative(disable_cfg1_optimization)

    def set_model_sampler_post_cfg_function(self, fn: Function, disable_cfg1_optimization: bool = False) -> None:
        """fn(args) -> prediction, after guidance; one more."""
        self._append("sampler_post_cfg_function", fn)
        self._keep_negative(disable_cfg1_optimization)

    def set_model_sampler_pre_cfg_function(self, fn: Function, disable_cfg1_optimization: bool = False) -> None:
        """fn(args) -> list of predictions, before guidance; one more."""
        self._append("sampler_pre_cfg_function", fn)
        self._keep_negative(disable_cfg1_optimization)

    def set_model_sampler_calc_cond_batch_function(self, fn: Function) -> None:
        """fn(args) -> list of predictions, instead of evaluating the entries."""
        self.model_options["sampler_calc_cond_batch_function"] = fn

    def set_model_unet_function_wrapper(self, fn: Function) -> None:
        """fn(apply_model, {"input", "timestep", "c", "cond_or_uncond"}) -> prediction."""
        self.model_options["model_function_wrapper"] = fn

    def set_model_denoise_mask_function(self, fn: Function) -> None:
        """fn(sigma, denoise_mask, extra_options=…) -> mask of the step."""
        self.model_options["denoise_mask_function"] = fn

    def disable_model_cfg1_optimization(self) -> None:
        """Evaluate the negative even at a guidance of 1."""
        self.model_options["disable_cfg1_optimization"] = True

    def set_model_compute_dtype(self, dtype: torch.dtype) -> None:
        """Kept in the options for custom nodes; the lane decides what it computes in."""
        self.model_options["compute_dtype"] = dtype

    def _append(self, name: str, fn: Function) -> None:
        self.model_options[name] = [*self.model_options.get(name, []), fn]

    def _keep_negative(self, wanted: bool) -> None:
        if wanted:
            self.disable_model_cfg1_optimization()

    # -- inside the network -----------------------------------------------------------------------------------------------

    def set_model_patch(self, patch: Function, name: str) -> None:
        """Append `patch` to the network patches called `name`."""
        options = self.model_options["transformer_options"]
        patches = options.get("patches", {})
        options["patches"] = {**patches, name: [*patches.get(name, []), patch]}

    def set_model_patch_replace(
        self, patch: Function, name: str, block_name: str, number: int, transformer_index: int | None = None
    ) -> None:
        """Let `patch` compute `name` of one block: of all its transformer blocks, or of one."""
        options = self.model_options["transformer_options"]
        place = (block_name, number) if transformer_index is None else (block_name, number, transformer_index)
        tables = options.get("patches_replace", {})
        options["patches_replace"] = {**tables, name: {**tables.get(name, {}), place: patch}}

    def set_model_attn1_patch(self, patch: Function) -> None:
        """patch(n, context, value, extra_options) -> the three, before self-attention projects them."""
        self.set_model_patch(patch, "attn1_patch")

    def set_model_attn2_patch(self, patch: Function) -> None:
        """patch(n, context, value, extra_options) -> the three, before cross-attention projects them."""
        self.set_model_patch(patch, "attn2_patch")

    def set_model_attn1_replace(self, patch: Function, block_name: str, number: int, transformer_index: int | None = None) -> None:
        """patch(q, k, v, extra_options) -> the attention's result, before its output projection."""
        self.set_model_patch_replace(patch, "attn1", block_name, number, transformer_index)

    def set_model_attn2_replace(self, patch: Function, block_name: str, number: int, transformer_index: int | None = None) -> None:
        """As `set_model_attn1_replace`, for cross-attention."""
        self.set_model_patch_replace(patch, "attn2", block_name, number, transformer_index)

    def set_model_attn1_output_patch(self, patch: Function) -> None:
        """patch(n, extra_options) -> n, after self-attention."""
        self.set_model_patch(patch, "attn1_output_patch")

    def set_model_attn2_output_patch(self, patch: Function) -> None:
        """patch(n, extra_options) -> n, after cross-attention."""
        self.set_model_patch(patch, "attn2_output_patch")

    def set_model_input_block_patch(self, patch: Function) -> None:
        """patch(h, transformer_options) -> h, after each input block."""
        self.set_model_patch(patch, "input_block_patch")

    def set_model_input_block_patch_after_skip(self, patch: Function) -> None:
        """patch(h, transformer_options) -> h, after the skip tensor was taken."""
        self.set_model_patch(patch, "input_block_patch_after_skip")

    def set_model_output_block_patch(self, patch: Function) -> None:
        """patch(h, skip, transformer_options) -> both, before they are joined."""
        self.set_model_patch(patch, "output_block_patch")

    def set_model_emb_patch(self, patch: Function) -> None:
        """patch(emb, model_channels, transformer_options) -> emb."""
        self.set_model_patch(patch, "emb_patch")

    def set_model_double_block_patch(self, patch: Function) -> None:
        """patch(args) -> args, after each double block of a DiT."""
        self.set_model_patch(patch, "double_block")

    def set_model_post_input_patch(self, patch: Function) -> None:
        """patch(args) -> args, after the inputs of a DiT are embedded."""
        self.set_model_patch(patch, "post_input")

    # -- wrappers and callbacks -------------------------------------------------------------------------------------------

    def add_wrapper(self, wrapper_type: str, wrapper: Function) -> None:
        """`wrapper(executor, *args, **kwargs)` around the calls of one kind."""
        self.add_wrapper_with_key(wrapper_type, None, wrapper)

    def add_wrapper_with_key(self, wrapper_type: str, key: Any, wrapper: Function) -> None:
        self.wrappers.setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)
        extension.add_wrapper_with_key(wrapper_type, key, wrapper, self.model_options, is_model_options=True)

    def remove_wrappers_with_key(self, wrapper_type: str, key: Any) -> None:
        self.wrappers.get(wrapper_type, {}).pop(key, None)
        self.model_options.get("transformer_options", {}).get("wrappers", {}).get(wrapper_type, {}).pop(key, None)

    def get_wrappers(self, wrapper_type: str, key: Any) -> list[Function]:
        return list(self.wrappers.get(wrapper_type, {}).get(key, []))

    def get_all_wrappers(self, wrapper_type: str) -> list[Function]:
        return [fn for fns in self.wrappers.get(wrapper_type, {}).values() for fn in fns]

    def add_callback(self, call_type: str, callback: Function) -> None:
        """`callback(patcher, …)` at the moments of one kind."""
        self.add_callback_with_key(call_type, None, callback)

    def add_callback_with_key(self, call_type: str, key: Any, callback: Function) -> None:
        self.callbacks.setdefault(call_type, {}).setdefault(key, []).append(callback)

    def remove_callbacks_with_key(self, call_type: str, key: Any) -> None:
        self.callbacks.get(call_type, {}).pop(key, None)

    def get_callbacks(self, call_type: str, key: Any) -> list[Function]:
        return list(self.callbacks.get(call_type, {}).get(key, []))

    def get_all_callbacks(self, call_type: str) -> list[Function]:
        return [fn for fns in self.callbacks.get(call_type, {}).values() for fn in fns]


def _three_arguments(fn: Function) -> Function:
    def guided(args: dict[str, Any]) -> Any:
        return fn(args["cond"], args["uncond"], args["cond_scale"])

    return guided
