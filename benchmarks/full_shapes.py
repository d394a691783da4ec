"""Does a model of its true size run, and what does it take beside its weights?

    python -m benchmarks.full_shapes                    # SDXL, random weights, one step at 256², on the CPU
    python -m benchmarks.full_shapes --family sd15      # SD1.5 (2 GB instead of 7 GB)
    python -m benchmarks.full_shapes --device cuda:0    # on a GPU, in 16 bit
    python -m benchmarks.full_shapes --family small     # a few MB: what the tests run

Writes a checkpoint with the names and shapes of the released file, loads it, encodes a prompt, makes one step and decodes, in
this process and on one lane. Memory is the peak of the process's resident set, and the device's peak on a GPU, compared
with the bytes of the slabs. Exits 1 when the picture has a value that is not finite.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks import harness
from comfy.device.context import DeviceContext, make_context
from comfy.models.component import network_shapes
from comfy.models.family import UNetConfig, VaeConfig
from comfy.models.loader import Checkpoint, load_checkpoint
from comfy.models.random_checkpoint import full_sizes, layout, small_sizes, write_tensors
from comfy.models.saving import openclip_names
from comfy.nodes.sampling import KSampler
from comfy.text_encoders.clip_text import ClipTextConfig
from comfy.weights.cache import WeightCache

Shapes = dict[str, tuple[int, ...]]
SDXL_UNET = UNetConfig(
    in_channels=4,
    model_channels=320,
    out_channels=4,
    num_res_blocks=(2, 2, 2),
    channel_mult=(1, 2, 4),
    transformer_depth=(0, 0, 2, 2, 10, 10),
    transformer_depth_middle=10,
    transformer_depth_output=(0, 0, 0, 2, 2, 2, 10, 10, 10),
    context_dim=2048,
    num_head_channels=64,
    use_linear_in_transformer=True,
    adm_in_channels=2816,
)
CLIP_G = ClipTextConfig(1280, 5120, 32, 20, "gelu", projection_dim=1280)


def sdxl_layout() -> Shapes:
    """Name -> shape of every tensor of an SDXL base checkpoint."""
    found = {"model.diffusion_model." + name: shape for name, shape in network_shapes(SDXL_UNET).items()}
    found |= {"conditioner.embedders.0.transformer." + name: shape for name, shape in network_shapes(ClipTextConfig()).items()}
    empty = {name: torch.empty(shape, device="meta") for name, shape in network_shapes(CLIP_G).items()}
    found |= {"conditioner.embedders.1.model." + name: tuple(tensor.shape) for name, tensor in openclip_names(empty).items()}
    vae = VaeConfig(128, (1, 2, 4, 4), 2, 4, True)
    return found | {"first_stage_model." + name: shape for name, shape in network_shapes(vae).items()}


LAYOUTS = {"sdxl": sdxl_layout, "sd15": lambda: layout(full_sizes()), "small": lambda: layout(small_sizes())}


def lane_on(device: torch.device) -> DeviceContext:
    """One lane with room for everything."""
    budget = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 2**40
    return make_context(0, device, WeightCache(2**40), budget)


def picture(checkpoint: Checkpoint, size: int) -> torch.Tensor:
    """One step and the decoding of it: (1, size, size, 3)."""
    model, clip, vae = checkpoint
    assert clip is not None
    assert vae is not None
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a red circle", ""))
    empty = {"samples": torch.zeros(1, 4, size // 8, size // 8)}
    latent = KSampler().sample(model, 1, 1, 4.0, "euler", "normal", positive, negative, empty, 1.0)[0]
    return vae.decode(latent["samples"])


def peak_bytes() -> int:
    """Of this process's resident set since its start; shared mappings count."""
    info = psutil.Process().memory_info()
    peak = getattr(info, "peak_wset", None)  # Windows
    if peak is not None:
        return int(peak)
    import resource

    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def measure(family: str, device: torch.device, size: int, folder: Path) -> dict[str, Any]:
    """The figures of one family."""
    path = folder / f"{family}.safetensors"
    shapes = LAYOUTS[family]()
    write_tensors(path, shapes)
    before, began = peak_bytes(), time.perf_counter()
    lane = lane_on(device)
    with lane.activate():
        made = picture(load_checkpoint(path, embedding_folders=()), size)
        seconds = time.perf_counter() - began
    slabs = sum(row.nbytes for row in lane.weights.statistics().rows)
    return {
        "family": family,
        "device": str(device),
        "size": size,
        "tensors": len(shapes),
        "file_bytes": path.stat().st_size,
        "slab_bytes": slabs,
        "peak_bytes": peak_bytes(),
        "peak_before_bytes": before,
        "device_peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "resident_bytes": lane.resident.used_bytes,
        "seconds": seconds,
        "finite": bool(torch.isfinite(made).all()),
        "shape": list(made.shape),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=sorted(LAYOUTS), default="sdxl")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--size", type=int, default=256)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="full_shapes_") as folder:
        figures = measure(given.family, given.device, given.size, Path(folder))
    print(harness.keep(f"full_shapes_{given.family}_{given.device.type}", figures))
    print(figures)
    return 0 if figures["finite"] else 1


if __name__ == "__main__":
    sys.exit(main())
