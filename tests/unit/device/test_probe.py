import pytest

from comfy.device.probe import Devices

VERSION = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build  (dvs-builder@U16)\nGCC version: 12\n"


def machine(tmp_path, smi="no-such-tool"):
    return Devices(tmp_path, smi)


def test_a_machine_without_nvidia_has_no_driver(tmp_path):
    assert machine(tmp_path).nvidia_driver() is None


@pytest.mark.parametrize(("text", "version"), [(VERSION, "570.86.10"), ("something else", "unknown")])
def test_the_kernel_module_says_its_version(tmp_path, text, version):
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text(text)
    assert machine(tmp_path).nvidia_driver() == version


def test_a_device_node_alone_is_a_gpu(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert machine(tmp_path).nvidia_driver() == "unknown"


@pytest.mark.parametrize(("body", "version"), [("echo 550.54\necho 550.54", "550.54"), ("exit 9", None), ("true", None)])
def test_the_drivers_tool_is_asked_last(tmp_path, body, version):
    tool = tmp_path / "smi"
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(0o755)
    assert machine(tmp_path, str(tool)).nvidia_driver() == version
