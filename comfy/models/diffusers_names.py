"""Names of the diffusers layout -> names of the released checkpoints. Contract: models.md sections 7 and 8."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PARTS = (
    (re.compile(r"^(encoder|decoder)\.mid_block\.resnets\.(\d+)\."), lambda m: f"{m[1]}.mid.block_{int(m[2]) + 1}."),
    (re.compile(r"^(encoder|decoder)\.mid_block\.attentions\.0\."), lambda m: f"{m[1]}.mid.attn_1."),
    (re.compile(r"^encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\."), lambda m: f"encoder.down.{m[1]}.block.{m[2]}."),
    (re.compile(r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0\."), lambda m: f"encoder.down.{m[1]}.downsample."),
    (re.compile(r"^(encoder|decoder)\.conv_norm_out\."), lambda m: f"{m[1]}.norm_out."),
)
_UP = re.compile(r"^decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.")
#: the last part of a name; attention has two spellings, of before and after diffusers 0.15
_ENDINGS = {
    ".conv_shortcut.": ".nin_shortcut.",
    ".group_norm.": ".norm.",
    ".to_q.": ".q.",
    ".to_k.": ".k.",
    ".to_v.": ".v.",
    ".to_out.0.": ".proj_out.",
    ".query.": ".q.",
    ".key.": ".k.",
    ".value.": ".v.",
    ".proj_attn.": ".proj_out.",
}


def vae_names(names: Iterable[str]) -> dict[str, str]:
    """Each name of an AutoencoderKL in diffusers layout -> its name in a checkpoint. Other names stay as they are.

    The levels of the decoder are counted from the other end, so all names have to be given at once.
    """
    names = list(names)
    levels = max((int(m[1]) for name in names if (m := _UP.match(name))), default=0)
    return {name: _vae_name(name, levels) for name in names}


def _vae_name(name: str, last_level: int) -> str:
    up = _UP.match(name)
    if up is not None:
        level = last_level - int(up[1])
        inner = f"block.{up[3]}." if up[2] == "resnets" else "upsample."
        name = f"decoder.up.{level}.{inner}{name[up.end() :]}"
    for pattern, spelled in _PARTS:
        name = pattern.sub(spelled, name)
    for theirs, ours in _ENDINGS.items():
        if theirs in name and (".attn_1." in name or theirs == ".conv_shortcut."):
            name = name.replace(theirs, ours)
    return name
