"""Pixels to files and back: PNG, APNG, WebP, JPEG with metadata; reading of still and animated pictures.

Facts: files.md sections 2 to 4. Legend: b batch or frames, h height, w width, c channels. Numbers out of 0..1 are clipped.
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from comfy import jsonio
from comfy.errors import FileMissing, ImageUnreadable, InputUnusable

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]

#: what decoders raise on broken and hostile files (OSError includes Pillow's UnidentifiedImageError)
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    AttributeError,
    NotImplementedError,
    MemoryError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_EXIF_MODEL = 0x0110  #: WebP: `prompt:<JSON>`; the other keys count down from the tag below it
_NO_MASK = 64  #: side of the empty mask of a picture without alpha
_MAX_KEY = 79  #: bytes of a PNG keyword


def to_uint8(image: torch.Tensor) -> Pixels:
    """(…) float 0..1 on any device -> (…) uint8: times 255, clipped, truncated; NaN becomes 0."""
    values = 255.0 * image.detach().to("cpu", torch.float32).numpy()
    return np.clip(np.nan_to_num(values, nan=0.0, posinf=255.0, neginf=0.0), 0, 255).astype(np.uint8)


def picture(image_hwc: Pixels) -> Image.Image:
    """(h, w, c) uint8 -> a PIL image: 1 channel grey, 3 RGB, 4 RGBA. Raises InputUnusable for other shapes."""
    if image_hwc.ndim != 3 or image_hwc.shape[2] not in (1, 3, 4) or 0 in image_hwc.shape:
        raise InputUnusable("A picture has the shape (height, width, 1, 3 or 4).", shape=list(image_hwc.shape))
    return Image.fromarray(np.ascontiguousarray(image_hwc[:, :, 0] if image_hwc.shape[2] == 1 else image_hwc))


def metadata(prompt: Any = None, extra: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Texts to embed: `prompt`, then the keys of `extra` in order, each as ASCII JSON.

    Left out: the change marker `is_changed` of nodes, which is no part of what was submitted, and keys that hold secrets.
    """
    texts: dict[str, str] = {}
    if prompt is not None:
        texts["prompt"] = jsonio.dumps(_without_markers(prompt))
    for key, value in (extra or {}).items():
        if key not in _SECRETS:
            texts[str(key)] = jsonio.dumps(value)
    return texts


#: keys of `extra_data` that only the job's nodes may see (comfy_execution/job.py, which lies above this layer)
_SECRETS = frozenset({"auth_token_comfy_org", "api_key_comfy_org"})


def _without_markers(prompt: Any) -> Any:
    if not isinstance(prompt, Mapping):
        return prompt
    hidden = {"is_changed"}
    return {
        node_id: {key: value for key, value in node.items() if key not in hidden} if isinstance(node, Mapping) else node
        for node_id, node in prompt.items()
    }


def png_bytes(image_hwc: Pixels, texts: Mapping[str, str] | None = None, level: int = 4) -> bytes:
    """One PNG, `texts` as tEXt chunks before the image data (iTXt when not Latin-1)."""
    info = PngInfo()
    for key, value in (texts or {}).items():
        if _is_png_key(key):
            info.add_text(key, value)
    return encode(picture(image_hwc), "PNG", pnginfo=info, compress_level=level)


def apng_bytes(frames_bhwc: Pixels, texts: Mapping[str, str] | None = None, level: int = 4, fps: float = 6.0) -> bytes:
    """One animated PNG, `texts` as private `comf` chunks (key NUL JSON) after the image data."""
    info = PngInfo()
    for key, value in (texts or {}).items():
        if _is_png_key(key):
            data = key.encode("latin-1") + b"\0" + value.encode("latin-1", "backslashreplace")
            info.add(b"comf", data, after_idat=True)
    first, *rest = [picture(frame) for frame in frames_bhwc]
    return encode(first, "PNG", pnginfo=info, compress_level=level, save_all=True, duration=int(1000.0 / fps), append_images=rest)


def webp_bytes(
    frames: Sequence[Pixels],
    texts: Mapping[str, str] | None = None,
    fps: float = 6.0,
    lossless: bool = True,
    quality: int = 80,
    method: int = 4,
) -> bytes:
    """One WebP, animated when there are several (h, w, c) frames, `texts` in EXIF tags from 0x0110 downwards."""
    first, *rest = [picture(frame) for frame in frames]
    exif = first.getexif()
    tag = _EXIF_MODEL - 1
    for key, value in (texts or {}).items():
        if key == "prompt":
            exif[_EXIF_MODEL] = f"{key}:{value}"
        else:
            exif[tag] = f"{key}:{value}"
            tag -= 1
    animation: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": int(1000.0 / fps)} if rest else {}
    return encode(first, "WEBP", exif=exif, lossless=lossless, quality=quality, method=method, **animation)


def jpeg_bytes(image_hwc: Pixels, quality: int = 95) -> bytes:
    """One JPEG without alpha."""
    return encode(picture(image_hwc).convert("RGB"), "JPEG", quality=quality)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A PIL image as the bytes of a file. Raises InputUnusable when the format cannot hold it (too large, for example)."""
    buffer = io.BytesIO()
    try:
        image.save(buffer, format=kind, **options)
    except (OSError, ValueError, struct.error) as error:
        raise InputUnusable(f"It cannot be written as {kind}: {error}", size=list(image.size)) from error
    return buffer.getvalue()


def _is_png_key(key: str) -> bool:
    try:
        usable = 1 <= len(key.encode("latin-1")) <= _MAX_KEY and "\0" not in key
    except UnicodeEncodeError:
        usable = False
    if not usable:  # the format has no room for such a key; the pictures of a whole job are worth more than one text
        log.warning("metadata key %r cannot be stored in a PNG and is left out", key[:80])
    return usable


def open_picture(source: str | Path | BinaryIO, name: str) -> Image.Image:
    """A PIL image, read far enough to know its format. Raises FileMissing, ImageUnreadable; `name` is what they tell."""
    try:
        return Image.open(source)
    except FileNotFoundError:
        raise FileMissing(filename=name) from None
    except _BROKEN as error:
        raise ImageUnreadable(_reason(error), filename=name) from error


def load_image(path: str | Path, name: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture file -> (image (b, h, w, 3) float32 0..1, mask (b, h, w) float32, 1 where transparent).

    Every frame of an animation is a batch item (frames of another size are skipped; of an MPO only the first is taken).
    EXIF rotation is applied. A picture without alpha has masks of 64 x 64 zeros; an animation in which only some frames
    have alpha has zeros of its own size for the others. Raises FileMissing, ImageUnreadable.
    """
    name = name or Path(path).name
    with open_picture(path, name) as opened:
        try:
            return _batch(_frames(opened))
        except _BROKEN as error:
            raise ImageUnreadable(_reason(error), filename=name) from error


def load_channel(path: str | Path, channel: str, name: str | None = None) -> torch.Tensor:
    """One channel (`alpha` inverted, `red`, `green`, `blue`) of the first frame -> (1, h, w) float32 0..1.

    Without alpha the mask of `alpha` is empty. Raises FileMissing, ImageUnreadable, InputUnusable for another channel.
    """
    index = {"red": 0, "green": 1, "blue": 2, "alpha": 3}.get(channel)
    if index is None:
        raise InputUnusable("The channel must be alpha, red, green or blue.", channel=channel)
    name = name or Path(path).name
    with open_picture(path, name) as opened:
        try:
            colours, alpha = _decode(ImageOps.exif_transpose(opened))
        except _BROKEN as error:
            raise ImageUnreadable(_reason(error), filename=name) from error
    if channel != "alpha":
        return torch.from_numpy(colours[None, :, :, index].copy())
    return torch.from_numpy(np.zeros(colours.shape[:2], np.float32) if alpha is None else 1.0 - alpha)[None]


Decoded = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]


def _frames(opened: Image.Image) -> list[Decoded]:
    frames: list[Decoded] = []
    count = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
    for index in range(count):
        if count > 1:
            opened.seek(index)
        colours, alpha = _decode(ImageOps.exif_transpose(opened))
        if frames and frames[0][0].shape != colours.shape:
            continue
        frames.append((colours, alpha))
    return frames


def _decode(image: Image.Image) -> Decoded:
    """One frame -> (colours (h, w, 3), alpha (h, w) or None), float32 0..1."""
    if image.mode.startswith("I"):  # 16 bits of grey; convert("RGB") would clip them to 8
        grey = np.clip(np.asarray(image, np.float32) / 65535.0, 0.0, 1.0)
        return np.repeat(grey[:, :, None], 3, axis=2), None
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    pixels = np.asarray(image.convert("RGBA" if has_alpha else "RGB"), np.float32) / 255.0
    return pixels[:, :, :3], (pixels[:, :, 3] if has_alpha else None)


def _batch(frames: Sequence[Decoded]) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(np.stack([colours for colours, _ in frames]))
    if all(alpha is None for _, alpha in frames):
        return images, torch.zeros((len(frames), _NO_MASK, _NO_MASK))
    opaque = np.ones(images.shape[1:3], np.float32)
    return images, torch.from_numpy(np.stack([1.0 - (opaque if alpha is None else alpha) for _, alpha in frames]))


def _reason(error: BaseException) -> str:
    """What the decoder said, without the path that some of them name."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "Its format is not known."
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or type(error).__name__
    return f"{type(error).__name__}: {error}"[:200]
