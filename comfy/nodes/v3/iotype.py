"""The wire name of a type, as a string that compares permissively (contract: execution.md section 3.4)."""

from __future__ import annotations

ANY = "*"


class IoType(str):
    """`!=` is false for `*` on either side and for unions of which one contains the other; `==` and the hash are str's.

    Only the inequality is loosened: it is what validation asks, and dicts must still tell names apart.
    """

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        if not isinstance(other, str):
            return True
        if str.__eq__(self, ANY) or str.__eq__(other, ANY):
            return False
        mine, theirs = _members(self), _members(other)
        return not (mine <= theirs or theirs <= mine)

    __eq__ = str.__eq__
    __hash__ = str.__hash__


def _members(name: str) -> frozenset[str]:
    return frozenset(part.strip() for part in str.split(name, ","))
