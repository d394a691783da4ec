"""The test guide's commands are true: those that can run here run, against a server and nginx on other ports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conformance.site import Site
from tests.operations.proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/TEST_GUIDE_4GPU.md").read_text(encoding="utf-8")
STAGES = dict(re.findall(r"^## Stage (\d)[^\n]*\n(.*?)(?=^## )", GUIDE, re.MULTILINE | re.DOTALL))
BLOCKS = [
    (f"{stage}.{i}", block) for stage, text in STAGES.items() for i, block in enumerate(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
]
#: what needs root, a GPU, a start of its own or never ends
NOT_HERE = ("sudo", "nvidia-smi", "start_multi_gpu.sh", "logs/", "nginx -p", "watch ", "quick_test.sh")
RUN = [(name, block) for name, block in BLOCKS if name[0] in "24" and not any(words in block for words in NOT_HERE)]


@pytest.fixture
def ports(site: Site, proxy: Proxy) -> dict[str, str]:
    """What stands in the guide and in the workflow -> what it is here: ports, and the checkpoint."""
    return {"8188": site.url.rpartition(":")[2], **told(proxy), **known(site)}


def told(proxy: Proxy) -> dict[str, str]:
    return {"8180": str(proxy.site.path_port), **{str(8181 + gpu): str(port) for gpu, port in enumerate(proxy.site.ports)}}


def known(site: Site) -> dict[str, str]:
    """The workflow's checkpoint is the one that the test's server has."""
    (checkpoint,) = site.get("/models/checkpoints").json()
    (workflow,) = re.findall(r'"ckpt_name": "([^"]+)"', (ROOT / "test_workflow.json").read_text(encoding="utf-8"))
    return {workflow: str(checkpoint)}


@pytest.mark.parametrize(("name", "block"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_each_block_is_bash_and_names_files_that_exist(name: str, block: str) -> None:
    assert subprocess.run(["bash", "-n"], input=block, text=True, check=False).returncode == 0
    named = re.findall(r"(?<![\w/])(?:\./)?((?:docs|tools)/[\w./-]+|\w+\.sh|nginx\.conf|test_workflow\.json)", block)
    assert [path for path in named if not (ROOT / path).is_file()] == []
    programs = [module.replace(".", "/") + ".py" for module in re.findall(r"python3 -m ([\w.]+)", block)]
    assert [path for path in programs if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize(("name", "block"), RUN, ids=[name for name, _ in RUN])
def test_blocks_of_the_server_and_of_nginx_do_what_they_say(name: str, block: str, ports: dict[str, str], tmp_path: Path) -> None:
    for program in ("curl", "jq"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    workflow = (ROOT / "test_workflow.json").read_text(encoding="utf-8")
    for here, there in ports.items():
        block, workflow = block.replace(here, there), workflow.replace(f'"{here}"', f'"{there}"')
    (tmp_path / "test_workflow.json").write_text(workflow, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if "jq -e" in block:
        assert set(done.stdout.split()) == {"true"}
    if "-sfI" in block:
        assert [line.split()[1] for line in done.stdout.splitlines()] == ["200"] * 5
    if "uniq -c" in block:
        refused = [line.split()[1] for line in done.stdout.splitlines()]
        assert set(refused) <= {"400", "429", "200"}
        assert refused[-1] == "200"  # the queue is never refused; how many prompts are depends on this machine's speed


def test_the_guide_has_its_five_stages_and_what_runs_of_them() -> None:
    assert sorted(STAGES) == ["1", "2", "3", "4", "5"]
    assert len(RUN) >= 7
