"""One server with four CPU lanes and the packs of tests/data/packs, for the tests of packs and of hazards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.site import Site, serving
from tests.make_checkpoint import make_sd1_checkpoint

PACKS = ("probes", "everyday", "newstyle", "swapper", "seeder")


@pytest.fixture(scope="session")
def _packs_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    base = tmp_path_factory.mktemp("packs")
    (base / "models/checkpoints").mkdir(parents=True)
    make_sd1_checkpoint(base / "models/checkpoints/tiny.safetensors", channel_mult=(1,), clip_layers=1)
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes/broken.py").write_text("import a_module_that_nobody_has\n")
    (base / "user").mkdir()
    (base / "user/exclusive_packs.json").write_text('["swapper", "misspelt"]')
    with serving(base, 4, packs=PACKS) as running:
        yield running


@pytest.fixture
def packs(_packs_site: Site) -> Iterator[Site]:
    """The server; after each test no job is left and no tab open."""
    yield _packs_site
    _packs_site.calm()
