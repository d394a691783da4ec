"""Requests made from our own /openapi.json, right and wrong, against a real server: no answer is a 500.

FUZZ_EXAMPLES=1000 looks longer: so many requests for each operation, on average.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conformance.site import Answer, Site, node

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
FUZZ = settings(deadline=None, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))

GRAPH = {"1": node("ProbeNumber", n=1), "2": node("ProbeShow", value=["1", 0])}
WORDS = st.sampled_from(
    [
        "", "a", "a.png", "sub", "..", "../..", "/", "\\", "%2e%2e", "\0", "~", "[output]", "a.png [temp]", "é", "日本", "x" * 300, "con",
        "?#&", "\r\n", "true", "0", "-1", "9" * 30, "NaN", "loras", "checkpoints", "KSampler", "ProbeNumber", "users.json", ".lock", "{}",
        "webp;90", "jpeg;0", "webp;999999999999", "auto", "default", "workflows/a.json", "\ud800",
    ]
)  # fmt: skip
TEXTS = WORDS | st.text(max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=10)
LINKS = st.lists(st.sampled_from(["1", "2", "3", 1, 0, -1, 0.0, None, [], "99"]), max_size=3)
NODES = st.fixed_dictionaries(
    {"class_type": st.sampled_from(["ProbeNumber", "ProbeShow", "ProbeAdd", "SaveImage", "KSampler", "EmptyImage", "None", "", 3, None])},
    optional={"inputs": st.dictionaries(st.sampled_from(["n", "value", "a", "b", "images", "seed"]), LINKS | SCALARS, max_size=4) | VALUES},
)
GRAPHS = st.dictionaries(st.sampled_from(["1", "2", "3", ""]), NODES | VALUES, max_size=4) | st.just(GRAPH)


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """JSON values that fit a schema of our document."""
    if "anyOf" in schema:
        return st.one_of([values_of(one) for one in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object" and "additionalProperties" in schema:
        return GRAPHS
    if kind == "object":
        required = schema.get("required", [])
        members = {name: values_of(one) for name, one in schema.get("properties", {}).items()}
        fixed = {name: one for name, one in members.items() if name in required}
        return st.fixed_dictionaries(fixed, optional={name: one for name, one in members.items() if name not in required})
    if kind == "array":
        return st.lists(values_of(schema["items"]), max_size=3)
    simple = {"string": TEXTS, "integer": st.integers(), "number": st.floats() | st.integers(), "boolean": st.booleans()}
    return simple.get(str(kind), VALUES)


def requests_of(operation: dict[str, Any], path: str) -> st.SearchStrategy[dict[str, Any]]:
    """Requests for one operation: each part fits the schema, or does not."""
    parts: dict[str, st.SearchStrategy[Any]] = {}
    for parameter in operation.get("parameters", []):
        fits = values_of(parameter["schema"]).map(str)
        parts[f"{parameter['in']} {parameter['name']}"] = fits | TEXTS if parameter["in"] == "path" else st.none() | fits | TEXTS
    body = operation.get("requestBody")
    if body is not None:
        (media, content), *_ = body["content"].items()
        fits = values_of(content["schema"])
        as_json = st.builds(lambda value: json.dumps(value).encode(), fits | VALUES)
        forms = st.dictionaries(st.sampled_from(["image", "type", "subfolder", "overwrite", "original_ref", "x"]), TEXTS, max_size=5)
        parts["body"] = st.binary(max_size=40) | (forms if media.startswith("multipart") else as_json)
    parts["type"] = st.sampled_from(
        ["application/json", "text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"]
    )
    return st.fixed_dictionaries(parts).map(lambda request: {**request, "path": path})


def target(request: dict[str, Any]) -> str:
    """Path and query with every part percent-encoded."""

    def code(text: str) -> str:
        return quote(text.encode("utf-8", "surrogatepass"), safe="")

    path = request["path"]
    for key, value in request.items():
        if key.startswith("path "):
            path = path.replace("{" + key[5:] + "}", code(value))
    query = "&".join(f"{key[6:]}={code(value)}" for key, value in request.items() if key.startswith("query ") and value is not None)
    return path + (f"?{query}" if query else "")


def send(site: Site, method: str, request: dict[str, Any]) -> Answer:
    """Send one request; a dictionary as body is a form whose `image` is a file."""
    headers = {"Content-Type": request["type"]}
    lane = request.get("header X-TARGET-GPU")
    if lane is not None and lane.isascii() and lane.isprintable():
        headers["X-TARGET-GPU"] = lane
    data = request.get("body")
    if isinstance(data, dict):
        form, _ = aiohttp.FormData(quote_fields=False), headers.pop("Content-Type")
        for name, text in data.items():
            value = text.encode("utf-8", "surrogatepass")
            file_name = "".join(character for character in text if character.isprintable()) if name == "image" else None
            form.add_field(name, value, filename=file_name)
        data = form
    return site.request(method, target(request), data=data, headers=headers)


def check(answer: Answer, request: dict[str, Any]) -> None:
    """No 500; what is JSON has no bare NaN; what is refused by us says its type."""
    assert answer.status < 500 or answer.status in (503, 507), (request, answer)
    if answer.headers.get("Content-Type") == "application/json; charset=utf-8":  # a user's own .json file has no charset
        value = answer.json()
        if answer.status >= 400 and not isinstance(value.get("error"), str):
            assert value["error"]["type"], (request, answer)


@pytest.mark.timeout(0 if EXAMPLES > 40 else 300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_request_for_any_operation_gives_a_500(one: Site) -> None:
    document = one.get("/openapi.json").json()
    operations = [(method.upper(), path, told) for path, methods in document["paths"].items() for method, told in methods.items()]
    assert len(operations) > 50
    each = [st.tuples(st.just(method), requests_of(told, path)) for method, path, told in operations]

    @settings(FUZZ, max_examples=EXAMPLES * len(operations))
    @given(st.one_of(each))
    def fuzz(asked: tuple[str, dict[str, Any]]) -> None:
        check(send(one, *asked), asked[1])

    fuzz()
    assert one.post("/lanes/0", {"state": "running"}).status == 200  # it may have been told to pause
    assert one.get("/health").json() == {"status": "ok"}
    assert one.process.poll() is None


@pytest.mark.parametrize("lane", ["", "auto", "1", "７", "1 ", "\t2"])
def test_odd_graphs_end_as_jobs_or_as_typed_refusals(four: Site, lane: str) -> None:
    @settings(FUZZ, max_examples=EXAMPLES)
    @given(GRAPHS, st.sampled_from([{}, {"number": -1}, {"front": True}, {"partial_execution_targets": ["2"]}]))
    def fuzz(graph: Any, more: dict[str, Any]) -> None:
        answer = four.request("POST", "/prompt", json={"prompt": graph, **more}, headers={"X-TARGET-GPU": lane} if lane else {})
        assert answer.status in (200, 400), (graph, answer)

    fuzz()
    after = four.post("/prompt", {"prompt": GRAPH}).json()["prompt_id"]
    assert four.finish([after])[after]["status"]["completed"] is True
