"""look.py sees what render.py drew; no triple that is held out is ever drawn."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from tools.starter_model import vocabulary, yardstick
from tools.starter_model.look import closed, colour_at, filled, label, what_is_on
from tools.starter_model.render import draw, rows_of
from tools.starter_model.scenes import Scene, Thing, random_scene
from tools.starter_model.vocabulary import COLOURS, PLACES, SHAPES, is_held_out, tell_apart


def picture_of(scene: Scene, height: int = 128, width: int = 128) -> np.ndarray:
    return draw(rows_of([scene]), height, width)[0].movedim(0, -1).numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("texture", ["", "outlined"])
def test_each_shape_is_seen(shape: str, texture: str) -> None:
    thing = Thing("blue", shape, "top right", texture=texture, x=0.78, y=0.22)
    sight = what_is_on(picture_of(Scene((thing,), "yellow")))
    assert sight.background == "yellow"
    assert [(seen.colour, seen.shape, seen.place, seen.size) for seen in sight.objects] == [("blue", shape, "top right", "")]


@pytest.mark.parametrize("colour", COLOURS)
def test_each_colour_is_seen(colour: str) -> None:
    background = next(name for name in COLOURS if name != colour and tell_apart(name, colour))
    sight = what_is_on(picture_of(Scene((Thing(colour, "star", "center"),), background)))
    assert (sight.background, sight.objects[0].colour) == (background, colour)


def test_random_scenes_are_seen_as_they_are() -> None:
    random, wrong = Random(5), []
    scenes = [scene for scene in (random_scene(random) for _ in range(40)) if scene.style == ""]
    for scene in scenes:
        sight = what_is_on(picture_of(scene))
        wanted = sorted((thing.colour, thing.shape, thing.place, thing.size) for thing in scene.things)
        if sorted((seen.colour, seen.shape, seen.place, seen.size) for seen in sight.objects) != wanted:
            wrong.append(scene)
    assert wrong == []


def test_an_empty_picture_has_nothing_on_it() -> None:
    sight = what_is_on(np.full((64, 64, 3), 250, dtype=np.uint8))
    assert (sight.background, sight.objects) == ("white", ())


def test_noise_is_no_thing_of_the_prompt() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    assert what_is_on(noise).objects == ()


def test_a_picture_of_another_size_is_seen_alike() -> None:
    scene = Scene((Thing("red", "cross", "bottom left", x=0.25, y=0.75, extent=0.4),), "white")
    sights = [what_is_on(picture_of(scene, side, side)).objects[0] for side in (96, 512)]
    assert [(seen.colour, seen.shape, seen.place) for seen in sights] == [("red", "cross", "bottom left")] * 2


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="picture"):
        what_is_on(np.zeros((8, 8)))


def test_the_most_frequent_colour_of_a_place() -> None:
    picture = picture_of(Scene((Thing("red", "square", "left", x=0.2, y=0.5, extent=0.38),), "blue"))
    assert [colour_at(picture, place) for place in ("left", "right")] == ["red", "blue"]


def test_patches_holes_and_gaps() -> None:
    ring = np.zeros((9, 9), dtype=bool)
    ring[1:8, 1:8] = True
    ring[3:6, 3:6] = False
    ring[8, 8] = True
    assert label(ring)[1] == 2
    assert filled(ring)[4, 4]
    assert closed(ring, 2)[4, 4]
    u = np.array([[1, 0, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)
    assert label(u)[1] == 1
    assert label(np.eye(3, dtype=bool))[1] == 3


def test_no_scene_holds_a_triple_that_is_kept_out() -> None:
    random = Random(0)
    for _ in range(400):
        assert not any(is_held_out(thing.colour, thing.shape, thing.place) for thing in random_scene(random).things)


def test_about_one_triple_in_ten_is_kept_out() -> None:
    out, kept = vocabulary.triples(True), vocabulary.triples(False)
    assert len(out) + len(kept) == len(COLOURS) * len(SHAPES) * len(PLACES)
    assert 0.08 < len(out) / (len(out) + len(kept)) < 0.12


def test_the_yardstick_asks_for_what_can_be_seen() -> None:
    tasks = yardstick.prompts() + yardstick.one_prompt() + yardstick.held_out() + yardstick.two_things()
    assert [len(yardstick.prompts()), len(yardstick.one_prompt()), len(yardstick.two_things())] == [40, 40, 20]
    assert all(tell_apart(colour, task.background) for task in tasks for colour, _, _ in task.things)
    assert not any(is_held_out(*thing) for task in yardstick.prompts() + yardstick.two_things() for thing in task.things)
    assert all(is_held_out(*thing) for task in yardstick.held_out() for thing in task.things)
