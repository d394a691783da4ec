"""First use of a device, paid before the first job: its context, its libraries, its kernels' first load."""

from __future__ import annotations

import logging

import torch
from torch.nn import functional as F

log = logging.getLogger(__name__)


def warm_up(index: int, device: torch.device) -> None:
    """Run one small convolution, one matrix product and one attention on `device`, in the calling thread."""
    log.info("🔥 [GPU %d] Starting warmup…", index, extra={"action": "warmup_started"})
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    x = torch.ones(1, 8, 16, 16, device=device, dtype=dtype)
    x = F.conv2d(x, torch.ones(8, 8, 3, 3, device=device, dtype=dtype), padding=1)
    q = x.flatten(2).transpose(1, 2).unsqueeze(1)
    F.scaled_dot_product_attention(q, q, q) @ torch.ones(8, 8, device=device, dtype=dtype)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    log.info("✅ [GPU %d] Warmup completed", index, extra={"action": "warmup_completed"})
