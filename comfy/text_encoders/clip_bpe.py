"""CLIP's byte-pair tokens. Sennrich et al. 2015, arXiv:1508.07909; Radford et al. 2021, arXiv:2103.00020, section 2.4.

The merges are OpenAI's (comfy/data/clip_bpe); the byte-pair engine is the `tokenizers` package. What happens to the text
before that follows contract/models.md section 6, so that ids equal those of the reference.
"""

from __future__ import annotations

import functools
import gzip
import re
import unicodedata
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

MERGES_FILE = Path(__file__).resolve().parent.parent / "data" / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz"
START_TOKEN, END_TOKEN = 49406, 49407
SPECIAL = {"<|startoftext|>": START_TOKEN, "<|endoftext|>": END_TOKEN}
#: the file goes on with merges that CLIP was not trained with
MERGE_COUNT = 49152 - 256 - 2

_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
#: blocks of CJK ideographs, each of which becomes a word of its own
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def _byte_symbols() -> list[str]:
    """The printable character that stands for each byte in the merges file, in the order of the token ids."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = len([b for b in range(256) if b not in printable])
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(others)]


@functools.cache
def _engine() -> Tokenizer:
    with gzip.open(MERGES_FILE, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : MERGE_COUNT + 1]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    symbols = _byte_symbols()
    tokens = symbols + [symbol + "</w>" for symbol in symbols] + [left + right for left, right in merges]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    engine = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return engine


@functools.cache
def vocabulary() -> dict[int, str]:
    """Token id -> token, as the merges file spells it, with the two special tokens."""
    return {i: token for token, i in (_engine().get_vocab() | SPECIAL).items()}


def _is_ideograph(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in _IDEOGRAPHS)


def clean(text: str) -> str:
    """Control and joiner characters dropped, ideographs set apart, NFC, single spaces, lower case."""
    kept = []
    for char in text:
        if char in "\t\n\r" or unicodedata.category(char) == "Zs":
            kept.append(" ")
        elif char == "\ufffd" or unicodedata.category(char).startswith("C"):
            continue
        else:
            kept.append(f" {char} " if _is_ideograph(char) else char)
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).split()).lower()


def token_ids(text: str) -> list[int]:
    """The ids of `text`, without start and end tokens unless the text spells them out. Any string is valid."""
    ids: list[int] = []
    for piece in _SPECIAL.split(text):
        if piece in SPECIAL:
            ids.append(SPECIAL[piece])
        elif piece:
            ids += _engine().encode(clean(piece), add_special_tokens=False).ids
    return ids
