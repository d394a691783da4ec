"""http-api.md section 5: nodes, machine, models, on both kinds of server."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import pytest
from PIL import Image

from tests.conformance.site import Site

OLD_KEYS = {
    "input",
    "input_order",
    "output",
    "output_is_list",
    "output_name",
    "name",
    "display_name",
    "description",
    "python_module",
    "category",
}


def test_object_info_describes_every_node(site: Site) -> None:
    everything = site.get("/object_info").json()
    assert {"KSampler", "CheckpointLoaderSimple", "SaveImage", "LoadImage", "ProbeShow", "ProbeNewStyle"} <= set(everything)
    for name, info in everything.items():
        assert OLD_KEYS | {"output_node"} <= set(info), name
        assert info["name"] == name
        assert {group: list(inputs) for group, inputs in info["input"].items()} == info["input_order"], name
        assert len(info["output"]) == len(info["output_is_list"]) == len(info["output_name"]), name
    one = site.get("/object_info/KSampler").json()
    assert one == {"KSampler": everything["KSampler"]}
    assert site.get("/object_info/NoSuchNode").json() == {}


def test_object_info_of_both_styles_of_pack_nodes(site: Site) -> None:
    old, new = (site.get(f"/object_info/{name}").json()[name] for name in ("ProbeNumber", "ProbeNewStyle"))
    assert old == {
        "input": {"required": {"n": ["INT", {"default": 1, "min": 0, "max": 1000}]}},
        "input_order": {"required": ["n"]},
        "output": ["INT"],
        "output_is_list": [False],
        "output_name": ["INT"],
        "name": "ProbeNumber",
        "display_name": "A number",
        "description": "",
        "python_module": "custom_nodes.probes",
        "category": "probe",
        "output_node": False,
    }
    assert (new["display_name"], new["python_module"], new["output_tooltips"]) == (None, "custom_nodes.probes", [None])
    assert (new["deprecated"], new["experimental"], new["api_node"]) == (False, False, False)
    assert site.get("/object_info/ProbeShow").json()["ProbeShow"]["display_name"] == "ProbeShow"


def test_file_lists_are_read_at_each_call(site: Site) -> None:
    def names() -> list[str]:
        return list(site.get("/object_info/LoadImage").json()["LoadImage"]["input"]["required"]["image"][0])

    path = site.base / "input" / "new one.png"
    assert path.name not in names()
    Image.new("RGB", (4, 4)).save(path)
    assert path.name in names()
    path.unlink()
    assert path.name not in names()


def test_features(site: Site) -> None:
    assert site.get("/features").json() == {"supports_preview_metadata": True, "max_upload_size": 104857600}


def test_system_stats(site: Site) -> None:
    stats = site.get("/system_stats").json()
    system = stats["system"]
    assert (system["os"], system["comfyui_version"], system["embedded_python"]) == ("posix", "0.3.64", False)
    assert (system["required_frontend_version"], system["required_templates_version"]) == ("1.27.10", "0.1.95")
    assert system["argv"][0] == "main.py"
    assert {"python_version", "pytorch_version", "installed_templates_version"} <= set(system)
    (device,) = stats["devices"]
    assert (device["name"], device["type"], device["index"]) == ("cpu", "cpu", None)
    for key in ("vram_total", "vram_free", "torch_vram_total", "torch_vram_free"):
        assert isinstance(device[key], int)
    assert device["vram_total"] == system["ram_total"]


def weights(path: Path, metadata: dict[str, str] | None) -> None:
    """A safetensors file without tensors."""
    header = json.dumps({} if metadata is None else {"__metadata__": metadata}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.fixture
def models(site: Site) -> Path:
    folder = site.base / "models"
    weights(folder / "loras" / "sub" / "n.safetensors", {"modelspec.title": "T", "n": "1"})
    weights(folder / "loras" / "plain.safetensors", None)
    (folder / "loras" / "note.txt").write_text("x")
    (folder / "loras" / "broken.safetensors").write_bytes(b"\xff" * 20)
    Image.new("RGB", (8, 6), (9, 9, 9)).save(folder / "loras" / "sub" / "n.preview.png")
    weights(folder / "embeddings" / "e" / "emb.safetensors", None)
    weights(folder / "embeddings" / "b.pt", None)
    return folder


def test_models_by_folder(site: Site, models: Path) -> None:
    kinds = site.get("/models").json()
    assert {"checkpoints", "loras", "vae", "diffusion_models", "text_encoders", "configs", "custom_nodes"} <= set(kinds)
    assert not {"unet", "clip"} & set(kinds)
    assert site.get("/models/loras").json() == sorted(["broken.safetensors", "plain.safetensors", "sub/n.safetensors"])
    assert "placeholder_noise_sd1.safetensors" in site.get("/models/checkpoints").json()
    for unknown in ("nothing", "unet", "clip"):
        assert site.get(f"/models/{unknown}").status == 404
    assert site.get("/embeddings").json() == ["b", "e/emb"]


def test_model_details(site: Site, models: Path) -> None:
    kinds = {kind["name"]: kind["folders"] for kind in site.get("/experiment/models").json()}
    assert str(models / "checkpoints") in kinds["checkpoints"]
    assert not {"configs", "custom_nodes"} & set(kinds)
    found = {entry["name"]: entry for entry in site.get("/experiment/models/loras").json()}
    assert set(found) == {"broken.safetensors", "plain.safetensors", "sub/n.safetensors"}
    entry, status = found["sub/n.safetensors"], (models / "loras/sub/n.safetensors").stat()
    assert entry == {
        "name": "sub/n.safetensors",
        "pathIndex": 0,
        "modified": status.st_mtime,
        "created": status.st_ctime,
        "size": status.st_size,
    }
    assert site.get("/experiment/models/nothing").status == 404


def test_model_previews(site: Site, models: Path) -> None:
    answer = site.get("/experiment/models/preview/loras/0/sub/n.safetensors")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/webp")
    assert Image.open(io.BytesIO(answer.body)).size == (8, 6)
    (site.base / "secret.png").write_bytes((models / "loras/sub/n.preview.png").read_bytes())
    for path in ("plain.safetensors", "..%2f..%2f..%2fsecret.safetensors", "%2fetc%2fpasswd"):
        assert site.get(f"/experiment/models/preview/loras/0/{path}").status in (400, 403, 404)
    for index in ("9", "x", "-1"):
        assert site.get(f"/experiment/models/preview/loras/{index}/plain.safetensors").status == 404


def test_view_metadata(site: Site, models: Path) -> None:
    assert site.get("/view_metadata/loras?filename=sub/n.safetensors").json() == {"modelspec.title": "T", "n": "1"}
    for query in ("", "?filename=note.txt", "?filename=plain.safetensors", "?filename=gone.safetensors"):
        assert site.get(f"/view_metadata/loras{query}").status == 404
    assert site.get("/view_metadata/nothing?filename=a.safetensors").status == 404
    assert site.get("/view_metadata/loras?filename=broken.safetensors").status in (404, 422)
    assert site.get("/view_metadata/loras?filename=../loras/sub/n.safetensors").status in (200, 400, 403, 404)
