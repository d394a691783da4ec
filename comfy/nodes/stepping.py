"""What a sampling node tells the job at each step: progress and a preview; and the stop that it may be told in return."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from comfy import control
from comfy.models.previews import get_previewer
from comfy.replaceable import replaceable
from comfy.sampling.preview import LatentPreviewer, PreviewClock
from comfy.sampling.sampler import StepCallback

log = logging.getLogger(__name__)


@replaceable("latent_preview.prepare_callback")
def prepare_callback(model: Any, steps: int, x0_output_dict: dict[str, Any] | None = None) -> StepCallback:
    """The step callback of a run with MODEL `model`; the last x0 is kept under "x0" of `x0_output_dict`.

    Raises Interrupted from the callback when the job was asked to stop.
    """
    latent_format = model.get_model_object("latent_format")
    previews = _Previews(get_previewer(model.load_device, latent_format))
    job = control.current()

    def report(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        if x0_output_dict is not None:
            x0_output_dict["x0"] = x0
        if job is None:
            return
        job.check()
        job.progress(step + 1, total_steps, previews.of(x0, step + 1 >= total_steps), job.node_id)

    return report


class _Previews:
    """The previews of one run; none after one that could not be made."""

    def __init__(self, previewer: LatentPreviewer | None) -> None:
        self._previewer = previewer
        self._clock = PreviewClock()

    def of(self, x0: Tensor, last: bool) -> Any:
        """(format, picture, longest side) of a step's estimate, or None when this step is not shown."""
        if self._previewer is None or not self._clock.due(last):
            return None
        try:
            return self._previewer.decode_latent_to_preview_image("JPEG", x0)
        except Exception as error:  # a picture on the way must not cost the job
            log.warning("previews of this run stop: %s", error)
            self._previewer = None
            return None
