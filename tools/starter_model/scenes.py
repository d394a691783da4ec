"""Random scenes: what is on a training picture, before it is drawn or described. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from tools.starter_model.vocabulary import (
    COLOURS,
    LARGE_OF_TWO,
    PLACES,
    SHAPES,
    SIZES,
    STYLES,
    TEXTURES,
    is_held_out,
    tell_apart,
)

#: how the two things of a scene lie: word -> (place of the first, place of the second)
RELATIONS = {"above": ("top", "bottom"), "below": ("bottom", "top"), "left of": ("left", "right"), "right of": ("right", "left")}
#: things of one scene lie here along each axis, a thing alone nearer to the rim
_TWO_AT = (0.25, 0.5, 0.75)
_ONE_AT = (1 / 6, 0.5, 5 / 6)
_JITTER = 0.02  # half of it where there are two things


@dataclass(frozen=True)
class Thing:
    """One thing: words, and where it was put: x, y its centre in shares of width and height, extent in shares of the shorter side."""

    colour: str
    shape: str
    place: str
    size: str = ""
    texture: str = ""
    x: float = 0.5
    y: float = 0.5
    extent: float = 0.36


@dataclass(frozen=True)
class Scene:
    """A picture to be.

    layout  "one"; "places": two, each with its place; "and": two side by side; "two": a pair of equals; or a relation
    named   whether a description must say the place of the one thing
    aspect  width over height
    seed    of what else is random in the picture: phase of stripes, shade of the colours
    """

    things: tuple[Thing, ...]
    background: str
    layout: str = "one"
    named: bool = True
    style: str = ""
    aspect: float = 1.0
    seed: int = 0


def random_scene(random: Random, aspect: float = 1.0) -> Scene:
    """A scene without held-out triples, every thing in view, no two in touch, each of another colour than what is behind it."""
    while True:
        scene = _draft(random, aspect)
        if not any(is_held_out(thing.colour, thing.shape, thing.place) for thing in scene.things):
            return scene


def _draft(random: Random, aspect: float) -> Scene:
    kind = random.random()
    background = "white" if random.random() < 0.3 else random.choice(list(COLOURS))
    style = random.choices(STYLES, (88, 7, 5))[0]
    named = True
    if kind < 0.66:
        layout, named = "one", random.random() < 0.62
        things: Sequence[Thing] = [_thing(random, [background], random.choice(list(PLACES)) if named else "center")]
    elif kind < 0.84:
        layout = random.choice(list(RELATIONS))
        things = _pair(random, background, RELATIONS[layout])
    elif kind < 0.94:
        layout = "places"
        things = _pair(random, background, _distant_places(random))
    elif kind < 0.97:
        layout = "and"
        things = _pair(random, background, ("left", "right"))
    else:
        layout = "two"
        first = _thing(random, [background], "left")
        first = replace(first, size="" if first.size == "large" else first.size)
        things = [first, replace(first, place="right")]
    placed = tuple(_put(random, thing, len(things) == 2, aspect) for thing in things)
    return Scene(placed, background, layout, named, style, aspect, random.randrange(2**31))


def _thing(random: Random, beside: Sequence[str], place: str) -> Thing:
    """A thing whose colour differs from all of `beside`."""
    colour = random.choice([name for name in COLOURS if all(name != other and tell_apart(name, other) for other in beside)])
    size = random.choices(list(SIZES), (18, 64, 18))[0]
    texture = random.choices(TEXTURES, (84, 8, 8))[0]
    if size == "small" and texture == "striped":  # too few stripes to tell
        texture = ""
    return Thing(colour, random.choice(SHAPES), place, size, texture)


def _pair(random: Random, background: str, places: tuple[str, str]) -> list[Thing]:
    first = _thing(random, [background], places[0])
    if random.random() < 0.15:  # the same colour twice
        second = replace(_thing(random, [background], places[1]), colour=first.colour)
    else:
        second = _thing(random, [background, first.colour], places[1])
    if first.size == second.size == "large":
        second = replace(second, size="")
    return [first, second]


def _distant_places(random: Random) -> tuple[str, str]:
    while True:
        a, b = random.sample(list(PLACES), 2)
        if max(abs(p - q) for p, q in zip(PLACES[a], PLACES[b])) == 2:
            return a, b


def _put(random: Random, thing: Thing, one_of_two: bool, aspect: float) -> Thing:
    """The thing with a random extent for its size word, near its place's middle and inside the picture."""
    least, most = LARGE_OF_TWO if one_of_two and thing.size == "large" else SIZES[thing.size]
    extent = random.uniform(least, most)
    shorter = min(aspect, 1.0)  # in units of the height; the width is `aspect` of them
    at = []
    for step, length in zip(PLACES[thing.place], (aspect, 1.0)):
        middle = (_TWO_AT if one_of_two else _ONE_AT)[step] + random.uniform(-_JITTER, _JITTER) / (1 + one_of_two)
        room = (extent / 2 + 0.03) * shorter / length
        at.append(min(max(middle, room), 1 - room))
    return replace(thing, extent=extent, x=at[0], y=at[1])
