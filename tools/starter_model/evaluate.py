"""Measures a checkpoint by the yardstick: `python -m tools.starter_model.evaluate CHECKPOINT [--json FILE] [--sheet FILE]`.

Every row goes through the server's own loader and samplers. On a machine without a package that a sampler needs, that
sampler's row says so instead of a number.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from comfy.errors import ComfyError
from comfy.sampling.sampler import SAMPLER_NAMES
from comfy.sampling.schedules import SCHEDULER_NAMES
from tools.starter_model import yardstick as y
from tools.starter_model.export import CONTROL_FILE, LORA_FILE
from tools.starter_model.look import Sight, what_is_on
from tools.starter_model.sheet import save_sheet
from tools.starter_model.studio import Pictures, Studio, open_studio
from tools.starter_model.vocabulary import PLACES, SHAPES


@dataclass(frozen=True)
class Row:
    """One line of the table: how many pictures were right, out of how many, and the least share that is asked for.

    note  what else is to be said; `least` None: only reported
    """

    name: str
    right: int
    of: int
    least: float | None
    note: str = ""

    @property
    def passed(self) -> bool:
        return self.least is None or (self.of > 0 and self.right >= self.least * self.of - 1e-9)


def obeyed(task: y.Task, sight: Sight) -> bool:
    """Whether every thing of the prompt is on the picture, with its colour, shape and place."""
    return all(sight.has(*thing) for thing in task.things)


def counted(name: str, tasks: Sequence[y.Task], pictures: Pictures, least: float | None) -> Row:
    """How many pictures obey their prompt; the note has colour, shape and place apart, and the background."""
    sights = [what_is_on(picture) for picture in pictures]
    right = sum(obeyed(task, sight) for task, sight in zip(tasks, sights))
    parts = []
    for index, what in enumerate(("colour", "shape", "place")):
        wanted: list[tuple[str | None, ...]] = []
        good = 0
        for task, sight in zip(tasks, sights):
            wanted = [tuple(thing[i] if i == index else None for i in range(3)) for thing in task.things]
            good += all(sight.has(*w) for w in wanted)
        parts.append(f"{what} {good}")
    grounds = sum(sight.background == task.background for task, sight in zip(tasks, sights))
    extra = sum(len(sight.objects) > len(task.things) for task, sight in zip(tasks, sights))
    return Row(name, right, len(tasks), least, f"{', '.join(parts)}, background {grounds}; with something too much {extra}")


def paint_tasks(studio: Studio, tasks: Sequence[y.Task], **options: Any) -> Pictures:
    """A picture for each task."""
    return studio.paint([task.prompt for task in tasks], [task.seed for task in tasks], **options)


def prompt_rows(studio: Studio, sheet: list[Pictures]) -> Iterator[Row]:
    """Prompts of all kinds at the main settings, and at others."""
    for name, tasks in (
        ("prompts", y.prompts()),
        ("one prompt", y.one_prompt()),
        ("held-out triples", y.held_out()),
        ("two things", y.two_things()),
    ):
        pictures = paint_tasks(studio, tasks)
        sheet.append(pictures[:20])
        yield counted(name, tasks, pictures, y.THRESHOLDS[name])
    yield counted("guidance 7", y.prompts(), paint_tasks(studio, y.prompts(), cfg=7.0), y.THRESHOLDS["guidance 7"])
    large = paint_tasks(studio, y.prompts()[:20], size=(256, 256))
    sheet.append(large[:5, ::2, ::2])
    yield counted("256 pixels", y.prompts()[:20], large, y.THRESHOLDS["256 pixels"])


def settings_rows(studio: Studio, only: str = "") -> Iterator[Row]:
    """The main prompts with every sampler, and with every scheduler; with `only` those whose name has it."""
    table: list[tuple[str, float | None, dict[str, Any]]] = []
    for sampler in SAMPLER_NAMES:
        cfg = y.CFG_PP if sampler.endswith("_cfg_pp") else y.CFG
        least = None if sampler in y.ONLY_RUNS else y.THRESHOLDS["sampler"]
        table.append((f"sampler {sampler}", least, {"sampler": sampler, "cfg": cfg}))
    for sampler, scheduler in y.OWN_SCHEDULERS.items():
        table.append((f"sampler {sampler}, {scheduler}", y.THRESHOLDS["sampler"], {"sampler": sampler, "scheduler": scheduler}))
    for scheduler in SCHEDULER_NAMES:
        table.append((f"scheduler {scheduler}", y.THRESHOLDS["scheduler"], {"scheduler": scheduler}))
    for name, least, options in table:
        if only in name:
            yield _setting(studio, name, least, **options)


def _setting(studio: Studio, name: str, least: float | None, **options: Any) -> Row:
    tasks = y.prompts()
    try:
        pictures = paint_tasks(studio, tasks, **options)
    except (ComfyError, ImportError) as error:
        return Row(name, 0, 0, None, f"not run: {error}")
    return counted(name, tasks, pictures, least)


def negative_rows(studio: Studio, sheet: list[Pictures]) -> Iterator[Row]:
    """What the negative prompt names is not there."""
    count = len(y.SEEDS)
    prompt, negative = y.NEGATIVE_BACKGROUND
    free, pictures = (studio.paint([prompt] * count, y.SEEDS, negative=text) for text in ("", negative))
    white = [sum(what_is_on(picture).background == "white" for picture in some) for some in (free, pictures)]
    sheet += [free[:10], pictures[:10]]
    name = "negative prompt, background"
    yield Row(name, count - white[1], count, y.THRESHOLDS[name], f"{count - white[0]} without the negative prompt")
    prompt, negative = y.NEGATIVE_SHAPE
    free, pictures = (studio.paint([prompt] * count, y.SEEDS, negative=text) for text in ("", negative))
    right = [sum(any(what_is_on(p).has(shape=s) for s in y.NEGATIVE_SHAPE_ALLOWED) for p in some) for some in (free, pictures)]
    sheet += [free[:10], pictures[:10]]
    name = "negative prompt, shape"
    yield Row(name, right[1], count, y.THRESHOLDS[name], f"{right[0]} without the negative prompt")


def weight_rows(studio: Studio, sheet: list[Pictures]) -> Iterator[Row]:
    """Of two colours the one with more weight wins."""
    half, right = len(y.SEEDS) // 2, 0
    for prompt, colour in y.WEIGHTS.items():
        pictures = studio.paint([prompt] * half, y.SEEDS[:half])
        sheet.append(pictures[:10])
        right += sum(what_is_on(picture).has(colour) for picture in pictures)
    yield Row("prompt weights", right, half * len(y.WEIGHTS), y.THRESHOLDS["prompt weights"])


def drawn(*things: tuple[str, str, float, float], background: str = "white") -> Pictures:
    """(128, 128, 3): a picture that is drawn, not painted: things as (colour, shape, x, y)."""
    from tools.starter_model.render import draw, rows_of
    from tools.starter_model.scenes import Scene, Thing

    scene = Scene(tuple(Thing(colour, shape, "center", x=x, y=y_) for colour, shape, x, y_ in things), background)
    picture: Pictures = np.rint(draw(rows_of([scene]), y.SIDE, y.SIDE)[0].movedim(0, -1).numpy() * 255).astype(np.uint8)
    return picture


def image_rows(studio: Studio, sheet: list[Pictures]) -> Iterator[Row]:
    """From picture to picture: little noise keeps it, much noise changes it."""
    seeds = y.SEEDS[:20]
    start = studio.encode(drawn(("red", "circle", 0.5, 0.5)))
    changes = []
    for name, denoise in (("img2img keeps", y.IMG2IMG_KEEPS), ("", 0.6), ("img2img changes", y.IMG2IMG_CHANGES)):
        pictures = studio.paint([y.IMG2IMG_PROMPT] * len(seeds), seeds, latent=start, denoise=denoise)
        sheet.append(pictures[:10])
        changes.append(float(np.abs(pictures.astype(float) - studio.decode(start).astype(float)).mean()))
        if name:
            thing = ("red", "circle", "center") if name.endswith("keeps") else ("blue", "square", "center")
            right = sum(what_is_on(picture).has(*thing) for picture in pictures)
            yield Row(name, right, len(seeds), y.THRESHOLDS[name], f"denoise {denoise:g}, mean change {changes[-1]:.1f} of 255")


def inpaint_rows(studio: Studio, sheet: list[Pictures]) -> Iterator[Row]:
    """Inside the mask the prompt is obeyed, outside nothing changes."""
    seeds = y.SEEDS[:20]
    start = studio.encode(drawn(("red", "circle", 0.25, 0.5)))
    mask = torch.zeros((1, y.SIDE, y.SIDE))
    mask[:, :, y.SIDE // 2 :] = 1.0
    pictures = studio.paint([y.INPAINT_PROMPT] * len(seeds), seeds, latent=start, mask=mask)
    sheet.append(pictures[:10])
    before = studio.decode(start)[0].astype(float)
    far = slice(0, y.SIDE // 2 - y.INPAINT_MARGIN)
    change = np.abs(pictures[:, :, far].astype(float) - before[None, :, far]).max(axis=(1, 2, 3)) / 255
    note = f"greatest change {change.max():.3f} of 1, {y.INPAINT_MARGIN} pixels from the mask"
    yield Row("inpaint outside", int((change <= y.INPAINT_CHANGE).sum()), len(seeds), y.THRESHOLDS["inpaint outside"], note)
    right = sum(what_is_on(picture).has(*y.INPAINT_THING) for picture in pictures)
    yield Row("inpaint inside", right, len(seeds), y.THRESHOLDS["inpaint inside"])


def area_rows(studio: Studio, sheet: list[Pictures]) -> Iterator[Row]:
    """Each half of the picture has its own prompt."""
    seeds, cells = y.SEEDS[:20], y.SIDE // 8
    positive = [
        studio.conditioning([prompt], area=(cells, cells // 2, 0, offset), strength=1.0, set_area_to_bounds=False)[0]
        for prompt, offset in zip(y.AREA_PROMPTS, (0, cells // 2))
    ]
    pictures = studio.decode(studio.sample(positive, seeds))
    sheet.append(pictures[:10])
    sights = [what_is_on(picture) for picture in pictures]
    right = sum(sight.has("red", "circle", "left") and sight.has("blue", "square", "right") for sight in sights)
    yield Row("areas", right, len(seeds), y.THRESHOLDS["areas"], "no prompt for the whole picture")
    pictures = studio.decode(studio.sample([*positive, *studio.conditioning([y.AREA_BASE])], seeds))
    sheet.append(pictures[:10])
    sights = [what_is_on(picture) for picture in pictures]
    right = sum(sight.has("red", "circle", "left") and sight.has("blue", "square", "right") for sight in sights)
    yield Row("areas over a whole", right, len(seeds), None, "with a prompt for the whole picture; row added after training")


def lora_rows(studio: Studio, sheet: list[Pictures], file: Path) -> Iterator[Row]:
    """At strength 0 the LoRA changes no byte, at strength 1 the picture has its style: night around it."""
    seeds = y.SEEDS[:20]
    prompts = [y.LORA_PROMPT] * len(seeds)
    plain = studio.paint(prompts, seeds)
    none, full = (studio.paint(prompts, seeds, model=studio.with_lora(file, strength)) for strength in (0.0, 1.0))
    sheet += [plain[:10], full[:10]]
    same = sum(bool((a == b).all()) for a, b in zip(plain, none))
    yield Row("lora 0", same, len(seeds), y.THRESHOLDS["lora 0"])
    rims = [np.concatenate([p[:4].ravel(), p[-4:].ravel(), p[:, :4].ravel(), p[:, -4:].ravel()]).mean() / 255 for p in full]
    before = float(np.mean([p[:4].mean() / 255 for p in plain]))
    note = f"mean of the rim {np.mean(rims):.2f}, without {before:.2f}"
    yield Row("lora 1", sum(float(rim) <= y.LORA_RIM for rim in rims), len(seeds), y.THRESHOLDS["lora 1"], note)


def control_rows(studio: Studio, sheet: list[Pictures], file: Path) -> Iterator[Row]:
    """The thing covers the one whose edges were given, in shape and place, which the prompt does not name."""
    from comfy.models.control import load_controlnet

    right, pictures, likeness = 0, [], []
    seeds = y.SEEDS[:20]
    for i, seed in enumerate(seeds):
        shape, place = SHAPES[i % len(SHAPES)], list(PLACES)[(2 * i) % len(PLACES)]
        at = [(0.22, 0.5, 0.78)[step] for step in PLACES[place]]
        model = drawn(("red", shape, at[0], at[1]))
        control = load_controlnet(file).set_cond_hint(edges_of(model), 1.0)
        positive = studio.conditioning([y.CONTROL_PROMPT], control=control, control_apply_to_uncond=True)
        pictures.append(studio.decode(studio.sample(positive, [seed]))[0])
        masks = [p[..., 1].astype(int) < 128 for p in (model, pictures[-1])]  # red on white: dark in the green channel
        likeness.append((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())
        right += int(likeness[-1] >= y.CONTROL_OVERLAP)
    sheet.append(np.stack(pictures))
    note = f"mean intersection over union {np.mean(likeness):.2f}"
    yield Row("controlnet", right, len(seeds), y.THRESHOLDS["controlnet"], note)


def edges_of(picture: Pictures) -> torch.Tensor:
    """(1, 3, height, width): white one-pixel lines on black where neighbours differ, as an edge detector draws them."""
    grey = picture.astype(float).mean(-1)
    edge = np.zeros(grey.shape, dtype=np.float32)
    edge[:, 1:] = np.maximum(edge[:, 1:], np.abs(np.diff(grey, axis=1)) > 40)
    edge[1:] = np.maximum(edge[1:], np.abs(np.diff(grey, axis=0)) > 40)
    return torch.from_numpy(edge).expand(1, 3, -1, -1)


def rows(studio: Studio, sheet: list[Pictures], folder: Path | None = None, short: bool = False, only: str = "") -> Iterator[Row]:
    """The whole table, with the LoRA and ControlNet of `folder`, or with `short` without samplers and schedulers.

    Pictures for the sample sheet go to `sheet` on the way.
    """
    if only:
        yield from settings_rows(studio, only)
        return
    sections: Sequence[Callable[[Studio, list[Pictures]], Iterator[Row]]] = (
        prompt_rows,
        negative_rows,
        weight_rows,
        image_rows,
        inpaint_rows,
        area_rows,
    )
    for section in sections:
        yield from section(studio, sheet)
    if folder is not None:
        yield from lora_rows(studio, sheet, folder / LORA_FILE)
        yield from control_rows(studio, sheet, folder / CONTROL_FILE)
    if not short:
        yield from settings_rows(studio)


def evaluate(
    checkpoint: Path, sheet_file: Path | None, folder: Path | None, short: bool = False, json_file: Path | None = None, only: str = ""
) -> None:
    """Measure and print each row as it comes; the table so far is always in `json_file`."""
    began = time.monotonic()
    made: list[Row] = []
    sheet: list[Pictures] = []
    with open_studio(checkpoint) as studio:
        where = torch.cuda.get_device_name() if studio.device.device.type == "cuda" else f"CPU ({platform.machine()})"
        for row in rows(studio, sheet, folder, short, only):
            made.append(row)
            print(line(row), flush=True)
            if json_file is not None:
                facts = {"checkpoint": checkpoint.name, "device": where, "torch": torch.__version__}
                facts["seconds"] = str(round(time.monotonic() - began))
                table = [{**asdict(row), "passed": row.passed} for row in made]
                json_file.write_text(json.dumps({**facts, "rows": table}, indent=1) + "\n")
    if sheet_file is not None and sheet:
        save_sheet(sheet_file, sheet)


def line(row: Row) -> str:
    """One row in words."""
    share = f"{100 * row.right / row.of:5.1f} %" if row.of else "    -  "
    verdict = "" if row.least is None else "ok" if row.passed else "TOO LOW"
    return f"{row.name:42s} {row.right:3d}/{row.of:<3d} {share} {verdict:8s} {row.note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--json", type=Path, help="write the table to this file, for card.py")
    parser.add_argument("--sheet", type=Path, help="write a sheet of pictures to this file")
    parser.add_argument("--extras", type=Path, help="the folder of LoRA and ControlNet, to measure them too")
    parser.add_argument("--short", action="store_true", help="leave out the rows of samplers and schedulers")
    parser.add_argument("--only", default="", help="only the rows of samplers and schedulers whose name has this in it")
    given = parser.parse_args()
    evaluate(given.checkpoint, given.sheet, given.extras, given.short, given.json, given.only)


if __name__ == "__main__":
    main()
