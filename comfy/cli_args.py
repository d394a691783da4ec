"""Edge: the parsed command line as custom nodes know it, `comfy.cli_args.args`.

main.py fills the namespace before anything else is imported; without main.py it holds the defaults. Packs assign to it
(`args.preview_method`); the core never reads it.
"""

from __future__ import annotations

import argparse

from comfy.config import LatentPreviewMethod, PerformanceFeature, build_parser

__all__ = ["LatentPreviewMethod", "PerformanceFeature", "args", "enables_dynamic_vram", "fill", "parser"]

parser = build_parser()
args: argparse.Namespace = parser.parse_args([])


def fill(parsed: argparse.Namespace) -> None:
    """Make `args` hold what was parsed; the object stays the same, for packs that imported it."""
    vars(args).update(vars(parsed))


def enables_dynamic_vram() -> bool:
    """Newer packs ask; this server decides residency itself."""
    return False
