"""The CLIP_VISION object: pictures -> states that style models and custom nodes use. It holds no weights.

Contract: models.md section 8 (files), custom-nodes.md section 6 (comfy.clip_vision).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from comfy.device import context
from comfy.errors import InputUnusable, WeightFileInvalid
from comfy.ldm.clip_vision import ClipVisionConfig
from comfy.models.changes import Changes
from comfy.models.component import Component
from comfy.models.detect import Shapes
from comfy.models.family import HALF_FIRST
from comfy.models.layouts import Place, places
from comfy.models.loader import shapes_of
from comfy.models.patcher import ModelPatcher
from comfy.weights.files import FileIndex, TensorInfo
from comfy.weights.header import open_index

CPU = torch.device("cpu")
#: of the pictures that CLIP learned from, by colour (arXiv:2103.00020, its released preprocessing)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HEADS = 16
#: networks with more layers than OpenAI's own have the exact GELU
OPENAI_LAYERS = 24
OPENCLIP_MARK = "visual.transformer.resblocks.0.ln_1.weight"
_OUTSIDE = {
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    **{f"visual.ln_pre.{part}": f"vision_model.pre_layrnorm.{part}" for part in ("weight", "bias")},
    **{f"visual.ln_post.{part}": f"vision_model.post_layernorm.{part}" for part in ("weight", "bias")},
}


class Output:
    """The states of some pictures, as attributes and as items; None for a name that it does not have as an item.

    last_hidden_state, penultimate_hidden_states (b, l, c), image_embeds (b, p): float32 on the CPU
    """

    def __init__(self, last_hidden_state: Any = None, image_embeds: Any = None, penultimate_hidden_states: Any = None) -> None:
        self.last_hidden_state = last_hidden_state
        self.image_embeds = image_embeds
        self.penultimate_hidden_states = penultimate_hidden_states
        self.mm_projected: Any = None

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def __setitem__(self, key: str, item: Any) -> None:
        setattr(self, key, item)


def clip_preprocess(image: Tensor, size: int = 224, mean: Any = MEAN, std: Any = STD, crop: bool = True) -> Tensor:
    """(b, h, w, 3 or more) in 0..1 -> (b, 3, size, size), normalised.

    crop  the shorter side becomes `size` and the middle is kept; else both sides become it. Bicubic with antialias, then
          rounded to 256 levels, as the pictures were that CLIP learned from.
    """
    pixels = image[..., :3].movedim(-1, 1).float()
    height, width = pixels.shape[-2:]
    if (height, width) != (size, size):
        wanted = [max(round(size / min(height, width) * side), size) for side in (height, width)] if crop else [size, size]
        pixels = torch.nn.functional.interpolate(pixels, size=wanted, mode="bicubic", antialias=True)
        top, left = ((side - size) // 2 for side in wanted)
        pixels = pixels[..., top : top + size, left : left + size]
    pixels = (pixels * 255.0).clamp(0, 255).round() / 255.0
    return (pixels - torch.tensor(mean).view(3, 1, 1).to(pixels)) / torch.tensor(std).view(3, 1, 1).to(pixels)


@dataclass(frozen=True)
class VisionComponent(Component):
    """The picture side of a CLIP file in either layout."""

    def sources(self, index: FileIndex) -> dict[str, tuple[TensorInfo, Place]]:
        found = vision_places({name: info.shape for name, info in index.tensors.items()})
        return {name: (index.tensors[place.source], place) for name, place in found.items()}


@dataclass(frozen=True)
class VisionSource:
    """What a handle holds: a description of the network."""

    component: Component

    def components(self) -> dict[str, Component]:
        return {"": self.component}

    def view(self, changes: Changes) -> VisionView:
        return VisionView(self, changes)


class VisionView:
    """The network of one handle on one lane."""

    def __init__(self, source: VisionSource, changes: Changes) -> None:
        self.source, self.changes = source, changes

    @property
    def network(self) -> nn.Module:
        return self.changes.network(self.source, "", context.current())

    def get_dtype(self) -> torch.dtype:
        """The dtype that it computes in on the calling lane."""
        return context.current().run_dtype(self.source.component.dtypes)


class ClipVisionModel:
    """Pictures -> Output."""

    def __init__(self, source: VisionSource) -> None:
        assert isinstance(source.component.config, ClipVisionConfig)
        self.config = source.component.config
        self.patcher = ModelPatcher(source)
        self.image_size, self.image_mean, self.image_std = self.config.image_size, list(MEAN), list(STD)

    @property
    def model(self) -> nn.Module:
        """The calling lane's network."""
        network: nn.Module = self.patcher.model.network
        return network

    @property
    def load_device(self) -> torch.device:
        return self.patcher.load_device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that it computes in on the calling lane."""
        return self.patcher.model_dtype()

    def get_sd(self) -> dict[str, Tensor]:
        """Every weight: the lane's tensors, never to be written to."""
        return self.patcher.model_state_dict()

    def encode_image(self, image: Tensor, crop: Any = True) -> Output:
        """(b, h, w, 3 or more) in 0..1 -> states. Pictures are done one at a time: each has the bytes that it has alone.

        crop  keep the middle square (True, "center"), or squeeze the whole picture into it. Raises InputUnusable.
        """
        if image.ndim != 4 or image.shape[-1] < 3 or 0 in image.shape:
            raise InputUnusable("CLIP sees pictures with three channels.", shape=list(image.shape))
        network, device, dtype = self.model, self.load_device, self.dtype
        pixels = clip_preprocess(image, self.image_size, crop=crop in (True, "center")).to(device=device, dtype=dtype)
        states = [network(pixels[i : i + 1]) for i in range(len(pixels))]
        last, before, whole = (
            torch.cat([getattr(state, name) for state in states]).to(device=CPU, dtype=torch.float32)
            for name in ("last", "penultimate", "embeds")
        )
        return Output(last, whole, before)


def load_clip_vision(path: str | os.PathLike[str]) -> ClipVisionModel:
    """The picture side of a CLIP file. Raises WeightFileMissing, WeightFileInvalid, or ModelUnknown with what was seen."""
    index = open_index(path)
    component = VisionComponent(index.identity, "clip_vision", "", vision_config(shapes_of(index)), HALF_FIRST)
    component.entries(HALF_FIRST[0], index)
    return ClipVisionModel(VisionSource(component))


def vision_places(shapes: dict[str, tuple[int, ...]]) -> dict[str, Place]:
    """Name in our network -> its place in a file with these names and shapes."""
    if OPENCLIP_MARK not in shapes:
        return {name: Place(name) for name in shapes}
    under = {name.removeprefix("visual."): shape for name, shape in shapes.items() if name.startswith("visual.transformer.")}
    blocks = places("openclip", under).items()
    found = {
        name.replace("text_model.", "vision_model.", 1): Place("visual." + place.source, place.rows, place.transpose)
        for name, place in blocks
    }
    found |= {_OUTSIDE[name]: Place(name) for name in shapes if name in _OUTSIDE}
    if "visual.proj" in shapes:
        found["visual_projection.weight"] = Place("visual.proj", transpose=True)
    return found


def vision_config(names: Shapes) -> ClipVisionConfig:
    """The structure. Raises ModelUnknown for other picture encoders, WeightFileInvalid."""
    shapes = {name: place.shape(names.shapes[place.source]) for name, place in vision_places(dict(names.shapes)).items()}
    given = Shapes(names.file_name, shapes)
    if "vision_model.embeddings.class_embedding" not in given or "visual_projection.weight" not in given:
        names.refuse("There is no picture side of CLIP in it.")
    width, _, patch, _ = given.shape("vision_model.embeddings.patch_embedding.weight", 4)
    cells = math.isqrt(given.shape("vision_model.embeddings.position_embedding.weight", 2)[0] - 1)
    layers = given.count("vision_model.encoder.layers.{}.")
    if width % HEADS or layers < 1:
        raise WeightFileInvalid("Its width is no multiple of its heads, or it has no layers.", file=names.file_name, width=width)
    return ClipVisionConfig(
        hidden_size=width,
        intermediate_size=given.shape("vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        hidden_act="quick_gelu" if layers <= OPENAI_LAYERS else "gelu",
        image_size=cells * patch,
        patch_size=patch,
        projection_dim=given.shape("visual_projection.weight", 2)[0],
    )
