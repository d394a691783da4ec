"""Tensors that a custom node has in its hands -> a file that the server's loaders read.

Weights live in slabs that are made from files, once for all lanes; so a state dict becomes one, in the temp folder, named by
its content: the same tensors are the same file, and so the same slab.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from comfy import folders
from comfy.errors import InputUnusable


def as_file(state_dict: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file with these tensors; written when there is none. It lives until the server stops.

    Raises InputUnusable when a value is no tensor.
    """
    from safetensors.torch import save_file

    wrong = [name for name, value in state_dict.items() if not isinstance(value, Tensor)]
    if wrong:
        raise InputUnusable("A state dict holds tensors only.", not_tensors=wrong[:5])
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in state_dict.items()}
    path = Path(folders.current().temp_dir) / "state_dicts" / f"{_digest(tensors)}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}-{id(tensors)}")
        save_file(_unshared(tensors), draft, metadata=dict(metadata) if metadata else None)
        os.replace(draft, path)
    return path


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied weights as tensors of their own: the format has no sharing."""
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        own[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return own


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def load_state_dict_guess_config(
    sd: Mapping[str, Tensor],
    output_vae: bool = True,
    output_clip: bool = True,
    output_clipvision: bool = False,
    embedding_directory: str | Sequence[str] | None = None,
    output_model: bool = True,
    model_options: Mapping[str, Any] | None = None,
    te_model_options: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Any:
    """`comfy.sd.load_checkpoint_guess_config` for the tensors of such a file."""
    from comfy import sd as edge

    return edge.load_checkpoint_guess_config(
        str(as_file(sd, metadata)),
        output_vae,
        output_clip,
        output_clipvision,
        embedding_directory,
        output_model,
        model_options,
        te_model_options,
    )


def load_diffusion_model_state_dict(
    sd: Mapping[str, Tensor], model_options: Mapping[str, Any] | None = None, metadata: Mapping[str, str] | None = None
) -> Any:
    """`comfy.sd.load_diffusion_model` for the tensors of such a file."""
    from comfy import sd as edge

    return edge.load_diffusion_model(str(as_file(sd, metadata)), model_options)


def load_text_encoder_state_dicts(
    state_dicts: Sequence[Mapping[str, Tensor]] = (),
    embedding_directory: str | Sequence[str] | None = None,
    clip_type: Any = None,
    model_options: Mapping[str, Any] | None = None,
) -> Any:
    """`comfy.sd.load_clip` for the tensors of such files."""
    from comfy import sd as edge

    wanted = edge.CLIPType.STABLE_DIFFUSION if clip_type is None else clip_type
    return edge.load_clip([str(as_file(sd)) for sd in state_dicts], embedding_directory, wanted, model_options)
