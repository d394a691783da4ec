"""Steps that reuse the step before. Maths: comfy/sampling/step_cache.py."""

from __future__ import annotations

from typing import Any

from comfy.nodes.v3 import io
from comfy.sampling.step_cache import StepCache


def _schema(node_id: str) -> io.Schema:
    return io.Schema(
        node_id=node_id,
        display_name=node_id,
        category="advanced/debug/model",
        is_experimental=True,
        inputs=[
            io.Model.Input("model"),
            io.Float.Input("reuse_threshold", default=0.2, min=0.0, max=3.0, step=0.01),
            io.Float.Input("start_percent", default=0.15, min=0.0, max=1.0, step=0.01),
            io.Float.Input("end_percent", default=0.95, min=0.0, max=1.0, step=0.01),
            io.Boolean.Input("verbose", default=False),
        ],
        outputs=[io.Model.Output()],
    )


def _cached(model: Any, threshold: float, start_percent: float, end_percent: float, verbose: bool, inside: bool) -> io.NodeOutput:
    sampling = model.get_model_object("model_sampling")
    start, end = (float(sampling.percent_to_sigma(percent)) for percent in (start_percent, end_percent))
    changed = model.clone()
    StepCache(threshold, start, end, verbose).add_to(changed, inside)
    return io.NodeOutput(changed)


class EasyCache(io.ComfyNode):
    """Leaves out evaluations of the network whose result would hardly differ."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("EasyCache")

    @classmethod
    def execute(cls, model: Any, reuse_threshold: float, start_percent: float, end_percent: float, verbose: bool) -> io.NodeOutput:
        return _cached(model, reuse_threshold, start_percent, end_percent, verbose, inside=True)


class LazyCache(io.ComfyNode):
    """The same for whole guided predictions: simpler, and for any model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("LazyCache")

    @classmethod
    def execute(cls, model: Any, reuse_threshold: float, start_percent: float, end_percent: float, verbose: bool) -> io.NodeOutput:
        return _cached(model, reuse_threshold, start_percent, end_percent, verbose, inside=False)


NODES: list[type[io.ComfyNode]] = [EasyCache, LazyCache]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
