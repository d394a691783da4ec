"""Where custom nodes import weight patching from. Assigning `calculate_weight` here changes what the core calls."""

from comfy.models.patches import calculate_weight
from comfy.replaceable import write_through

__all__ = ["calculate_weight"]

write_through(__name__)
