"""Perp-Neg guidance with an empty conditioning. Maths: comfy/sampling/variants.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from comfy.nodes.conventions import Conditioning
from comfy.nodes.v3 import io
from comfy.sampling import variants
from comfy.sampling.guidance import calc_cond_batch
from comfy.sampling.guider import CFGGuider
from comfy.sampling.prepare import convert_cond, process_conds


class Rule:
    """Perp-Neg in place of plain guidance; the empty conditioning is evaluated beside the two."""

    def __init__(self, empty: Conditioning, neg_scale: float) -> None:
        self.empty, self.neg_scale = convert_cond(empty), neg_scale

    def __call__(self, args: dict[str, Any]) -> Tensor:
        x: Tensor = args["input"]
        model = args["model"]
        ready = process_conds(model, x, {"negative": self.empty}, x.device)
        (e,) = calc_cond_batch(model, [ready["negative"]], x, args["sigma"], args["model_options"])
        c, u = args["cond_denoised"], args["uncond_denoised"]
        return x - variants.perpendicular_negative(c, u, e, args["cond_scale"], self.neg_scale)


class PerpNegCore(CFGGuider):
    """Positive, negative and empty conditioning, evaluated together."""

    def set_perp_conds(self, positive: Conditioning, negative: Conditioning, empty: Conditioning) -> None:
        """Take the three conditionings."""
        self.inner_set_conds({"positive": positive, "empty_negative_prompt": empty, "negative": negative})

    def set_perp_cfg(self, cfg: float, neg_scale: float) -> None:
        """Set the scale of the guidance, and the negative's share of it."""
        self.cfg, self.neg_scale = cfg, neg_scale

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None) -> Tensor:
        options = model_options or {}
        positive, negative = self.conds.get("positive"), self.conds.get("negative")
        empty = self.conds.get("empty_negative_prompt")
        c, u, e = calc_cond_batch(self.inner_model, [positive, negative, empty], x, timestep, options)
        result = variants.perpendicular_negative(c, u, e, self.cfg, self.neg_scale)
        for function in options.get("sampler_post_cfg_function", []):
            args = {"denoised": result, "cond": positive, "uncond": negative, "empty_cond": empty, "cond_scale": self.cfg}
            args.update(model=self.inner_model, cond_denoised=c, uncond_denoised=u, empty_cond_denoised=e)
            result = function({**args, "sigma": timestep, "model_options": options, "input": x})
        return result


class PerpNeg(io.ComfyNode):
    """Perp-Neg on a model; the guider does the same in one batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PerpNeg",
            display_name="Perp-Neg (DEPRECATED by PerpNegGuider)",
            category="_for_testing",
            is_experimental=True,
            is_deprecated=True,
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("empty_conditioning"),
                io.Float.Input("neg_scale", default=1.0, min=0.0, max=100.0, step=0.01),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, empty_conditioning: Conditioning, neg_scale: float) -> io.NodeOutput:
        changed = model.clone()
        changed.set_model_sampler_cfg_function(Rule(empty_conditioning, neg_scale))
        return io.NodeOutput(changed)


class PerpNegGuider(io.ComfyNode):
    """A guider with Perp-Neg."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PerpNegGuider",
            category="_for_testing",
            is_experimental=True,
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Conditioning.Input("empty_conditioning"),
                io.Float.Input("cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01),
                io.Float.Input("neg_scale", default=1.0, min=0.0, max=100.0, step=0.01),
            ],
            outputs=[io.Guider.Output()],
        )

    @classmethod
    def execute(
        cls, model: Any, positive: Conditioning, negative: Conditioning, empty_conditioning: Conditioning, cfg: float, neg_scale: float
    ) -> io.NodeOutput:
        guider = PerpNegCore(model)
        guider.set_perp_conds(positive, negative, empty_conditioning)
        guider.set_perp_cfg(cfg, neg_scale)
        return io.NodeOutput(guider)


NODE_CLASS_MAPPINGS = {"PerpNeg": PerpNeg, "PerpNegGuider": PerpNegGuider}
NODE_DISPLAY_NAME_MAPPINGS = {"PerpNeg": "Perp-Neg (DEPRECATED by PerpNegGuider)"}
