"""Every recorded case of the image, mask and latent operations, through our nodes (goldens README, section G)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from comfy import images
from comfy.images_io import to_uint8
from comfy.nodes.builtin import register_builtin
from comfy.nodes.registry import NodeRegistry
from tests import goldens

CASES: dict[str, Any] = goldens.facts("g_image_ops")["cases"]
RECORDED = goldens.tensors("g_image_ops")
DIRECTIONS = "x-axis: vertically", "y-axis: horizontally"


@cache
def registered() -> NodeRegistry:
    registry = NodeRegistry()
    register_builtin(registry)
    return registry


def run(name: str, **inputs: Any) -> tuple[Any, ...]:
    """What the node gives for these inputs, V1 or V3."""
    cls = registered().classes[name]
    if hasattr(cls, "define_schema"):
        return cls.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(**inputs).args
    return tuple(getattr(cls(), cls.FUNCTION)(**inputs))


def given(name: str) -> torch.Tensor:
    """The input a case names: a stored one, or a stored one's item, `M2[0]`."""
    found = re.fullmatch(r"(\w+)\[(\d+)\]", name)
    if found:
        index = int(found[2])
        return RECORDED[f"in/{found[1]}"][index : index + 1]
    return RECORDED[f"in/{name}"]


def latent(name: str) -> dict[str, torch.Tensor]:
    return {"samples": given(name)}


def samples(result: tuple[Any, ...]) -> tuple[torch.Tensor]:
    return (result[0]["samples"],)


Case = Callable[[dict[str, Any], list[str]], tuple[torch.Tensor, ...]]


def scale(f: dict[str, Any], part: list[str]) -> tuple[torch.Tensor, ...]:
    if part[1] == "unquantised_input":
        return run("ImageScale", image=given("A"), upscale_method="lanczos", width=9, height=8, crop="disabled")
    size = {"width": f["width"], "height": f["height"], "crop": f.get("crop", "disabled")}
    return run("ImageScale", image=given(f["input"]), upscale_method=f["method"], **size)


def blend(f: dict[str, Any], part: list[str]) -> tuple[torch.Tensor, ...]:
    first, second = {
        "same": (given("A"), given("A").flip(2)),
        "resize": (given("A"), given("B")),
        "alpha_mismatch": (given("RGBA")[..., :3], given("RGBA")),
    }[part[1]]
    return run("ImageBlend", image1=first, image2=second, blend_factor=f.get("factor", 0.5), blend_mode=part[0])


def image_batch(f: dict[str, Any], part: list[str]) -> tuple[torch.Tensor, ...]:
    second = given("A8").flip(1) if part[0] == "same" else given("B")
    return run("ImageBatch", image1=given(f["image1"]), image2=second)


def stitched(f: dict[str, Any], part: list[str]) -> tuple[torch.Tensor, ...]:
    second = (given("B") * 255).round() / 255
    settings = {"direction": part[0], "match_image_size": part[1] == "matchTrue", "spacing_width": 2, "spacing_color": "red"}
    return run("ImageStitch", image1=given("A8[0]"), image2=second, **settings)


def mask_composite(f: dict[str, Any], part: list[str]) -> tuple[torch.Tensor, ...]:
    m = given("M")
    if part[0] == "overflow_add":
        return run("MaskComposite", destination=m, source=m, x=f["x"], y=f["y"], operation="add")
    return run("MaskComposite", destination=torch.cat((m, 1 - m)), source=given("M2[0]"), x=f["x"], y=f["y"], operation=part[0])


def feather(f: dict[str, Any], part: list[str]) -> tuple[torch.Tensor, ...]:
    mask = given("M") if part else torch.ones_like(given("M"))
    return run("FeatherMask", mask=mask, **{side: f[side] for side in ("left", "top", "right", "bottom")})


def image_composite(f: dict[str, Any], part: list[str]) -> tuple[torch.Tensor, ...]:
    x, y = map(int, part[2].split(","))
    mask = given("M") if f["mask"] else None
    return run(
        "ImageCompositeMasked", destination=given("A"), source=given("B"), mask=mask, x=x, y=y, resize_source=part[0] == "resizeTrue"
    )


def latent_composite_masked(f: dict[str, Any], part: list[str]) -> tuple[torch.Tensor, ...]:
    settings = {"x": f["x"], "y": f["y"], "resize_source": bool(part), "mask": given(f["mask"]) if "mask" in f else None}
    return samples(run("LatentCompositeMasked", destination=latent("L1"), source=latent("L2"), **settings))


def porter_duff(f: dict[str, Any], part: list[str]) -> tuple[torch.Tensor, ...]:
    names = [f.get(key, default) for key, default in zip(("source", "source_alpha"), ("pd_src", "pd_sa"))]
    inputs = dict(zip(("source", "source_alpha", "destination", "destination_alpha"), map(given, [*names, "pd_dst", "pd_da"])))
    return run("PorterDuffImageComposite", **inputs, mode=part[0].removeprefix("resize_"))


def latent_upscale(f: dict[str, Any], part: list[str]) -> tuple[torch.Tensor, ...]:
    width, height, crop = {"128x96": (128, 96, "center"), "72x64": (72, 64, "disabled"), "w0_h96": (0, 96, "disabled")}[part[1]]
    return samples(run("LatentUpscale", samples=latent("L1"), upscale_method=part[0], width=width, height=height, crop=crop))


def latent_pair(name: str, f: dict[str, Any], **more: Any) -> tuple[torch.Tensor, ...]:
    first, second = (f["a"], f["b"]) if "a" in f else (f["samples1"], f["samples2"])
    return samples(run(name, samples1=latent(first), samples2=latent(second), **more))


def operation(name: str, f: dict[str, Any], **settings: Any) -> tuple[torch.Tensor, ...]:
    made = run(name, **settings)[0]
    return samples(run("LatentApplyOperation", samples=latent(f["input"]), operation=made))


def latent_composite(f: dict[str, Any], part: list[str]) -> tuple[torch.Tensor, ...]:
    soft = 0 if part[0] == "feather0" else 16
    return samples(run("LatentComposite", samples_to=latent("L1"), samples_from=latent("L2"), x=f["x"], y=f["y"], feather=soft))


def pad(f: dict[str, Any], part: list[str]) -> tuple[torch.Tensor, ...]:
    return run("ImagePadForOutpaint", image=given("A"), **{key: value for key, value in f.items() if key != "input"})


def tiled(f: dict[str, Any], part: list[str]) -> tuple[torch.Tensor, ...]:
    def enlarged(a: torch.Tensor) -> torch.Tensor:
        return F.interpolate(a[:, :3], scale_factor=2, mode="nearest") + a[:, :3].mean((2, 3), keepdim=True)

    def reduced(a: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(a, 2) + a.mean((2, 3), keepdim=True)

    function, amount, channels = (enlarged, 2, 3) if part[0] == "up2" else (reduced, 0.5, 4)
    return (images.tiled_scale(given(f["input"]), function, f["tile_x"], f["tile_y"], f["overlap"], amount, channels),)


RUNNERS: dict[str, Case] = {
    "ImageScale": scale,
    "ImageScaleBy": lambda f, part: run("ImageScaleBy", image=given(f["input"]), upscale_method=part[0], scale_by=f["scale_by"]),
    "ImageScaleToTotalPixels": lambda f, part: run(
        "ImageScaleToTotalPixels", image=given(f["input"]), upscale_method="bilinear", megapixels=f["megapixels"]
    ),
    "ImageBlend": blend,
    "ImageBlur": lambda f, part: run("ImageBlur", image=given("A"), blur_radius=int(part[0]), sigma=float(part[1])),
    "ImageSharpen": lambda f, part: run(
        "ImageSharpen", image=given("A"), sharpen_radius=int(part[0]), sigma=float(part[1]), alpha=float(part[2])
    ),
    "ImageQuantize": lambda f, part: run("ImageQuantize", image=given("A8"), colors=int(part[0]), dither=part[1]),
    "ImageInvert": lambda f, part: run("ImageInvert", image=given("A")),
    "ImageBatch": image_batch,
    "ImagePadForOutpaint": pad,
    "ImageCrop": lambda f, part: run("ImageCrop", image=given("A"), width=f["width"], height=f["height"], x=f["x"], y=f["y"]),
    "RepeatImageBatch": lambda f, part: run("RepeatImageBatch", image=given("B"), amount=2),
    "ImageFromBatch": lambda f, part: run("ImageFromBatch", image=given("A8"), batch_index=f["batch_index"], length=f["length"]),
    "ImageAddNoise": lambda f, part: run("ImageAddNoise", image=given("A"), seed=f["seed"], strength=f["strength"]),
    "ImageStitch": stitched,
    "MaskToImage": lambda f, part: run("MaskToImage", mask=given("M2")),
    "ImageToMask": lambda f, part: run("ImageToMask", image=given(f["input"]), channel=part[0]),
    "ImageColorToMask": lambda f, part: run("ImageColorToMask", image=given("A8"), color=f["color"]),
    "SolidMask": lambda f, part: run("SolidMask", **f),
    "InvertMask": lambda f, part: run("InvertMask", mask=given("M")),
    "CropMask": lambda f, part: run("CropMask", mask=given("M"), x=f["x"], y=f["y"], width=f["width"], height=f["height"]),
    "MaskComposite": mask_composite,
    "FeatherMask": feather,
    "GrowMask": lambda f, part: run("GrowMask", mask=given(f["input"]), expand=int(part[0]), tapered_corners=part[1] == "True"),
    "ThresholdMask": lambda f, part: run("ThresholdMask", mask=given("M"), value=f["value"]),
    "ImageCompositeMasked": image_composite,
    "LatentCompositeMasked": latent_composite_masked,
    "PorterDuff": porter_duff,
    "SplitImageWithAlpha": lambda f, part: run("SplitImageWithAlpha", image=given("RGBA")),
    "JoinImageWithAlpha": lambda f, part: run("JoinImageWithAlpha", image=given("A"), alpha=given("M")),
    "LatentUpscale": latent_upscale,
    "LatentUpscaleBy": lambda f, part: samples(run("LatentUpscaleBy", samples=latent("L1"), upscale_method=part[0], scale_by=f["scale"])),
    "LatentRotate": lambda f, part: samples(run("LatentRotate", samples=latent("L1"), rotation=part[0])),
    "LatentFlip": lambda f, part: samples(run("LatentFlip", samples=latent("L1"), flip_method=DIRECTIONS["xy".index(part[0])])),
    "LatentComposite": latent_composite,
    "LatentBlend": lambda f, part: latent_pair("LatentBlend", f, blend_factor=f.get("factor", 0.5)),
    "LatentCrop": lambda f, part: samples(
        run("LatentCrop", samples=latent("L1"), width=f["width"], height=f["height"], x=f["x"], y=f["y"])
    ),
    "LatentAdd": lambda f, part: latent_pair("LatentAdd", f),
    "LatentSubtract": lambda f, part: latent_pair("LatentSubtract", f),
    "LatentMultiply": lambda f, part: samples(run("LatentMultiply", samples=latent("L1"), multiplier=f["factor"])),
    "LatentInterpolate": lambda f, part: latent_pair("LatentInterpolate", f, ratio=f["ratio"]),
    "LatentConcat": lambda f, part: latent_pair("LatentConcat", f, dim=part[0]),
    "LatentCut": lambda f, part: samples(run("LatentCut", samples=latent("L1"), dim=part[0], index=f["index"], amount=f["amount"])),
    "LatentBatch": lambda f, part: latent_pair("LatentBatch", f),
    "LatentOperationTonemapReinhard": lambda f, part: operation("LatentOperationTonemapReinhard", f, multiplier=f["multiplier"]),
    "LatentOperationSharpen": lambda f, part: operation(
        "LatentOperationSharpen", f, sharpen_radius=f["radius"], sigma=f["sigma"], alpha=f["alpha"]
    ),
    "Morphology": lambda f, part: run("Morphology", image=given("A"), operation=part[0], kernel_size=f["kernel"]),
    "ImageRGBToYUV": lambda f, part: run("ImageRGBToYUV", image=given("A")),
    "ImageYUVToRGB": lambda f, part: run("ImageYUVToRGB", **dict(zip("YUV", run("ImageRGBToYUV", image=given("A"))))),
    "tiled_scale": tiled,
}

#: made of 8-bit pictures: exact with the recording's Pillow, one level off with another
BYTES = ("ImageQuantize", "ImageStitch")


def tolerance(case: str) -> float:
    """As the README of the goldens states it."""
    if "bislerp" in case:
        return 2e-5
    if case.startswith(BYTES) or "lanczos" in case:
        return 1 / 255 + 1e-5
    return 1e-5


@pytest.mark.parametrize("case", [name for name in CASES if name != "EmptyImage"])
def test_a_node_gives_the_recorded_tensors(case: str) -> None:
    name, *part = case.split("/")
    made = RUNNERS[name](CASES[case], part)
    goldens.assert_close(made[0], RECORDED[case], tolerance(case), what=case)
    further = [key for key in RECORDED if key.startswith(f"{case}/out")]
    assert len(made) == 1 + len(further) or not further
    for index, key in enumerate(sorted(further), start=1):
        goldens.assert_close(made[index], RECORDED[key], tolerance(case), what=key)


def test_every_recorded_tensor_belongs_to_a_case() -> None:
    others = ("in/", "repeat_to_batch_size/", "resize_to_batch_size/", "save_uint8/")
    results = {re.sub(r"/out\d+$", "", key) for key in RECORDED if not key.startswith(others)}
    assert results == set(CASES)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_batches_are_repeated_and_spread_as_recorded(size: int) -> None:
    batch = RECORDED["in/batch3"]
    goldens.assert_close(images.repeat_to_batch_size(batch, size), RECORDED[f"repeat_to_batch_size/{size}"], 0.0)
    goldens.assert_close(images.resize_to_batch_size(batch, size), RECORDED[f"resize_to_batch_size/{size}"], 0.0)


def test_saving_truncates_to_bytes_as_recorded() -> None:
    assert to_uint8(RECORDED["save_uint8/in"]).tolist() == RECORDED["save_uint8/out"].tolist()


def test_an_empty_image_has_the_recorded_colour() -> None:
    facts = CASES["EmptyImage"]
    made = run("EmptyImage", width=facts["width"], height=facts["height"], batch_size=facts["batch"], color=facts["color"])
    goldens.assert_close(made[0], RECORDED["EmptyImage"], 1e-5)
