"""One server for the tests that need a whole one, and an nginx in front of it for each file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.site import Site, serving
from tests.operations.proxy import Proxy, nginx

LANES = 4


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with four lanes, whose one user has been here before."""
    with serving(tmp_path_factory.mktemp("operations"), LANES) as running:
        running.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.InstalledVersion": "1.27.10"})
        yield running


@pytest.fixture(scope="module")
def proxy(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """nginx as it is generated, but for the ports. Its limit on prompts has forgotten what other files posted."""
    with nginx(tmp_path_factory.mktemp("proxy"), int(site.url.rpartition(":")[2]), gpus=LANES) as running:
        yield running
