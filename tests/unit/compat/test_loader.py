from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from comfy.compat import loader
from comfy.compat.scan import scan
from comfy.config import Config
from comfy.nodes.registry import NodeRegistry

NODE = """
class {name}:
    RETURN_TYPES, FUNCTION, CATEGORY = ("INT",), "go", "test"
    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{"n": ("INT", {{"default": 1}})}}}}
    def go(self, n):
        return (n,)
NODE_CLASS_MAPPINGS = {{"{name}": {name}}}
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def load(folder: Path, registry: NodeRegistry | None = None, config: Config | None = None) -> tuple[NodeRegistry, list[loader.Loaded]]:
    registry = registry or NodeRegistry()
    return registry, loader.load_packs(loader.find_packs([folder], config or Config()), registry)


def test_folders_and_single_files_are_packs_and_the_rest_is_not(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pack/__init__.py": "from .sub import NODE_CLASS_MAPPINGS\nNODE_DISPLAY_NAME_MAPPINGS = {'A': 'The A'}\n",
            "pack/sub.py": NODE.format(name="A"),
            "single.py": NODE.format(name="B"),
            "off.disabled/__init__.py": NODE.format(name="C"),
            "off.py.disabled": NODE.format(name="D"),
            "example.py.example": "raise SystemExit",
            "__pycache__/x.py": "raise SystemExit",
            "dot.ted/__init__.py": NODE.format(name="E"),
        },
    )
    registry, _ = load(tmp_path)
    assert sorted(registry.classes) == ["A", "B", "E"]
    assert registry.titles == {"A": "The A"}
    assert registry.describe("A")["python_module"] == "custom_nodes.pack"
    assert registry.describe("B")["python_module"] == "custom_nodes.single"
    listed = {pack.listed_as: pack.home for pack in loader.find_packs([tmp_path], Config())}
    assert listed == {"pack": tmp_path / "pack", str(tmp_path / "single"): tmp_path, "dot.ted": tmp_path / "dot.ted"}
    assert str(tmp_path / "dot.ted").replace(".", "_x_") in sys.modules


def test_a_pack_that_fails_is_logged_and_the_others_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(
        tmp_path,
        {
            "a_raises/__init__.py": "raise ValueError('broken')",
            "b_exits/__init__.py": "import sys; sys.exit(3)",
            "c_empty/readme.txt": "",
            "d_neither.py": "x = 1",
            "e_syntax.py": "def (",
            "good.py": NODE.format(name="G"),
        },
    )
    registry, loaded = load(tmp_path)
    assert list(registry.classes) == ["G"]
    assert [one.pack.name for one in loaded if one.error] == ["a_raises", "b_exits", "c_empty", "d_neither", "e_syntax"]
    assert caplog.text.count("(IMPORT FAILED)") == 5


def test_built_in_names_stay_and_among_packs_the_later_wins(tmp_path: Path) -> None:
    core = type("Core", (), {})
    registry = NodeRegistry({"Core": core})
    write(tmp_path, {"a.py": NODE.format(name="Core"), "b.py": NODE.format(name="X"), "c.py": NODE.format(name="X")})
    load(tmp_path, registry)
    assert registry.classes["Core"] is core
    assert registry.describe("X")["python_module"] == "custom_nodes.c"


def test_flags_leave_packs_out_but_for_the_whitelist(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": NODE.format(name="A"), "b/__init__.py": NODE.format(name="B")})
    registry, _ = load(tmp_path, config=Config(custom_nodes=False, custom_nodes_whitelist=("b",)))
    assert list(registry.classes) == ["B"]


def test_prestartup_scripts_run_and_their_failure_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(
        tmp_path,
        {
            "a/prestartup_script.py": f"open({str(tmp_path / 'ran')!r}, 'w').close()",
            "b/prestartup_script.py": "raise OSError('no')",
            "c.disabled/prestartup_script.py": "raise SystemExit",
        },
    )
    loader.run_prestartup(loader.find_packs([tmp_path], Config()))
    assert (tmp_path / "ran").exists()
    assert "(PRESTARTUP FAILED) b" in caplog.text


def test_the_web_folders_of_a_pack_are_found(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a/__init__.py": NODE.format(name="A") + "WEB_DIRECTORY = './js'\n",
            "a/js/x.js": "",
            "a/pyproject.toml": "[project]\nname = 'pretty'\n[tool.comfy]\nweb = 'dist'\n",
            "a/dist/y.js": "",
        },
    )
    _, loaded = load(tmp_path)
    assert loaded[0].web_dirs == {"a": str(tmp_path / "a" / "js"), "pretty": str(tmp_path / "a" / "dist")}


def test_packs_that_seed_shared_generators_are_marked(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "seeds.py": "import torch\n" + NODE.format(name="S") + "def f(): torch.manual_seed(3)\n",
            "cuda.py": "import torch\n" + NODE.format(name="C") + "def f(): torch.cuda.manual_seed_all(3)\n",
            "own.py": "import torch\n" + NODE.format(name="O") + "def f(): torch.Generator().manual_seed(3)\n",
        },
    )
    registry, _ = load(tmp_path)
    assert {name for name, cls in registry.classes.items() if getattr(cls, "USES_GLOBAL_RNG", False)} == {"S", "C"}


DEVICES = '''
"""A docstring that says cuda:0 is the first."""
import torch
device = "cuda"          # fine: the calling lane's
where = "cuda:0"         # a real use
def f(x, d="cuda:1"):
    """cuda:2"""
    print("computing on cuda:0 now")
    torch.cuda.set_device(0)
    return x.cuda(0).to(device)  # and cuda:3 in a comment
'''


def test_the_scan_finds_real_uses_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, {"pack/__init__.py": DEVICES, "pack/tests/test_x.py": "d = 'cuda:0'", "pack/bad.py": "def ("})
    report = scan(tmp_path / "pack")
    assert [(finding.line, finding.what) for finding in report.devices] == [
        (5, "'cuda:0'"),
        (6, "'cuda:1'"),
        (9, "torch.cuda.set_device(…)"),
        (10, ".cuda(0)"),
    ]
    with caplog.at_level(logging.INFO):
        assert loader.check_devices(loader.find_packs([tmp_path], Config())) == 4
    assert "pack/__init__.py:5 uses 'cuda:0'" in caplog.text


def test_a_clean_tree_is_said_to_be_clean(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, {"a.py": NODE.format(name="A")})
    with caplog.at_level(logging.INFO):
        assert loader.check_devices(loader.find_packs([tmp_path], Config())) == 0
    assert "🔍 Checking custom nodes compatibility…" in caplog.text
