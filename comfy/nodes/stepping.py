"""What a sampling node tells the job at each step: progress and a preview; and the stop that it may be told in return."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from comfy import control
from comfy.replaceable import replaceable
from comfy.sampling.preview import get_previewer
from comfy.sampling.sampler import StepCallback


@replaceable("latent_preview.prepare_callback")
def prepare_callback(model: Any, steps: int, x0_output_dict: dict[str, Any] | None = None) -> StepCallback:
    """The step callback of a run with MODEL `model`; the last x0 is kept under "x0" of `x0_output_dict`.

    Raises Interrupted from the callback when the job was asked to stop.
    """
    latent_format = model.get_model_object("latent_format")
    previewer = get_previewer(model.load_device, latent_format)
    job = control.current()

    def report(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        if x0_output_dict is not None:
            x0_output_dict["x0"] = x0
        if job is None:
            return
        job.check()
        preview = None if previewer is None else previewer.decode_latent_to_preview_image("JPEG", x0)
        job.progress(step + 1, total_steps, preview, job.node_id)

    return report
