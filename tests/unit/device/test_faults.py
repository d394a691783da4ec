"""Which errors of a GPU end the process, and which never do."""

from __future__ import annotations

import pytest
import torch

from comfy.device import faults

SEARCH = "\nSearch for `cudaErrorIllegalAddress' in the documentation\nCompile with `TORCH_USE_CUDA_DSA`\n"


class Accelerator(RuntimeError):
    """torch.AcceleratorError as newer torch raises it."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.error_code = code


@pytest.mark.parametrize("text", list(faults.FATAL.values()))
@pytest.mark.parametrize("prefix", ["CUDA error: ", "CUDA driver error: ", "Triton Error [CUDA]: "])
def test_errors_that_cuda_keeps_are_known_by_their_text(prefix: str, text: str) -> None:
    assert str(faults.fatal_reason(RuntimeError(prefix + text + SEARCH))).endswith(text)


@pytest.mark.parametrize("code", list(faults.FATAL))
def test_and_by_their_code(code: int) -> None:
    assert faults.fatal_reason(Accelerator("CUDA error: in other words", code)) == f"CUDA error {code}: in other words"


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        Accelerator("CUDA error: out of memory" + SEARCH, 2),
        RuntimeError("CUDA error: out of memory" + SEARCH),
        Accelerator("CUDA error: invalid argument", 1),
        RuntimeError("CUDA error: no kernel image is available for execution on the device"),
        RuntimeError("CUDA error: operation not permitted when stream is capturing"),
        RuntimeError("the size of tensor a (4) must match the size of tensor b (3)"),
        ValueError("CUDA error: an illegal memory access was encountered"),
        None,
    ],
)
def test_every_other_error_is_not_fatal(error: BaseException | None) -> None:
    assert faults.fatal_reason(error) is None


def test_an_error_of_a_pack_does_not_hide_what_it_was_raised_from() -> None:
    cause = RuntimeError("CUDA error: misaligned address")
    wrapped = ValueError("the node failed")
    wrapped.__context__ = cause
    assert faults.fatal_reason(wrapped) == "CUDA error 716: misaligned address"
    ring = ValueError("a ring")
    ring.__context__ = ValueError("of contexts")
    ring.__context__.__context__ = ring
    assert faults.fatal_reason(ring) is None


def test_memory_that_ran_out_is_known_whoever_noticed() -> None:
    assert faults.is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert faults.is_out_of_memory(Accelerator("CUDA error: out of memory", 2))
    assert not faults.is_out_of_memory(RuntimeError("CUDA error: misaligned address"))


@pytest.mark.parametrize("device", [torch.device("cpu"), "cpu"])
def test_a_cpu_has_no_faults(device: object) -> None:
    assert faults.fault_of(device) is None
