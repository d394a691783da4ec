"""The routing rows of the operator's contract: whose lane, whose events, and whose bytes."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from typing import Any

import pytest

from benchmarks.harness import text_to_image
from tests.conformance.site import Site, Tab, node, short
from tests.conformance.test_orders import picture, steps

PLACEHOLDER = "placeholder_noise_sd1.safetensors"  #: the checkpoint that a server makes at its first start
GOOD = {"1": node("ProbeNumber", n=1), "2": node("ProbeShow", value=["1", 0])}


def send(site: Site, headers: list[tuple[str, str]], path: str = "/prompt") -> Any:
    return site.request("POST", path, json={"prompt": GOOD}, headers=headers)


@pytest.mark.parametrize("lane", range(4))
def test_a_header_names_the_lane_in_reply_history_and_start(four: Site, lane: int) -> None:
    tab = four.tab()
    body = four.request("POST", "/prompt", json={"prompt": GOOD, "client_id": tab.sid}, headers={"X-TARGET-GPU": str(lane)}).json()
    tab.until(body["prompt_id"])
    assert body["gpu_id"] == lane
    assert tab.data("execution_start")[0]["gpu_id"] == lane
    assert four.record(body["prompt_id"])["gpu_id"] == lane


@pytest.mark.parametrize(
    "header", [[], [("X-TARGET-GPU", "auto")], [("x-target-gpu", "AUTO")], [("X-TARGET-GPU", " 2 ")], [("X-TARGET-GPU", "003")]]
)
def test_without_a_header_or_with_auto_the_router_chooses(four: Site, header: list[tuple[str, str]]) -> None:
    body = send(four, header).json()
    assert body["gpu_id"] in range(4)
    four.finish([body["prompt_id"]])


@pytest.mark.parametrize(
    "values", [["4"], ["-1"], ["+1"], ["٣"], ["1e0"], ["0,1"], ["1.0"], ["abc"], [""], ["0x1"], ["1", "1"], ["0", "auto"], ["9" * 40]]
)
@pytest.mark.parametrize("path", ["/prompt", "/api/prompt", "/queue", "/interrupt", "/free"])
def test_any_other_header_is_refused_and_nothing_happens(four: Site, values: list[str], path: str) -> None:
    answer = send(four, [("X-TARGET-GPU", value) for value in values], path)
    assert (answer.status, answer.error()) == (400, "target_gpu_invalid")
    facts = answer.json()["error"]["extra_info"]
    assert (facts["field"], facts["valid"]) == ("X-TARGET-GPU", "0-3 or auto")
    assert four.get("/prompt").json()["exec_info"]["queue_remaining"] == 0


def test_queue_of_a_lane_refuses_a_bad_header_too(four: Site) -> None:
    assert four.get("/queue", X_TARGET_GPU="7").error() == "target_gpu_invalid"


@pytest.mark.parametrize("header", ["0", "3", "nonsense"])
def test_with_the_gate_off_the_header_is_ignored_and_no_answer_names_a_lane(one: Site, header: str) -> None:
    tab = one.tab()
    answer = one.request("POST", "/prompt", json={"prompt": GOOD, "client_id": tab.sid}, headers={"X-TARGET-GPU": header}).json()
    tab.until(answer["prompt_id"])
    assert "gpu_id" not in str(answer) + str(tab.log) + str(one.record(answer["prompt_id"]))
    assert set(one.get("/queue", X_TARGET_GPU=header).json()) == {"queue_running", "queue_pending"}


def test_the_overviews_with_the_gate_off(one: Site) -> None:
    assert one.get("/debug/queues").json() == {"mode": "single-gpu"}
    overview = one.get("/queue/all").json()
    assert [queue["gpu_id"] for queue in overview["queues"]] == [0]
    assert (overview["total_running"], overview["total_pending"]) == (0, 0)
    assert len(one.get("/lanes").json()["lanes"]) == 1
    assert (one.get("/health").json(), one.get("/ready").json()["status"]) == ({"status": "ok"}, "ready")


def hold(site: Site, tab: Tab, lane: int, n: int) -> tuple[str, str]:
    """A job that waits on a lane: (gate, id)."""
    gate = f"lane-{lane}-{n}"
    prompt_id = tab.post(steps(n, 1, gate), None, lane)
    tab.until(prompt_id, "executing", node="1")
    return gate, prompt_id


def test_overviews_queues_and_clearing_by_lane(four: Site) -> None:
    tab = four.tab()
    held = [hold(four, tab, lane, 300 + lane) for lane in (1, 3)]
    waiting = {lane: [tab.post(steps(310 + lane, 1), f"w{lane}{i}", lane) for i in range(2)] for lane in (1, 3)}
    overview = four.get("/queue/all").json()
    assert (overview["total_running"], overview["total_pending"]) == (2, 4)
    for queue, running, pending in zip(overview["queues"], (0, 1, 0, 1), (0, 2, 0, 2), strict=True):
        assert (queue["running_count"], queue["pending_count"]) == (running, pending)
        assert (len(queue["queue_running"]), len(queue["queue_pending"])) == (running, pending)
    counts = four.get("/queue/all?details=0").json()
    assert counts["total_pending"] == 4
    assert not any("queue_pending" in queue for queue in counts["queues"])
    debug = four.get("/debug/queues").json()["queues"]
    assert [(queue["gpu_id"], queue["queued"], queue["running"]) for queue in debug] == [(0, 0, 0), (1, 2, 1), (2, 0, 0), (3, 2, 1)]
    mine = four.get("/queue", X_TARGET_GPU="3").json()
    assert mine["gpu_id"] == 3
    assert ([job[1] for job in mine["queue_running"]], [job[1] for job in mine["queue_pending"]]) == ([held[1][1]], waiting[3])
    everything = four.get("/queue").json()
    assert set(everything) == {"queue_running", "queue_pending"}
    assert {job[1] for job in everything["queue_pending"]} == {*waiting[1], *waiting[3]}

    four.post("/queue", {"delete": [waiting[1][0], waiting[3][0]]}, X_TARGET_GPU="1")
    assert {job[1] for job in four.get("/queue").json()["queue_pending"]} == {waiting[1][1], *waiting[3]}
    four.post("/queue", {"clear": True}, X_TARGET_GPU="3")
    assert {job[1] for job in four.get("/queue").json()["queue_pending"]} == {waiting[1][1]}
    four.post("/queue", {"clear": True})
    assert four.get("/queue").json()["queue_pending"] == []
    for gate, _ in held:
        four.open(gate)
    four.finish([prompt_id for _, prompt_id in held])


@pytest.mark.parametrize("how", ["id", "lane", "nothing", "id with another lane's header"])
def test_interrupts_reach_the_jobs_they_name_and_no_other(four: Site, how: str) -> None:
    tab = four.tab()
    n = 320 + 10 * ["id", "lane", "nothing", "id with another lane's header"].index(how)
    held = [hold(four, tab, lane, n + lane) for lane in range(3)]
    body = {"prompt_id": held[1][1]} if how.startswith("id") else {}
    header = {"lane": {"X_TARGET_GPU": "1"}, "id with another lane's header": {"X_TARGET_GPU": "0"}}.get(how, {})
    assert four.post("/interrupt", body, **header).status == 200
    four.finish([held[1][1]])
    for gate, _ in held:
        four.open(gate)
    records = four.finish([prompt_id for _, prompt_id in held])
    completed = [records[prompt_id]["status"]["completed"] for _, prompt_id in held]
    assert completed == ([False] * 3 if how == "nothing" else [True, False, True])


def test_free_by_lane_leaves_the_other_lanes_caches(four: Site) -> None:
    tab = four.tab()
    for lane in (0, 1):
        tab.run(steps(360, 1), None, lane)
    four.post("/free", {"free_memory": True}, X_TARGET_GPU="0")
    assert "execution_cached []" in tab.run(steps(360, 1), None, 0)
    assert "execution_cached ['0', '1', '2']" in tab.run(steps(360, 1), None, 1)


def test_a_waiting_automatic_job_moves_to_a_lane_that_falls_idle_and_a_pinned_one_never(four: Site) -> None:
    tab = four.tab()
    held = [hold(four, tab, lane, 370 + lane) for lane in range(4)]
    pinned = tab.post(steps(375, 0), None, 0)
    automatic = tab.post(steps(376, 0))
    assert four.get("/queue/all").json()["total_pending"] == 2
    four.open(held[2][0])
    assert four.finish([automatic])[automatic]["gpu_id"] == 2
    assert four.get(f"/history/{pinned}").json() == {}
    for gate, _ in (held[0], held[1], held[3]):
        four.open(gate)
    assert four.finish([pinned])[pinned]["gpu_id"] == 0


def test_a_paused_lane_ends_its_job_gives_away_what_may_move_and_keeps_what_names_it(four: Site) -> None:
    tab = four.tab()
    held = [hold(four, tab, lane, 390 + lane) for lane in range(4)]
    pinned = tab.post(steps(395, 0), None, 2)
    automatic = tab.post(steps(396, 0))
    assert four.post("/lanes/2", {"state": "paused"}).json()["state"] in ("pausing", "paused")
    assert four.post("/lanes/7", {"state": "paused"}).status in (400, 404)
    assert four.post("/lanes/2", {"state": "gone"}).error() == "body_invalid"
    for gate, _ in held:
        four.open(gate)
    records = four.finish([automatic, *(prompt_id for _, prompt_id in held)])
    assert all(record["status"]["completed"] for record in records.values())
    assert records[automatic]["gpu_id"] != 2
    others = [tab.post(steps(397 + i, 0)) for i in range(3)]
    assert 2 not in {record["gpu_id"] for record in four.finish(others).values()}
    assert four.get(f"/history/{pinned}").json() == {}
    assert four.post("/lanes/2", {"state": "running"}).status == 200
    assert four.finish([pinned])[pinned]["gpu_id"] == 2


def test_one_tab_with_four_jobs_on_four_lanes_gets_four_pictures_at_their_nodes(four: Site) -> None:
    tab = four.tab(metadata=True)
    jobs = {}
    for lane in range(4):
        prompt = {
            "1": node("ProbeNumber", n=380 + lane),
            "2": node("ProbeSteps", value=["1", 0], steps=2, gate="together", preview=True),
            "3": node("ProbeShow", value=["2", 0]),
            "4": node("ProbeNoise", seed=380 + lane, size=16),
            f"save{lane}": node("SaveImage", images=["4", 0], filename_prefix=f"tab/{lane}"),
        }
        jobs[tab.post(prompt, None, lane)] = lane
    assert four.get("/queue/all").json()["total_running"] + four.get("/queue/all").json()["total_pending"] == 4
    four.open("together", 8)
    ended: set[str] = set()
    while len(ended) < 4:
        entry = tab.next()
        if isinstance(entry, tuple) and entry[0] == "executing" and entry[1]["node"] is None:
            ended.add(entry[1]["prompt_id"])
    previews = Counter(entry[8 : 8 + int.from_bytes(entry[4:8], "big")] for entry in tab.log if isinstance(entry, bytes))
    assert len(previews) == 4
    assert set(previews.values()) <= {1, 2}
    pictures = {data["prompt_id"]: data for data in tab.data("executed") if data["node"].startswith("save")}
    assert {prompt_id: int(data["node"][4:]) for prompt_id, data in pictures.items()} == jobs
    for prompt_id, data in pictures.items():
        image = data["output"]["images"][0]
        assert four.get(f"/view?filename={image['filename']}&subfolder={image['subfolder']}&type=output").status == 200
        assert image["filename"].startswith(str(jobs[prompt_id]))
        own = [entry for entry in tab.log if isinstance(entry, tuple) and entry[1].get("prompt_id") == prompt_id]
        assert short(own[0]) == "execution_start"
        assert [short(entry) for entry in own][-2:] == ["execution_success", "executing None"]


def test_two_clients_on_two_lanes_never_see_each_others_private_events(four: Site) -> None:
    tabs = {lane: four.tab(f"client-{lane}", metadata=bool(lane)) for lane in (0, 1)}
    jobs = {lane: [tab.post(steps(400 + 10 * lane + i, 3, "both", True), None, lane) for i in range(3)] for lane, tab in tabs.items()}
    four.open("both", 18)
    for lane, tab in tabs.items():
        tab.until(jobs[lane][-1])
        tab.drain()
    for lane, tab in tabs.items():
        private = [entry for entry in tab.log if isinstance(entry, bytes) or entry[0] not in ("status", "probe", "feature_flags")]
        assert not [entry for entry in private if any(other in str(entry) for other in jobs[1 - lane])]
        assert {entry[1]["prompt_id"] for entry in private if isinstance(entry, tuple)} == set(jobs[lane])
    assert {short(entry) for entry in tabs[0].log if isinstance(entry, bytes)} == {"binary 1"}
    assert {short(entry) for entry in tabs[1].log if isinstance(entry, bytes)} == {"binary 4"}


# 200 jobs


def mixed(index: int) -> dict[str, Any]:
    """A job of one of seven kinds. Each is distinct, so that no result of another job can stand for it."""
    if index % 20 == 0:
        return text_to_image(PLACEHOLDER, seed=index, size=64, steps=1, text=f"picture {index}", prefix=f"mix/{index:03}")
    kind, save = index % 6, node("SaveImage", images=["i", 0], filename_prefix=f"mix/{index:03}")
    image = {"i": node("ProbeNoise", seed=1000 + index, size=24), "s": save}
    number = {"n": node("ProbeNumber", n=3 * index), "o": node("ProbeShow", value=["x", 0])}
    return {
        0: image,
        1: {**picture(1000 + index)},
        2: {**image, **number, "x": node("ProbeSteps", value=["n", 0], steps=3, gate="", preview=True)},
        3: {**image, **number, "x": node("ProbeExpand", value=["n", 0], n=700 + index)},
        4: {**number, "m": node("ProbeNumber", n=3 * index + 1), "x": node("ProbeSwitch", second=True, a=["n", 0], b=["m", 0])},
        5: {"n": node("ProbeNumber", n=3 * index), "o": node("ProbeFail", value=["n", 0], n=index)},
    }[kind]


def told(tab: Tab, prompt_id: str) -> list[str]:
    """The job's own events in order, with all that may differ between two runs left out."""
    return [short(entry) for entry in tab.log if isinstance(entry, tuple) and entry[1].get("prompt_id") == prompt_id]


def result(site: Site, record: dict[str, Any]) -> Any:
    """What became of a job: outputs with the digests of their files instead of names, and how it ended."""
    outputs: dict[str, Any] = {}
    for node_id, ui in record["outputs"].items():
        outputs[node_id] = {key: value for key, value in ui.items() if key != "images"}
        for image in ui.get("images", []):
            path = f"/view?filename={image['filename']}&subfolder={image['subfolder']}&type={image['type']}"
            outputs[node_id].setdefault("images", []).append(hashlib.sha256(site.get(path).body).hexdigest())
    status = record["status"]
    messages = [
        (name, {k: v for k, v in data.items() if k not in ("prompt_id", "timestamp", "gpu_id")}) for name, data in status["messages"]
    ]
    return record["prompt"][2], sorted(record["prompt"][4]), outputs, record["meta"], status["status_str"], strip_traces(messages)


def strip_traces(messages: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    return [(name, {key: value for key, value in data.items() if key != "traceback"}) for name, data in messages]


def run_all(site: Site, sid: str, together: bool) -> list[tuple[list[str], Any]]:
    """Events and result of 200 mixed jobs, in the order of their numbers."""
    site.post("/free", {"free_memory": True})
    site.post("/history", {"clear": True})
    tab, order = site.tab(sid), list(range(200))
    if together:
        random.Random(0).shuffle(order)
    ids: dict[int, str] = {}
    for index in order:
        ids[index] = tab.post(mixed(index), None, None if together else 0)
        if not together:
            tab.until(ids[index])
    ended = {prompt_id for prompt_id in ids.values() if told(tab, prompt_id)[-1:] == ["executing None"]}
    while len(ended) < 200:
        entry = tab.next()
        if isinstance(entry, tuple) and entry[0] == "executing" and entry[1]["node"] is None:
            ended.add(entry[1]["prompt_id"])
    records = site.get("/history").json()
    if together:
        assert Counter(record["gpu_id"] for record in records.values()).keys() == {0, 1, 2, 3}
    return [(told(tab, ids[index]), result(site, records[ids[index]])) for index in range(200)]


@pytest.mark.timeout(300)
def test_200_mixed_jobs_on_four_lanes_give_what_they_give_one_by_one(four: Site) -> None:
    alone = run_all(four, "alone", together=False)
    busy = run_all(four, "busy", together=True)
    for index, (first, second) in enumerate(zip(alone, busy, strict=True)):
        if index % 20:
            assert second == first, index
        else:  # two that follow each other on a lane share loader and negative prompt: their events may differ, their bytes not
            assert (second[1][2], second[1][4], second[0][-2:]) == (first[1][2], first[1][4], first[0][-2:]), index
    assert len({str(outcome[:3]) for _, outcome in alone}) == 200
