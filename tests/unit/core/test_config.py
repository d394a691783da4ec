from __future__ import annotations

import pytest

from comfy import cli_args
from comfy.config import LatentPreviewMethod, load
from comfy.errors import ConfigError


def test_defaults_are_those_of_an_ordinary_single_gpu_server() -> None:
    config = load([], {})
    assert (config.listen, config.port, config.multi_gpu, config.max_upload_bytes) == (("127.0.0.1",), 8188, False, 104857600)
    assert (config.cache_policy, config.preview_method, config.max_queue) == ("classic", LatentPreviewMethod.NoPreviews, 10_000)


@pytest.mark.parametrize(
    ("text", "on"), [("1", True), ("true", True), ("ON", True), ("0", False), ("false", False), ("off", False), ("", False)]
)
def test_the_gate_reads_its_variable(text: str, on: bool) -> None:
    assert load([], {"COMFY_MULTI_GPU_SCHED": text}).multi_gpu is on


def test_a_flag_wins_over_its_variable() -> None:
    config = load(["--num-gpus", "3", "--multi-gpu-sched", "0"], {"COMFY_NUM_GPUS": "2", "COMFY_MULTI_GPU_SCHED": "1"})
    assert (config.num_gpus, config.multi_gpu) == (3, False)


@pytest.mark.parametrize(
    "env",
    [
        {"COMFY_MULTI_GPU_SCHED": "yes"},
        {"COMFY_NUM_GPUS": "four"},
        {"COMFY_NUM_GPUS": "0"},
        {"COMFY_NUM_GPUS": "-1"},
        {"COMFY_NUM_GPUS": "٤"},
        {"COMFY_DEFAULT_TARGET_GPU": "-1"},
        {"COMFY_AUTO_GPUS": "0,x"},
        {"COMFY_AUTO_GPUS": "0,"},
        {"COMFY_MAX_QUEUE": "0"},
        {"COMFY_RAM_CACHE_GIB": "nan"},
        {"COMFY_RAM_CACHE_GIB": "-1"},
        {"COMFY_DRAIN_S": "soon"},
    ],
    ids=str,
)
def test_a_wrong_variable_is_named_in_one_line(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load([], env)
    assert next(iter(env)) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_status == 2


@pytest.mark.parametrize(
    "argv",
    [["--nonsense"], ["--port", "x"], ["--cpu", "--highvram"], ["--cache-none", "--cache-lru", "3"], ["--user-directory", "/nowhere"]],
)
def test_wrong_flags_end_with_usage_and_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        load(argv, {})
    assert raised.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError):
        load(["--port", "70000"], {})


def test_switches_with_optional_values() -> None:
    config = load(["--listen", "--enable-cors-header", "--verbose"], {})
    assert (config.listen, config.cors_origin, config.log_level) == (("0.0.0.0", "::"), "*", "DEBUG")


def test_packs_see_the_parsed_flags_in_the_same_namespace() -> None:
    before = cli_args.args
    saved = dict(vars(before))
    try:
        cli_args.fill(load(["--port", "9000"], {}).args)
        assert cli_args.args is before
        assert before.port == 9000
    finally:
        vars(before).update(saved)
