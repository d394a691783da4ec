"""Which errors of a GPU end the process.

CUDA keeps some errors: after one of them every later call on that GPU fails, and with all GPUs in one process (measured)
so does every other lane's. Nothing short of a new process helps. An out-of-memory is never one of them.
"""

from __future__ import annotations

import re

import torch

#: code -> text of the errors after which the process gets no more work done (CUDA Runtime API, cudaError_t)
FATAL = {
    214: "uncorrectable ECC error encountered",
    220: "uncorrectable NVLink error detected during the execution",
    700: "an illegal memory access was encountered",
    702: "the launch timed out and was terminated",
    710: "device-side assert triggered",
    714: "hardware stack error",
    715: "an illegal instruction was encountered",
    716: "misaligned address",
    717: "operation not supported on global/shared address space",
    718: "invalid program counter",
    719: "unspecified launch failure",
    721: "invalid access of tensor memory",
    810: "the remote procedural call between the MPS server and the MPS client failed",
}
_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_SAYS = re.compile(r"(?:CUDA (?:driver )?error|Triton Error \[CUDA\]): *(.+)")
_DEEPEST = 20  # links of a chain of causes that are followed


def fatal_reason(error: BaseException | None) -> str | None:
    """What the GPU said, when `error` or what it was raised from is an error that CUDA keeps; None for every other."""
    for _ in range(_DEEPEST):
        if error is None:
            return None
        reason = _own_reason(error)
        if reason is not None:
            return reason
        error = error.__cause__ or error.__context__
    return None


def _own_reason(error: BaseException) -> str | None:
    if not isinstance(error, RuntimeError) or isinstance(error, torch.cuda.OutOfMemoryError):
        return None
    found = _SAYS.search(str(error))
    said = found[1].strip() if found else ""
    code = getattr(error, "error_code", None)  # of torch.AcceleratorError
    if code == _OUT_OF_MEMORY:
        return None
    if code in FATAL:
        return f"CUDA error {code}: {said or FATAL[code]}"
    return next((f"CUDA error {code}: {text}" for code, text in FATAL.items() if said.lower().startswith(text.lower())), None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's memory ran out, also when it was not torch's allocator that noticed."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and getattr(error, "error_code", None) == _OUT_OF_MEMORY


def fault_of(device: object) -> str | None:
    """Ask the device whether it still works: what it keeps failing with, None when all is well or it is no GPU.

    Waits for the calling thread's work on it.
    """
    if not isinstance(device, torch.device) or device.type != "cuda":
        return None
    try:
        torch.cuda.current_stream(device).synchronize()
    except RuntimeError as error:
        return fatal_reason(error) or str(error).partition("\n")[0]
    return None
