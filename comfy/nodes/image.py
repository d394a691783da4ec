"""Pictures in and out of a workflow: LoadImage and its kin, SaveImage, PreviewImage, EmptyImage. Facts: files.md."""

from __future__ import annotations

import hashlib
import os
import secrets
import string
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch

from comfy import control, folders
from comfy.errors import ComfyError, FileMissing, InputUnusable
from comfy.folders import kinds
from comfy.images_io import load_channel, load_image, metadata, png_bytes, to_uint8

Saved = dict[str, dict[str, list[dict[str, str]]]]


def input_files(*classes: str) -> list[str]:
    """Sorted names of the files directly in the input folder, of the given classes (image, …) or all; [] without folder."""
    try:
        with os.scandir(folders.current().input_dir) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file())
    except OSError:
        return []
    return kinds.of_classes(names, classes) if classes else names


def content_hash(name: str) -> str:
    """SHA-256 of the file with this annotated name, in hex. Raises FileMissing, PathOutside, FileNameInvalid, InputUnusable."""
    digest = hashlib.sha256()
    try:
        with open(folders.current().annotated_path(name), "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (FileNotFoundError, IsADirectoryError):
        raise FileMissing(filename=name) from None
    except OSError as error:
        raise InputUnusable(f"The file cannot be read: {error.strerror}", filename=name) from error
    return digest.hexdigest()


def validate_file(name: str) -> bool | str:
    """True when the annotated name is an existing file inside its folder; else the words that the client gets."""
    try:
        if os.path.isfile(folders.current().annotated_path(name)):
            return True
    except ComfyError as error:
        return f"Invalid image file: {error}"
    return f"Invalid image file: {name}"


class LoadImage:
    """A picture of the input folder with its mask, 1 where the picture is transparent."""

    CATEGORY = "image"
    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "load_image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": (input_files("image"), {"image_upload": True})}}

    def load_image(self, image: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, h, w, 3) and (b, h, w); raises FileMissing, PathOutside, ImageUnreadable."""
        return load_image(folders.current().annotated_path(image), image)

    @classmethod
    def IS_CHANGED(cls, image: str) -> str:
        return content_hash(image)

    @classmethod
    def VALIDATE_INPUTS(cls, image: str) -> bool | str:
        return validate_file(image)


class LoadImageMask:
    """One channel of a picture as a mask."""

    CATEGORY = "mask"
    RETURN_TYPES = ("MASK",)
    FUNCTION = "load_image"
    _COLOR_CHANNELS: ClassVar[list[str]] = ["alpha", "red", "green", "blue"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": (input_files(), {"image_upload": True}), "channel": (cls._COLOR_CHANNELS,)}}

    def load_image(self, image: str, channel: str) -> tuple[torch.Tensor]:
        """(1, h, w); raises FileMissing, PathOutside, ImageUnreadable."""
        return (load_channel(folders.current().annotated_path(image), channel, image),)

    @classmethod
    def IS_CHANGED(cls, image: str, channel: str) -> str:
        return content_hash(image)

    @classmethod
    def VALIDATE_INPUTS(cls, image: str) -> bool | str:
        return validate_file(image)


class LoadImageOutput(LoadImage):
    """A picture of the output folder; the front end fetches the choices itself and annotates the name."""

    DESCRIPTION = "Load an image from the output folder. The refresh button updates the list and picks the newest image."
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        remote = {"route": "/internal/files/output", "refresh_button": True, "control_after_refresh": "first"}
        return {"required": {"image": ("COMBO", {"image_upload": True, "image_folder": "output", "remote": remote})}}


class SaveImage:
    """Pictures -> PNG files in the output folder. Packs derive from it and set the four attributes."""

    CATEGORY = "image"
    DESCRIPTION = "Saves the input images to the output folder."
    RETURN_TYPES = ()
    FUNCTION = "save_images"
    OUTPUT_NODE = True

    def __init__(self) -> None:
        self.output_dir: str = folders.current().output_dir
        self.type = "output"
        self.prefix_append = ""
        self.compress_level = 4

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The images to save."}),
                "filename_prefix": (
                    "STRING",
                    {
                        "default": "ComfyUI",
                        "tooltip": "Start of the file names. Folders and variables such as %year% or %width% may be used.",
                    },
                ),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save_images(
        self, images: torch.Tensor | Sequence[torch.Tensor], filename_prefix: str = "ComfyUI", prompt: Any = None, extra_pnginfo: Any = None
    ) -> Saved:
        """(b, h, w, c) or a sequence of (h, w, c), 0..1 -> the ui dict that names the files, which are on disk then.

        Raises InputUnusable for no pictures or other shapes, PathOutside, FileNameInvalid, FileUnwritable; Interrupted
        before a picture.
        """
        if len(images) == 0 or any(image.ndim != 3 for image in images):
            raise InputUnusable("There must be pictures of the shape (height, width, channels).", field="images")
        here = folders.current()
        height, width = images[0].shape[:2]
        place = here.save_target(filename_prefix + self.prefix_append, self.output_dir, width, height)
        texts = {} if here.config.disable_metadata else metadata(prompt, extra_pnginfo)
        encoded: list[Callable[[], bytes]] = [partial(self._encode, image, texts) for image in images]
        names = place.write(encoded, ".png")
        return {"ui": {"images": [{"filename": name, "subfolder": place.subfolder, "type": self.type} for name in names]}}

    def _encode(self, image: torch.Tensor, texts: dict[str, str]) -> bytes:
        control.check()
        return png_bytes(to_uint8(image), texts, self.compress_level)


class PreviewImage(SaveImage):
    """Pictures -> PNG files in the temp folder, which lives as long as the server."""

    DESCRIPTION = "Shows the input images and saves them to the temp folder only."

    def __init__(self) -> None:
        self.output_dir = folders.current().temp_dir
        self.type = "temp"
        # not from `random`: packs seed that, and two lanes would get the same letters
        self.prefix_append = "_temp_" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(5))
        self.compress_level = 1

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE",)}, "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}}


class EmptyImage:
    """Pictures of one colour."""

    CATEGORY = "image"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "generate"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = {"default": 512, "min": 1, "max": 16384, "step": 1}
        return {
            "required": {
                "width": ("INT", side),
                "height": ("INT", side.copy()),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096}),
                "color": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}),
            }
        }

    def generate(self, width: int, height: int, batch_size: int = 1, color: int = 0) -> tuple[torch.Tensor]:
        """(batch_size, height, width, 3) float32; `color` is 0xRRGGBB."""
        rgb = torch.tensor([(color >> shift & 0xFF) / 0xFF for shift in (16, 8, 0)], dtype=torch.float32)
        return (rgb.expand(batch_size, height, width, 3).clone(),)


NODE_CLASS_MAPPINGS = {
    "SaveImage": SaveImage,
    "PreviewImage": PreviewImage,
    "LoadImage": LoadImage,
    "LoadImageMask": LoadImageMask,
    "LoadImageOutput": LoadImageOutput,
    "EmptyImage": EmptyImage,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "SaveImage": "Save Image",
    "PreviewImage": "Preview Image",
    "LoadImage": "Load Image",
    "LoadImageMask": "Load Image (as Mask)",
    "LoadImageOutput": "Load Image (from Outputs)",
}
