"""LoRA and its kin: which weight a file's name means (`keys`), which maths it holds (`formats`, `adapters`, `rotations`)."""

from comfy.models.lora.adapters import LoraAdapter, WeightAdapter
from comfy.models.lora.formats import load_lora
from comfy.models.lora.keys import keys_of
from comfy.models.lora.tensors import FileTensor, file_tensors, holding

__all__ = ["FileTensor", "LoraAdapter", "WeightAdapter", "file_tensors", "holding", "keys_of", "load_lora"]
