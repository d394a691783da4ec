"""Where custom nodes import the MODEL object from."""

from comfy.models.patcher import ModelPatcher

__all__ = ["ModelPatcher"]
