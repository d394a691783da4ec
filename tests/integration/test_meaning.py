"""The starter model paints what its prompt says: fixed seeds, prompts and thresholds (tools/starter_model/yardstick.py).

Through the server's own loaders, samplers and VAE, on the CPU. The full table is `python -m tools.starter_model.evaluate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from comfy.errors import ComfyError
from comfy.models.control import load_controlnet
from comfy.models.tiny import TinyDecoder, tiny_component
from comfy.sampling.sampler import SAMPLER_NAMES
from tests.make_checkpoint import make_sd1_checkpoint
from tools.starter_model import yardstick as y
from tools.starter_model.evaluate import drawn, edges_of, obeyed
from tools.starter_model.export import CONTROL_FILE, LORA_FILE, PREVIEW_FILE
from tools.starter_model.look import what_is_on
from tools.starter_model.networks import LATENT_SCALE
from tools.starter_model.studio import Studio, open_studio

MODELS = Path(__file__).resolve().parents[2] / "models"
CHECKPOINT = MODELS / "checkpoints" / "starter_shapes_sd1.safetensors"
FEW = y.TEST_SEEDS[:4]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with open_studio(CHECKPOINT, CPU) as opened:
        yield opened


def test_the_prompt_is_obeyed(studio: Studio) -> None:
    tasks = y.one_prompt()[: len(y.TEST_SEEDS)]
    pictures = studio.paint([task.prompt for task in tasks], y.TEST_SEEDS)
    sights = [what_is_on(picture) for picture in pictures]
    assert sum(obeyed(task, sight) and sight.background == task.background for task, sight in zip(tasks, sights)) >= y.TEST_LEAST


def test_a_model_of_noise_does_not_obey(tmp_path: Path) -> None:
    task = y.one_prompt()[0]
    with open_studio(make_sd1_checkpoint(tmp_path / "noise.safetensors"), CPU) as noise:
        (picture,) = noise.paint([task.prompt], [task.seed], steps=4)
    assert not obeyed(task, what_is_on(picture))


@pytest.mark.parametrize("tasks", [y.held_out()[:4], y.two_things()[:4]], ids=["triples never trained on", "two things"])
def test_prompts_of_other_kinds_are_obeyed(studio: Studio, tasks: list[y.Task]) -> None:
    pictures = studio.paint([task.prompt for task in tasks], [task.seed for task in tasks])
    assert sum(obeyed(task, what_is_on(picture)) for task, picture in zip(tasks, pictures)) >= 3


#: on a CPU a `_gpu` sampler gives the numbers of the one without (goldens README, section B)
SAMPLERS = [name for name in SAMPLER_NAMES if not name.endswith("_gpu")]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_paints_the_prompt(studio: Studio, sampler: str) -> None:
    task = y.prompts()[0]
    cfg = y.CFG_PP if sampler.endswith("_cfg_pp") else y.CFG
    scheduler = y.OWN_SCHEDULERS.get(sampler, y.SCHEDULER)
    try:
        (picture,) = studio.paint([task.prompt], [task.seed], sampler=sampler, scheduler=scheduler, cfg=cfg)
    except ComfyError as error:
        if "torchsde" not in str(error):
            raise
        pytest.skip(f"torchsde is not installed: {sampler}")
    assert obeyed(task, what_is_on(picture)) or sampler in y.ONLY_RUNS


def test_the_negative_prompt_keeps_away(studio: Studio) -> None:
    prompt, negative = y.NEGATIVE_BACKGROUND
    seeds = y.TEST_SEEDS[:6]
    free, kept = (studio.paint([prompt] * len(seeds), seeds, negative=text) for text in ("", negative))
    white = [sum(what_is_on(picture).background == "white" for picture in some) for some in (free, kept)]
    assert white[0] > white[1]
    assert white[1] <= 1


@pytest.mark.parametrize(("prompt", "colour"), y.WEIGHTS.items())
def test_the_heavier_word_wins(studio: Studio, prompt: str, colour: str) -> None:
    pictures = studio.paint([prompt] * len(FEW), FEW)
    assert sum(what_is_on(picture).has(colour) for picture in pictures) >= 3


def test_denoise_says_how_much_of_a_picture_stays(studio: Studio) -> None:
    start = studio.encode(drawn(("red", "circle", 0.5, 0.5)))
    before = studio.decode(start).astype(float)
    little, half, all_ = (studio.paint([y.IMG2IMG_PROMPT] * 2, FEW[:2], latent=start, denoise=d) for d in (0.15, 0.6, 1.0))
    changes = [np.abs(pictures.astype(float) - before).mean() for pictures in (little, half, all_)]
    assert changes == sorted(changes)
    assert all(what_is_on(picture).has("red", "circle", "center") for picture in little)
    assert all(what_is_on(picture).has("blue", "square", "center") for picture in all_)


def test_inpainting_changes_the_mask_alone(studio: Studio) -> None:
    start = studio.encode(drawn(("red", "circle", 0.25, 0.5)))
    mask = torch.zeros((1, y.SIDE, y.SIDE))
    mask[:, :, y.SIDE // 2 :] = 1.0
    latents = studio.sample(studio.conditioning([y.INPAINT_PROMPT] * 2), FEW[:2], latent=start, mask=mask)
    outside = start[..., : y.SIDE // 16].expand(2, -1, -1, -1)
    torch.testing.assert_close(latents[..., : y.SIDE // 16], outside, atol=1e-5, rtol=1e-5)
    pictures, before = studio.decode(latents).astype(float), studio.decode(start).astype(float)
    far = y.SIDE // 2 - y.INPAINT_MARGIN
    assert np.abs(pictures[:, :, :far] - before[:, :, :far]).max() <= y.INPAINT_CHANGE * 255
    assert all(what_is_on(picture).has(*y.INPAINT_THING) for picture in pictures / 255)


def test_each_area_follows_its_prompt(studio: Studio) -> None:
    cells = y.SIDE // 8
    halves = [
        studio.conditioning([prompt], area=(cells, cells // 2, 0, offset), strength=1.0)[0]
        for prompt, offset in zip(y.AREA_PROMPTS, (0, cells // 2))
    ]
    pictures = studio.decode(studio.sample([*halves, *studio.conditioning([y.AREA_BASE])], FEW))
    sights = [what_is_on(picture) for picture in pictures]
    assert sum(sight.has("red", "circle", "left") and sight.has("blue", "square", "right") for sight in sights) >= 3


def test_the_lora_changes_nothing_at_0_and_the_style_at_1(studio: Studio) -> None:
    def paint(model: object) -> np.ndarray:
        return studio.paint([y.LORA_PROMPT] * 2, FEW[:2], model=model)

    plain = paint(None)
    none, full = (paint(studio.with_lora(MODELS / "loras" / LORA_FILE, strength)) for strength in (0.0, 1.0))
    assert (plain == none).all()
    assert all(what_is_on(picture).background == "yellow" for picture in plain)
    assert full[:, :4].mean() / 255 <= y.LORA_RIM


@pytest.mark.parametrize(("shape", "x", "y_"), [("star", 0.25, 0.75), ("square", 0.75, 0.25)])
def test_the_controlnet_follows_the_edges(studio: Studio, shape: str, x: float, y_: float) -> None:
    wanted = drawn(("red", shape, x, y_))
    control = load_controlnet(MODELS / "controlnet" / CONTROL_FILE).set_cond_hint(edges_of(wanted), 1.0)
    entry = studio.conditioning([y.CONTROL_PROMPT], control=control, control_apply_to_uncond=True)
    (picture,) = studio.decode(studio.sample(entry, FEW[:1]))
    red = [p[..., 1].astype(int) < 128 for p in (wanted, picture)]
    assert (red[0] & red[1]).sum() / (red[0] | red[1]).sum() >= y.CONTROL_OVERLAP


def test_the_preview_decoder_shows_the_same_thing(studio: Studio) -> None:
    decoder = TinyDecoder(tiny_component(str(MODELS / "vae_approx" / PREVIEW_FILE), "decoder"))
    latent = studio.encode(drawn(("red", "circle", 0.25, 0.25), ("blue", "square", 0.75, 0.75)))
    preview = (decoder.decode(latent * LATENT_SCALE)[0].movedim(0, -1) + 1) / 2
    sight = what_is_on(preview.clamp(0, 1).numpy())
    assert sight.background == "white"
    assert sight.has("red", "circle", "top left")
    assert sight.has("blue", "square", "bottom right")
