"""The main job through the real server: a process of main.py over CPU lanes, driven over HTTP."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks.harness import Server, server, text_to_image
from comfy.config import PROGRAM_DIR
from tests.make_checkpoint import make_sd1_checkpoint

SMALL = "small.safetensors"
SIZE = 64
GATE_PACK = '''
import os, time
from comfy import model_management

class TestGate:
    """Waits until the file exists; polls the interrupt flag."""
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "go", "test", True
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"path": ("STRING", {"default": ""})}}
    @classmethod
    def IS_CHANGED(cls, path):
        return float("nan")
    def go(self, path):
        open(path + ".started", "w").close()
        until = time.monotonic() + 60
        while not os.path.exists(path) and time.monotonic() < until:
            model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.005)
        return {"ui": {"text": [path]}}

class TestAdd:
    """Takes any input."""
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = ("INT",), "go", "test", True
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("INT", {"default": 1, "min": 0, "max": 9})}, "optional": {"b": ("INT",)}}
    def go(self, a, b=0, **kwargs):
        return {"ui": {"text": [str(a + b)]}, "result": (a + b,)}

NODE_CLASS_MAPPINGS = {"TestGate": TestGate, "TestAdd": TestAdd}
'''


def prepare(base: Path) -> Path:
    """A base folder with a small checkpoint, a picture and a pack."""
    for name in ("models/checkpoints", "custom_nodes/gate_pack", "input"):
        (base / name).mkdir(parents=True)
    make_sd1_checkpoint(base / "models/checkpoints" / SMALL)
    (base / "custom_nodes/gate_pack/__init__.py").write_text(GATE_PACK)
    gradient = torch.linspace(0, 255, SIZE * SIZE * 3).reshape(SIZE, SIZE, 3).to(torch.uint8).numpy()
    Image.fromarray(gradient).save(base / "input/gradient.png")
    return base


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    base = prepare(tmp_path_factory.mktemp("house"))
    with server(base, 2, "--cpu", threads=1) as running:
        yield running, base


def picture(seed: int = 1, **changes: Any) -> dict[str, Any]:
    return text_to_image(SMALL, seed=seed, size=SIZE, steps=2, **changes)


def gate(path: Path) -> dict[str, Any]:
    return {"1": {"class_type": "TestGate", "inputs": {"path": str(path)}}}


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.01)


def refusal(running: Server, path: str, data: bytes, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(running.url + path, data, headers or {})
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=60)
    with raised.value as answer:
        return answer.code, json.loads(answer.read())


def failure(running: Server, prompt: dict[str, Any]) -> str:
    """How a prompt that was accepted failed."""
    prompt_id = running.submit(prompt)
    until = time.monotonic() + 60
    while not (record := running.json(f"/history/{prompt_id}")):
        assert time.monotonic() < until
        time.sleep(0.02)
    name, data = record[prompt_id]["status"]["messages"][-1]
    assert name == "execution_error"
    return f"{data['exception_type']}: {data['exception_message']}"


def still_works(running: Server) -> None:
    for lane in (0, 1):
        prompt_id = running.submit({"1": {"class_type": "TestAdd", "inputs": {"a": 3}}}, lane)
        assert running.wait([prompt_id])[prompt_id]["outputs"]["1"] == {"text": ["3"]}


def test_a_picture_on_each_lane_has_the_same_bytes(house: tuple[Server, Path]) -> None:
    running, _ = house
    ids = [running.submit(picture(), lane) for lane in (0, 1)]
    records = running.wait(ids)
    assert [records[prompt_id]["gpu_id"] for prompt_id in ids] == [0, 1]
    first, second = (running.pictures(records[prompt_id])[0] for prompt_id in ids)
    assert first == second
    with Image.open(io.BytesIO(first)) as image:
        assert image.size == (SIZE, SIZE)
        assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 50  # not one flat colour
        assert json.loads(image.info["prompt"]) == picture()


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m"])
@pytest.mark.parametrize("scheduler", ["normal", "karras", "simple"])
def test_samplers_and_schedulers_differ_and_repeat(house: tuple[Server, Path], sampler: str, scheduler: str) -> None:
    running, _ = house
    prompt = picture(5, sampler=sampler)
    prompt["3"]["inputs"]["scheduler"] = scheduler
    twice = []
    for lane in (0, 1):
        prompt_id = running.submit(prompt, lane)
        twice.append(running.pictures(running.wait([prompt_id])[prompt_id])[0])
    assert twice[0] == twice[1]


def test_image_to_image_keeps_more_of_the_picture_at_less_denoise(house: tuple[Server, Path]) -> None:
    running, _ = house

    def distance(denoise: float) -> float:
        prompt = picture(3)
        prompt["1"] = {"class_type": "LoadImage", "inputs": {"image": "gradient.png"}}
        prompt["2"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["1", 0], "vae": ["4", 2]}}
        prompt["3"]["inputs"] |= {"latent_image": ["2", 0], "denoise": denoise, "steps": 4}
        plain = {key: prompt[key] for key in ("1", "2", "4")} | {
            "8": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["4", 2]}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "plain"}},
        }
        ids = [running.submit(prompt), running.submit(plain)]
        records = running.wait(ids)
        pixels = []
        for prompt_id in ids:
            with Image.open(io.BytesIO(running.pictures(records[prompt_id])[0])) as image:
                pixels.append(np.asarray(image).astype(float))
        return float(np.abs(pixels[0] - pixels[1]).mean())

    assert 0 < distance(0.2) < distance(1.0)


def test_clip_skip_and_weights_change_the_picture(house: tuple[Server, Path]) -> None:
    running, _ = house
    plain = picture(7, text="a red circle")
    weighted = picture(7, text="a (red:1.4) circle")
    skipped = picture(7, text="a red circle")
    skipped["10"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["4", 1], "stop_at_clip_layer": -2}}
    skipped["6"]["inputs"]["clip"] = ["10", 0]
    ids = [running.submit(prompt, 0) for prompt in (plain, weighted, skipped)]
    records = running.wait(ids)
    assert len({running.pictures(records[prompt_id])[0] for prompt_id in ids}) == 3


def test_each_weight_file_is_read_once_for_all_lanes(house: tuple[Server, Path]) -> None:
    running, base = house
    running.wait([running.submit(picture(), lane) for lane in (0, 1)])
    log = (base / "server.log").read_text()
    for part in ("denoiser", "clip_l", "vae"):
        assert log.count(f"read {part} of {SMALL}") == 1


BAD_FILES: dict[str, Callable[[Path, Path], None]] = {
    "truncated": lambda good, bad: bad.write_bytes(good.read_bytes()[:-5000]),
    "short": lambda good, bad: bad.write_bytes(b"\x08\0\0"),
    "lying_length": lambda good, bad: bad.write_bytes((1 << 60).to_bytes(8, "little") + good.read_bytes()[8:]),
    "lying_offsets": lambda good, bad: bad.write_bytes(good.read_bytes().replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1)),
    "not_json": lambda good, bad: bad.write_bytes((4).to_bytes(8, "little") + b"nope"),
    "other_model": lambda good, bad: save_file({"some.weight": torch.zeros(3)}, bad),
    "wrong_shapes": lambda good, bad: save_file(_with_wrong_shape(good), bad),
}


def _with_wrong_shape(good: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(good)
    name = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    tensors[name] = tensors[name][:, :5].contiguous()
    return tensors


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_checkpoint_fails_its_job_with_a_reason(house: tuple[Server, Path], kind: str) -> None:
    running, base = house
    folder = base / "models/checkpoints"
    bad = folder / f"bad_{kind}.safetensors"
    BAD_FILES[kind](folder / SMALL, bad)
    prompt = picture()
    prompt["4"]["inputs"]["ckpt_name"] = bad.name
    text = failure(running, prompt)
    assert "comfy.errors." in text
    assert bad.name in text
    still_works(running)


def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(house: tuple[Server, Path], tmp_path: Path) -> None:
    running, base = house
    class_path = base / "models/checkpoints/bomb.ckpt"
    target = tmp_path / "went_off"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(target), "w")

    class_path.write_bytes(pickle.dumps({"state_dict": Attack()}))
    prompt = picture()
    prompt["4"]["inputs"]["ckpt_name"] = "bomb.ckpt"
    assert "WeightFileInvalid" in failure(running, prompt)
    assert not target.exists()
    still_works(running)


def ksampler(**inputs: Any) -> dict[str, Any]:
    prompt = picture()
    prompt["3"]["inputs"] |= inputs
    return prompt


BAD_PROMPTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "missing checkpoint": (text_to_image("nowhere.safetensors", seed=1, size=64, steps=1), "4", "value_not_in_list"),
    "missing input": ({**picture(), "8": {"class_type": "VAEDecode", "inputs": {"vae": ["4", 2]}}}, "8", "required_input_missing"),
    "wrong type": (ksampler(seed="many"), "3", "invalid_input_type"),
    "too large": (ksampler(steps=10**9), "3", "value_bigger_than_max"),
    "link of another type": (ksampler(model=["4", 1]), "3", "return_type_mismatch"),
    "link of length 3": (ksampler(model=["4", 1, 2]), "3", "bad_linked_input"),
}


@pytest.mark.parametrize("case", BAD_PROMPTS)
def test_a_bad_prompt_is_refused_at_its_node(house: tuple[Server, Path], case: str) -> None:
    running, _ = house
    prompt, node, kind = BAD_PROMPTS[case]
    status, body = refusal(running, "/prompt", json.dumps({"prompt": prompt}).encode())
    assert status == 400
    assert body["error"]["type"] == "prompt_outputs_failed_validation"
    assert kind in [error["type"] for error in body["node_errors"][node]["errors"]]


@pytest.mark.parametrize(
    "prompt",
    [
        {"1": {"class_type": "NoSuchNode", "inputs": {}}},
        {"1": {"class_type": "TestAdd", "inputs": {"a": ["1", 0]}}},
        {"1": {"class_type": "TestAdd", "inputs": {"a": ["2", 0]}}, "2": {"class_type": "TestAdd", "inputs": {"a": ["1", 0]}}},
        {"1": {"class_type": "TestAdd", "inputs": {"a": ["9", 0]}}},
        {"1": {"class_type": "TestAdd", "inputs": {"a": 1, "undeclared": ["9", 0]}}},
        {"1": 5},
        {},
    ],
    ids=["unknown node", "link to itself", "cycle", "absent node", "absent node in an undeclared input", "no object", "empty"],
)
def test_a_prompt_that_cannot_run_is_a_typed_400(house: tuple[Server, Path], prompt: dict[str, Any]) -> None:
    running, _ = house
    status, body = refusal(running, "/prompt", json.dumps({"prompt": prompt}).encode())
    assert status == 400
    assert body["error"]["type"]
    assert body["error"]["message"]
    still_works(running)


def test_bodies_over_the_limits_are_refused(house: tuple[Server, Path]) -> None:
    running, _ = house
    long_text = json.dumps({"prompt": {"1": {"class_type": "TestAdd", "inputs": {"a": 1}, "_meta": "x" * (33 << 20)}}}).encode()
    status, body = refusal(running, "/prompt", long_text)
    assert (status, body["error"]["type"]) == (413, "prompt_too_large")
    still_works(running)


def test_an_upload_over_the_limit_is_refused(tmp_path: Path) -> None:
    with server(prepare(tmp_path / "base"), 1, "--cpu", "--max-upload-size", "0.1", threads=1) as running:
        boundary = b"--x\r\nContent-Disposition: form-data; name=image; filename=a.png\r\n\r\n" + b"z" * 200_000 + b"\r\n--x--\r\n"
        status, body = refusal(running, "/upload/image", boundary, {"Content-Type": "multipart/form-data; boundary=x"})
        assert status == 413
        assert body["error"]["type"]


def test_an_interrupt_stops_that_lanes_job_only(house: tuple[Server, Path], tmp_path: Path) -> None:
    running, _ = house
    paths = [tmp_path / "lane0", tmp_path / "lane1"]
    ids = [running.submit(gate(path), lane) for lane, path in enumerate(paths)]
    for path in paths:
        wait_for(path.with_name(path.name + ".started"))
    running.post("/interrupt", {"prompt_id": ids[1]})
    until = time.monotonic() + 60
    while not running.json(f"/history/{ids[1]}"):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert running.json(f"/history/{ids[1]}")[ids[1]]["status"]["messages"][-1][0] == "execution_interrupted"
    assert [row[1] for row in running.json("/queue")["queue_running"]] == [ids[0]]
    paths[0].touch()
    running.wait([ids[0]])


def test_sigterm_finishes_what_runs_and_keeps_what_waits(tmp_path: Path) -> None:
    base = prepare(tmp_path / "base")
    path = tmp_path / "gate"
    with server(base, 2, "--cpu", threads=1) as running:
        active = running.submit(gate(path), 1)
        wait_for(tmp_path / "gate.started")
        waiting = [running.submit({"1": {"class_type": "TestAdd", "inputs": {"a": n}}}, 1) for n in (4, 5)]
        running.post("/prompt", {"prompt": {"1": {"class_type": "TestAdd", "inputs": {"a": 6}}}, "front": True, "prompt_id": "first"}, 1)
        running.process.send_signal(signal.SIGTERM)
        wait_for(base / "user/queue.json")
        status, body = refusal(running, "/prompt", json.dumps({"prompt": gate(path)}).encode())
        assert (status, body["error"]["type"]) == (503, "shutting_down")
        path.touch()
        assert running.process.wait(60) == 0
    saved = [job["prompt_id"] for job in json.loads((base / "user/queue.json").read_text())["jobs"]]
    assert saved == ["first", *waiting]
    assert f"Prompt {active[:8]} executed" in (base / "server.log").read_text()
    with server(base, 2, "--cpu", threads=1) as again:
        records = again.wait(["first", *waiting])
        assert list(again.json("/history")) == ["first", *waiting]
        assert [records[prompt_id]["outputs"]["1"]["text"] for prompt_id in ("first", *waiting)] == [["6"], ["4"], ["5"]]
        assert {record["gpu_id"] for record in records.values()} == {1}
    assert not (base / "user/queue.json").exists()


def test_gate_off_is_a_single_gpu_server_that_ignores_the_header(tmp_path: Path) -> None:
    base = prepare(tmp_path / "base")
    with server(base, 1, "--cpu", "--multi-gpu-sched", "0", threads=1) as running:
        reply = running.post("/prompt", {"prompt": picture()}, lane=7)
        assert "gpu_id" not in reply
        assert "gpu_id" not in running.wait([reply["prompt_id"]])[reply["prompt_id"]]
        assert running.json("/debug/queues") == {"mode": "single-gpu"}
        assert len(running.json("/queue/all")["queues"]) == 1
        assert "ℹ️ Single-GPU mode (default)" in (base / "server.log").read_text()


def start(base: Path, *flags: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM_DIR / "main.py"), "--cpu", "--base-directory", str(base), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env={**os.environ, **(env or {})}, check=False)


@pytest.mark.parametrize(
    ("flags", "env", "words"),
    [
        ((), {"COMFY_MULTI_GPU_SCHED": "maybe"}, "COMFY_MULTI_GPU_SCHED"),
        ((), {"COMFY_MULTI_GPU_SCHED": "1", "COMFY_NUM_GPUS": "two"}, "COMFY_NUM_GPUS"),
        ((), {"COMFY_MULTI_GPU_SCHED": "1", "COMFY_AUTO_GPUS": "0,7"}, "COMFY_AUTO_GPUS"),
        ((), {"COMFY_MULTI_GPU_SCHED": "1", "COMFY_DEFAULT_TARGET_GPU": "9"}, "COMFY_DEFAULT_TARGET_GPU"),
    ],
    ids=lambda value: "",
)
def test_a_wrong_setting_ends_the_start_with_one_clear_line(
    tmp_path: Path, flags: tuple[str, ...], env: dict[str, str], words: str
) -> None:
    done = start(tmp_path, *flags, env=env)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_said_before_anything_else_happens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = start(tmp_path, "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "port" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "models/checkpoints").exists() or not list((tmp_path / "models/checkpoints").iterdir())
