"""Samplers with a node of their own. Maths: comfy/k_diffusion/variants.py."""

from __future__ import annotations

from comfy.k_diffusion import variants
from comfy.nodes.v3 import io
from comfy.sampling.sampler import KSAMPLER, ksampler


class SamplerLCMUpscale(io.ComfyNode):
    """LCM with latents that grow on the way."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SamplerLCMUpscale",
            category="sampling/custom_sampling/samplers",
            inputs=[
                io.Float.Input("scale_ratio", default=1.0, min=0.1, max=20.0, step=0.01),
                io.Int.Input("scale_steps", default=-1, min=-1, max=1000, step=1),
                io.Combo.Input("upscale_method", options=["bislerp", "nearest-exact", "bilinear", "area", "bicubic"]),
            ],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, scale_ratio: float, scale_steps: int, upscale_method: str) -> io.NodeOutput:
        options = {
            "total_upscale": scale_ratio,
            "upscale_steps": None if scale_steps < 0 else scale_steps,
            "upscale_method": upscale_method,
        }
        return io.NodeOutput(KSAMPLER(variants.sample_lcm_upscale, options))


class SamplerEulerCFGpp(io.ComfyNode):
    """Euler with CFG++."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SamplerEulerCFGpp",
            display_name="SamplerEulerCFG++",
            category="_for_testing",
            is_experimental=True,
            inputs=[io.Combo.Input("version", options=["regular", "alternative"])],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, version: str) -> io.NodeOutput:
        if version == "alternative":
            return io.NodeOutput(KSAMPLER(variants.sample_euler_cfg_pp_alternative))
        return io.NodeOutput(ksampler("euler_cfg_pp"))


NODE_CLASS_MAPPINGS = {"SamplerLCMUpscale": SamplerLCMUpscale, "SamplerEulerCFGpp": SamplerEulerCFGpp}
NODE_DISPLAY_NAME_MAPPINGS = {"SamplerEulerCFGpp": "SamplerEulerCFG++"}
