"""http-api.md section 3 and execution.md sections 1 to 4: what POST /prompt takes, refuses, and answers."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from tests.conformance.site import Site, node

GOOD = {"1": node("ProbeNumber", n=1), "2": node("ProbeShow", value=["1", 0])}


def refused(site: Site, prompt: Any, **more: Any) -> dict[str, Any]:
    """The 400 of a prompt; nothing was queued."""
    answer = site.post("/prompt", {"prompt": prompt, **more})
    assert answer.status == 400, answer.body
    assert site.get("/prompt").json()["exec_info"]["queue_remaining"] == 0
    body = answer.json()
    assert set(body) == {"error", "node_errors"}
    assert set(body["error"]) == {"type", "message", "details", "extra_info"}
    return dict(body)


def test_get_tells_how_many_jobs_there_are(site: Site) -> None:
    assert site.get("/prompt").json() == {"exec_info": {"queue_remaining": 0}}


def test_the_answer_of_an_accepted_prompt(site: Site) -> None:
    body = site.post("/prompt", {"prompt": GOOD}).json()
    assert UUID(body["prompt_id"]).version == 4
    assert body["node_errors"] == {}
    assert list(body) == ["prompt_id", "number", "node_errors", *(["gpu_id"] if site.multi else [])]
    site.finish([body["prompt_id"]])


def test_the_counter_advances_for_refused_prompts_and_not_for_given_numbers(site: Site) -> None:
    def number(**more: Any) -> float:
        answer = site.post("/prompt", {"prompt": GOOD, **more}).json()
        site.finish([answer["prompt_id"]])
        return float(answer["number"])

    first = number()
    assert site.post("/prompt", {"prompt": {}}).status == 400
    assert number(number=-7.5) == -7.5
    assert number(number="12") == 12
    assert number() == first + 2
    assert number(front=True) == -(first + 3)
    assert number(front=True, number=4) == 4


@pytest.mark.parametrize(("given", "shown"), [("an id", "an id"), (17, "17"), (1.5, "1.5")])
def test_a_prompt_id_is_taken_as_text(site: Site, given: Any, shown: str) -> None:
    answer = site.post("/prompt", {"prompt": GOOD, "prompt_id": given}).json()
    assert answer["prompt_id"] == shown
    site.finish([shown])
    again = site.post("/prompt", {"prompt": GOOD, "prompt_id": given})
    assert (again.status, again.error()) == (400, "prompt_id_in_use")


def test_a_bare_graph_is_a_prompt(site: Site) -> None:
    answer = site.post("/prompt", GOOD)
    assert answer.status == 200
    site.finish([answer.json()["prompt_id"]])


@pytest.mark.parametrize("body", [{}, [], "x", 3, None, {"a": 1}, {"1": {"inputs": {}}}, {"1": node("ProbeNumber", n=1), "x": 2}])
def test_without_a_prompt(site: Site, body: Any) -> None:
    answer = site.request("POST", "/prompt", json=body) if body is not None else site.request("POST", "/prompt", data=b"null")
    assert (answer.status, answer.error()) == (400, "no_prompt")
    assert answer.json()["error"]["details"] == "No prompt provided"
    assert answer.json()["node_errors"] == {}


@pytest.mark.parametrize("prompt", [None, "text", 3, [], {"1": 5}, {"1": None}, {"1": []}, {"1": "x"}])
def test_a_prompt_of_another_form_is_typed(site: Site, prompt: Any) -> None:
    assert refused(site, prompt)["error"]["type"] in ("invalid_prompt", "prompt_no_outputs")


@pytest.mark.parametrize("more", [{"number": "x"}, {"number": None}, {"number": []}, {"extra_data": 3}, {"partial_execution_targets": 3}])
def test_a_field_of_another_form_is_typed(site: Site, more: Any) -> None:
    assert refused(site, GOOD, **more)["error"]["type"] == "body_invalid"


def test_extra_data_null_with_a_client_id_is_fine(site: Site) -> None:
    answer = site.post("/prompt", {"prompt": GOOD, "extra_data": None, "client_id": "c"})
    assert answer.status == 200
    assert site.finish([answer.json()["prompt_id"]]).popitem()[1]["prompt"][3] == {"client_id": "c"}


def test_the_first_node_without_a_class_or_with_an_unknown_one_is_named(site: Site) -> None:
    told = refused(site, {**GOOD, "7": {"inputs": {}}, "8": node("NoSuchNode")})["error"]
    assert (told["type"], told["extra_info"]) == ("invalid_prompt", {})
    assert "#7" in told["details"]
    told = refused(site, {**GOOD, "8": node("NoSuchNode"), "9": {"inputs": {}}})["error"]
    assert (told["type"], "#8" in told["details"], "NoSuchNode" in told["message"]) == ("invalid_prompt", True, True)


@pytest.mark.parametrize(
    ("prompt", "targets"), [({}, None), ({"1": node("ProbeNumber", n=1)}, None), (GOOD, []), (GOOD, ["9"]), (GOOD, ["1"])]
)
def test_no_output_left(site: Site, prompt: Any, targets: Any) -> None:
    told = refused(site, prompt, **({} if targets is None else {"partial_execution_targets": targets}))
    assert (told["error"]["type"], told["error"]["details"], told["node_errors"]) == ("prompt_no_outputs", "", {})


def test_partial_targets_run_only_those(site: Site) -> None:
    prompt = {**GOOD, "3": node("ProbeShowToo", value=["1", 0])}
    prompt_id = site.post("/prompt", {"prompt": prompt, "partial_execution_targets": ["3"]}).json()["prompt_id"]
    record = site.finish([prompt_id])[prompt_id]
    assert record["prompt"][4] == ["3"]


def show(**inputs: Any) -> dict[str, Any]:
    return {"1": node("ProbeShow", **inputs), "2": node("ProbeNumber", n=1)}


def number(value: Any) -> dict[str, Any]:
    return {"1": node("ProbeShow", value=["2", 0]), "2": node("ProbeNumber", n=value)}


NUMBER = ["INT", {"default": 1, "min": 0, "max": 1000}]
CASES = [
    ({"1": node("ProbeShow")}, "1", "required_input_missing", "value", {"input_name": "value"}),
    (show(value=["2"]), "1", "bad_linked_input", "value", {"input_name": "value", "received_value": ["2"]}),
    (show(value=[]), "1", "bad_linked_input", "value", {"input_name": "value", "received_value": []}),
    (
        {"1": node("SaveImage", images=["2", 0], filename_prefix="x"), "2": node("ProbeNumber", n=1)},
        "1",
        "return_type_mismatch",
        "images, received_type(INT) mismatch input_type(IMAGE)",
        {"input_name": "images", "received_type": "INT", "linked_node": ["2", 0]},
    ),
    (number("abc"), "2", "invalid_input_type", None, {"input_name": "n", "input_config": NUMBER, "received_value": "abc"}),
    (number(-1), "2", "value_smaller_than_min", "n", {"input_name": "n", "input_config": NUMBER, "received_value": -1}),
    (number(99999), "2", "value_bigger_than_max", "n", {"input_name": "n", "input_config": NUMBER, "received_value": 99999}),
    (
        {"1": node("ProbeChecked", word="good", kind="c")},
        "1",
        "value_not_in_list",
        "kind: 'c' not in ['a', 'b']",
        {"input_name": "kind", "input_config": [["a", "b"], {}], "received_value": "c"},
    ),
    (
        {"1": node("ProbeChecked", word="bad", kind="a")},
        "1",
        "custom_validation_failed",
        "word - bad is not good",
        {"input_name": "word"},
    ),
]


@pytest.mark.parametrize(("prompt", "at", "kind", "details", "facts"), CASES, ids=[case[2] for case in CASES])
def test_each_error_of_an_input(site: Site, prompt: Any, at: str, kind: str, details: str | None, facts: dict[str, Any]) -> None:
    told = refused(site, prompt)
    assert told["error"]["type"] == "prompt_outputs_failed_validation"
    assert set(told["node_errors"]) == {at}
    entry = told["node_errors"][at]
    assert (entry["dependent_outputs"], entry["class_type"]) == (["1"], prompt[at]["class_type"])
    (error,) = entry["errors"]
    assert set(error) == {"type", "message", "details", "extra_info"}
    assert error["type"] == kind
    assert details is None or error["details"] == details
    assert error["extra_info"] | facts == error["extra_info"]
    line = f"{error['message']}: {error['details']}" if at == "1" else ""
    assert told["error"]["details"] == line


def test_over_20_options_only_their_number_is_told(site: Site) -> None:
    sampler = site.get("/object_info/KSamplerSelect").json()["KSamplerSelect"]["input"]["required"]["sampler_name"][0]
    prompt = {
        "1": node("SaveLatent", samples=["2", 0], filename_prefix="x"),
        "2": node("KSampler", sampler_name="nope", latent_image=["3", 0]),
        "3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    }
    errors = refused(site, prompt)["node_errors"]["2"]["errors"]
    (error,) = [error for error in errors if error["type"] == "value_not_in_list"]
    assert len(sampler) > 20
    assert error["details"] == f"sampler_name: 'nope' not in (list of length {len(sampler)})"
    assert error["extra_info"] == {"input_name": "sampler_name", "input_config": None, "received_value": "nope"}


@pytest.mark.parametrize("link", [["99", 0], ["2", 5], [2, 0], ["2", "0"], [["2"], 0]])
def test_links_that_lead_nowhere(site: Site, link: Any) -> None:
    told = refused(site, show(value=link))
    (error,) = told["node_errors"]["1"]["errors"]
    assert error["type"] == "exception_during_validation"
    assert set(error["extra_info"]) == {"exception_type", "traceback"}
    assert all(isinstance(line, str) for line in error["extra_info"]["traceback"])


def test_a_link_that_leads_nowhere_deeper_in_the_graph(site: Site) -> None:
    prompt = {"1": node("ProbeShow", value=["2", 0]), "2": node("ProbeAdd", a=["99", 0], b=["99", 0])}
    (error,) = refused(site, prompt)["node_errors"]["2"]["errors"]
    assert error["type"] == "exception_during_inner_validation"
    keys = {"input_name", "input_config", "exception_message", "exception_type", "traceback", "linked_node"}
    assert set(error["extra_info"]) == keys
    assert (error["extra_info"]["exception_type"], error["extra_info"]["linked_node"]) == ("KeyError", ["2", 0])


def test_a_node_without_inputs(site: Site) -> None:
    (error,) = refused(site, {"1": {"class_type": "ProbeShow"}})["node_errors"]["1"]["errors"]
    assert (error["type"], error["details"]) == ("exception_during_validation", "'inputs'")


@pytest.mark.parametrize("length", [1, 2, 500])
def test_a_cycle_is_refused(site: Site, length: int) -> None:
    ring = {str(i): node("ProbeAdd", a=[str((i + 1) % length), 0], b=[str((i + 1) % length), 0]) for i in range(length)}
    assert refused(site, {**ring, "show": node("ProbeShow", value=["0", 0])})["error"]["type"] == "prompt_outputs_failed_validation"


def test_one_bad_output_of_two_is_dropped_and_told(site: Site) -> None:
    prompt = {**GOOD, "bad": node("SaveImage", images=["3", 0]), "3": node("EmptyImage", width=8, height=8, batch_size=1, color=0)}
    answer = site.post("/prompt", {"prompt": prompt})
    assert answer.status == 200
    missing = {"type": "required_input_missing", "details": "filename_prefix", "extra_info": {"input_name": "filename_prefix"}}
    (error,) = answer.json()["node_errors"]["bad"]["errors"]
    assert error | missing == error
    record = site.finish([answer.json()["prompt_id"]]).popitem()[1]
    assert record["prompt"][4] == ["2"]
    assert set(record["outputs"]) == {"2"}


@pytest.mark.parametrize(("given", "kept"), [("16", 16), (16.9, 16), (True, 1), (5, 5)])
def test_whole_numbers_are_converted_in_the_stored_prompt(site: Site, given: Any, kept: int) -> None:
    prompt_id = site.post("/prompt", {"prompt": number(given)}).json()["prompt_id"]
    record = site.finish([prompt_id])[prompt_id]
    assert record["prompt"][2]["2"]["inputs"]["n"] == kept


def test_texts_truths_wrapped_lists_and_unknown_keys(site: Site) -> None:
    prompt = {
        "1": {**node("ProbeText", text={"__value__": [1, 2]}), "_meta": {"title": "T"}, "more": 1},
        "2": node("ProbeShow", value=["3", 0], undeclared="kept in the prompt"),
        "3": node("ProbeSteps", value=["4", 0], steps=0, gate=5, preview="false"),
        "4": node("ProbeNumber", n=1),
    }
    prompt_id = site.post("/prompt", {"prompt": prompt}).json()["prompt_id"]
    stored = site.finish([prompt_id])[prompt_id]["prompt"][2]
    assert stored["1"] == {**prompt["1"], "inputs": {"text": "[1, 2]"}}
    assert stored["2"]["inputs"]["undeclared"] == "kept in the prompt"
    assert (stored["3"]["inputs"]["gate"], stored["3"]["inputs"]["preview"]) == ("5", True)


def test_an_undeclared_link_to_an_absent_node_fails_its_job_and_nothing_else(site: Site) -> None:
    prompt = {"1": node("ProbeShow", value=["2", 0], other=["99", 0]), "2": node("ProbeNumber", n=1)}
    answer = site.post("/prompt", {"prompt": prompt})
    if answer.status == 200:
        record = site.finish([answer.json()["prompt_id"]]).popitem()[1]
        assert record["status"]["messages"][-1][0] == "execution_error"
    after = site.post("/prompt", {"prompt": GOOD}).json()["prompt_id"]
    assert site.finish([after])[after]["status"]["completed"] is True


def test_a_non_link_value_for_a_socket_fails_when_it_runs_or_before(site: Site) -> None:
    answer = site.post("/prompt", {"prompt": {"1": node("SaveImage", images="nothing", filename_prefix="x")}})
    if answer.status == 200:
        assert site.finish([answer.json()["prompt_id"]]).popitem()[1]["status"]["status_str"] == "error"
    else:
        assert answer.status == 400


def test_secrets_are_shown_nowhere(site: Site) -> None:
    tab, gate = site.tab(), f"secret-{site.lanes}"
    prompt = {**GOOD, "3": node("ProbeSteps", value=["1", 0], steps=1, gate=gate, preview=False), "2": node("ProbeShow", value=["3", 0])}
    secrets = {"auth_token_comfy_org": "s3cret-a", "api_key_comfy_org": "s3cret-b"}
    prompt_id = tab.post(prompt, extra_data={**secrets, "extra_pnginfo": {"workflow": {"v": 1}}})
    tab.until(prompt_id, "executing", node="3")
    seen = site.get("/queue").body + site.get("/queue/all").body
    site.open(gate)
    tab.until(prompt_id)
    seen += site.get("/history").body
    assert b"extra_pnginfo" in seen
    assert b"s3cret" not in seen


def test_a_prompt_over_32_mib_is_refused(site: Site) -> None:
    answer = site.request("POST", "/prompt", data=b'{"prompt": "' + b"x" * 32 * 2**20 + b'"}')
    assert (answer.status, answer.error()) == (413, "prompt_too_large")
