"""http-api.md section 4: queue, interrupt, free, history, on both kinds of server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.site import Site, node
from tests.conformance.test_orders import lane, picture, steps


def held(site: Site, n: int, waiting: int = 0) -> tuple[str, str, list[str]]:
    """One running job that waits for its gate, and some behind it: (gate, its id, their ids)."""
    tab, gate = site.tab(), f"held-{site.lanes}-{n}"
    first = tab.post(steps(n, 1, gate), None, lane(site))
    tab.until(first, "executing", node="1")
    return gate, first, [tab.post(steps(n + 1 + i, 1), None, lane(site)) for i in range(waiting)]


def ids(jobs: list[list[Any]]) -> list[str]:
    return [job[1] for job in jobs]


def test_queue_shows_jobs_as_five_items(site: Site) -> None:
    gate, first, (second,) = held(site, 200, 1)
    queue = site.get("/queue").json()
    assert list(queue) == ["queue_running", "queue_pending"]
    assert (ids(queue["queue_running"]), ids(queue["queue_pending"])) == ([first], [second])
    number, prompt_id, prompt, extra, outputs = queue["queue_pending"][0]
    assert (prompt_id, prompt, list(extra), outputs) == (second, steps(201, 1), ["client_id"], ["2"])
    assert isinstance(number, (int, float))
    site.open(gate)
    site.finish([first, second])


def test_pending_jobs_come_in_the_order_in_which_they_run(site: Site) -> None:
    tab, gate = site.tab(), f"order-{site.lanes}"
    first = tab.post(steps(210, 1, gate), None, lane(site))
    tab.until(first, "executing", node="1")
    numbers = {"c": 5, "b": -1.5, "a": 5, "e": 1000, "d": -2}
    for prompt_id, number in numbers.items():
        tab.post(steps(211, 1), f"{prompt_id}-{site.lanes}", lane(site), number=number)
    wanted = [f"{prompt_id}-{site.lanes}" for prompt_id in "dbace"]
    assert ids(site.get("/queue").json()["queue_pending"]) == wanted
    site.open(gate)
    tab.until(wanted[-1])
    assert [data["prompt_id"] for data in tab.data("execution_start")] == [first, *wanted]


def test_delete_and_clear_touch_waiting_jobs_only(site: Site) -> None:
    gate, first, waiting = held(site, 220, 3)
    assert site.post("/queue", {"delete": [waiting[1], first, "unknown"]}).status == 200
    queue = site.get("/queue").json()
    assert (ids(queue["queue_running"]), ids(queue["queue_pending"])) == ([first], [waiting[0], waiting[2]])
    assert site.post("/queue", {"clear": True}).status == 200
    queue = site.get("/queue").json()
    assert (ids(queue["queue_running"]), queue["queue_pending"]) == ([first], [])
    assert site.get("/prompt").json()["exec_info"]["queue_remaining"] == 1
    site.open(gate)
    site.finish([first])
    assert all(site.get(f"/history/{prompt_id}").json() == {} for prompt_id in waiting)


@pytest.mark.parametrize("body", [b"", b"no json", b"null", b"{}"])
def test_interrupt_takes_any_empty_body(site: Site, body: bytes) -> None:
    assert site.request("POST", "/interrupt", data=body).status == 200


def test_interrupt_with_a_list_is_typed(site: Site) -> None:
    assert site.request("POST", "/interrupt", data=b"[]").status in (200, 400)


def test_an_interrupt_of_another_id_or_of_a_waiting_job_does_nothing(site: Site) -> None:
    gate, first, (second,) = held(site, 230, 1)
    assert site.post("/interrupt", {"prompt_id": "unknown"}).status == 200
    assert site.post("/interrupt", {"prompt_id": second}).status == 200
    site.open(gate)
    records = site.finish([first, second])
    assert [records[prompt_id]["status"]["completed"] for prompt_id in (first, second)] == [True, True]


def test_an_interrupt_while_nothing_runs_does_not_reach_the_next_job(site: Site) -> None:
    site.post("/interrupt", {})
    assert site.tab().run(steps(240, 1), None, lane(site))[-3] == "execution_success"


@pytest.mark.parametrize("flags", [{"free_memory": True}, {"free_memory": True, "unload_models": True}])
def test_free_memory_drops_cached_results(site: Site, flags: dict[str, bool]) -> None:
    tab = site.tab()
    tab.run(steps(250, 1), None, lane(site))
    assert "execution_cached ['0', '1', '2']" in tab.run(steps(250, 1), None, lane(site))
    assert site.post("/free", flags).status == 200
    assert "execution_cached []" in tab.run(steps(250, 1), None, lane(site))


@pytest.mark.parametrize("flags", [{}, {"unload_models": True}, {"free_memory": False}])
def test_other_flags_keep_cached_results(site: Site, flags: dict[str, bool]) -> None:
    tab = site.tab()
    tab.run(steps(260, 1), None, lane(site))
    assert site.post("/free", flags).status == 200
    assert "execution_cached ['0', '1', '2']" in tab.run(steps(260, 1), None, lane(site))


def test_a_history_record(site: Site) -> None:
    tab = site.tab()
    prompt_id = tab.post(picture(270), "record", lane(site), extra_data={"extra_pnginfo": {"workflow": {"v": 1}}})
    tab.until(prompt_id)
    record = site.record("record")
    assert list(record) == ["prompt", "outputs", "status", "meta", *(["gpu_id"] if site.multi else [])]
    assert record["prompt"][1:4] == ["record", picture(270), {"extra_pnginfo": {"workflow": {"v": 1}}, "client_id": tab.sid}]
    assert sorted(record["prompt"][4]) == ["2", "3"]
    assert record["outputs"]["2"] == tab.data("executed")[0]["output"]
    assert record["meta"]["2"] == {"node_id": "2", "display_node": "2", "parent_node": None, "real_node_id": "2"}
    status = record["status"]
    assert (status["status_str"], status["completed"]) == ("success", True)
    events = ["execution_start", "execution_cached", "execution_success"]
    assert status["messages"] == [[event, tab.data(event)[0]] for event in events]


def test_the_records_of_an_expansion_have_the_long_id(site: Site) -> None:
    tab = site.tab()
    prompt_id = tab.post(
        {"1": node("ProbeNumber", n=1), "2": node("ProbeExpand", value=["1", 0], n=2), "3": node("ProbeShow", value=["2", 0])}
    )
    tab.until(prompt_id)
    assert site.record(prompt_id)["outputs"] == {"3": {"text": ["3"]}}


def test_history_pages_and_deletes(site: Site) -> None:
    site.post("/history", {"clear": True})
    tab = site.tab()
    for i in range(5):
        tab.run(steps(280 + i, 0), f"page {i}-{site.lanes}-{id(tab)}", lane(site))
    everything = list(site.get("/history").json())
    assert len(everything) == 5

    def page(query: str) -> list[int]:
        return [everything.index(prompt_id) for prompt_id in site.get(f"/history?{query}").json()]

    assert page("max_items=2") == [3, 4]
    assert page("max_items=2&offset=1") == [1, 2]
    assert page("offset=3") == [3, 4]
    assert page("offset=0") == page("max_items=99") == page("offset=-1") == [0, 1, 2, 3, 4]
    assert page("max_items=2&offset=-1") == [3, 4]
    assert page("max_items=0") == page("max_items=0&offset=0") == page("max_items=-1") == page("offset=5") == []
    assert site.post("/history", {"delete": [everything[1], "unknown"]}).status == 200
    assert list(site.get("/history").json()) == [everything[0], *everything[2:]]
    assert site.post("/history", {"clear": True}).status == 200
    assert site.get("/history").json() == {}


@pytest.mark.parametrize("query", ["max_items=x", "offset=1.5", "max_items="])
def test_a_page_that_is_no_number_is_typed(site: Site, query: str) -> None:
    answer = site.get(f"/history?{query}")
    assert (answer.status, answer.error()) == (400, "query_invalid")


def test_history_of_an_unknown_or_waiting_job_is_empty(site: Site) -> None:
    gate, first, (second,) = held(site, 290, 1)
    assert [site.get(f"/history/{prompt_id}").json() for prompt_id in (first, second, "unknown")] == [{}, {}, {}]
    site.open(gate)
    site.finish([first, second])


@pytest.mark.parametrize("path", ["/queue", "/history"])
@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b'{"delete": 5}', b'{"delete": [null]}', b'{"delete": [[]]}'])
def test_bodies_of_another_form_are_typed(site: Site, path: str, body: bytes) -> None:
    answer = site.request("POST", path, data=body)
    assert (answer.status, answer.error()) == (400, "body_invalid")
