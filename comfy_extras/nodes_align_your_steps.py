"""AlignYourSteps as a schedule. Maths: comfy/sampling/published.py."""

from __future__ import annotations

from comfy.nodes.v3 import io
from comfy.sampling import published


class AlignYourStepsScheduler(io.ComfyNode):
    """The published list of sigmas for a family of models."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlignYourStepsScheduler",
            category="sampling/custom_sampling/schedulers",
            inputs=[
                io.Combo.Input("model_type", options=published.ALIGNED_MODELS),
                io.Int.Input("steps", default=10, min=1, max=10000),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model_type: str, steps: int, denoise: float) -> io.NodeOutput:
        return io.NodeOutput(published.align_your_steps(model_type, steps, denoise))


NODE_CLASS_MAPPINGS = {"AlignYourStepsScheduler": AlignYourStepsScheduler}
