"""Conditioning equals the recorded one (goldens README, section E.2): weights, chunks, clip skip, embeddings, pooled states.

The recorded T5 cases with words need T5's vocabulary, which the repository does not hold; the empty prompt does not.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from comfy.text_encoders import compose
from comfy.text_encoders.clip_encode import ClipRule, encode, run_clip
from comfy.text_encoders.clip_text import ClipTextConfig, ClipTextModel
from comfy.text_encoders.compose import Encoded
from comfy.text_encoders.t5 import T5, T5Config
from comfy.text_encoders.tokenizer import CLIP_G, CLIP_L, PromptTokenizer
from tests import goldens
from tests.hashed_weights import hashed_parameter

FACTS = goldens.facts("e_encode")
TENSORS = goldens.tensors("e_encode")
TOLERANCE = 3e-4  # goldens README, section E.2
TOKENIZERS = {"clip_l": CLIP_L, "clip_g": CLIP_G}
SD1_CASES = [name for name in FACTS["cases"] if name.startswith("sd1/")]
SDXL_CASES = [name for name in FACTS["cases"] if name.startswith("sdxl/p")]


@functools.cache
def network(family: str, encoder: str) -> Any:
    sizes = dict(FACTS["configs"][encoder])
    if encoder == "t5xxl":
        sizes.pop("model_type")
        config: Any = T5Config(**sizes)
    else:
        sizes["end_token"] = sizes.pop("eos_token_id")
        config = ClipTextConfig(**sizes, projection_dim=sizes["hidden_size"])
    with torch.device("meta"):
        made: nn.Module = T5(config) if encoder == "t5xxl" else ClipTextModel(config)
    prefix = f"{encoder}.transformer."
    weights = {
        name.removeprefix(prefix): hashed_parameter(name, shape, salt)
        for name, shape, salt in FACTS["weights"][family]
        if name.startswith(prefix)
    }
    found = made.load_state_dict(weights, assign=True, strict=False)
    assert not found.missing_keys
    return made.requires_grad_(False)


def clip(family: str, encoder: str, text: str, rule: ClipRule) -> Encoded:
    def find(name: str) -> Tensor | None:
        return TENSORS[f"embedding/{encoder}"] if name == FACTS["embedding_name"] else None

    made, tokenizer = network(family, encoder), TOKENIZERS[encoder]
    return encode(made, run_clip(made, rule), tokenizer, tokenizer.tokenize_with_weights(text, find))


def prompt_of(case: str) -> str:
    return FACTS["prompts"][int(case.split("/")[1].removeprefix("p"))]


def skip_of(case: str) -> int | None:
    skip = case.split("/")[2].removeprefix("skip")
    return None if skip == "None" else int(skip)


def assert_recorded(found: Encoded, case: str) -> None:
    tokens, pooled = found
    assert pooled is not None
    goldens.assert_close(tokens, TENSORS[f"{case}/cond"], TOLERANCE, what="tokens")
    goldens.assert_close(pooled, TENSORS[f"{case}/pooled"], TOLERANCE, what="pooled")


@pytest.mark.parametrize("case", SD1_CASES)
def test_sd1(case: str) -> None:
    assert_recorded(clip("sd1", "clip_l", prompt_of(case), ClipRule(layer=skip_of(case))), case)


@pytest.mark.parametrize("case", SDXL_CASES)
def test_sdxl(case: str) -> None:
    rule = ClipRule(layer=skip_of(case) or -2, norm_layer=False)
    left = clip("sdxl", "clip_l", prompt_of(case), rule)
    right = clip("sdxl", "clip_g", prompt_of(case), replace(rule, projected=True))
    assert_recorded(compose.sdxl(left, right), case)


def test_sdxl_with_a_long_and_a_short_prompt() -> None:
    """The shorter is followed by empty chunks, as CLIPTextEncodeSDXL does; the refiner's node encodes one prompt as any node does."""
    rule = ClipRule(layer=-2, norm_layer=False)
    chunks = {"clip_l": CLIP_L.tokenize_with_weights(FACTS["prompts"][1]), "clip_g": CLIP_G.tokenize_with_weights(FACTS["prompts"][-1])}
    assert len(chunks["clip_l"]) < len(chunks["clip_g"])
    chunks["clip_l"] += CLIP_L.tokenize_with_weights("") * (len(chunks["clip_g"]) - len(chunks["clip_l"]))
    found = [
        encode(network("sdxl", name), run_clip(network("sdxl", name), replace(rule, projected=name == "clip_g")), TOKENIZERS[name], given)
        for name, given in chunks.items()
    ]
    assert_recorded(compose.sdxl(*found), "sdxl/node_long_g_short_l")


def test_sdxl_with_the_refiners_fields() -> None:
    rule = ClipRule(layer=-2, norm_layer=False)
    left = clip("sdxl", "clip_l", FACTS["prompts"][1], rule)
    right = clip("sdxl", "clip_g", FACTS["prompts"][1], replace(rule, projected=True))
    assert_recorded(compose.sdxl(left, right), "sdxl/node_refiner_fields")


def test_flux_with_the_empty_prompt() -> None:
    t5 = network("flux", "t5xxl")
    tokenizer = PromptTokenizer(lambda text: [], None, end=1, pad=0, chunk_length=None, min_length=256)
    tokens = encode(t5, lambda embeds, pool_at: (t5(embeds), None), tokenizer, tokenizer.tokenize_with_weights(""))
    assert_recorded(compose.flux(clip("flux", "clip_l", "", ClipRule()), tokens), "flux/p0")


def test_sd3_without_t5() -> None:
    rule = ClipRule(layer=-2, norm_layer=False)
    left = clip("sd3_noT5", "clip_l", FACTS["prompts"][2], rule)
    right = clip("sd3_noT5", "clip_g", FACTS["prompts"][2], replace(rule, projected=True))
    tokens, pooled = compose.sd3(left, right, None)
    recorded = FACTS["cases"]["sd3_noT5"]
    assert list(tokens.shape) == recorded["cond_shape"]
    assert not tokens[..., recorded["zero_beyond"] :].any()
    assert pooled is not None
    goldens.assert_close(tokens[..., :128], TENSORS["sd3_noT5/cond_first_128"], TOLERANCE)
    goldens.assert_close(pooled, TENSORS["sd3_noT5/pooled"], TOLERANCE)


def test_sd3_without_any_encoder_is_zeros() -> None:
    tokens, pooled = compose.sd3(None, None, None)
    recorded = FACTS["cases"]["sd3_noT5_all_empty_none_padding"]
    assert pooled is not None
    assert (list(tokens.shape), list(pooled.shape)) == (recorded["cond_shape"], recorded["pooled_shape"])
    assert not tokens.any()
    assert not pooled.any()


def test_embedding_rows_of_another_width_are_dropped_and_the_chunk_is_padded_back() -> None:
    made = network("sd1", "clip_l")
    with_row = [(49406, 1.0), (torch.ones(5), 1.0), (320, 1.0), (49407, 1.0)]
    without = [(49406, 1.0), (320, 1.0), (49407, 1.0), (49407, 1.0)]
    run = run_clip(made, ClipRule())
    assert torch.equal(encode(made, run, CLIP_L, [with_row])[0], encode(made, run, CLIP_L, [without])[0])
