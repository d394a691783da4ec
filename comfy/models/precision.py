"""In which number formats networks are kept and computed: what the operator's flags say. Contract: cli.md, models.md section 9.

`configure()` once at the start, `current()` where files are loaded. A CPU lane computes in float32 whatever is said here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch

from comfy.errors import InputUnusable
from comfy.models.family import Family

log = logging.getLogger(__name__)

Dtypes = tuple[torch.dtype, ...]
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
#: what UNETLoader calls a form in which weights are kept
STORAGE: dict[str, torch.dtype | None] = {
    "default": None,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e4m3fn_fast": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
_COMPUTE: dict[str, Dtypes] = {
    "fp16": (torch.float16, torch.float32),
    "bf16": (torch.bfloat16, torch.float32),
    "fp32": (torch.float32,),
}


@dataclass(frozen=True)
class Precision:
    """Dtypes that stand for a family's own, best first; None leaves those. `storage`: of every denoiser's weights."""

    denoiser: Dtypes | None = None
    text: Dtypes | None = None
    vae: Dtypes | None = None
    storage: torch.dtype | None = None

    def applied(self, family: Family) -> Family:
        """`family` with these dtypes."""
        return replace(
            family,
            dtypes=self.denoiser or family.dtypes,
            text_dtypes=self.text or family.text_dtypes,
            vae_dtypes=self.vae or family.vae_dtypes,
        )


def from_flags(args: Any) -> Precision:
    """The flags of the command line, as `Config.args` has them. Those that this server has no form for are told in the log."""

    def given(*names: str) -> str | None:
        return next((name for name in names if getattr(args, name, False)), None)

    force = given("force_fp32", "force_fp16")
    everywhere = _COMPUTE[force.removeprefix("force_")] if force else None
    unet = given("fp32_unet", "bf16_unet", "fp16_unet")
    text = given("fp32_text_enc", "bf16_text_enc", "fp16_text_enc")
    vae = given("fp32_vae", "bf16_vae", "fp16_vae")
    storage = given("fp8_e4m3fn_unet", "fp8_e5m2_unet")
    other = given("fp64_unet", "fp8_e8m0fnu_unet", "fp8_e4m3fn_text_enc", "fp8_e5m2_text_enc")
    if other:
        log.warning("--%s has no effect: this server does not compute or keep weights so", other.replace("_", "-"))
    return Precision(
        denoiser=_COMPUTE[unet[:4]] if unet else everywhere,
        text=_COMPUTE[text[:4]] if text else everywhere,
        vae=_COMPUTE[vae[:4]] if vae else (_COMPUTE["fp32"] if force == "force_fp32" else None),
        storage=STORAGE[storage.removesuffix("_unet")] if storage else None,
    )


def storage_named(name: str) -> torch.dtype | None:
    """A node's name of a form -> its dtype, None for the default. Raises InputUnusable for another name."""
    if name not in STORAGE:
        raise InputUnusable("There is no such form of weights.", weight_dtype=name, known=list(STORAGE))
    return STORAGE[name]


_current = Precision()


def configure(precision: Precision) -> None:
    """Make `precision` that of the process; before the first file is loaded."""
    global _current
    _current = precision


def current() -> Precision:
    """The precision of the process."""
    return _current
