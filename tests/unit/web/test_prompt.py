from __future__ import annotations

import asyncio
import io
import json
import uuid
from typing import Any

import pytest

from comfy.errors import BodyInvalid, PromptInvalid
from comfy.units import MIB
from comfy.web import body as body_module
from comfy.web.prompt import is_bare_graph, parse_request
from server import PromptServer
from tests.unit.web.helpers import Site, graph, with_site


def test_an_accepted_prompt_gets_an_id_a_number_and_its_lane() -> None:
    async def test(site: Site) -> None:
        for number in (0, 1):
            answer = await site.json("POST", "/prompt", json={"prompt": graph()})
            assert list(answer) == ["prompt_id", "number", "node_errors", "gpu_id"]
            assert uuid.UUID(answer["prompt_id"]).version == 4
            assert (answer["number"], answer["node_errors"]) == (number, {})
            assert answer["gpu_id"] in (0, 1)

    with_site(test)


def test_a_single_gpu_server_ignores_the_header_and_names_no_lane() -> None:
    async def test(site: Site) -> None:
        for header in ("0", "7", "nonsense"):
            answer = await site.json("POST", "/prompt", json={"prompt": graph()}, headers={"X-TARGET-GPU": header})
            assert list(answer) == ["prompt_id", "number", "node_errors"]
            queue = await site.json("GET", "/queue", headers={"X-TARGET-GPU": header})
            assert list(queue) == ["queue_running", "queue_pending"]

    with_site(test, lanes=1, multi_gpu=False)


@pytest.mark.parametrize(("header", "lanes"), [("0", {0}), ("1", {1}), (" 1 ", {1}), ("auto", {0, 1}), ("AUTO", {0, 1}), (None, {0, 1})])
def test_the_header_names_the_lane(header: str | None, lanes: set[int]) -> None:
    async def test(site: Site) -> None:
        headers = {} if header is None else {"X-TARGET-GPU": header}
        for path in ("/prompt", "/api/prompt"):
            answer = await site.json("POST", path, json={"prompt": graph()}, headers=headers)
            assert answer["gpu_id"] in lanes

    with_site(test)


BAD_TARGETS = ["2", "-1", "+1", "1e0", "0,1", "٣", "x", "", "1.0", "0x1", "99999999999999999999"]


@pytest.mark.parametrize("header", BAD_TARGETS)
def test_a_header_that_is_no_lane_is_refused_and_nothing_is_queued(header: str) -> None:
    async def test(site: Site) -> None:
        headers = {"X-TARGET-GPU": header}
        for method, path in [("POST", "/prompt"), ("GET", "/queue"), ("POST", "/queue"), ("POST", "/interrupt"), ("POST", "/free")]:
            error = await site.error(method, path, headers=headers, data=b'{"prompt": {}}' if method == "POST" else None)
            assert error["type"] == "target_gpu_invalid"
            assert error["extra_info"]["valid"] == "0-1 or auto"
        assert site.house.scheduler.remaining() == 0
        assert site.house.scheduler.number == 0

    with_site(test)


@pytest.mark.parametrize("values", [("0", "0"), ("0", "1"), ("auto", "0"), ("auto", "auto")])
def test_a_repeated_header_is_refused(values: tuple[str, str]) -> None:
    async def test(site: Site) -> None:
        headers = [("X-TARGET-GPU", values[0]), ("X-TARGET-GPU", values[1])]
        error = await site.error("POST", "/prompt", json={"prompt": graph()}, headers=headers)
        assert error["type"] == "target_gpu_invalid"
        assert site.house.scheduler.remaining() == 0

    with_site(test)


def test_the_counter_advances_for_every_submission_without_a_number() -> None:
    async def test(site: Site) -> None:
        assert (await site.json("POST", "/prompt", json={"prompt": graph(), "front": True}))["number"] == 0
        await site.error("POST", "/prompt", json={"prompt": {}})  # 1
        await site.error("POST", "/prompt", json=[])  # 2
        await site.error("POST", "/prompt", json={"nothing": 1})  # 3
        await site.error("POST", "/prompt", data=b"{no json")  # was no submission
        assert (await site.json("POST", "/prompt", json={"prompt": graph(), "front": True}))["number"] == -4
        assert (await site.json("POST", "/prompt", json={"prompt": graph(), "number": "2.5", "front": True}))["number"] == 2.5
        assert (await site.json("POST", "/prompt", json={"prompt": graph(), "number": -3}))["number"] == -3.0
        assert (await site.json("POST", "/prompt", json={"prompt": graph()}))["number"] == 5

    with_site(test)


def test_the_prompt_id_is_kept_as_text_and_may_not_be_taken_twice() -> None:
    async def test(site: Site) -> None:
        site.house.script.gate("42")
        assert (await site.json("POST", "/prompt", json={"prompt": graph(), "prompt_id": 42}))["prompt_id"] == "42"
        error = await site.error("POST", "/prompt", json={"prompt": graph("other"), "prompt_id": "42"})
        assert (error["type"], error["extra_info"]["field"]) == ("prompt_id_in_use", "prompt_id")
        for absent in (None, ""):
            answer = await site.json("POST", "/prompt", json={"prompt": graph(), "prompt_id": absent})
            assert uuid.UUID(answer["prompt_id"])

    with_site(test)


def test_the_clients_id_goes_into_extra_data_and_secrets_are_never_shown() -> None:
    async def test(site: Site) -> None:
        site.house.script.gate("a")
        extra = {"extra_pnginfo": {"workflow": {}}, "api_key_comfy_org": "KEY", "auth_token_comfy_org": "TOKEN"}
        body = {"prompt": graph(), "prompt_id": "a", "client_id": "me", "extra_data": extra}
        answer = await site.json("POST", "/prompt", json=body)
        queues = [await site.json("GET", path) for path in ("/queue", "/queue/all")]
        await site.wait(site.house.wait_started, "a")
        site.house.open("a")
        await site.wait(site.house.wait_ended, "a")
        record = (await site.json("GET", "/history/a"))["a"]
        assert record["prompt"] == [0, "a", graph(), {"extra_pnginfo": {"workflow": {}}, "client_id": "me"}, ["1"]]
        shown = json.dumps([answer, queues, record])
        assert "KEY" not in shown
        assert "TOKEN" not in shown

    with_site(test)


def test_a_bare_graph_is_accepted() -> None:
    async def test(site: Site) -> None:
        answer = await site.json("POST", "/prompt", json=graph())
        assert answer["node_errors"] == {}

    with_site(test)


@pytest.mark.parametrize(
    ("body", "bare"),
    [
        (graph(), True),
        ({}, False),
        ({"prompt": {"class_type": "x"}}, False),
        ({"1": {"class_type": "A"}, "client_id": "x"}, False),
        ({"1": {"inputs": {}}}, False),
        ({"1": []}, False),
    ],
)
def test_what_counts_as_a_bare_graph(body: dict[str, Any], bare: bool) -> None:
    assert is_bare_graph(body) is bare


@pytest.mark.parametrize("body", [[], "x", 3, None, True, {}, {"client_id": "x"}, {"1": {"inputs": {}}}])
def test_without_a_prompt_the_error_is_no_prompt(body: Any) -> None:
    async def test(site: Site) -> None:
        error = await site.error("POST", "/prompt", data=json.dumps(body))
        assert (error["type"], error["extra_info"]) == ("no_prompt", {})

    with_site(test)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\xfa", b'{"a": 1} x', b"[" * 100_000])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    async def test(site: Site) -> None:
        assert (await site.error("POST", "/prompt", data=data))["type"] == "invalid_json"

    with_site(test)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", "x"),
        ("number", None),
        ("number", []),
        ("number", "nan"),
        ("number", 10**400),
        ("extra_data", []),
        ("extra_data", "x"),
        ("client_id", {}),
        ("client_id", ["a"]),
        ("client_id", True),
        ("client_id", "a\x1b[2J"),
        ("prompt_id", {"a": 1}),
        ("prompt_id", ["a"]),
        ("prompt_id", False),
        ("prompt_id", "a\n✅ [GPU 0] Prompt b executed"),
        ("prompt_id", "\ud800"),
        ("prompt_id", "x" * 257),
        ("partial_execution_targets", "1"),
        ("partial_execution_targets", [["1"]]),
    ],
)
def test_a_bad_field_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(BodyInvalid) as caught:
        parse_request({"prompt": graph(), field: value})
    assert caught.value.field == field


def test_absent_and_null_fields_mean_the_default() -> None:
    request = parse_request({"prompt": 1, "extra_data": None, "client_id": None, "partial_execution_targets": None})
    assert (request.extra_data, request.targets, request.number, request.front) == ({"client_id": None}, None, None, False)
    assert parse_request({"prompt": 1, "client_id": 7}).extra_data == {"client_id": "7"}
    assert parse_request({"prompt": 1, "extra_data": {"client_id": "x"}}).extra_data == {"client_id": "x"}
    assert parse_request({"prompt": 1, "partial_execution_targets": []}).targets == []
    with pytest.raises(PromptInvalid):
        parse_request({})


def test_validation_errors_reach_the_client_as_they_are() -> None:
    async def test(site: Site) -> None:
        body = await site.json("POST", "/prompt", 400, json={"prompt": graph(n=99)})
        assert body["error"]["type"] == "prompt_outputs_failed_validation"
        assert [error["type"] for error in body["node_errors"]["1"]["errors"]] == ["value_bigger_than_max"]
        error = await site.error("POST", "/prompt", json={"prompt": {"1": {"class_type": "Nope", "inputs": {}}}})
        assert error["type"] == "invalid_prompt"
        for prompt in (None, "x", {"1": 5}):
            assert (await site.error("POST", "/prompt", json={"prompt": prompt}))["type"] != "internal_error"
        error = await site.error("POST", "/prompt", json={"prompt": graph(), "partial_execution_targets": []})
        assert error["type"] == "prompt_no_outputs"
        mixed = {**graph(), "2": graph(n=99)["1"]}
        answer = await site.json("POST", "/prompt", json={"prompt": mixed})
        assert list(answer["node_errors"]) == ["2"]

    with_site(test)


def test_a_prompt_over_the_limit_is_refused() -> None:
    async def test(site: Site) -> None:
        error = await site.error("POST", "/prompt", 413, data=io.BytesIO(b" " * (32 * MIB + 1)))
        assert (error["type"], error["extra_info"]) == ("prompt_too_large", {"limit_bytes": 32 * MIB})

    with_site(test)


def test_a_large_body_is_parsed_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    to_thread = body_module.asyncio.to_thread

    async def spy(function: Any, *args: Any) -> Any:
        threads.append(function)
        return await to_thread(function, *args)

    async def test(site: Site) -> None:
        monkeypatch.setattr(body_module.asyncio, "to_thread", spy)
        await site.json("POST", "/prompt", data=io.BytesIO(json.dumps({"prompt": graph("x" * MIB)}).encode()))
        assert threads == [body_module.parse_large]

    with_site(test)


def test_a_full_queue_and_a_stopping_server_refuse() -> None:
    async def test(site: Site) -> None:
        site.house.script.gate("a")
        await site.json("POST", "/prompt", json={"prompt": graph(), "prompt_id": "a"})
        await site.wait(site.house.wait_started, "a")
        await site.json("POST", "/prompt", json={"prompt": graph()})
        assert (await site.error("POST", "/prompt", 429, json={"prompt": graph()}))["type"] == "queue_full"
        site.house.open("a")
        await asyncio.to_thread(site.house.scheduler.close, 20)
        assert (await site.error("POST", "/prompt", 503, json={"prompt": graph()}))["type"] == "shutting_down"

    with_site(test, lanes=1, capacity=1)


def test_packs_see_and_change_each_submission_in_turn() -> None:
    def prepare(server: PromptServer) -> None:
        def breaks(body: dict[str, Any]) -> dict[str, Any]:
            raise KeyError("pack")

        def forgets(body: dict[str, Any]) -> None:
            return None

        def renames(body: dict[str, Any]) -> dict[str, Any]:
            return {**body, "prompt_id": body["prompt"]["1"]["inputs"]["text"]}

        for handler in (breaks, forgets, renames):
            server.add_on_prompt_handler(handler)  # type: ignore[arg-type]

    async def test(site: Site) -> None:
        assert (await site.json("POST", "/prompt", json=graph("named")))["prompt_id"] == "named"

    with_site(test, prepare=prepare)


def test_get_prompt_counts_waiting_and_running() -> None:
    async def test(site: Site) -> None:
        assert await site.json("GET", "/prompt") == {"exec_info": {"queue_remaining": 0}}
        site.house.script.gate("a")
        for prompt_id in ("a", "b"):
            await site.json("POST", "/prompt", json={"prompt": graph(), "prompt_id": prompt_id}, headers={"X-TARGET-GPU": "0"})
        assert await site.json("GET", "/api/prompt") == {"exec_info": {"queue_remaining": 2}}

    with_site(test, lanes=1)
