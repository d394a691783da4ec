"""Files -> handles. The header is read and checked at once; no tensor is read before a lane needs it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch

from comfy import folders
from comfy.errors import ModelUnknown, WeightFileMissing
from comfy.models import precision
from comfy.models.base import DenoiserSource
from comfy.models.clip import CLIP, TextSource
from comfy.models.component import Component
from comfy.models.detect import (
    Shapes,
    as_checkpoint,
    clip_config,
    clip_kind,
    detect_family,
    is_diffusers_unet,
    is_diffusers_vae,
    text_layout,
    unet_prefix,
    vae_config,
)
from comfy.models.family import FAMILIES, SD1, SD2, SDXL, SDXL_REFINER, Family, TextStream
from comfy.models.layouts import OPENCLIP_MARK, run_time_shapes
from comfy.models.markers import with_sampling
from comfy.models.patcher import ModelPatcher
from comfy.models.precision import storage_named
from comfy.models.vae import VAE, VaeSource
from comfy.weights.header import FileIndex, open_index

log = logging.getLogger(__name__)
TOKENS = "embeddings.token_embedding.weight"


class Checkpoint(NamedTuple):
    """The handles of one all-in-one file; clip and vae are None when the file has none."""

    model: ModelPatcher
    clip: CLIP | None
    vae: VAE | None


def load_checkpoint(path: str | os.PathLike[str], *, embedding_folders: Sequence[str] | None = None) -> Checkpoint:
    """The handles of an all-in-one file.

    embedding_folders  where `embedding:name` is looked up; by default the server's own
    Raises WeightFileMissing, WeightFileInvalid, or ModelUnknown with what was seen.
    """
    index = open_index(path)
    names = shapes_of(index)
    source = _model_of(index, names, unet_prefix(names))
    family, model = source.family, ModelPatcher(source)
    found = Checkpoint(model, _clip_of(index, names, family, embedding_folders), _vae_of(index, names, family))
    absent = [name for name, handle in (("text encoder", found.clip), ("VAE", found.vae)) if handle is None]
    if absent:
        log.warning("%s holds no %s", index.identity.name, " and no ".join(absent))
    return found


def load_diffusion_model(path: str | os.PathLike[str], *, storage: str = "default") -> ModelPatcher:
    """The MODEL of a file that holds a diffusion model, with or without a prefix. Raises as `load_checkpoint`.

    storage  a name of `precision.STORAGE`: the form in which its weights are kept
    """
    index = open_index(path)
    names = shapes_of(index)
    alone = "input_blocks.0.0.weight" in names or is_diffusers_unet(names)
    return ModelPatcher(_model_of(index, names, "" if alone else unet_prefix(names), storage_named(storage)))


def load_diffusers(folder: str | os.PathLike[str], *, embedding_folders: Sequence[str] | None = None) -> Checkpoint:
    """The handles of a folder in diffusers' layout: `unet`, `vae`, `text_encoder` and `text_encoder_2`, a file in each.

    Raises as `load_checkpoint`; WeightFileMissing names the part that is not there.
    """
    model = load_diffusion_model(_weights_in(folder, "unet"))
    assert isinstance(model.source, DenoiserSource)
    streams = model.source.family.streams
    parts = [part for part in ("text_encoder", "text_encoder_2") if os.path.isdir(os.path.join(folder, part))]
    texts = [_weights_in(folder, part) for part in parts[-len(streams) :]]
    clip = load_clip(texts, family=model.source.family.name, embedding_folders=embedding_folders)
    vae_path = _weights_in(folder, "vae")
    index = open_index(vae_path)
    return Checkpoint(model, clip, _vae(index, shapes_of(index), "", model.source.family))


def _weights_in(folder: str | os.PathLike[str], part: str) -> str:
    """The weight file of one part: safetensors before pickles, whole precision before fp16."""
    stems = ("diffusion_pytorch_model", "model", "pytorch_model")
    names = [f"{stem}{variant}{suffix}" for suffix in (".safetensors", ".bin") for variant in ("", ".fp16") for stem in stems]
    found = (os.path.join(folder, part, name) for name in names)
    path = next((path for path in found if os.path.isfile(path)), None)
    if path is None:
        raise WeightFileMissing(file=os.path.join(os.path.basename(os.path.normpath(folder)), part))
    return path


def load_vae(path: str | os.PathLike[str]) -> VAE:
    """The VAE of a file that holds one, alone or in a checkpoint. Raises as `load_checkpoint`."""
    index = open_index(path)
    names = shapes_of(index)
    prefix = next((p for p in ("", "first_stage_model.", "vae.") if p + "decoder.conv_in.weight" in names), "")
    return _vae(index, names, prefix, precision.current().applied(SD1))


def load_clip(
    paths: Sequence[str | os.PathLike[str]], *, family: str | None = SD1.name, embedding_folders: Sequence[str] | None = None
) -> CLIP:
    """The CLIP of text encoder files.

    family  whose encoders they are, a file for each of its streams. None: what the files are says it; a CLIP-L alone is
            SD1's, a CLIP-H SD2's, a CLIP-G the refiner's, a CLIP-L and a CLIP-G SDXL's
    The order of the files does not matter when they differ in kind. Raises as `load_checkpoint`.
    """
    found = [(index := open_index(path), shapes_of(index)) for path in paths]
    kinds = [clip_kind(names.under(_text_prefix(names))) for _, names in found]
    row: Family | None
    row = FAMILIES[_CLIP_FAMILIES.get(tuple(sorted(kinds)), SD1.name)] if family is None else FAMILIES.get(family)
    if row is None or len(paths) != len(row.streams):
        raise ModelUnknown("There is no family with this many text encoders.", family=family, files=[os.path.basename(p) for p in paths])
    row = precision.current().applied(row)
    if sorted(kinds) == sorted(stream.name for stream in row.streams):
        found = [found[kinds.index(stream.name)] for stream in row.streams]
    parts = []
    for stream, (index, names) in zip(row.streams, found):
        parts.append((stream, _text_component(index, names, _text_prefix(names), stream, row)))
    return CLIP(TextSource(row, tuple(parts), _folders(embedding_folders)))


#: kinds of text encoder files -> the family that uses just these
_CLIP_FAMILIES = {("clip_l",): SD1.name, ("clip_h",): SD2.name, ("clip_g",): SDXL_REFINER.name, ("clip_g", "clip_l"): SDXL.name}


def _text_prefix(names: Shapes) -> str:
    """Where the text encoder of a file lies, in a file of its own or in a checkpoint. Raises ModelUnknown when there is none."""
    known = {prefix: None for family in FAMILIES.values() for stream in family.streams for prefix in stream.prefixes}
    prefix = next((p for p in ("", *known) if _insert_of(names, p) is not None), None)
    if prefix is None:
        names.refuse("There is no CLIP text encoder in it.")
    return prefix


def shapes_of(index: FileIndex) -> Shapes:
    """The shapes of a file's tensors, for detection."""
    return Shapes(index.identity.name, {name: info.shape for name, info in index.tensors.items()})


def _model_of(index: FileIndex, names: Shapes, prefix: str, storage: torch.dtype | None = None) -> DenoiserSource:
    under = names.under(prefix)
    layout = "diffusers" if is_diffusers_unet(under) else ""
    family, config = detect_family(as_checkpoint(under))
    family = precision.current().applied(with_sampling(family, config, index, prefix))
    storage = storage or precision.current().storage
    kept = storage or _stored_in_eight_bit(index, prefix)
    component = Component(
        index.identity, "denoiser", prefix, config, family.dtypes, layout=layout, storage=kept, convert=storage is not None
    )
    component.entries(family.dtypes[0], index)
    return DenoiserSource(family, component)


def _stored_in_eight_bit(index: FileIndex, prefix: str) -> torch.dtype | None:
    """The 8-bit type of most of the weights, or None: plain files of that kind stay as they are, scaled ones are multiplied out."""
    sizes: Counter[torch.dtype] = Counter()
    for name, info in index.tensors.items():
        if name.startswith(prefix):
            sizes[info.dtype] += 1
    usual = sizes.most_common(1)[0][0] if sizes else None
    return usual if usual in precision.FP8 else None


def _clip_of(index: FileIndex, names: Shapes, family: Family, embedding_folders: Sequence[str] | None) -> CLIP | None:
    parts = []
    for stream in family.streams:
        prefix = next((p for p in stream.prefixes if _insert_of(names, p) is not None), None)
        if prefix is None:
            return None
        parts.append((stream, _text_component(index, names, prefix, stream, family)))
    return CLIP(TextSource(family, tuple(parts), _folders(embedding_folders)))


def _insert_of(names: Shapes, prefix: str) -> str | None:
    """What is missing in front of the names under `prefix`: "", or `text_model.` in old files; None when it is no CLIP."""
    if prefix + OPENCLIP_MARK in names:
        return ""
    for insert in ("", "text_model."):
        if prefix + ("" if insert else "text_model.") + TOKENS in names:
            return insert
    return None


def _text_component(index: FileIndex, names: Shapes, prefix: str, stream: TextStream, family: Family) -> Component:
    insert = _insert_of(names, prefix) or ""
    under = Shapes(names.file_name, {insert + name: shape for name, shape in names.under(prefix).shapes.items()})
    layout = text_layout(under)
    config = clip_config(Shapes(names.file_name, run_time_shapes(layout, under.shapes)), stream.activation)
    component = Component(index.identity, stream.name, prefix, config, family.text_dtypes, insert, layout)
    component.entries(family.text_dtypes[0], index)
    return component


def _vae_of(index: FileIndex, names: Shapes, family: Family) -> VAE | None:
    return _vae(index, names, family.vae_prefix, family) if names.has_under(family.vae_prefix) else None


def _vae(index: FileIndex, names: Shapes, prefix: str, family: Family) -> VAE:
    under = names.under(prefix)
    layout = "diffusers" if is_diffusers_vae(under) else ""
    component = Component(index.identity, "vae", prefix, vae_config(under), family.vae_dtypes, layout=layout)
    component.entries(family.vae_dtypes[0], index)
    return VAE(VaeSource(component))


def _folders(given: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(folders.current().models.folders("embeddings") if given is None else given)
