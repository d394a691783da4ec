"""Tokens and weights equal the recorded ones (goldens README, section E.1)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from torch import Tensor

from comfy.text_encoders.tokenizer import CLIP_G, CLIP_L, PromptTokenizer
from tests import goldens

FACTS = goldens.facts("e_tokens")
STREAMS = {"l": (CLIP_L, "clip_l"), "g": (CLIP_G, "clip_g")}


def recorded_embedding(name: str, key: str) -> Tensor | None:
    """As a folder of .safetensors files would answer: by the bare name or the file's name."""
    return goldens.tensors("e_embeddings").get(f"{name.removesuffix('.safetensors')}/{key}")


def as_recorded(chunk: list[Any], pad: int, key: str) -> dict[str, Any]:
    """A chunk in the words of the golden: rows named, the trailing run of pads shortened to one, weights of 1 left out."""
    rows = {
        tensor.data_ptr() + i * tensor.shape[1] * 4: f"{name.split('/')[0]}#{i}"
        for name, tensor in goldens.tensors("e_embeddings").items()
        if name.endswith(key)
        for i in range(tensor.shape[0])
    }
    ids = [token if isinstance(token, int) else rows[token.data_ptr()] for token, _ in chunk]
    weights = [weight for _, weight in chunk]
    while len(ids) > 1 and ids[-1] == pad and ids[-2] == pad:
        ids.pop()
    return {"ids": ids, "w": weights[: len(ids)] if any(w != 1.0 for w in weights) else None, "len": len(chunk)}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("case", FACTS["prompts"], ids=lambda case: json.dumps(case["text"])[:40])
def test_prompt(case: dict[str, Any], stream: str) -> None:
    tokenizer, key = STREAMS[stream]
    chunks = tokenizer.tokenize_with_weights(case["text"], lambda name: recorded_embedding(name, key))
    found = [as_recorded(chunk, FACTS["pad"][stream], key) for chunk in chunks]
    wanted = [{**chunk, "w": chunk["w"] and pytest.approx(chunk["w"])} for chunk in case[stream]]
    assert found == wanted


def test_weights_can_be_switched_off() -> None:
    example = FACTS["disable_weights_example"]
    chunks = CLIP_L.tokenize_with_weights(example["text"], disable_weights=True)
    assert [as_recorded(chunk, 49407, "clip_l") for chunk in chunks] == example["l"]


def test_word_ids_number_the_groups() -> None:
    example = FACTS["word_ids_example"]
    chunk = CLIP_L.tokenize_with_weights(example["text"], return_word_ids=True)[0]
    recorded = [tuple(item) for item in example["ids_weights_wordids"]]
    assert chunk[: len(recorded)] == recorded


@pytest.mark.parametrize(("options", "recorded"), FACTS["t5_tokenizer_options_a_cat"].items())
def test_unbounded_chunk_options(options: str, recorded: Any) -> None:
    given = {name.removeprefix("t5xxl_"): value for name, value in json.loads(options).items()}
    tokenizer = PromptTokenizer(lambda text: [3, 9, 1712], None, 1, 0, chunk_length=None, **{"min_length": 256, **given})
    assert [([t for t, _ in chunk], [w for _, w in chunk]) for chunk in tokenizer.tokenize_with_weights("a cat")] == [
        tuple(chunk) for chunk in recorded
    ]


def test_untokenize_names_the_tokens() -> None:
    chunk = CLIP_L.tokenize_with_weights("a Cat")[0]
    assert [name for _, name in CLIP_L.untokenize(chunk)][:4] == ["<|startoftext|>", "a</w>", "cat</w>", "<|endoftext|>"]
