"""Edge: T2I adapters under the names that custom nodes import (contract: custom-nodes.md section 6)."""

from comfy.ldm.t2i_adapter import Adapter, AdapterLight

#: the name that the ecosystem knows it by
Adapter_light = AdapterLight

__all__ = ["Adapter", "AdapterLight", "Adapter_light"]
