"""Regular expressions that users type: bounded in time, and without stopping the other lanes.

Python's `re` keeps the interpreter's lock while it searches and cannot be stopped: one bad expression would stop every
lane for ever. The package `regex` reads the same expressions, lets other threads run and takes a time limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from comfy.errors import InputUnusable, PackageMissing

EXTRACTS = ["First Match", "All Matches", "First Group", "All Groups"]
#: longest that one node searches; what ends ends within milliseconds, and what backtracks without end never would
LIMIT_S = 5.0

T = TypeVar("T")


def regex_package() -> Any:
    """The package. Raises PackageMissing."""
    try:
        import regex
    except ImportError as error:
        raise PackageMissing(package="regex", needed_for="regular expressions") from error
    return regex


class Expression:
    """A compiled expression. Raises InputUnusable when it cannot be read, or searches for longer than the limit."""

    def __init__(self, pattern: str, case_insensitive: bool, multiline: bool, dotall: bool, limit_s: float | None = None) -> None:
        self._regex = regex = regex_package()
        self._pattern = pattern
        self._limit_s = LIMIT_S if limit_s is None else limit_s
        flags = regex.VERSION0
        for wanted, flag in ((case_insensitive, regex.IGNORECASE), (multiline, regex.MULTILINE), (dotall, regex.DOTALL)):
            flags |= flag if wanted else 0
        try:
            self._compiled = regex.compile(pattern, flags, cache_pattern=False)
        except (regex.error, OverflowError, RecursionError) as error:
            raise InputUnusable("The regular expression cannot be read.", regex_pattern=pattern, reason=str(error)) from error

    def found(self, text: str) -> bool:
        """Whether it occurs in `text`."""
        return self._search(text) is not None

    def extract(self, text: str, mode: str, group: int) -> str:
        """What it finds, a find per line; "" when it finds nothing or has no such group."""
        if mode == "First Match":
            match = self._search(text)
            return match.group(0) if match else ""
        if mode == "All Matches":
            return "\n".join(match.group(0) for match in self._all(text))
        if mode not in EXTRACTS:
            raise InputUnusable("The mode is not known.", mode=mode)
        if group > self._compiled.groups:
            return ""
        if mode == "First Group":
            match = self._search(text)
            return (match.group(group) or "") if match else ""
        return "\n".join(match.group(group) or "" for match in self._all(text))

    def replaced(self, text: str, replacement: str, count: int = 0) -> str:
        """`text` with its first `count` finds replaced, all for 0; \\1 and \\g<name> stand for groups."""
        return self._limited(lambda **how: self._compiled.sub(replacement, text, count=count, **how), replacement)

    def _search(self, text: str) -> Any:
        return self._limited(lambda **how: self._compiled.search(text, **how))

    def _all(self, text: str) -> list[Any]:
        return self._limited(lambda **how: list(self._compiled.finditer(text, **how)))

    def _limited(self, search: Callable[..., T], replacement: str = "") -> T:
        try:
            return search(timeout=self._limit_s, concurrent=True)
        except TimeoutError as error:
            raise InputUnusable(
                "The regular expression takes too long on this text.", regex_pattern=self._pattern, limit_s=self._limit_s
            ) from error
        except (self._regex.error, IndexError) as error:
            raise InputUnusable("The replacement cannot be read.", replace=replacement, reason=str(error)) from error
