"""LoRA files out of differences of models."""

from __future__ import annotations

from typing import Any

from comfy.errors import InputUnusable
from comfy.nodes.results import save_files
from comfy.nodes.v3 import io

KINDS = ["standard", "full_diff"]


class LoraSave(io.ComfyNode):
    """The weights of a difference (ModelMergeSubtract, CLIPMergeSubtract) as a LoRA file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoraSave",
            display_name="Extract and Save Lora",
            category="_for_testing",
            inputs=[
                io.String.Input("filename_prefix", default="loras/ComfyUI_extracted_lora"),
                io.Int.Input("rank", default=8, min=1, max=4096, step=1),
                io.Combo.Input("lora_type", options=KINDS),
                io.Boolean.Input("bias_diff", default=True),
                io.Model.Input("model_diff", optional=True),
                io.Clip.Input("text_encoder_diff", optional=True),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_experimental=True,
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, filename_prefix: str, rank: int, lora_type: str, bias_diff: bool, model_diff: Any = None, text_encoder_diff: Any = None
    ) -> io.NodeOutput:
        from safetensors.torch import save

        from comfy.models.lora.extract import extracted

        if model_diff is None and text_encoder_diff is None:
            raise InputUnusable("There is no difference to extract from: connect a model or a text encoder.", input="model_diff")
        differences: dict[str, Any] = {}
        if model_diff is not None:
            differences |= model_diff.model_state_dict("diffusion_model.")
        if text_encoder_diff is not None:
            differences |= {f"text_encoders.{key}": tensor for key, tensor in text_encoder_diff.get_sd().items()}
        save_files([lambda: save(dict(extracted(differences, lora_type, rank, bias_diff)))], filename_prefix, ".safetensors")
        return io.NodeOutput()


NODES: list[type[io.ComfyNode]] = [LoraSave]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
