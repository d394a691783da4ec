"""Edge: the ComfyUI version whose contract this server keeps, where custom nodes look for it."""

from comfy.config import VERSION as __version__

__all__ = ["__version__"]
