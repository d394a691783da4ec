"""A V3 pack: no class mappings, an asynchronous entry point, nodes over a pinned version of the API."""

from __future__ import annotations

from comfy_api.v0_0_2 import ComfyAPISync, ComfyExtension, io, ui


class NewstyleCount(io.ComfyNode):
    """Counts with progress through the blocking API."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NewstyleCount",
            display_name="Count",
            category="newstyle",
            inputs=[io.Int.Input("n", default=3, min=1, max=9), io.Combo.Input("how", options=["up", "down"])],
            outputs=[io.Int.Output("last")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, n: int, how: str) -> io.NodeOutput:
        api = ComfyAPISync()
        numbers = list(range(1, n + 1))
        for value in numbers:
            api.execution.set_progress(value, n)
        last = numbers[-1 if how == "up" else 0]
        return io.NodeOutput(last, ui=ui.PreviewText(f"{cls.hidden.unique_id}: {last}"))


class NewstyleExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [NewstyleCount]


async def comfy_entrypoint() -> NewstyleExtension:
    return NewstyleExtension()
