"""OptimalSteps as a schedule. Maths: comfy/sampling/published.py."""

from __future__ import annotations

from comfy.nodes.v3 import io
from comfy.sampling import published


class OptimalStepsScheduler(io.ComfyNode):
    """The published list of sigmas for a family of models."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="OptimalStepsScheduler",
            category="sampling/custom_sampling/schedulers",
            inputs=[
                io.Combo.Input("model_type", options=published.OPTIMAL_MODELS),
                io.Int.Input("steps", default=20, min=3, max=1000),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model_type: str, steps: int, denoise: float) -> io.NodeOutput:
        return io.NodeOutput(published.optimal_steps(model_type, steps, denoise))


NODE_CLASS_MAPPINGS = {"OptimalStepsScheduler": OptimalStepsScheduler}
