"""Weights in prompts: `(text)`, `(text:1.3)`, `\\(`. Contract: goldens README, section E.1."""

from __future__ import annotations

#: characters that stand for escaped parentheses while the text is parsed
_OPEN, _CLOSE = "\x00\x01", "\x00\x02"


def escape_important(text: str) -> str:
    """Protect `\\(` and `\\)` from the parser."""
    return text.replace("\\)", _CLOSE).replace("\\(", _OPEN)


def unescape_important(text: str) -> str:
    """Turn what was protected into plain parentheses."""
    return text.replace(_CLOSE, ")").replace(_OPEN, "(")


def _groups(text: str) -> tuple[dict[int, int], int]:
    """(place of each balanced `(` -> place of its `)`, place of the first `(` without one, or the text's length).

    A `)` without its `(` is text; so is everything from the first `(` without its `)` to the end.
    """
    open_places: list[int] = []
    found: dict[int, int] = {}
    for i, char in enumerate(text):
        if char == "(":
            open_places.append(i)
        elif char == ")" and open_places:
            found[open_places.pop()] = i
    rest = open_places[0] if open_places else len(text)
    return {begin: end for begin, end in found.items() if begin < rest}, rest


def _weight_of(text: str, begin: int, end: int, outer: float) -> tuple[float, int]:
    """(weight, end of the text) of the group between the parentheses at `begin` and `end`.

    The number stands after the group's last colon, which is not its first character; behind nested groups, if there are any.
    """
    colon = text.rfind(":", max(begin + 2, text.rfind(")", begin, end) + 1), end)
    if colon >= 0:
        try:
            return float(text[colon + 1 : end]), colon
        except ValueError:
            pass
    return outer * 1.1, end


def token_weights(text: str, current_weight: float) -> list[tuple[str, float]]:
    """`text` as (piece, weight) in order, nested groups resolved. Any string is valid; time grows with its length alone.

    A group multiplies the weight by 1.1; one that ends in a colon (not its first character) and a number has that
    number for its weight, whatever is around it.
    """
    groups, rest = _groups(text)
    pieces: list[tuple[str, float]] = []
    inside: list[tuple[int, int, float]] = [(len(text), len(text), current_weight)]  # end, end of the text, weight
    begin = 0

    def flush(end: int) -> None:
        if end > begin:
            pieces.append((text[begin:end], inside[-1][2]))

    for i in range(len(text)):
        if i in groups:
            flush(i)
            weight, text_end = _weight_of(text, i, groups[i], inside[-1][2])
            inside.append((groups[i], text_end, weight))
            begin = i + 1
        elif i == inside[-1][0]:
            flush(inside[-1][1])
            inside.pop()
            begin = i + 1
        elif i == rest:
            flush(i)
            begin = i
    flush(len(text))
    return pieces


def weighted_pieces(text: str, disable_weights: bool = False) -> list[tuple[str, float]]:
    """A whole prompt as (piece, weight); with `disable_weights` one piece of weight 1, parentheses and all."""
    if disable_weights:
        return [(text, 1.0)]
    return [(unescape_important(piece), weight) for piece, weight in token_weights(escape_important(text), 1.0)]
