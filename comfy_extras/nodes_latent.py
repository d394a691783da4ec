"""Nodes that calculate with latents. Maths: comfy/pixels/latents.py; rules: goldens README, sections C and G."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from comfy.nodes.conventions import MAX_RESOLUTION, Latent, with_samples
from comfy.nodes.v3 import io
from comfy.pixels import latents
from comfy.pixels.batch import latent_like

#: called as operation(latent=tensor) -> tensor
Operation = Callable[..., torch.Tensor]


def _two_latents(node_id: str, category: str = "latent/advanced", *more: Any) -> io.Schema:
    return io.Schema(
        node_id=node_id,
        category=category,
        inputs=[io.Latent.Input("samples1"), io.Latent.Input("samples2"), *more],
        outputs=[io.Latent.Output()],
    )


class LatentAdd(io.ComfyNode):
    """a + b, the second resized and repeated to the first."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _two_latents("LatentAdd")

    @classmethod
    def execute(cls, samples1: Latent, samples2: Latent) -> io.NodeOutput:
        a = samples1["samples"]
        return io.NodeOutput(with_samples(samples1, a + latent_like(a, samples2["samples"])))


class LatentSubtract(io.ComfyNode):
    """a - b, the second resized and repeated to the first."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _two_latents("LatentSubtract")

    @classmethod
    def execute(cls, samples1: Latent, samples2: Latent) -> io.NodeOutput:
        a = samples1["samples"]
        return io.NodeOutput(with_samples(samples1, a - latent_like(a, samples2["samples"])))


class LatentMultiply(io.ComfyNode):
    """A latent times a number."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentMultiply",
            category="latent/advanced",
            inputs=[io.Latent.Input("samples"), io.Float.Input("multiplier", default=1.0, min=-10.0, max=10.0, step=0.01)],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, samples: Latent, multiplier: float) -> io.NodeOutput:
        return io.NodeOutput(with_samples(samples, samples["samples"] * multiplier))


class LatentInterpolate(io.ComfyNode):
    """Between two latents: directions and lengths apart."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        ratio = io.Float.Input("ratio", default=1.0, min=0.0, max=1.0, step=0.01)
        return _two_latents("LatentInterpolate", "latent/advanced", ratio)

    @classmethod
    def execute(cls, samples1: Latent, samples2: Latent, ratio: float) -> io.NodeOutput:
        mixed = latents.interpolate(samples1["samples"], samples2["samples"], ratio)
        return io.NodeOutput(with_samples(samples1, mixed))


class LatentConcat(io.ComfyNode):
    """Two latents side by side."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        dim = io.Combo.Input("dim", options=["x", "-x", "y", "-y", "t", "-t"])
        return _two_latents("LatentConcat", "latent/advanced", dim)

    @classmethod
    def execute(cls, samples1: Latent, samples2: Latent, dim: str) -> io.NodeOutput:
        joined = latents.concat(samples1["samples"], samples2["samples"], dim)
        return io.NodeOutput(with_samples(samples1, joined))


class LatentCut(io.ComfyNode):
    """A slice of a latent along one axis."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCut",
            category="latent/advanced",
            inputs=[
                io.Latent.Input("samples"),
                io.Combo.Input("dim", options=["x", "y", "t"]),
                io.Int.Input("index", default=0, min=-MAX_RESOLUTION, max=MAX_RESOLUTION, step=1),
                io.Int.Input("amount", default=1, min=1, max=MAX_RESOLUTION, step=1),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, samples: Latent, dim: str, index: int, amount: int) -> io.NodeOutput:
        return io.NodeOutput(with_samples(samples, latents.cut(samples["samples"], dim, index, amount)))


class LatentBatch(io.ComfyNode):
    """Two batches as one; each item keeps its noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _two_latents("LatentBatch", "latent/batch")

    @classmethod
    def execute(cls, samples1: Latent, samples2: Latent) -> io.NodeOutput:
        a, b = samples1["samples"], samples2["samples"]
        joined = with_samples(samples1, torch.cat((a, latent_like(a, b, repeat_batch=False)), dim=0))
        numbers = [list(one.get("batch_index") or range(one["samples"].shape[0])) for one in (samples1, samples2)]
        joined["batch_index"] = numbers[0] + numbers[1]
        return io.NodeOutput(joined)


class LatentBatchSeedBehavior(io.ComfyNode):
    """Whether the items of a batch get noise of their own, or all the first one's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentBatchSeedBehavior",
            category="latent/advanced",
            inputs=[io.Latent.Input("samples"), io.Combo.Input("seed_behavior", options=["random", "fixed"], default="fixed")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, samples: Latent, seed_behavior: str) -> io.NodeOutput:
        changed = dict(samples)
        numbers = changed.pop("batch_index", None)
        if seed_behavior == "fixed":
            changed["batch_index"] = [numbers[0] if numbers else 0] * samples["samples"].shape[0]
        return io.NodeOutput(changed)


class LatentApplyOperation(io.ComfyNode):
    """Run an operation on a latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentApplyOperation",
            category="latent/advanced/operations",
            is_experimental=True,
            inputs=[io.Latent.Input("samples"), io.LatentOperation.Input("operation")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, samples: Latent, operation: Operation) -> io.NodeOutput:
        return io.NodeOutput(with_samples(samples, operation(latent=samples["samples"])))


class LatentApplyOperationCFG(io.ComfyNode):
    """Run an operation on what guidance adds: on c - u before it is scaled (goldens README, D.1)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentApplyOperationCFG",
            category="latent/advanced/operations",
            is_experimental=True,
            inputs=[io.Model.Input("model"), io.LatentOperation.Input("operation")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, operation: Operation) -> io.NodeOutput:
        def before_guidance(args: dict[str, Any]) -> list[torch.Tensor]:
            predictions = list(args["conds_out"])
            if len(predictions) == 2:
                predictions[0] = operation(latent=predictions[0] - predictions[1]) + predictions[1]
            else:
                predictions[0] = operation(latent=predictions[0])
            return predictions

        changed = model.clone()
        changed.set_model_sampler_pre_cfg_function(before_guidance)
        return io.NodeOutput(changed)


class LatentOperationTonemapReinhard(io.ComfyNode):
    """The operation that compresses large values."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentOperationTonemapReinhard",
            category="latent/advanced/operations",
            is_experimental=True,
            inputs=[io.Float.Input("multiplier", default=1.0, min=0.0, max=100.0, step=0.01)],
            outputs=[io.LatentOperation.Output()],
        )

    @classmethod
    def execute(cls, multiplier: float) -> io.NodeOutput:
        def tonemap(latent: torch.Tensor, **_: Any) -> torch.Tensor:
            return latents.tonemap_reinhard(latent, multiplier)

        return io.NodeOutput(tonemap)


class LatentOperationSharpen(io.ComfyNode):
    """The operation that sharpens."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentOperationSharpen",
            category="latent/advanced/operations",
            is_experimental=True,
            inputs=[
                io.Int.Input("sharpen_radius", default=9, min=1, max=31, step=1),
                io.Float.Input("sigma", default=1.0, min=0.1, max=10.0, step=0.1),
                io.Float.Input("alpha", default=0.1, min=0.0, max=5.0, step=0.01),
            ],
            outputs=[io.LatentOperation.Output()],
        )

    @classmethod
    def execute(cls, sharpen_radius: int, sigma: float, alpha: float) -> io.NodeOutput:
        def sharpen(latent: torch.Tensor, **_: Any) -> torch.Tensor:
            return latents.sharpen(latent, sharpen_radius, sigma, alpha)

        return io.NodeOutput(sharpen)


NODES: list[type[io.ComfyNode]] = [
    LatentAdd,
    LatentSubtract,
    LatentMultiply,
    LatentInterpolate,
    LatentConcat,
    LatentCut,
    LatentBatch,
    LatentBatchSeedBehavior,
    LatentApplyOperation,
    LatentApplyOperationCFG,
    LatentOperationTonemapReinhard,
    LatentOperationSharpen,
]
NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = io.mappings(NODES)
