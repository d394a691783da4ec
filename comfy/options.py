"""Edge: whether the command line is parsed when `comfy.cli_args` is imported. Here main.py parses it, always and once."""

from __future__ import annotations

args_parsing = False


def enable_args_parsing(enable: bool = True) -> None:
    """For programs that import the ecosystem's modules as a library and set this first; the parsing does not depend on it."""
    global args_parsing
    args_parsing = enable
