from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.web.helpers import Site, graph, with_site

KEYS = st.sampled_from(
    (
        *("prompt", "prompt_id", "client_id", "extra_data", "number", "front", "partial_execution_targets"),
        *("clear", "delete", "unload_models", "free_memory", "1", "x"),
    )
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1", "Note", graph()])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
BODIES = st.dictionaries(KEYS, VALUES, max_size=5) | VALUES
HEADERS = st.sampled_from([{}, {"X-TARGET-GPU": "1"}, {"X-TARGET-GPU": "auto"}, {"X-TARGET-GPU": "-0"}])


def refuse(name: str) -> None:
    """A bare NaN or Infinity in an answer."""
    raise ValueError(name)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(st.tuples(BODIES, HEADERS), min_size=8, max_size=8))
def test_no_body_makes_a_route_fail(requests: list[tuple[Any, dict[str, str]]]) -> None:
    async def test(site: Site) -> None:
        for body, headers in requests:
            for path in ("/prompt", "/queue", "/interrupt", "/free", "/history"):
                async with site.http.post(path, data=json.dumps(body), headers=headers) as answer:
                    text = await answer.text()
                    assert answer.status in (200, 400), (path, body, text)
                    assert not text or json.loads(text, parse_constant=refuse)
        for path in ("/queue", "/queue/all", "/history"):
            await site.json("GET", path)  # fails on a bare NaN

    with_site(test)
