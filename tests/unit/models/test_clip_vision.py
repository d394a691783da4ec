"""CLIP's picture side: both layouts of its files, its numbers by plain matrices, its preprocessing by Pillow."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from comfy import config, folders
from comfy.errors import ComfyError, InputUnusable, ModelUnknown, WeightFileInvalid
from comfy.models.clip_vision import MEAN, STD, Output, clip_preprocess, load_clip_vision
from comfy.nodes.clip_vision import CLIPVisionEncode, CLIPVisionLoader
from tests.fakes import cpu_context

WIDTH, PATCH, CELLS, LAYERS, PROJECTION = 32, 4, 3, 3, 20


def weights(layers: int = LAYERS) -> dict[str, Tensor]:
    """A small network under Hugging Face's names."""
    seeds, made = torch.Generator().manual_seed(8), {}

    def put(name: str, *shape: int, scale: float = 0.2) -> None:
        made[name] = torch.randn(*shape, generator=seeds) * scale

    put("vision_model.embeddings.class_embedding", WIDTH)
    put("vision_model.embeddings.patch_embedding.weight", WIDTH, 3, PATCH, PATCH)
    put("vision_model.embeddings.position_embedding.weight", CELLS**2 + 1, WIDTH)
    for norm in ("pre_layrnorm", "post_layernorm", *(f"encoder.layers.{i}.layer_norm{n}" for i in range(layers) for n in (1, 2))):
        put(f"vision_model.{norm}.weight", WIDTH)
        put(f"vision_model.{norm}.bias", WIDTH)
    for i in range(layers):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            put(f"vision_model.encoder.layers.{i}.self_attn.{part}.weight", WIDTH, WIDTH)
            put(f"vision_model.encoder.layers.{i}.self_attn.{part}.bias", WIDTH)
        for part, out, inside in (("fc1", 48, WIDTH), ("fc2", WIDTH, 48)):
            put(f"vision_model.encoder.layers.{i}.mlp.{part}.weight", out, inside)
            put(f"vision_model.encoder.layers.{i}.mlp.{part}.bias", out)
    put("visual_projection.weight", PROJECTION, WIDTH)
    return made


def openclip(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same under OpenCLIP's names: q, k and v in one tensor, the projection the other way round."""
    made = {
        "visual.class_embedding": given["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": given["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": given["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": given["visual_projection.weight"].T.contiguous(),
        "logit_scale": torch.zeros(()),
    }
    for part in ("weight", "bias"):
        made[f"visual.ln_pre.{part}"] = given[f"vision_model.pre_layrnorm.{part}"]
        made[f"visual.ln_post.{part}"] = given[f"vision_model.post_layernorm.{part}"]
        for i in range(LAYERS):
            layer, block = f"vision_model.encoder.layers.{i}", f"visual.transformer.resblocks.{i}"
            made[f"{block}.ln_1.{part}"] = given[f"{layer}.layer_norm1.{part}"]
            made[f"{block}.ln_2.{part}"] = given[f"{layer}.layer_norm2.{part}"]
            made[f"{block}.attn.in_proj_{part}"] = torch.cat([given[f"{layer}.self_attn.{letter}_proj.{part}"] for letter in "qkv"])
            made[f"{block}.attn.out_proj.{part}"] = given[f"{layer}.self_attn.out_proj.{part}"]
            made[f"{block}.mlp.c_fc.{part}"] = given[f"{layer}.mlp.fc1.{part}"]
            made[f"{block}.mlp.c_proj.{part}"] = given[f"{layer}.mlp.fc2.{part}"]
    return made


def reference(given: dict[str, Tensor], pixels: Tensor, exact_gelu: bool = False) -> dict[str, Tensor]:
    """pixels (1, 3, 12, 12), normalised; by loops over patches and heads."""

    def norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * given[f"vision_model.{name}.weight"] + given[f"vision_model.{name}.bias"]

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ given[f"vision_model.{name}.weight"].T + given[f"vision_model.{name}.bias"]

    kernel = given["vision_model.embeddings.patch_embedding.weight"]
    rows = [given["vision_model.embeddings.class_embedding"]]
    for y in range(CELLS):
        for x in range(CELLS):
            patch = pixels[0, :, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH]
            rows.append((kernel * patch).sum(dim=(1, 2, 3)))
    h = norm("pre_layrnorm", torch.stack(rows) + given["vision_model.embeddings.position_embedding.weight"])
    states = [h]
    count = sum(name.endswith("fc1.weight") for name in given)
    for i in range(count):
        layer = f"encoder.layers.{i}"
        n = norm(f"{layer}.layer_norm1", h)
        q, k, v = (linear(f"{layer}.self_attn.{letter}_proj", n) for letter in "qkv")
        heads = []
        for head in range(16):
            part = slice(head * WIDTH // 16, (head + 1) * WIDTH // 16)
            heads.append(torch.softmax(q[:, part] @ k[:, part].T / (WIDTH / 16) ** 0.5, dim=-1) @ v[:, part])
        h = h + linear(f"{layer}.self_attn.out_proj", torch.cat(heads, dim=-1))
        inner = linear(f"{layer}.mlp.fc1", norm(f"{layer}.layer_norm2", h))
        inner = inner * (0.5 * (1 + torch.erf(inner / 2**0.5))) if exact_gelu else inner * torch.sigmoid(1.702 * inner)
        h = h + linear(f"{layer}.mlp.fc2", inner)
        states.append(h)
    return {
        "last_hidden_state": h[None],
        "penultimate_hidden_states": states[-2][None],
        "image_embeds": (norm("post_layernorm", h[0]) @ given["visual_projection.weight"].T)[None],
    }


@pytest.mark.parametrize("layout", [dict, openclip])
def test_every_layout_is_the_same_network(layout: Any, tmp_path: Path) -> None:
    given = weights()
    save_file(layout(given), tmp_path / "vision.safetensors")
    vision = pickle.loads(pickle.dumps(load_clip_vision(tmp_path / "vision.safetensors")))
    assert vision.image_size == CELLS * PATCH
    image = torch.rand(2, 12, 12, 4)
    with cpu_context().activate():
        output = vision.encode_image(image)
        alone = vision.encode_image(image[1:])
        assert len(vision.get_sd()) == len(given)
    for name, expected in reference(given, clip_preprocess(image[:1], 12)).items():
        assert torch.allclose(output[name][:1], expected, atol=1e-4), name
        assert torch.equal(output[name][1:], getattr(alone, name))


def test_larger_networks_have_the_exact_gelu(tmp_path: Path) -> None:
    given = {name: tensor * 0.5 for name, tensor in weights(25).items()}
    save_file(given, tmp_path / "vision.safetensors")
    image = torch.rand(1, 12, 12, 3)
    with cpu_context().activate():
        output = load_clip_vision(tmp_path / "vision.safetensors").encode_image(image)
    expected = reference(given, clip_preprocess(image, 12), exact_gelu=True)
    assert torch.allclose(output.image_embeds, expected["image_embeds"], atol=1e-4)


@pytest.mark.parametrize(("crop", "box"), [(True, (25, 0, 75, 50)), (False, None)])
def test_pictures_are_prepared_as_pillow_does_it(crop: bool, box: Any) -> None:
    smooth = np.linspace(0, 255, 100)[None, :, None] * np.array([1.0, 0.5, 0.25]) + np.linspace(0, 40, 50)[:, None, None]
    pixels = smooth.clip(0, 255).round().astype(np.uint8)
    made = clip_preprocess(torch.from_numpy(pixels)[None] / 255.0, 20, crop=crop)
    picture = Image.fromarray(pixels)
    resized = (picture.crop(box) if box else picture).resize((20, 20), Image.Resampling.BICUBIC)
    expected = (torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1) / 255.0 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(
        STD
    ).view(3, 1, 1)
    inner = (slice(None), slice(2, -2), slice(2, -2))  # at the cut edges Pillow does not see the neighbours
    assert made.shape == (1, 3, 20, 20)
    assert float((made[0][inner] - expected[inner]).abs().max()) < 2.5 / 255 / min(STD)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    folders.configure(config.load(["--base-directory", str(tmp_path)], {}))
    folder = tmp_path / "models" / "clip_vision"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    folders.configure(config.Config())


def test_the_nodes(base: Path) -> None:
    save_file(weights(), base / "v.safetensors")
    assert CLIPVisionLoader.INPUT_TYPES()["required"]["clip_name"] == (["v.safetensors"],)
    vision = CLIPVisionLoader().load_clip("v.safetensors")[0]
    wide = torch.rand(1, 12, 36, 3)
    with cpu_context().activate():
        centre = CLIPVisionEncode().encode(vision, wide, "center")[0]
        squeezed = CLIPVisionEncode().encode(vision, wide, "none")[0]
        middle = CLIPVisionEncode().encode(vision, wide[:, :, 12:24], "none")[0]
    assert isinstance(centre, Output)
    assert torch.equal(centre.image_embeds, middle.image_embeds)
    assert not torch.allclose(centre.image_embeds, squeezed.image_embeds, atol=1e-3)


@pytest.mark.parametrize("spoil", ["other", "siglip", "missing", "shape", "none"])
def test_what_is_no_such_file_is_refused(spoil: str, base: Path) -> None:
    given = weights()
    if spoil == "other":
        given = {"x": torch.zeros(2)}
    elif spoil == "siglip":
        del given["vision_model.embeddings.class_embedding"]
    elif spoil == "missing":
        given = {name: tensor for name, tensor in given.items() if ".layers." not in name}
    elif spoil == "shape":
        given["vision_model.encoder.layers.1.mlp.fc1.bias"] = torch.zeros(3)
    if spoil != "none":
        save_file(given, base / "v.safetensors")
    expected = {"other": ModelUnknown, "siglip": ModelUnknown, "none": ComfyError}.get(spoil, WeightFileInvalid)
    with pytest.raises(expected):
        CLIPVisionLoader().load_clip("v.safetensors")


@pytest.mark.parametrize("image", [torch.rand(1, 8, 8, 1), torch.rand(8, 8, 3), torch.rand(1, 0, 8, 3)])
def test_what_is_no_picture_is_refused(image: Tensor, base: Path) -> None:
    save_file(weights(), base / "v.safetensors")
    vision = CLIPVisionLoader().load_clip("v.safetensors")[0]
    with cpu_context().activate(), pytest.raises(InputUnusable):
        CLIPVisionEncode().encode(vision, image, "center")
    with pytest.raises(InputUnusable):
        CLIPVisionEncode().encode(None, image, "center")
