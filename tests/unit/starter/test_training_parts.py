"""The parts of the training: captions, token rows, data, whitening, files, the training step, the card."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from comfy.text_encoders.tokenizer import CLIP_L
from tools.starter_model import captions, card, data, export, merge, objectives, tokens
from tools.starter_model.networks import LATENT_SCALE, VAE, TextNetwork, fresh, on_meta
from tools.starter_model.render import ROW, draw, draw_edges, rows_of
from tools.starter_model.scenes import Scene, Thing, random_scene
from tools.starter_model.steps import Source, Training

CPU = torch.device("cpu")


def test_captions_without_a_place_are_of_things_in_the_centre() -> None:
    random = Random(4)
    places = {word for place in ("top", "bottom", "left", "right") for word in [place]}
    for _ in range(400):
        scene = random_scene(random)
        words = {word for word, _ in captions.caption(scene, random)}
        if scene.layout == "one" and scene.things[0].place != "center":
            assert words & places
        if scene.layout == "one" and scene.things[0].size:
            assert scene.things[0].size in words


def test_every_word_of_a_caption_has_a_vector() -> None:
    random, known = Random(2), set(tokens.known_ids())
    for _ in range(300):
        scene = data.styled_scene(random, 1.0) if random.random() < 0.2 else random_scene(random)
        assert set(tokens.row(captions.caption(scene, random))[0]) <= known


@pytest.mark.parametrize("text", ["a red circle, white background", "orange (blue:1.5) star", ""])
def test_token_rows_are_those_of_the_server(text: str) -> None:
    words = [("blue", 1.5) if "blue" in word else (word, 1.0) for word in text.replace(",", " ,").split()]
    (chunk,) = CLIP_L.tokenize_with_weights(text, None)
    assert tokens.row(words) == ([token for token, _ in chunk], [weight for _, weight in chunk])


def test_data_depends_on_its_arguments_alone() -> None:
    one, same, other = (data.make(12, "plain", 1.0, seed) for seed in (1, 1, 2))
    assert one.rows.shape == (12, ROW)
    assert one.ids.shape == one.weights.shape == (12, data.CAPTIONS, tokens.LENGTH)
    assert torch.equal(one.rows, same.rows)
    assert torch.equal(one.ids, same.ids)
    assert not torch.equal(one.rows, other.rows)


def test_edges_lie_where_the_picture_changes() -> None:
    rows = rows_of([Scene((Thing("black", "square", "center", extent=0.5),), "white")])
    edges = draw_edges(rows, 64, 64, torch.tensor([1.0]))[0, 0]
    inside = draw(rows, 64, 64)[0, 0] < 0.5
    assert edges[inside].mean() < 0.25
    assert edges[32, 16] + edges[32, 15] > 0.9
    assert edges[32, 32] == edges[2, 2] == 0


def test_whitening_changes_the_latents_and_not_the_pictures() -> None:
    network, weights = on_meta(VAE), {name: tensor.detach() for name, tensor in fresh(on_meta(VAE), 0, CPU).items()}
    x = torch.randn((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    call = torch.func.functional_call
    before = call(objectives._Half(network, "encode"), objectives._named(weights), (x,))
    mean, std = before.mean(dim=(0, 2, 3)), before.std(dim=(0, 2, 3))
    white = export.whitened(weights, mean, std)
    after = call(objectives._Half(network, "encode"), objectives._named(white), (x,)) * LATENT_SCALE
    torch.testing.assert_close(after.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(call(network, white, (x,)), call(network, weights, (x,)), atol=1e-3, rtol=1e-3)


def test_a_training_lowers_its_loss_and_repeats_itself() -> None:
    def run() -> tuple[list[float], torch.Tensor]:
        losses: list[float] = []

        def loss(weights: object, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            value = ((batch["x"] @ weights["w"] - batch["x"].sum(1)) ** 2).mean()  # type: ignore[index]
            losses.append(value.item())
            return value

        def fill(generator: torch.Generator) -> dict[str, torch.Tensor]:
            return {"x": torch.randn((32, 4), generator=generator)}

        weights = {"w": torch.zeros(4, requires_grad=True)}
        training = Training("t", weights, loss, [Source(fill)], 0.1, CPU, 3, 0.9, torch.float32)
        training.run(steps=60)
        return losses, training.average["w"]

    (losses, average), (_, again) = run(), run()
    assert losses[-1] < losses[0] / 10
    assert torch.equal(average, again)


def test_unknown_words_have_a_zero_vector_in_the_file() -> None:
    text = TextNetwork(0, CPU)
    table = text.full(text.weights)["text_model.embeddings.token_embedding.weight"]
    assert table.shape == (tokens.VOCABULARY, 64)
    assert int((table.abs().sum(1) > 0).sum()) == len(tokens.known_ids())


def test_a_lora_is_named_as_kohyas_are(tmp_path: Path) -> None:
    export.save_lora(
        tmp_path / "l.safetensors", {"input_blocks.1.1.proj.down": torch.ones(2, 3), "input_blocks.1.1.proj.up": torch.ones(4, 2)}
    )
    found = load_file(tmp_path / "l.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        "lora_unet_input_blocks_1_1_proj.lora_down.weight": (2, 3),
        "lora_unet_input_blocks_1_1_proj.lora_up.weight": (4, 2),
        "lora_unet_input_blocks_1_1_proj.alpha": (),
    }


def test_what_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finite"):
        export.save(tmp_path / "x.safetensors", {"w": torch.tensor([1e9])})


def test_a_merge_that_gets_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in (export.UNET_FILE, export.TEXT_FILE, export.VAE_FILE):
        export.save(tmp_path / part, {"w": torch.ones(4)}, f"{part}.")
    merge.merge(tmp_path, tmp_path / "all.safetensors")
    assert len(load_file(tmp_path / "all.safetensors")) == 3
    monkeypatch.setattr(merge, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="bytes"):
        merge.merge(tmp_path, tmp_path / "all.safetensors")


def test_the_card_gets_its_table() -> None:
    rows = [{"name": "prompts", "right": 39, "of": 40, "least": 0.9, "note": "", "passed": True}]
    rows += [{"name": "areas", "right": 1, "of": 20, "least": 0.8, "note": "x", "passed": False}]
    made = card.updated(f"a\n{card.BEGIN}\nold\n{card.END}\nz", [{"device": "D", "torch": "T", "rows": rows}])
    assert "| prompts | 39 of 40 | 90 % | ok |  |" in made
    assert "**below**" in made
    assert "old" not in made
    assert made.startswith("a\n")
    assert made.endswith("\nz")
    with pytest.raises(ValueError, match="place"):
        card.updated("nothing", [])
