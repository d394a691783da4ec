"""The systemd unit: what systemd says of it, and the server started, drained and stopped as the unit would have it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.site import PACKS, free_port, node
from tests.operations.client import finished, post

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "docs/comfyui-multi-gpu.service"
HOME = "/opt/comfyui-multi-gpu"


def settings() -> dict[str, list[str]]:
    """Setting -> its values in order; lines that go on behind a backslash are joined."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name].append(value)
    return found


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """systemd-analyze, in an environment that pages nothing."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run([program, *arguments], capture_output=True, text=True, env={**os.environ, "SYSTEMD_PAGER": "cat"}, check=False)


def test_exposure_is_two_at_most() -> None:
    done = analyze("security", "--offline=yes", "--threshold=20", str(UNIT))
    assert done.returncode == 0, done.stdout + done.stderr
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert level is not None
    assert float(level[1]) <= 2.0


def test_systemd_finds_nothing_wrong_once_the_programs_are_there(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8").replace(f"{HOME}/.venv/bin/python", sys.executable)
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace("/usr/bin/nvidia-modprobe", shutil.which("true") or "/bin/true"), encoding="utf-8")
    done = analyze("verify", "--man=no", str(copy))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_gpus_page_locking_and_compilers_are_not_shut_out() -> None:
    unit = settings()
    assert unit["DevicePolicy"] == ["closed"]
    assert {"char-nvidia* rwm", "/dev/nvidiactl rw", "/dev/nvidia-uvm rw"} <= set(unit["DeviceAllow"])
    assert unit["LimitMEMLOCK"] == ["infinity"]
    assert "TRITON_CACHE_DIR=%C/comfyui-multi-gpu/triton" in " ".join(unit["Environment"]).split()
    for forbidding in ("PrivateDevices", "MemoryDenyWriteExecute", "NoExecPaths", "ProcSubset", "PrivateNetwork"):
        assert forbidding not in unit
    assert unit["SystemCallFilter"][0] == "@system-service"  # holds mlock, mbind and memfd_create


def test_it_restarts_after_a_crash_and_not_after_a_wrong_setting() -> None:
    unit = settings()
    assert (unit["Restart"], unit["RestartPreventExitStatus"]) == (["on-failure"], ["2"])
    assert (unit["Type"], unit["KillMode"], unit["KillSignal"]) == (["notify"], ["mixed"], ["SIGTERM"])
    drain = next(
        float(word.partition("=")[2]) for line in unit["Environment"] for word in line.split() if word.startswith("COMFY_DRAIN_S=")
    )
    assert float(unit["TimeoutStopSec"][0]) > drain


def test_it_is_nobody_and_installs_nothing() -> None:
    unit = settings()
    assert unit["DynamicUser"] == ["yes"]
    assert "User" not in unit
    (command,) = unit["ExecStart"]
    assert command.split()[:2] == [f"{HOME}/.venv/bin/python", "main.py"]
    assert "pip" not in UNIT.read_text(encoding="utf-8")


@dataclass
class Service:
    """The server under a supervisor of ours."""

    process: subprocess.Popen[bytes]
    supervisor: socket.socket
    url: str
    folder: Path

    def hears(self) -> dict[str, str]:
        """The next notification."""
        return dict(line.split("=", 1) for line in self.supervisor.recv(4096).decode().splitlines())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """ExecStart and Environment of the unit over folders of the test's own; the tree's packs and models are left out."""
    unit, port = settings(), free_port()
    places = {"%S": tmp_path / "state", "%C": tmp_path / "cache", "%L": tmp_path / "log"}

    def filled(text: str) -> str:
        for specifier, folder in places.items():
            text = text.replace(specifier, str(folder))
        return text

    for specifier, kind in (("%S", "StateDirectory"), ("%C", "CacheDirectory"), ("%L", "LogsDirectory")):
        for name in unit[kind][0].split():
            (places[specifier] / name).mkdir(parents=True, exist_ok=True)
    shutil.copytree(PACKS / "probes", tmp_path / "base/custom_nodes/probes", ignore=shutil.ignore_patterns("__pycache__"))
    command = shlex.split(filled(unit["ExecStart"][0]).replace(f"{HOME}/.venv/bin/python", sys.executable).replace("8188", str(port)))
    command += ["--cpu", "--base-directory", str(tmp_path / "base")]
    env = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    env |= dict(word.split("=", 1) for line in unit["Environment"] for word in filled(line).split())
    del env["PYTHONPYCACHEPREFIX"]  # an empty one would have every module of torch compiled again
    env |= {"COMFY_NUM_GPUS": "2", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    env |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "LOGS_DIRECTORY": str(places["%L"] / "comfyui-multi-gpu")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor, (tmp_path / "console").open("wb") as console:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(90)
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=console, stderr=subprocess.STDOUT)
        try:
            yield Service(process, supervisor, f"http://127.0.0.1:{port}", tmp_path)
        finally:
            process.kill()
            process.wait()


def test_readiness_drain_and_stop_as_systemd_sees_them(service: Service) -> None:
    told = service.hears()
    assert (told["READY"], told["STATUS"].partition(" ")[0]) == ("1", "2")
    with urllib.request.urlopen(service.url + "/ready", timeout=30) as answer:
        assert answer.status == 200

    def job(gate: str) -> dict:
        steps = node("ProbeSteps", value=["1", 0], steps=2, gate=gate, preview=False)
        return {"1": node("ProbeNumber", n=1), "2": steps, "3": node("ProbeShow", value=["2", 0])}

    running = post(service.url, "/prompt", {"prompt": job("drain")}, {"X-TARGET-GPU": "0"})["prompt_id"]
    post(service.url, "/probe/open/drain")
    wait_until_running(service.url)
    post(service.url, "/prompt", {"prompt": job("never")}, {"X-TARGET-GPU": "0"})
    service.process.send_signal(signal.SIGTERM)
    told = service.hears()
    assert told["STOPPING"] == "1"
    assert int(told["EXTEND_TIMEOUT_USEC"]) >= 60 * 10**6
    post(service.url, "/probe/open/drain")  # the job goes on although the server stops: it drains
    assert finished(service.folder / "log/comfyui-multi-gpu", f"✅ [GPU 0] Prompt {running[:8]} executed", service.process)
    assert service.process.wait(60) == 0, (service.folder / "console").read_text(errors="replace")
    assert (service.folder / "state/comfyui-multi-gpu/user/queue.json").exists()


def wait_until_running(url: str) -> None:
    """Until lane 0 runs its job."""
    until = time.monotonic() + 60
    while post(url, "/queue/all", method="GET")["total_running"] == 0:
        assert time.monotonic() < until
        time.sleep(0.02)
