"""Tangential damping of guidance. Maths: comfy/sampling/variants.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from comfy.nodes.v3 import io
from comfy.sampling import variants


def damp(args: dict[str, Any]) -> list[Tensor]:
    """The negative without its tangential part, before guidance."""
    predictions = list(args["conds_out"])
    if len(predictions) > 1 and args["conds"][1] is not None:
        predictions[1] = variants.tangential(predictions[0], predictions[1], args["input"])
    return predictions


class TCFG(io.ComfyNode):
    """Take from the negative what does not lie along both predictions' common direction."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TCFG",
            display_name="Tangential Damping CFG",
            category="advanced/guidance",
            inputs=[io.Model.Input("model")],
            outputs=[io.Model.Output(display_name="patched_model")],
        )

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        changed = model.clone()
        changed.set_model_sampler_pre_cfg_function(damp)
        return io.NodeOutput(changed)


NODE_CLASS_MAPPINGS = {"TCFG": TCFG}
NODE_DISPLAY_NAME_MAPPINGS = {"TCFG": "Tangential Damping CFG"}
