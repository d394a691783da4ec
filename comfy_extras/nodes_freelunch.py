"""FreeU. Maths: comfy/sampling/network_patches/freeu.py."""

from __future__ import annotations

from typing import Any

from comfy.nodes.v1 import required, rounded
from comfy.sampling.network_patches.freeu import FreeU as Patch


class FreeU:
    """Stronger backbone, weaker skips on the way up."""

    CATEGORY, FUNCTION, RETURN_TYPES = "model_patches/unet", "patch", ("MODEL",)
    ADAPTIVE = False
    B1, B2 = 1.1, 1.2

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        defaults = {"b1": cls.B1, "b2": cls.B2, "s1": 0.9, "s2": 0.2}
        return required(model=("MODEL",), **{name: rounded(default, 0.0, 10.0) for name, default in defaults.items()})

    def patch(self, model: Any, b1: float, b2: float, s1: float, s2: float) -> tuple[Any]:
        width = model.model.model_config.unet_config["model_channels"]
        changed = model.clone()
        changed.set_model_output_block_patch(Patch({width * 4: (b1, s1), width * 2: (b2, s2)}, self.ADAPTIVE))
        return (changed,)


class FreeU_V2(FreeU):
    """The second version: stronger where the backbone is strong."""

    ADAPTIVE = True
    B1, B2 = 1.3, 1.4


NODE_CLASS_MAPPINGS = {"FreeU": FreeU, "FreeU_V2": FreeU_V2}
