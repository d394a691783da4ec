"""Trains the starter model and what goes with it: `python -m tools.starter_model.train FOLDER`.

Writes UNet, text encoder, VAE, LoRA, preview decoder and ControlNet as separate files, and a log. `--seconds` is the time
for all stages together; `--tiny` goes through all of it in a minute on a CPU, to see that it runs.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from tools.starter_model import export
from tools.starter_model.data import Data, Makers
from tools.starter_model.networks import TextNetwork, Weights
from tools.starter_model.stages import (
    Effort,
    Place,
    Shaped,
    encode,
    polish_decoder,
    train_control,
    train_denoiser,
    train_lora,
    train_preview,
    train_vae,
)

#: pictures in the training set by height and width, their share of the steps; the first is also the VAE's, with its larger sister
SHAPES = (((128, 128), 1.0, 0.76), ((256, 256), 0.12, 0.10), ((64, 128), 0.12, 0.04), ((128, 64), 0.12, 0.06))


@dataclass(frozen=True)
class Plan:
    """Sizes of the data and efforts of the stages."""

    scenes: int
    vae: Effort
    decoder: Effort
    denoiser: Effort
    lora: Effort
    control: Effort
    preview: Effort


def full_plan(seconds: float) -> Plan:
    """The real thing: shares of the time as measured to be of use."""
    return Plan(
        200_000,
        Effort(64, 0.20 * seconds),
        Effort(64, 0.16 * seconds),
        Effort(512, 0.48 * seconds),
        Effort(256, 0.04 * seconds),
        Effort(256, 0.08 * seconds),
        Effort(64, 0.03 * seconds),
    )


def tiny_plan() -> Plan:
    """Every stage for three steps."""
    few = Effort(4, steps=3)
    return Plan(200, few, few, few, few, few, few)


def train(folder: Path, plan: Plan, place: Place, workers: int) -> None:
    """All stages, in order; the files appear as they are made."""
    began = time.monotonic()
    makers = Makers(workers)
    waiting = [makers.start(max(int(plan.scenes * part), 8), "plain", width / height, place.seed) for (height, width), part, _ in SHAPES]
    styled = makers.start(max(plan.scenes // 8, 8), "styled", 1.0, place.seed)
    control = makers.start(max(plan.scenes // 4, 8), "control", 1.0, place.seed)
    early = makers.start(max(plan.scenes // 10, 8), "plain", 1.0, place.seed + 1)().to(place.device)
    log = [f"torch {torch.__version__}, {_name(place.device)}, seed {place.seed}, {plan}"]

    vae, lines = train_vae([Shaped(early, 128, 128, 0.85), Shaped(early, 256, 256, 0.15)], plan.vae, place)
    log += lines
    vae, lines = polish_decoder(vae, early, plan.decoder, place)
    log += lines
    sets = []
    for wait, ((height, width), _, share) in zip(waiting, SHAPES):
        sets.append(_encoded(wait(), vae, height, width, share, place))
    unet, text, text_weights, lines = train_denoiser(sets, plan.denoiser, place)
    log += lines
    export.save_base(folder, unet, text, text_weights, vae)
    extras(
        folder,
        plan,
        place,
        _encoded(styled(), vae, 128, 128, 1.0, place),
        _encoded(control(), vae, 128, 128, 1.0, place),
        unet,
        text,
        text_weights,
        sets[0],
        log,
    )
    makers.close()
    log.append(f"all: {time.monotonic() - began:.0f} s")
    (folder / "train.log").write_text("\n".join(log) + "\n")
    print(log[-1], flush=True)


def only_decoder(folder: Path, effort: Effort, place: Place, workers: int) -> None:
    """Polish the decoder of the VAE in `folder` once more and write it back."""
    makers = Makers(workers)
    data = makers.start(20_000 if effort.steps is None else 200, "plain", 1.0, place.seed + 2)().to(place.device)
    makers.close()
    prefix = "first_stage_model."
    loaded = {n.removeprefix(prefix): t.float().to(place.device) for n, t in load_file(folder / export.VAE_FILE).items()}
    vae, lines = polish_decoder(loaded, data, effort, place)
    export.save(folder / export.VAE_FILE, vae, prefix)
    with (folder / "train.log").open("a") as file:
        file.write("\n".join(lines) + "\n")


def extras(
    folder: Path,
    plan: Plan,
    place: Place,
    styled: Shaped,
    control: Shaped,
    unet: Weights,
    text: TextNetwork,
    text_weights: Weights,
    plain: Shaped,
    log: list[str],
) -> None:
    """LoRA, ControlNet and preview decoder over the finished base model."""
    lora, lines = train_lora(styled, unet, text, text_weights, plan.lora, place)
    export.save_lora(folder / export.LORA_FILE, lora)
    log += lines
    controlnet, lines = train_control(control, unet, text, text_weights, plan.control, place)
    export.save(folder / export.CONTROL_FILE, controlnet, "control_model.")
    log += lines
    preview, lines = train_preview(plain, plan.preview, place)
    export.save(folder / export.PREVIEW_FILE, preview)
    log += lines


def _encoded(data: Data, vae: Weights, height: int, width: int, share: float, place: Place) -> Shaped:
    on_device = data.to(place.device)
    return Shaped(on_device, height, width, share, encode(vae, on_device, height, width, place))


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--only-decoder", type=float, metavar="SECONDS", help="polish the decoder of the VAE in FOLDER, nothing else")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    place = Place(device, torch.bfloat16 if device.type == "cuda" else torch.float32, given.seed)
    given.folder.mkdir(parents=True, exist_ok=True)
    workers = max((os.cpu_count() or 2) - 2, 1)
    if given.only_decoder is not None:
        steps = 2 if given.tiny else None
        only_decoder(given.folder, Effort(4 if given.tiny else 64, given.only_decoder, steps), place, workers)
        return
    train(given.folder, tiny_plan() if given.tiny else full_plan(given.seconds), place, workers)


if __name__ == "__main__":
    main()
