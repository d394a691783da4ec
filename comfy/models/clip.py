"""The CLIP object: text encoders with patches, a clip skip and tokenizer options, and no weights. Valid on any lane.

Contract: custom-nodes.md section 6 (comfy.sd), goldens README section E.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from comfy.device import context
from comfy.errors import InputUnusable
from comfy.models.changes import Changes
from comfy.models.component import Component
from comfy.models.embeddings import find_embedding
from comfy.models.family import Family, TextStream
from comfy.models.patcher import ModelPatcher
from comfy.text_encoders import compose, tokenizer
from comfy.text_encoders.clip_encode import encode, run_clip
from comfy.text_encoders.clip_text import ClipTextConfig
from comfy.text_encoders.tokenizer import PromptTokenizer, Weighted

#: key of a prompt's tokens -> its chunks
Tokens = dict[str, list[list[Weighted]]]


@dataclass(frozen=True)
class TextSource:
    """What a CLIP handle holds: the family's text streams and a component for each."""

    family: Family
    parts: tuple[tuple[TextStream, Component], ...]
    embedding_folders: tuple[str, ...] = ()

    def components(self) -> dict[str, Component]:
        return {f"{stream.name}.transformer.": component for stream, component in self.parts}

    def view(self, changes: Changes) -> TextStage:
        return TextStage(self, changes)


class _Encoder:
    """One text encoder as packs reach it: `clip.cond_stage_model.clip_l.transformer`."""

    def __init__(self, source: TextSource, changes: Changes, prefix: str) -> None:
        self._source, self._changes, self._prefix = source, changes, prefix

    @property
    def transformer(self) -> nn.Module:
        """The calling lane's network."""
        return self._changes.network(self._source, self._prefix, context.current())


class TextStage:
    """The text encoders of one handle on one lane, an attribute each."""

    def __init__(self, source: TextSource, changes: Changes) -> None:
        self.source, self.changes = source, changes
        for stream, _ in source.parts:
            setattr(self, stream.name, _Encoder(source, changes, f"{stream.name}.transformer."))

    def get_dtype(self) -> torch.dtype:
        """The dtype that the encoders compute in on the calling lane."""
        return context.current().run_dtype(self.source.family.text_dtypes)


class Tokenizers:
    """The tokenizers of one handle, an attribute each."""

    def __init__(self, source: TextSource) -> None:
        self._parts = [(stream, stream_tokenizer(stream, component)) for stream, component in source.parts]
        self._folders = source.embedding_folders
        for stream, made in self._parts:
            setattr(self, stream.name, made)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, disable_weights: bool = False, **options: Any) -> Tokens:
        """The chunks of `text` for each encoder. Other options are those of other families' tokenizers: ignored."""
        tokens: Tokens = {}
        for stream, made in self._parts:

            def find(name: str, key: str = stream.name) -> Tensor | None:
                return find_embedding(self._folders, name, key)

            tokens[stream.tokens] = made.tokenize_with_weights(text, find, return_word_ids, disable_weights)
        return tokens

    def untokenize(self, chunk: list[Weighted]) -> list[tuple[Weighted, str]]:
        """Each token with its text, by the first encoder's vocabulary."""
        return self._parts[0][1].untokenize(chunk)


def stream_tokenizer(stream: TextStream, component: Component) -> PromptTokenizer:
    """The stream's tokenizer, its chunks as long as the encoder's position table."""
    made: PromptTokenizer = getattr(tokenizer, stream.tokenizer)
    assert isinstance(component.config, ClipTextConfig)
    return replace(made, chunk_length=component.config.max_position_embeddings, width=component.config.hidden_size)


class CLIP:
    """Prompts -> conditioning.

    layer_idx          clip skip: -1 the last layer, -2 the one before …; None: as the family does
    tokenizer_options  given to `tokenize` each time
    """

    def __init__(self, source: TextSource) -> None:
        self.source = source
        self.patcher = ModelPatcher(source)
        self.layer_idx: int | None = None
        self.tokenizer_options: dict[str, Any] = {}
        self.use_clip_schedule = False

    @property
    def cond_stage_model(self) -> TextStage:
        """The text encoders as the calling lane has them."""
        stage: TextStage = self.patcher.model
        return stage

    @property
    def tokenizer(self) -> Tokenizers:
        """The tokenizers."""
        return Tokenizers(self.source)

    def clone(self) -> CLIP:
        """An equal handle that can be changed alone."""
        other = CLIP.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.patcher = self.patcher.clone()
        other.tokenizer_options = dict(self.tokenizer_options)
        return other

    def clip_layer(self, layer_idx: int | None) -> None:
        """Set the clip skip."""
        self.layer_idx = layer_idx

    def set_tokenizer_option(self, option_name: str, value: Any) -> None:
        """An option for `tokenize`, such as disable_weights."""
        self.tokenizer_options = {**self.tokenizer_options, option_name: value}

    def tokenize(self, text: str, return_word_ids: bool = False, **options: Any) -> Tokens:
        """Key of each encoder -> chunks of (token, weight[, word id]). Raises InputUnusable when `text` is no text."""
        if not isinstance(text, str):
            raise InputUnusable("The prompt is not a text.", input="text", given=type(text).__name__)
        return self.tokenizer.tokenize_with_weights(text, return_word_ids, **{**self.tokenizer_options, **options})

    def encode_from_tokens(
        self, tokens: Mapping[str, Sequence[Sequence[Weighted]]], return_pooled: Any = False, return_dict: bool = False
    ) -> Any:
        """Tokens (of `tokenize`) -> cond (1, l, c) float32 on the CPU; with `return_pooled` (cond, pooled (1, p)).

        return_pooled  "unprojected": the pooled state before its projection
        return_dict    {"cond", "pooled_output"} instead
        """
        unprojected = return_pooled == "unprojected"
        encoded = [self._encode(stream, component, tokens, unprojected) for stream, component in self.source.parts]
        cond, pooled = getattr(compose, self.source.family.compose)(*encoded) if self.source.family.compose else encoded[0]
        if return_dict:
            return {"cond": cond, "pooled_output": pooled}
        return (cond, pooled) if return_pooled else cond

    def encode_from_tokens_scheduled(
        self, tokens: Mapping[str, Any], unprojected: bool = False, add_dict: Mapping[str, Any] | None = None, show_pbar: bool = True
    ) -> list[list[Any]]:
        """Tokens -> CONDITIONING: [[cond, {"pooled_output", and what `add_dict` has}]]."""
        found = self.encode_from_tokens(tokens, return_pooled="unprojected" if unprojected else True, return_dict=True)
        cond = found.pop("cond")
        return [[cond, {**found, **(add_dict or {})}]]

    def encode(self, text: str) -> Tensor:
        """A prompt -> cond (1, l, c)."""
        cond: Tensor = self.encode_from_tokens(self.tokenize(text))
        return cond

    def _encode(self, stream: TextStream, component: Component, tokens: Mapping[str, Any], unprojected: bool) -> compose.Encoded:
        chunks = tokens.get(stream.tokens)
        if not chunks:
            raise InputUnusable("The tokens are those of another text encoder.", missing=stream.tokens, given=sorted(tokens))
        network: Any = self.patcher.network(f"{stream.name}.transformer.", context.current())
        rule = stream.rule if self.layer_idx is None else replace(stream.rule, layer=self.layer_idx)
        if unprojected:
            rule = replace(rule, projected=False)
        return encode(network, run_clip(network, rule), stream_tokenizer(stream, component), chunks)

    def add_patches(self, patches: Mapping[Any, Any], strength_patch: float = 1.0, strength_model: float = 1.0) -> list[Any]:
        """As `ModelPatcher.add_patches`; keys begin with the encoder's name: clip_l.transformer.…"""
        return self.patcher.add_patches(patches, strength_patch, strength_model)

    def get_key_patches(self) -> dict[str, list[Any]]:
        return self.patcher.get_key_patches()

    def load_model(self) -> ModelPatcher:
        """Bring the encoders to the calling lane's device; returns the patcher."""
        self.patcher.load()
        return self.patcher

    def load_sd(self, sd: Mapping[str, Tensor], full_model: bool = False) -> tuple[list[str], list[str]]:
        """Put these weights, named as in `get_sd`, in place of the encoders' own; returns (missing, unexpected) names.

        They are patches of this handle: the file's weights, which other handles share, stay.
        """
        known = self.patcher.get_key_patches()
        taken = self.add_patches({key: ("set", (tensor,)) for key, tensor in sd.items()})
        return sorted(set(known) - set(taken)), sorted(set(sd) - set(taken))

    def get_sd(self) -> dict[str, Tensor]:
        """Every weight of the encoders: the lane's tensors, never to be written to."""
        return self.patcher.model_state_dict()
