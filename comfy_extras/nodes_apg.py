"""Adaptive projected guidance. Sadat et al. 2024, arXiv:2410.02416. Maths: comfy/sampling/variants.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from comfy.nodes.v3 import io
from comfy.sampling import variants
from comfy.sampling.host import host_value


class Projection:
    """The rule with its running average, which starts anew when sigma rises: at the next run."""

    def __init__(self, eta: float, norm_threshold: float, momentum: float) -> None:
        self.eta, self.norm_threshold, self.momentum = eta, norm_threshold, momentum
        self._average: Tensor | None = None
        self._sigma = 0.0

    def __call__(self, args: dict[str, Any]) -> list[Tensor]:
        predictions = list(args["conds_out"])
        if len(predictions) < 2 or args["conds"][1] is None or not args["cond_scale"]:
            return predictions
        c, u = predictions[0], predictions[1]
        delta = self._averaged(c - u, host_value(args["sigma"]))
        changed = variants.projected_difference(delta, c, self.eta, self.norm_threshold)
        predictions[0] = u + changed + (c - u) / args["cond_scale"]
        return predictions

    def _averaged(self, delta: Tensor, sigma: float) -> Tensor:
        if self.momentum != 0:
            if self._average is not None and sigma <= self._sigma and self._average.shape == delta.shape:
                delta = delta + self.momentum * self._average
            self._average = delta
        self._sigma = sigma
        return delta

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_average": None}


class APG(io.ComfyNode):
    """Guidance without the part along the positive prediction that oversaturates."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        momentum_tooltip = "How much of the difference of earlier steps is added; 0 for none."
        return io.Schema(
            node_id="APG",
            display_name="Adaptive Projected Guidance",
            category="sampling/custom_sampling",
            inputs=[
                io.Model.Input("model"),
                io.Float.Input("eta", default=1.0, min=-10.0, max=10.0, step=0.01, tooltip="Scale of the parallel part."),
                io.Float.Input("norm_threshold", default=5.0, min=0.0, max=50.0, step=0.1, tooltip="Longest difference; 0 for any."),
                io.Float.Input("momentum", default=0.0, min=-5.0, max=1.0, step=0.01, tooltip=momentum_tooltip),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, eta: float, norm_threshold: float, momentum: float) -> io.NodeOutput:
        changed = model.clone()
        changed.set_model_sampler_pre_cfg_function(Projection(eta, norm_threshold, momentum))
        return io.NodeOutput(changed)


NODE_CLASS_MAPPINGS = {"APG": APG}
NODE_DISPLAY_NAME_MAPPINGS = {"APG": "Adaptive Projected Guidance"}
