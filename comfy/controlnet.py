"""Edge: ControlNets under the names that custom nodes import (contract: custom-nodes.md section 6)."""

from comfy.models.control import ControlBase, ControlNet, StrengthType, broadcast_image_to, load_controlnet
from comfy.models.t2i_adapter import T2IAdapter

__all__ = ["ControlBase", "ControlNet", "StrengthType", "T2IAdapter", "broadcast_image_to", "load_controlnet"]
