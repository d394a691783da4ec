"""What a file says about its sampling type beside its structure: marker keys, and for SD2 a statistic. Contract: models.md
sections 2 and 5. The only place that reads tensors while a file is loaded: a few numbers.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from comfy.models.family import SD2, Family, UNetConfig
from comfy.weights.files import FileIndex
from comfy.weights.fill import fill_slab
from comfy.weights.plan import SlabEntry, SlabKey, plan_slab
from comfy.weights.slab import Slab

#: of SD2's last attention norm: above this the network was trained to predict v
V_DEVIATION = 0.09
LATENT_CHANNELS = 4
PLAYGROUND = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}


def with_sampling(family: Family, config: UNetConfig, index: FileIndex, prefix: str) -> Family:
    """`family` with the sampling type that the file calls for. `prefix`: of the denoiser. Raises WeightFileInvalid."""
    marks = index.tensors
    if family.name == SD2.name:
        return replace(family, sampling="v_prediction") if _sd2_predicts_v(config, index, prefix) else family
    if not family.vector:
        return family
    if "edm_mean" in marks and "edm_std" in marks:
        return replace(family, sampling="edm", latent_format="SDXL_Playground_2_5", sampling_settings=tuple(PLAYGROUND.items()))
    if "edm_vpred.sigma_max" in marks:
        limits = {name: "edm_vpred." + name for name in ("sigma_max", "sigma_min")}
        settings = tuple((name, float(read_small(index, key).flatten()[0])) for name, key in limits.items() if key in marks)
        return replace(family, sampling="v_prediction_edm", sampling_settings=settings)
    if "v_pred" in marks:
        return replace(family, sampling="v_prediction", sampling_settings=(("zsnr", True),) if "ztsnr" in marks else ())
    return family


def read_small(index: FileIndex, name: str) -> Tensor:
    """One tensor of a file in float32, read now. Raises WeightFileInvalid."""
    key = SlabKey(index.identity, "marker")
    slab = Slab(key, plan_slab(key, [SlabEntry(name, index.tensors[name], torch.float32)]))
    fill_slab(slab)
    return slab.tensor(name)


def _sd2_predicts_v(config: UNetConfig, index: FileIndex, prefix: str) -> bool:
    """By the last transformer on the way up: in SD2's own shape that is output_blocks.11.."""
    if config.in_channels != LATENT_CHANNELS:
        return False
    depths = list(reversed(config.transformer_depth_output))
    last = max((i for i, depth in enumerate(depths) if depth > 0), default=None)
    name = f"{prefix}output_blocks.{last}.1.transformer_blocks.0.norm1.bias"
    if name not in index.tensors:
        name = f"{prefix}up_blocks.{len(config.num_res_blocks) - 1}.attentions.{config.num_res_blocks[0]}.transformer_blocks.0.norm1.bias"
    return name in index.tensors and float(read_small(index, name).std(unbiased=False)) > V_DEVIATION
