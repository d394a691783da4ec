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


def parse_parentheses(text: str) -> list[str]:
    """Cut `text` at its outermost balanced groups, parentheses kept: `a (b (c))` -> `a `, `(b (c))`.

    A `)` without its `(` is text; so is everything from a `(` without its `)` to the end.
    """
    parts: list[str] = []
    begin = depth = 0
    for i, char in enumerate(text):
        if char == "(":
            if depth == 0 and i > begin:
                parts.append(text[begin:i])
                begin = i
            depth += 1
        elif char == ")" and depth > 0:
            depth -= 1
            if depth == 0:
                parts.append(text[begin : i + 1])
                begin = i + 1
    return parts + ([text[begin:]] if begin < len(text) else [])


def _balanced(part: str) -> bool:
    """Whether a part of `parse_parentheses` is a group."""
    return part.startswith("(") and part.endswith(")") and part.count("(") == part.count(")")


def token_weights(text: str, current_weight: float) -> list[tuple[str, float]]:
    """`text` as (piece, weight) in order, nested groups resolved. Any string is valid.

    A group multiplies the weight by 1.1; one that ends in a colon (not its first character) and a number has that
    number for its weight, whatever is around it.
    """
    pieces: list[tuple[str, float]] = []
    for part in parse_parentheses(text):
        if not _balanced(part):
            pieces.append((part, current_weight))
            continue
        inner, weight = part[1:-1], current_weight * 1.1
        colon = inner.rfind(":")
        if colon > 0:
            try:
                weight = float(inner[colon + 1 :])
                inner = inner[:colon]
            except ValueError:
                pass
        pieces += token_weights(inner, weight)
    return pieces


def weighted_pieces(text: str, disable_weights: bool = False) -> list[tuple[str, float]]:
    """A whole prompt as (piece, weight); with `disable_weights` one piece of weight 1, parentheses and all."""
    if disable_weights:
        return [(text, 1.0)]
    return [(unescape_important(piece), weight) for piece, weight in token_weights(escape_important(text), 1.0)]
