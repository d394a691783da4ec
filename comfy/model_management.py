"""Edge: devices, dtypes and memory as custom nodes ask for them (contract: custom-nodes.md section 6).

Every answer is the calling lane's. Bodies forward to the lane's DeviceContext; nothing here is "the" state of the
process, but what cannot differ between lanes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import psutil
import torch

from comfy import control, replaceable
from comfy.cli_args import args
from comfy.device import context
from comfy.errors import Interrupted
from comfy.sampling.prepare import load_models_gpu

__all__ = ["load_models_gpu"]

InterruptProcessingException = Interrupted
OOM_EXCEPTION = torch.OutOfMemoryError


class VRAMState(enum.Enum):
    """Memory strategies of the reference; lanes here decide residency themselves."""

    DISABLED = 0
    NO_VRAM = 1
    LOW_VRAM = 2
    NORMAL_VRAM = 3
    HIGH_VRAM = 4
    SHARED = 5


class CPUState(enum.Enum):
    """What computes."""

    GPU = 0
    CPU = 1
    MPS = 2


DISABLE_SMART_MEMORY = False
_CPU = torch.device("cpu")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def __getattr__(name: str) -> Any:
    """`vram_state`, `cpu_state`, `total_vram`, `total_ram`: read when asked, for the calling lane."""
    computed: dict[str, Callable[[], Any]] = {
        "vram_state": lambda: VRAMState.DISABLED if get_torch_device().type == "cpu" else VRAMState.NORMAL_VRAM,
        "cpu_state": lambda: CPUState.CPU if get_torch_device().type == "cpu" else CPUState.GPU,
        "total_vram": lambda: get_total_memory() / 1024**2,
        "total_ram": lambda: psutil.virtual_memory().total / 1024**2,
        "current_loaded_models": current_loaded,
    }
    if name in computed:
        return computed[name]()
    raise AttributeError(f"module 'comfy.model_management' has no attribute {name!r}")


# devices


@replaceable.replaceable("comfy.model_management.get_torch_device")
def get_torch_device() -> torch.device:
    """The calling lane's device; outside any lane `cuda` without an index, or the CPU where there is no GPU.

    Custom nodes keep the answer in a module global at import. Without an index it is resolved when a tensor is made,
    so even that global lands on the lane that runs the node. It compares unequal to `cuda:0`: never test it with ==.
    """
    ctx = context.current_or_none()
    if ctx is not None:
        return ctx.device
    return _CPU if args.cpu or not torch.cuda.is_available() else torch.device("cuda")


def get_torch_device_name(device: torch.device) -> str:
    """`cuda:0 NVIDIA L40S : native`, or `cpu`."""
    if device.type != "cuda":
        return str(device)
    return f"{device} {torch.cuda.get_device_name(device)} : {torch.cuda.get_allocator_backend()}"


@replaceable.replaceable("comfy.model_management.text_encoder_device")
def text_encoder_device() -> torch.device:
    """Where text encoders run: on the lane's device."""
    return get_torch_device()


def vae_device() -> torch.device:
    """Where the VAE runs."""
    return _CPU if args.cpu_vae else get_torch_device()


@replaceable.replaceable("comfy.model_management.unet_offload_device")
def unet_offload_device() -> torch.device:
    """Where weights rest: in RAM, once for all lanes."""
    return _CPU


def text_encoder_offload_device() -> torch.device:
    """Where weights rest."""
    return _CPU


def vae_offload_device() -> torch.device:
    """Where weights rest."""
    return _CPU


def intermediate_device() -> torch.device:
    """Where nodes put results: in RAM, or on the GPU with --gpu-only."""
    return get_torch_device() if args.gpu_only else _CPU


def unet_inital_load_device(parameters: int, dtype: torch.dtype) -> torch.device:
    """Where a diffusion model is built at first."""
    return _CPU


def text_encoder_initial_device(load_device: torch.device, offload_device: torch.device, model_size: int = 0) -> torch.device:
    """Where a text encoder is built at first."""
    return offload_device


def is_autocast_enabled() -> bool:
    """Whether the calling thread is in torch's autocast for the lane's kind of device."""
    return torch.is_autocast_enabled(get_torch_device().type)


def get_autocast_device(dev: torch.device | None) -> str:
    """The device type as torch.autocast wants it."""
    return getattr(dev, "type", "cuda")


def is_device_type(device: torch.device, type: str) -> bool:  # the ecosystem's parameter name
    """Whether `device` is of that type."""
    return getattr(device, "type", None) == type


def is_device_cpu(device: torch.device) -> bool:
    """Whether `device` is the CPU."""
    return is_device_type(device, "cpu")


def is_device_cuda(device: torch.device) -> bool:
    """Whether `device` is a CUDA GPU."""
    return is_device_type(device, "cuda")


def is_device_mps(device: torch.device) -> bool:
    """Whether `device` is Apple's GPU."""
    return is_device_type(device, "mps")


def is_intel_xpu() -> bool:
    """This server runs on CUDA and CPUs."""
    return False


def is_directml_enabled() -> bool:
    """This server runs on CUDA and CPUs."""
    return False


def is_nvidia() -> bool:
    """Whether the calling lane computes on an NVIDIA GPU."""
    return get_torch_device().type == "cuda" and torch.version.cuda is not None


def is_amd() -> bool:
    """Whether the calling lane computes on an AMD GPU."""
    return get_torch_device().type == "cuda" and torch.version.hip is not None


# dtypes


def should_use_fp16(
    device: torch.device | None = None, model_params: int = 0, prioritize_performance: bool = True, manual_cast: bool = False
) -> bool:
    """Whether half precision pays on that device."""
    return (device or get_torch_device()).type == "cuda"


def should_use_bf16(
    device: torch.device | None = None, model_params: int = 0, prioritize_performance: bool = True, manual_cast: bool = False
) -> bool:
    """Whether bfloat16 is native on that device (compute capability 8.0 and up)."""
    device = device or get_torch_device()
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


def _pick(device: torch.device | None, supported: Sequence[torch.dtype]) -> torch.dtype:
    for dtype in supported:
        if dtype is torch.float32:
            return dtype
        if (dtype is torch.float16 and should_use_fp16(device)) or (dtype is torch.bfloat16 and should_use_bf16(device)):
            return dtype
    return torch.float32


@replaceable.replaceable("comfy.model_management.unet_dtype")
def unet_dtype(
    device: torch.device | None = None,
    model_params: int = 0,
    supported_dtypes: Sequence[torch.dtype] = _DTYPES,
    weight_dtype: torch.dtype | None = None,
) -> torch.dtype:
    """The first supported dtype that the device is good at."""
    return _pick(device, supported_dtypes)


def unet_manual_cast(
    weight_dtype: torch.dtype, inference_device: torch.device, supported_dtypes: Sequence[torch.dtype] = _DTYPES
) -> torch.dtype | None:
    """The dtype to compute in, or None when the weights need no casting."""
    wanted = _pick(inference_device, supported_dtypes)
    return None if wanted is weight_dtype else wanted


def text_encoder_dtype(device: torch.device | None = None) -> torch.dtype:
    """Storage of text encoders."""
    return torch.float32 if is_device_cpu(device or get_torch_device()) else torch.float16


def vae_dtype(device: torch.device | None = None, allowed_dtypes: Sequence[torch.dtype] = ()) -> torch.dtype:
    """Storage of the VAE: the first of the allowed dtypes that the device is good at."""
    return _pick(device, tuple(allowed_dtypes) or (torch.bfloat16, torch.float32))


def dtype_size(dtype: torch.dtype) -> int:
    """Bytes of one element."""
    return dtype.itemsize


def supports_dtype(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the device computes in that dtype."""
    return dtype is torch.float32 or device.type == "cuda"


def supports_cast(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tensors of that dtype can be stored there and cast."""
    return True


def pick_weight_dtype(dtype: torch.dtype | None, fallback_dtype: torch.dtype, device: torch.device | None = None) -> torch.dtype:
    """`dtype`, or the fallback."""
    return dtype or fallback_dtype


def device_supports_non_blocking(device: torch.device) -> bool:
    """Whether copies to the device may overlap."""
    return device.type == "cuda"


def supports_fp8_compute(device: torch.device | None = None) -> bool:
    """Whether the device multiplies fp8 matrices (compute capability 8.9 and up)."""
    device = device or get_torch_device()
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def cast_to(
    weight: torch.Tensor,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    non_blocking: bool = False,
    copy: bool = False,
    stream: Any = None,
) -> torch.Tensor:
    """`weight` on that device and in that dtype; the same tensor when nothing changes and no copy is asked for."""
    return weight.to(device=device or weight.device, dtype=dtype or weight.dtype, non_blocking=non_blocking, copy=copy)


def cast_to_device(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype, copy: bool = False) -> torch.Tensor:
    """`tensor` on that device and in that dtype."""
    return cast_to(tensor, dtype, device, copy=copy)


def pytorch_attention_enabled() -> bool:
    """Attention is torch's fused one."""
    return True


def xformers_enabled() -> bool:
    """xformers is not used."""
    return False


def sage_attention_enabled() -> bool:
    """SageAttention is not used."""
    return False


def flash_attention_enabled() -> bool:
    """The flash-attention package is not used; torch's own kernels are."""
    return False


# memory


def get_total_memory(dev: torch.device | None = None, torch_total_too: bool = False) -> Any:
    """Bytes of the device in all; with `torch_total_too` a pair with what torch reserved."""
    dev = dev or get_torch_device()
    if dev.type != "cuda":
        total = psutil.virtual_memory().total
        return (total, total) if torch_total_too else total
    total = torch.cuda.get_device_properties(dev).total_memory
    return (total, torch.cuda.memory_reserved(dev)) if torch_total_too else total


def get_free_memory(dev: torch.device | None = None, torch_free_too: bool = False) -> Any:
    """Bytes that a new tensor could have; with `torch_free_too` a pair with what is free inside torch's allocator."""
    dev = dev or get_torch_device()
    if dev.type != "cuda":
        free = psutil.virtual_memory().available
        return (free, free) if torch_free_too else free
    inside = torch.cuda.memory_reserved(dev) - torch.cuda.memory_allocated(dev)
    free = torch.cuda.mem_get_info(dev)[0] + inside
    return (free, inside) if torch_free_too else free


def minimum_inference_memory() -> int:
    """Bytes to leave for activations."""
    return 1024**3


def extra_reserved_memory() -> int:
    """Bytes left to other programs on the GPU."""
    return int((args.reserve_vram if args.reserve_vram is not None else 0.4) * 1024**3)


def maximum_vram_for_weights(device: torch.device | None = None) -> int:
    """Bytes that weights may take."""
    return int(get_total_memory(device) * 0.88 - minimum_inference_memory())


def module_size(module: torch.nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


class LoadedModel:
    """A MODEL on the calling lane's device, as memory-managing packs look at it."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device = get_torch_device()
        self.currently_used = True

    def model_memory(self) -> int:
        """Bytes of all its weights."""
        return int(self.model.model_size())

    def model_loaded_memory(self) -> int:
        """Bytes of them that are on the device."""
        return int(self.model.loaded_size())

    def model_offloaded_memory(self) -> int:
        """Bytes of them that are not."""
        return self.model_memory() - self.model_loaded_memory()

    def model_unload(self, memory_to_free: int | None = None, unpatch_weights: bool = True) -> bool:
        """Drop it from the device, and with it all that no one uses now."""
        unload_all_models()
        return True


def current_loaded() -> list[LoadedModel]:
    """`current_loaded_models`: a list of what is on the calling lane's device. Changing the list changes nothing."""
    return [LoadedModel(model) for model in loaded_models()]


def loaded_models(only_currently_used: bool = False) -> list[Any]:
    """The MODELs that were sampled with and are on the calling lane's device; outside a lane none."""
    ctx = context.current_or_none()
    return [] if ctx is None else [model for model in ctx.handles if model.loaded_size() > 0]


def load_model_gpu(model: Any) -> None:
    """Bring one model to the calling lane's device."""
    load_models_gpu([model])


def free_memory(memory_required: float, device: torch.device, keep_loaded: Sequence[Any] = ()) -> list[Any]:
    """Make room on the calling lane's device by dropping models that no one uses."""
    ctx = context.current_or_none()
    if ctx is not None and get_free_memory(ctx.device) < memory_required:
        ctx.unload()
    return []


def unload_all_models() -> None:
    """Drop the calling lane's models; outside a lane nothing (ask `POST /free`)."""
    ctx = context.current_or_none()
    if ctx is not None:
        ctx.unload()


def cleanup_models_gc() -> None:
    """Nothing to do: no handle keeps a module alive."""


def cleanup_models() -> None:
    """Nothing to do: no handle keeps a module alive."""


@replaceable.replaceable("comfy.model_management.soft_empty_cache")
def soft_empty_cache(force: bool = False) -> None:
    """Nothing: giving cached blocks back stalls every GPU of the process, and the lane's next job wants them."""


@replaceable.replaceable("comfy.model_management.current_stream")
def current_stream(device: torch.device) -> Any:
    """The calling thread's stream on a CUDA device, None elsewhere."""
    return torch.cuda.current_stream(device) if device.type == "cuda" else None


# interrupt


def interrupt_current_processing(value: bool = True) -> None:
    """Set or clear the stop flag of the calling code's job; outside a job every running job is told to stop."""
    job = control.current()
    if job is None:
        if value and _stop_all is not None:
            _stop_all()
    elif value:
        job.stop.set()
    else:
        job.stop.clear()


def processing_interrupted() -> bool:
    """Whether the calling code's job was asked to stop."""
    job = control.current()
    return job is not None and job.stop.is_set()


def throw_exception_if_processing_interrupted() -> None:
    """Raise InterruptProcessingException when the calling code's job was asked to stop."""
    control.check()


_stop_all: Callable[[], Any] | None = None


def on_stop_all(stop: Callable[[], Any]) -> None:
    """main.py says here how to stop every running job."""
    global _stop_all
    _stop_all = stop


replaceable.write_through(__name__)
