"""What the machine has: GPUs that torch sees, GPUs that only the driver sees."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import torch


class Devices:
    """The questions that start-up asks the machine; tests give other answers."""

    def __init__(self, root: Path = Path("/"), smi: str = "nvidia-smi") -> None:
        """`root` is where /dev and /proc are looked for, `smi` the driver's tool."""
        self._root, self._smi = root, smi

    def cuda_count(self) -> int:
        """GPUs that torch can use."""
        return torch.cuda.device_count() if torch.cuda.is_available() else 0

    def cuda_bytes(self, device: torch.device) -> int:
        """All memory of one GPU."""
        return torch.cuda.get_device_properties(device).total_memory

    def torch_cuda(self) -> str | None:
        """The CUDA version that torch was built for, None for a build without CUDA."""
        return torch.version.cuda

    def nvidia_driver(self) -> str | None:
        """Version of the NVIDIA driver ("unknown" when it does not say) when the machine has NVIDIA GPUs, else None."""
        version = self._kernel_version()
        if version is not None or (self._root / "dev/nvidia0").exists():
            return version or "unknown"
        return self._smi_version()

    def _kernel_version(self) -> str | None:
        try:
            text = (self._root / "proc/driver/nvidia/version").read_text()
        except OSError:
            return None
        found = re.search(r"Kernel Module.*?\s(\d+\.\d[\d.]*)", text)
        return found[1] if found else "unknown"

    def _smi_version(self) -> str | None:
        tool = shutil.which(self._smi)
        if tool is None:
            return None
        try:
            asked = subprocess.run(
                [tool, "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=False
            )
        except (OSError, subprocess.SubprocessError):
            return None
        lines = asked.stdout.split()
        return lines[0] if asked.returncode == 0 and lines else None
