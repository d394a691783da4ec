"""Where custom nodes look for the families that the server knows."""

from comfy.models.family import FAMILIES

#: the rows of our family table; detection is by structure, so adding to this list has no effect
models = list(FAMILIES.values())

__all__ = ["models"]
