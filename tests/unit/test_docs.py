"""The docs say what the code does: flags, variables, routes, files, links."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from aiohttp.web_urldispatcher import StaticResource

from comfy.config import Config, build_parser
from comfy.nodes.registry import NodeRegistry
from server import PromptServer

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
DOCS = sorted(path for pattern in ("*.md", "docs/**/*.md", "custom_nodes/README.md", "models/**/*.md") for path in ROOT.glob(pattern))


def tracked() -> list[str]:
    """Files under version control; without git (an unpacked archive), those that lie there."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    return listed.stdout.splitlines() if listed.returncode == 0 else [path.name for path in ROOT.iterdir()]


def test_every_flag_is_in_configuration_and_every_flag_there_exists() -> None:
    flags = {option for action in build_parser()._actions for option in action.option_strings if option.startswith("--")}
    not_mains = {"--detach", "--lanes", "--help"}  # of the scripts; argparse's own
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", CONFIGURATION)) - not_mains == flags - not_mains


def test_every_variable_is_in_configuration_and_every_variable_there_is_read() -> None:
    sources = [ROOT / name for name in ("main.py", "comfy/config.py", "start_multi_gpu.sh", "run_tests.sh", "scripts/setup.sh")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    assert set(re.findall(r"\bCOMFY_[A-Z_]+\b", CONFIGURATION)) == set(re.findall(r"\bCOMFY_[A-Z_]+\b", code))


def test_every_lane_setting_is_a_flag_and_a_variable() -> None:
    (group,) = (group for group in build_parser()._action_groups if group.title == "Lanes")
    for action in group._group_actions:
        variable = re.search(r"\bCOMFY_[A-Z_]+\b", action.help or "")
        assert variable is not None, action.option_strings
        row = next(line for line in CONFIGURATION.splitlines() if re.match(rf"\| `{action.option_strings[0]}[ `]", line))
        assert f"`{variable[0]}`" in row


@pytest.mark.parametrize("path", DOCS, ids=[str(path.relative_to(ROOT)) for path in DOCS])
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (path.parent / target).exists()] == []


@pytest.mark.parametrize("readme", ["README.md", "README.zh.md"])
def test_the_readme_has_a_line_for_each_top_level_file_and_folder(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    there = {name.split("/")[0] + ("/" if "/" in name else "") for name in tracked()}
    told = {row.split("/")[0] + ("/" if "/" in row else "") for row in rows}
    assert {name for name in there if not name.startswith(".")} - told == set()
    assert [row for row in rows if not (ROOT / row).exists()] == []


def test_the_test_workflow_uses_nodes_and_inputs_of_the_contract() -> None:
    workflow = json.loads((ROOT / "test_workflow.json").read_text(encoding="utf-8"))
    known = json.loads((ROOT / "tests/data/object_info.json").read_text(encoding="utf-8"))
    for node in workflow.values():
        groups = known[node["class_type"]]["input"]
        required = set(groups["required"])
        assert required <= set(node["inputs"]) <= required | set(groups.get("optional", {}))
        links = [value for value in node["inputs"].values() if isinstance(value, list)]
        assert all(source in workflow and isinstance(slot, int) for source, slot in links)


def test_requirements_are_exact() -> None:
    lines = [
        line.split("#")[0].strip()
        for name in ("requirements.txt", "requirements-dev.txt", "constraints.txt")
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    ]
    pin = re.compile(r"[A-Za-z0-9_.-]+==[\w.+]+(; python_version [<>=]+ \"3\.\d+\")?")
    loose = [line for line in lines if line and not pin.fullmatch(line)]
    assert loose == ["torch", "-r requirements.txt"]  # torch is pinned in constraints.txt
    assert "torch==2.13.0" in lines


def test_every_route_is_in_architecture_and_every_route_there_exists() -> None:
    server = PromptServer(Config(), NodeRegistry())
    server.add_routes()
    served = {
        (route.method, re.sub(r":[^}]*}", "}", resource.canonical))
        for resource in server.app.router.resources()
        for route in resource
        if route.method not in ("HEAD", "OPTIONS", "*") and not isinstance(resource, StaticResource)
    }
    served = {(method, path) for method, path in served if not path.startswith("/api/") and path != "/{path}"}
    told = set()
    for methods, paths in re.findall(r"^\| ([A-Z, ]+) \| (`/[^|]*) \|", ARCHITECTURE, re.MULTILINE):
        told |= {(method, path) for method in methods.split(", ") for path in re.findall(r"`([^`]+)`", paths)}
    assert told == served


def test_the_tables_of_both_readmes_are_what_the_results_say() -> None:
    from tools.readme_tables import WORDS, filled

    for page in WORDS:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert filled(page, text) == text, f"run python tools/readme_tables.py: {page} differs from benchmarks/results"
