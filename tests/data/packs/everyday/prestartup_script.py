"""Says what is loaded when it runs: nothing heavy may be."""

import sys
from pathlib import Path

import folder_paths
from comfy.cli_args import args

# a live attribute, which no checker sees
Path(getattr(folder_paths, "base_path"), "prestartup.txt").write_text(f"torch {'torch' in sys.modules}, cpu {args.cpu}")  # noqa: B009
