from __future__ import annotations

import pytest

from comfy.errors import TargetGpuInvalid
from comfy_execution.router import LaneLoad, choose_lane, parse_target, wanted_models

A = frozenset({"a.safetensors"})


@pytest.mark.parametrize(
    ("lanes", "wants", "chosen"),
    [
        ([LaneLoad(0, 1), LaneLoad(1, 0)], (), 1),
        ([LaneLoad(0, 2), LaneLoad(1, 2)], (), 0),
        ([LaneLoad(0, 1), LaneLoad(1, 1, A)], A, 1),
        ([LaneLoad(0, 0), LaneLoad(1, 1, A)], A, 0),  # fewest jobs come before the model
        ([LaneLoad(0, 0, takes=False), LaneLoad(1, 9)], (), 1),
        ([LaneLoad(0, 3, takes=False), LaneLoad(1, 1, takes=False)], (), 1),
    ],
)
def test_fewest_jobs_then_the_lane_that_holds_the_model(lanes: list[LaneLoad], wants: frozenset[str], chosen: int) -> None:
    assert choose_lane(lanes, wants) == chosen


@pytest.mark.parametrize(
    ("values", "target"), [([], None), (["auto"], None), (["AUTO"], None), (["0"], 0), (["3"], 3), ([" 2 "], 2), (["03"], 3)]
)
def test_a_header_names_a_lane_or_the_router(values: list[str], target: int | None) -> None:
    assert parse_target(values, 4) == target


@pytest.mark.parametrize(
    "values",
    [["4"], ["-1"], ["+1"], ["1e0"], ["0,1"], ["٣"], [""], ["one"], ["1", "1"], ["auto", "0"], ["1.0"], ["0x1"], ["9" * 5000], ["²"]],
)
def test_any_other_header_is_refused_with_the_valid_range(values: list[str]) -> None:
    with pytest.raises(TargetGpuInvalid) as raised:
        parse_target(values, 4)
    assert raised.value.http_status == 400
    assert raised.value.facts["valid"] == "0-3 or auto"
    assert raised.value.field == "X-TARGET-GPU"


def test_models_of_a_prompt_are_its_file_names() -> None:
    prompt = {
        "1": {"inputs": {"ckpt_name": "sub/a.safetensors", "text": "a cat", "n": 3, "clip": ["2", 0]}},
        "2": {"inputs": {"l": "B.CKPT"}},
    }
    assert wanted_models(prompt) == {"sub/a.safetensors", "B.CKPT"}
