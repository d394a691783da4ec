"""Options of a text encoder's tokenizer."""

from __future__ import annotations

from typing import Any

from comfy.nodes.v3 import io

#: the T5 tokenizers of the families (contract: models.md section 6); each has its own options, named after it
T5_STREAMS = ("t5xxl", "umt5xxl", "umt5base", "pile_t5xl")


class T5TokenizerOptions(io.ComfyNode):
    """Pad T5 prompts to a length. Encoders of other kinds take no notice."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="T5TokenizerOptions",
            category="_for_testing/conditioning",
            is_experimental=True,
            inputs=[
                io.Clip.Input("clip"),
                io.Int.Input("min_padding", default=0, min=0, max=10000, step=1),
                io.Int.Input("min_length", default=0, min=0, max=10000, step=1),
            ],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, clip: Any, min_padding: int, min_length: int) -> io.NodeOutput:
        changed = clip.clone()
        for stream in T5_STREAMS:
            changed.set_tokenizer_option(f"{stream}_min_padding", min_padding)
            changed.set_tokenizer_option(f"{stream}_min_length", min_length)
        return io.NodeOutput(changed)


NODES: list[type[io.ComfyNode]] = [T5TokenizerOptions]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
