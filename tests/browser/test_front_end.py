"""The stock front end on a real server, in the order of a user's first minutes: each test goes on where the last one stopped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.browser.conftest import Window
from tests.conformance.site import Site

PLACEHOLDER = "placeholder_noise_sd1.safetensors"


def test_it_loads_without_an_error_but_for_the_two_absent_style_sheets(window: Window) -> None:
    assert sorted(window.page.evaluate("() => app.graph._nodes.map((node) => node.type)")) == [
        "CLIPTextEncode", "CLIPTextEncode", "CheckpointLoaderSimple", "EmptyLatentImage", "KSampler", "SaveImage", "VAEDecode",
    ]  # fmt: skip
    assert len(window.errors) == 2, window.errors
    assert all("user.css" in error or "404" in error for error in window.errors)
    assert window.page.evaluate("() => LiteGraph.registered_node_types['ProbeSteps'] !== undefined")
    assert window.page.evaluate("() => document.querySelectorAll('.comfy-missing-nodes').length") == 0


def test_the_default_workflow_shows_progress_and_its_picture(window: Window, browser_site: Site) -> None:
    window.page.get_by_role("button", name="Fit View (.)").click()  # a node out of sight loads no picture
    window.set_widget("CheckpointLoaderSimple", ckpt_name=PLACEHOLDER)
    window.set_widget("EmptyLatentImage", width=128, height=128)
    window.set_widget("KSampler", steps=3)
    window.run()
    window.until_seen("execution_success")
    assert window.page.evaluate("() => window.seen.progress.map((step) => [step.value, step.max])") == [[1, 3], [2, 3], [3, 3]]
    assert window.count("b_preview_with_metadata") in (2, 3)  # the first step, the last, and those between that a clock lets through
    window.page.wait_for_function("() => app.graph._nodes.find((node) => node.type === 'SaveImage').imgs?.[0]?.naturalWidth === 128")
    assert window.count("execution_error") == 0
    (record,) = browser_site.get("/history").json().values()
    assert record["prompt"][3]["extra_pnginfo"]["workflow"]["nodes"]
    (image,) = record["outputs"]["9"]["images"]
    with Image.open(browser_site.base / "output" / image["filename"]) as picture:
        assert picture.size == (128, 128)
        assert np.asarray(picture).std() > 0
        assert json.loads(picture.info["prompt"])["4"]["inputs"]["ckpt_name"] == PLACEHOLDER


def test_the_queue_panel_shows_the_finished_job(window: Window) -> None:
    window.page.get_by_role("button", name="Queue (q)").click()
    picture = window.page.locator(".side-bar-panel img[src*='/view'], .sidebar-content-container img[src*='/view']").first
    picture.wait_for()
    assert "filename=ComfyUI_00001_.png" in picture.get_attribute("src")
    window.page.get_by_role("button", name="Queue (q)").click()


def test_the_cancel_button_interrupts_the_running_job(window: Window, browser_site: Site) -> None:
    before = window.count("progress")
    window.set_widget("KSampler", steps=10_000, seed=1)
    window.run()
    window.until_seen("progress", before + 2)
    window.page.get_by_role("button", name="Cancel current run").click()
    window.until_seen("execution_interrupted")
    stopped = window.page.evaluate("() => window.seen.execution_interrupted[0].prompt_id")
    status = browser_site.finish([stopped])[stopped]["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    window.page.wait_for_function("() => window.seen.status.at(-1).exec_info.queue_remaining === 0")


def test_an_image_is_uploaded_into_its_node(window: Window, browser_site: Site, tmp_path: Path) -> None:
    path = tmp_path / "uploaded.png"
    Image.new("RGB", (40, 30), (0, 128, 255)).save(path)
    window.page.evaluate(
        """() => {
            const node = LiteGraph.createNode("LoadImage");
            node.pos = [50, 50];
            app.graph.add(node);
        }"""
    )
    with window.page.expect_file_chooser() as chooser:
        window.page.evaluate(
            "() => app.graph._nodes.find((node) => node.type === 'LoadImage').widgets.find((widget) => widget.type === 'button').callback()"
        )
    chooser.value.set_files(path)
    window.page.wait_for_function("() => app.graph._nodes.find((node) => node.type === 'LoadImage').imgs?.[0]?.naturalWidth === 40")
    assert (browser_site.base / "input" / "uploaded.png").read_bytes() == path.read_bytes()
    assert window.page.evaluate("() => app.graph._nodes.find((n) => n.type === 'LoadImage').widgets[0].value") == "uploaded.png"


def test_settings_are_found_again_after_a_reload(window: Window, browser_site: Site) -> None:
    window.page.evaluate("() => app.extensionManager.setting.set('Comfy.ColorPalette', 'light')")
    window.page.wait_for_function("() => !document.body.classList.contains('dark-theme')")
    assert browser_site.get("/settings/Comfy.ColorPalette").json() == "light"
    window.start(browser_site.url)
    window.page.wait_for_function("() => !document.body.classList.contains('dark-theme')")
    assert window.page.evaluate("() => app.extensionManager.setting.get('Comfy.ColorPalette')") == "light"
