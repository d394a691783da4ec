"""Writes the example workflows: `python -m tools.starter_model.workflows`.

Each is written once, in API format, and turned into the front end's format by what the nodes say of themselves: so the
two never differ. Both lie in `workflows/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy.nodes.builtin import register_builtin
from comfy.nodes.registry import NodeRegistry
from tools.starter_model.yardstick import CFG, SAMPLER, SCHEDULER, SIDE, STEPS

FOLDER = Path(__file__).resolve().parents[2] / "workflows"
CHECKPOINT = "starter_shapes_sd1.safetensors"
#: node id -> {class_type, inputs, _meta}
Prompt = dict[str, dict[str, Any]]
_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def node(class_type: str, title: str, **inputs: Any) -> dict[str, Any]:
    """One node in API format; a link is [id, number of the output]."""
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}


def _sampler(
    model: list[Any], positive: list[Any], negative: list[Any], latent: list[Any], seed: int, denoise: float = 1.0
) -> dict[str, Any]:
    settings = {"steps": STEPS, "cfg": CFG, "sampler_name": SAMPLER, "scheduler": SCHEDULER}
    links = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    return node("KSampler", "Sample", **links, seed=seed, **settings, denoise=denoise)


def _beginning(prompt: str, negative: str = "blurred") -> Prompt:
    """Nodes 1 to 4: checkpoint, both prompts, an empty latent."""
    return {
        "1": node("CheckpointLoaderSimple", "Checkpoint", ckpt_name=CHECKPOINT),
        "2": node("CLIPTextEncode", "Prompt", text=prompt, clip=["1", 1]),
        "3": node("CLIPTextEncode", "Negative prompt", text=negative, clip=["1", 1]),
        "4": node("EmptyLatentImage", "Size", width=SIDE, height=SIDE, batch_size=1),
    }


def _ending(prompt: Prompt, latent: str, name: str, first: int) -> Prompt:
    """The prompt with decoding and saving behind the sampler `latent`."""
    decode, save = str(first), str(first + 1)
    return {
        **prompt,
        decode: node("VAEDecode", "Decode", samples=[latent, 0], vae=["1", 2]),
        save: node("SaveImage", "Save", images=[decode, 0], filename_prefix=name),
    }


def default() -> Prompt:
    """Text to picture."""
    prompt = _beginning("a red circle on a blue background")
    prompt["5"] = _sampler(["1", 0], ["2", 0], ["3", 0], ["4", 0], 20261122)
    return _ending(prompt, "5", "starter/default", 6)


def image_to_image() -> Prompt:
    """A picture, then another of it: the place stays, colour and shape change."""
    prompt = _beginning("a large red circle in the top left on a white background")
    prompt["5"] = _sampler(["1", 0], ["2", 0], ["3", 0], ["4", 0], 1)
    prompt["6"] = node("VAEDecode", "Decode the first", samples=["5", 0], vae=["1", 2])
    prompt["7"] = node("VAEEncode", "Encode it again", pixels=["6", 0], vae=["1", 2])
    prompt["8"] = node("CLIPTextEncode", "Second prompt", text="a large green square in the top left on a white background", clip=["1", 1])
    prompt["9"] = _sampler(["1", 0], ["8", 0], ["3", 0], ["7", 0], 2, denoise=0.85)
    return _ending(prompt, "9", "starter/image_to_image", 10)


def inpaint() -> Prompt:
    """A second thing painted into the right half of a picture; the left half stays."""
    prompt = _beginning("a red circle on the left on a white background")
    prompt["5"] = _sampler(["1", 0], ["2", 0], ["3", 0], ["4", 0], 3)
    prompt["6"] = node("SolidMask", "Nothing", value=0.0, width=SIDE, height=SIDE)
    prompt["7"] = node("SolidMask", "The right half", value=1.0, width=SIDE // 2, height=SIDE)
    prompt["8"] = node("MaskComposite", "Mask", destination=["6", 0], source=["7", 0], x=SIDE // 2, y=0, operation="add")
    prompt["9"] = node("SetLatentNoiseMask", "Paint here alone", samples=["5", 0], mask=["8", 0])
    words = "a red circle on the left and a blue square on the right on a white background"
    prompt["10"] = node("CLIPTextEncode", "Second prompt", text=words, clip=["1", 1])
    prompt["11"] = _sampler(["1", 0], ["10", 0], ["3", 0], ["9", 0], 4)
    return _ending(prompt, "11", "starter/inpaint", 12)


def areas() -> Prompt:
    """A prompt for each half of the picture, over one for the whole."""
    prompt = _beginning("a yellow star left of a green triangle on a black background", negative="")
    half = {"width": SIDE // 2, "height": SIDE, "y": 0, "strength": 1.0}
    for first, words, x in ((5, "a yellow star on a black background", 0), (7, "a green triangle on a black background", SIDE // 2)):
        side = "Right" if x else "Left"
        prompt[str(first)] = node("CLIPTextEncode", f"{side} prompt", text=words, clip=["1", 1])
        prompt[str(first + 1)] = node("ConditioningSetArea", f"{side} half", conditioning=[str(first), 0], x=x, **half)
    prompt["9"] = node("ConditioningCombine", "Both halves", conditioning_1=["6", 0], conditioning_2=["8", 0])
    prompt["10"] = node("ConditioningCombine", "And the whole", conditioning_1=["9", 0], conditioning_2=["2", 0])
    prompt["11"] = _sampler(["1", 0], ["10", 0], ["3", 0], ["4", 0], 5)
    return _ending(prompt, "11", "starter/areas", 12)


def edges_and_style() -> Prompt:
    """The edges of one picture steer another one, in the LoRA's style."""
    prompt = _beginning("a white star in the bottom right on a black background")
    prompt["5"] = _sampler(["1", 0], ["2", 0], ["3", 0], ["4", 0], 6)
    prompt["6"] = node("VAEDecode", "Decode the first", samples=["5", 0], vae=["1", 2])
    prompt["7"] = node("Canny", "Edges", image=["6", 0], low_threshold=0.4, high_threshold=0.8)
    prompt["8"] = node("ControlNetLoader", "ControlNet", control_net_name="starter_edges_controlnet.safetensors")
    prompt["9"] = node("CLIPTextEncode", "Second prompt", text="a cyan shape on a blue background, neon style", clip=["1", 1])
    steered = {"positive": ["9", 0], "negative": ["3", 0], "control_net": ["8", 0], "image": ["7", 0]}
    prompt["10"] = node("ControlNetApplyAdvanced", "Follow the edges", **steered, strength=1.0, start_percent=0.0, end_percent=1.0)
    prompt["11"] = node("LoraLoaderModelOnly", "Style", model=["1", 0], lora_name="starter_neon_lora.safetensors", strength_model=0.8)
    prompt["12"] = _sampler(["11", 0], ["10", 0], ["10", 1], ["4", 0], 7)
    return _ending(prompt, "12", "starter/edges_and_style", 13)


WORKFLOWS = {made.__name__: made for made in (default, image_to_image, inpaint, areas, edges_and_style)}


def to_front_end(prompt: Prompt, described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A prompt in API format -> the front end's graph, laid out in columns.

    described  class name -> what `/object_info` says of it
    """
    depths = _depths(prompt)
    rows: dict[int, int] = {}
    links: list[list[Any]] = []
    nodes = []
    for order, (node_id, entry) in enumerate(sorted(prompt.items(), key=lambda item: (depths[item[0]], int(item[0])))):
        info = described[entry["class_type"]]
        column = depths[node_id]
        row = rows[column] = rows.get(column, -1) + 1
        inputs: list[dict[str, Any]] = []
        for name in _sockets(info):
            link = None
            if isinstance(entry["inputs"].get(name), list):
                origin, slot = entry["inputs"][name]
                link = len(links) + 1
                links.append([link, int(origin), slot, int(node_id), len(inputs), described[prompt[origin]["class_type"]]["output"][slot]])
            inputs.append({"name": name, "type": _declared(info, name)[0], "link": link})
        nodes.append(
            {
                "id": int(node_id),
                "type": entry["class_type"],
                "title": entry["_meta"]["title"],
                "pos": [40 + 360 * column, 60 + 260 * row],
                "size": [315, 60 + 30 * (len(inputs) + len(_widgets(info)))],
                "flags": {},
                "order": order,
                "mode": 0,
                "inputs": inputs,
                "outputs": [{"name": n, "type": t, "links": []} for n, t in zip(info["output_name"], info["output"])],
                "properties": {"Node name for S&R": entry["class_type"]},
                "widgets_values": _values(info, entry["inputs"]),
            }
        )
    outputs = {made["id"]: made["outputs"] for made in nodes}
    for link, origin, slot, *_ in links:
        outputs[origin][slot]["links"].append(link)
    ids = [int(node_id) for node_id in prompt]
    facts = {"last_node_id": max(ids), "last_link_id": len(links), "groups": [], "config": {}, "extra": {}, "version": 0.4}
    return {**facts, "nodes": nodes, "links": links}


def _depths(prompt: Prompt) -> dict[str, int]:
    """How many nodes lie, at most, before each."""
    depths: dict[str, int] = {}

    def depth(node_id: str) -> int:
        if node_id not in depths:
            origins = [value[0] for value in prompt[node_id]["inputs"].values() if isinstance(value, list)]
            depths[node_id] = max((depth(origin) + 1 for origin in origins), default=0)
        return depths[node_id]

    for node_id in prompt:
        depth(node_id)
    return depths


def _declared(info: Mapping[str, Any], name: str) -> tuple[Any, Mapping[str, Any]]:
    for group in ("required", "optional"):
        if name in info["input"].get(group, {}):
            declared = info["input"][group][name]
            return declared[0], declared[1] if len(declared) > 1 else {}
    raise KeyError(name)


def _names(info: Mapping[str, Any], widgets: bool) -> list[str]:
    names = [name for group in ("required", "optional") for name in info["input_order"].get(group, ())]
    kinds = {name: _declared(info, name)[0] for name in names}
    return [name for name in names if (isinstance(kinds[name], (list, tuple)) or kinds[name] in _WIDGETS) == widgets]


def _widgets(info: Mapping[str, Any]) -> list[str]:
    return _names(info, widgets=True)


def _sockets(info: Mapping[str, Any]) -> list[str]:
    return _names(info, widgets=False)


def _values(info: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[Any]:
    """Widgets in order; behind a seed the front end keeps what to do with it after each run."""
    values: list[Any] = []
    for name in _widgets(info):
        values.append(inputs[name])
        if _declared(info, name)[1].get("control_after_generate"):
            values.append("fixed")
    return values


def described() -> dict[str, Any]:
    """What `/object_info` says of the built-in classes that the workflows use."""
    registry = NodeRegistry()
    register_builtin(registry)
    used = {entry["class_type"] for made in WORKFLOWS.values() for entry in made().values()}
    return {name: registry.describe(name) for name in used}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    infos = described()
    for name, made in WORKFLOWS.items():
        (FOLDER / f"{name}.api.json").write_text(json.dumps(made(), indent=2) + "\n")
        (FOLDER / f"{name}.json").write_text(json.dumps(to_front_end(made(), infos), indent=2) + "\n")


if __name__ == "__main__":
    main()
