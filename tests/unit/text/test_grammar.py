"""Any text is a prompt: the grammar and the tokenizer refuse none, lose no text, and fill whole chunks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy.text_encoders.tokenizer import CLIP_L
from comfy.text_encoders.weights_grammar import escape_important, token_weights, weighted_pieces

PROMPTS = st.text(st.sampled_from("ab1.5:()\\ ,\n") | st.characters(), max_size=60)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a (b) c", [("a ", 1.0), ("b", 1.1), (" c", 1.0)]),
        ("(a (b:0.5) c:1.4) d", [("a ", 1.4), ("b", 0.5), (" c", 1.4), (" d", 1.0)]),
        ("(a (b:0.5))", [("a ", 1.1), ("b", 0.5)]),
        ("((a:2)b)", [("a", 2.0), ("b", 1.1)]),
        ("a (b (c) d", [("a ", 1.0), ("(b (c) d", 1.0)]),
        ("(a) (b", [("a", 1.1), (" ", 1.0), ("(b", 1.0)]),
        ("smile :) (red:1.3)", [("smile :) ", 1.0), ("red", 1.3)]),
        ("(:1.3)", [(":1.3", 1.1)]),
        ("(a: 1e1 )", [("a", 10.0)]),
        ("()", []),
        ("", []),
    ],
)
def test_pieces(text: str, pieces: list[tuple[str, float]]) -> None:
    assert token_weights(text, 1.0) == [(piece, pytest.approx(weight)) for piece, weight in pieces]


def test_escapes_are_text() -> None:
    assert weighted_pieces(r"\(a\) (b\):2)") == [("(a) ", 1.0), ("b)", 2.0)]
    assert "(" not in escape_important(r"\(")


@pytest.mark.parametrize("text", ["(" * 20_000 + "a", "(" * 20_000 + "a" + ")" * 20_000, "(a:" * 20_000, ")" * 20_000])
def test_deep_nesting_is_no_trouble(text: str) -> None:
    pieces = token_weights(text, 1.0)
    assert len(pieces) == 1


@given(PROMPTS)
@settings(max_examples=150, deadline=None)
def test_no_character_but_the_grammars_own_is_lost(text: str) -> None:
    pieces = [piece for piece, _ in token_weights(text, 1.0)]
    kept = iter("".join(pieces))
    position = 0
    for char in kept:  # what is kept is a subsequence of the text
        position = text.index(char, position) + 1
    lost = len(text) - sum(map(len, pieces))
    assert lost == 0 or "(" in text


@given(PROMPTS)
@settings(max_examples=100, deadline=None)
def test_every_chunk_is_whole(text: str) -> None:
    for chunk in CLIP_L.tokenize_with_weights(text, lambda name: None):
        ids = [token for token, _ in chunk]
        assert len(ids) == 77
        assert ids[0] == 49406
        assert ids[-1] == 49407
        assert all(0 <= i < 49408 for i in ids)
