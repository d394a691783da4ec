"""Describes scenes in words, in many ways. A caption is a list of (word, weight); most weights are 1.

Rules that every caption keeps: a thing without a place word stands in the centre, a thing without a size word is of the
middle size. A word that is left out (colour, shape, background) can be anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from tools.starter_model.scenes import Scene, Thing
from tools.starter_model.vocabulary import COLOURS
from tools.starter_model.yardstick import PHRASES

Caption = list[tuple[str, float]]

_FILLERS = ("a picture of", "a drawing of", "an image of", "a photo of", "there is")
_CENTRES = ("in the center", "in the middle", "in the centre")
_RELATIONS = {
    "above": ("above", "over"),
    "below": ("below", "under"),
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
}
_STYLES = {"pixel style": ("pixel style", "pixel art"), "blurred": ("blurred", "blurry"), "neon style": ("neon style",)}


def caption(scene: Scene, random: Random) -> Caption:
    """One description of `scene`."""
    alone_in_centre = scene.layout == "one" and scene.things[0].place == "center" and scene.things[0].size == ""
    kind = random.random()
    if alone_in_centre and kind < 0.12:
        return _contest(scene, random)
    if scene.layout == "one" and kind < 0.2:
        return _single(scene, random)
    words = _tags(scene, random) if scene.layout == "one" and kind < 0.42 else _sentence(scene, random)
    if random.random() < 0.06:
        chosen = random.randrange(len(words))
        weight = random.uniform(0.8, 1.4)
        words = [(word, weight if i == chosen else w) for i, (word, w) in enumerate(words)]
    return words


def _sentence(scene: Scene, random: Random) -> Caption:
    first = scene.things[0]
    text = _thing(first, random)
    if scene.layout == "one":
        text += _place(scene, random)
    elif scene.layout == "two":
        plain = _attributes(first, random)
        text = f"two {' '.join(plain)}{'es' if plain[-1] == 'cross' else 's'}"
    elif scene.layout in _RELATIONS:
        text += f" {random.choice(_RELATIONS[scene.layout])} {_thing(scene.things[1], random)}"
    elif scene.layout == "and":
        text += f" and {_thing(scene.things[1], random)}"
    else:
        second = scene.things[1]
        joint = random.choice((" and ", ", ", " and "))
        text += f" {_where(first.place, random)}{joint}{_thing(second, random)} {_where(second.place, random)}"
    if random.random() < 0.15:
        text = f"{random.choice(_FILLERS)} {text}"
    if random.random() < 0.78:
        text += _background(scene.background, random)
    if scene.style:
        style = random.choice(_STYLES[scene.style])
        text = f"{style}, {text}" if random.random() < 0.3 else f"{text}, {style}"
    return _words(text)


def _tags(scene: Scene, random: Random) -> Caption:
    """Attributes in any order between commas."""
    thing = scene.things[0]
    tags = [word for word in (thing.size, thing.texture) if word]
    tags += [_spelled(thing.colour, random)] if random.random() < 0.85 else []
    tags += [thing.shape] if random.random() < 0.85 else []
    if scene.named or random.random() < 0.2:
        tags.append(random.choice((thing.place, _where(thing.place, random))))
    if random.random() < 0.7:
        tags.append(f"{_spelled(scene.background, random)} background")
    if scene.style:
        tags.append(random.choice(_STYLES[scene.style]))
    random.shuffle(tags)
    return _words(", ".join(tags)) if tags else _words("a shape")


def _single(scene: Scene, random: Random) -> Caption:
    """One attribute alone, and the place when that is not the centre."""
    thing = scene.things[0]
    words = [_spelled(thing.colour, random), thing.shape, f"a {thing.shape}", f"{_spelled(scene.background, random)} background"]
    words += [word for word in (thing.texture, scene.style) if word]
    text = random.choice(words)
    if scene.named:
        text += random.choice((" ", ", ")) + _where(thing.place, random)
    return _words(f"{thing.size} {text}" if thing.size else text)


def _contest(scene: Scene, random: Random) -> Caption:
    """Two colours with a weight each: the heavier one is on the picture, with a chance that grows with its lead."""
    thing = scene.things[0]
    other = random.choice([name for name in COLOURS if name not in (thing.colour, scene.background)])
    true, false = random.uniform(0.4, 1.6), random.uniform(0.4, 1.6)
    if random.random() > 1 / (1 + math.exp(-10 * (true - false))):
        true, false = false, true
    tags: list[Caption] = [[(_spelled(thing.colour, random), true)], [(_spelled(other, random), false)]]
    tags += [[(thing.shape, 1.0)]] if random.random() < 0.9 else []
    tags += [_words(f"{_spelled(scene.background, random)} background")] if random.random() < 0.7 else []
    random.shuffle(tags)
    return [word for i, tag in enumerate(tags) for word in ([(",", 1.0)] if i else []) + tag]


def _attributes(thing: Thing, random: Random) -> list[str]:
    """Size, texture, colour and shape of a thing in words; colour or shape may be left open."""
    colour = _spelled(thing.colour, random) if random.random() < 0.94 else ""
    shape = thing.shape if random.random() < 0.92 else "shape"
    return [word for word in (thing.size, thing.texture, colour, shape) if word]


def _thing(thing: Thing, random: Random) -> str:
    words = _attributes(thing, random)
    kind = random.random()
    if kind < 0.08:
        return " ".join(words)
    article = "the" if kind < 0.16 else "an" if words[0][0] in "aeiou" else "a"
    return f"{article} {' '.join(words)}"


def _place(scene: Scene, random: Random) -> str:
    if not scene.named and random.random() < 0.9:
        return ""
    return " " + _where(scene.things[0].place, random)


def _where(place: str, random: Random) -> str:
    if place == "center":
        return random.choice(_CENTRES)
    if " " in place and random.random() < 0.3:
        return f"in the {place} corner"
    return PHRASES[place]


def _background(colour: str, random: Random) -> str:
    name = _spelled(colour, random)
    article = "an" if name == "orange" else "a"
    forms = (f" on {article} {name} background",) * 4 + (f" on {article} {name} ground", f", {name} background", f" on {name}")
    return random.choice(forms)


def _spelled(colour: str, random: Random) -> str:
    return "grey" if colour == "gray" and random.random() < 0.4 else colour


def _words(text: str) -> Caption:
    return [(word, 1.0) for word in text.replace(",", " ,").split()]


def with_strangers(words: Sequence[tuple[str, float]], random: Random) -> tuple[int, int]:
    """Where, and how many, words that mean nothing here are to stand in a caption: (place, count); mostly none."""
    if random.random() > 0.08:
        return 0, 0
    return random.choice((0, len(words))), random.randint(1, 6)
