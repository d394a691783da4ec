"""What a lane counts: outcomes, histograms, node times."""

from __future__ import annotations

from comfy_execution.job import Job, JobState
from comfy_execution.lane_stats import Histogram, LaneStats, NodeClock, NodeTime


def test_a_time_lies_in_the_interval_that_its_bound_closes() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.1, 0.100001, 3600, 3601):
        histogram = histogram.plus(seconds)
    assert histogram.counts == (2, 1, *(0,) * 12, 1, 1)
    assert histogram.sum_s == 7201.200001


def test_outcomes_are_counted_apart() -> None:
    stats = LaneStats(0)
    for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.FAILED, JobState.INTERRUPTED):
        stats.add(state=state, oom=state is JobState.FAILED, wait_s=-1.0, run_s=2.0, waiting=3)
    stats.count_retry()
    stats.count_rebuild()
    figures = stats.figures()
    totals = figures.totals
    assert (totals.tasks, totals.succeeded, totals.failed, totals.interrupted) == (4, 1, 2, 1)
    assert (totals.ooms, totals.retries, totals.rebuilds, totals.queued) == (3, 1, 1, 12)
    assert (totals.wait_s, totals.run_s) == (0.0, 8.0)  # a clock that was set back gives no negative wait
    assert (sum(figures.waits.counts), figures.runs.sum_s) == (4, 8.0)


def test_a_node_takes_as_long_as_until_the_next_one_starts() -> None:
    now = [0.0]
    prompt = {"1": {"class_type": "Load"}, "2": {"class_type": "Sample"}, "3": {"class_type": "Sample"}}
    clock = NodeClock(Job("a", 0, prompt, ("3",)), clock=lambda: now[0])
    clock.see("execution_cached", {"nodes": ["7", "8"]})
    for at, name, display in ((1.0, "executing", "1"), (3.0, "progress", None), (4.0, "executing", "2"), (9.0, "executing", "3")):
        now[0] = at
        clock.see(name, {"display_node": display})
    now[0] = 10.5
    stats = LaneStats(0)
    stats.add_nodes(clock)
    stats.add_nodes(clock)  # a job that is tried again counts again
    assert stats.figures().nodes == {"Load": NodeTime(2, 6.0), "Sample": NodeTime(4, 13.0)}
    assert stats.figures().cached_nodes == 4


def test_a_node_that_the_prompt_does_not_name_has_no_time() -> None:
    clock = NodeClock(Job("a", 0, {"1": {"class_type": "Load"}, "do": "ok"}, ("1",)))
    for display in (None, "expanded.1", "do"):
        clock.see("executing", {"display_node": display})
    clock.stop()
    assert clock.nodes == {}
