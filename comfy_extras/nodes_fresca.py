"""Frequency-scaled guidance. Maths: comfy/sampling/variants.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from comfy.nodes.v3 import io
from comfy.sampling import variants


@dataclass(frozen=True)
class ScaleFrequencies:
    """The positive whose difference from the negative is filtered, before guidance."""

    low: float
    high: float
    cutoff: int

    def __call__(self, args: dict[str, Any]) -> list[Tensor]:
        predictions = list(args["conds_out"])
        if len(predictions) > 1 and args["conds"][1] is not None:
            c, u = predictions[0], predictions[1]
            predictions[0] = variants.frequency_scaled(c - u, self.low, self.high, self.cutoff) + u
        return predictions


class FreSca(io.ComfyNode):
    """Scale low and high frequencies of the guidance apart."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreSca",
            display_name="FreSca",
            category="_for_testing",
            is_experimental=True,
            inputs=[
                io.Model.Input("model"),
                io.Float.Input("scale_low", default=1.0, min=0, max=10, step=0.01, tooltip="Factor of the low frequencies."),
                io.Float.Input("scale_high", default=1.25, min=0, max=10, step=0.01, tooltip="Factor of the high ones."),
                io.Int.Input("freq_cutoff", default=20, min=1, max=10000, step=1, tooltip="Frequencies from the centre that are low."),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, scale_low: float, scale_high: float, freq_cutoff: int) -> io.NodeOutput:
        changed = model.clone()
        changed.set_model_sampler_pre_cfg_function(ScaleFrequencies(scale_low, scale_high, freq_cutoff))
        return io.NodeOutput(changed)


NODE_CLASS_MAPPINGS = {"FreSca": FreSca}
NODE_DISPLAY_NAME_MAPPINGS = {"FreSca": "FreSca"}
