from __future__ import annotations

import json

from comfy_execution.events import PreviewImage
from tests.unit.web.helpers import Site, with_site
from tests.unit.web.sockets import LEGACY, connect, pictures, preview, received, running, step


def test_previews_take_the_form_that_the_client_negotiated() -> None:
    async def test(site: Site) -> None:
        old, new = await connect(site, "old"), await connect(site, "new", flags=True)
        running(site, ("p", "2", "old"), ("q", "2", "new"))
        step(site, preview("p", "old"))
        step(site, preview("q", "new"))
        got_old, got_new = await pictures(site, old, new)
        assert got_old == [LEGACY]
        (frame,) = got_new
        length = int.from_bytes(frame[4:8], "big")
        assert (frame[:4], frame[8 + length :]) == (b"\0\0\0\4", b"PIC")
        assert json.loads(frame[8 : 8 + length]) == {
            "node_id": "2.0",
            "prompt_id": "q",
            "display_node_id": "2",
            "parent_node_id": "2",
            "real_node_id": "2",
            "image_type": "image/jpeg",
        }

    with_site(test)


def test_a_preview_comes_before_the_progress_with_metadata_and_after_it_without() -> None:
    async def test(site: Site) -> None:
        old, new = await connect(site, "old"), await connect(site, "new", flags=True)
        running(site, ("p", "2", "old"), ("q", "2", "new"))
        for _ in range(2):
            step(site, preview("p", "old"))
            step(site, preview("q", "new"))
        got = await received(site, old, new)
        kinds = [["preview" if isinstance(item, bytes) else item[0] for item in mine] for mine in got]
        assert kinds == [["progress", "preview"] * 2, ["preview", "progress"] * 2]

    with_site(test)


def test_a_legacy_preview_is_never_ambiguous() -> None:
    async def test(site: Site) -> None:
        old, other = await connect(site, "old"), await connect(site, "other")
        running(site, ("p", "2", "old"), ("q", "2", "old"))
        step(site, preview("p", "old"))  # two jobs of one client: which one?
        assert await pictures(site, old, other) == [[], []]
        running(site, ("q", "2", "old"))
        step(site, preview("p", "old"))  # of a job that is over, while another runs
        assert await pictures(site, old, other) == [[], []]
        running(site, ("p", "2", "old"))
        step(site, preview("p", "old"))
        running(site, ("q", "2", "old"))  # the next job started before the loop came to it
        assert await pictures(site, old, other) == [[LEGACY], []]
        running(site, ("q", "2", "old"), ("anon", "2", None))
        step(site, preview("anon", None))  # would be taken for a picture of q
        assert await pictures(site, old, other) == [[], [LEGACY]]
        running(site, ("anon", "2", None), ("anon2", "2", None))
        step(site, preview("anon", None))
        assert await pictures(site, old, other) == [[], []]

    with_site(test)


def test_pictures_that_a_node_sends_are_never_dropped_however_quickly_they_come() -> None:
    async def test(site: Site) -> None:
        ws = await connect(site, "a")
        running(site, ("p", "2", "a"))
        event = PreviewImage(b"PNG", "image/png", "2", "2", None, "2", "p", "a", 0)
        for _ in range(20):  # all before the writer gets its turn
            step(site, event)
        assert await pictures(site, ws) == [[bytes.fromhex("0000000100000002") + b"PNG"] * 20]

    with_site(test)
