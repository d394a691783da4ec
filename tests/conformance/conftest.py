"""The servers of this suite: one lane with the gate off, four CPU lanes, and one with the flags that change answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.site import Site, serving


@pytest.fixture(scope="session")
def _sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Site]]:
    """Starts a server when its first test comes; all live until the last test is over."""
    running: dict[str, Site] = {}
    flags = {"one": (0,), "four": (4,), "odd": (0, *ODD_FLAGS)}
    with contextlib.ExitStack() as stack:

        def get(name: str) -> Site:
            if name not in running:
                base: Path = tmp_path_factory.mktemp(name)
                running[name] = stack.enter_context(serving(base, *flags[name]))
            return running[name]

        yield get


ODD_FLAGS = ("--enable-cors-header", "http://site.example", "--enable-compress-response-body", "--multi-user", "--max-upload-size", "1")


def _calm(site: Site) -> Iterator[Site]:
    yield site
    site.calm()


@pytest.fixture
def one(_sites: Callable[[str], Site]) -> Iterator[Site]:
    """A single-GPU server: COMFY_MULTI_GPU_SCHED is not set."""
    yield from _calm(_sites("one"))


@pytest.fixture
def four(_sites: Callable[[str], Site]) -> Iterator[Site]:
    """A server with four lanes on the CPU."""
    yield from _calm(_sites("four"))


@pytest.fixture
def odd(_sites: Callable[[str], Site]) -> Iterator[Site]:
    """A server with CORS for one site, compression, several users and bodies of at most 1 MiB."""
    yield from _calm(_sites("odd"))


@pytest.fixture(params=["one", "four"])
def site(request: pytest.FixtureRequest, _sites: Callable[[str], Site]) -> Iterator[Site]:
    """Both kinds of server, one after the other."""
    yield from _calm(_sites(request.param))
