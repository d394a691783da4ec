"""The real server behind the real nginx: jobs, websockets, uploads, and the stock front end in a browser on two ports."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import uuid
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.conftest import CHROMIUM, FLAGS, Window
from tests.conformance.site import Site, node
from tests.operations.conftest import LANES
from tests.operations.proxy import Proxy

PLACEHOLDER = "placeholder_noise_sd1.safetensors"


def through(site: Site, url: str) -> Site:
    """The same server, asked at another address."""
    return dataclasses.replace(site, url=url, tabs=[])


def job() -> dict:
    return {"1": node("ProbeNumber", n=7), "2": node("ProbeShow", value=["1", 0])}


@pytest.mark.parametrize("gpu", range(LANES))
def test_a_prompt_runs_on_the_gpu_of_its_port_and_its_tab_hears_of_it(site: Site, proxy: Proxy, gpu: int) -> None:
    """By port and by path, whatever the client's own header says; the websocket goes through nginx too."""
    for url in (proxy.url(gpu), f"{proxy.path_url}/gpu{gpu}"):
        tab = through(site, url).tab(path="/ws")
        tab.post(job(), prompt_id := str(uuid.uuid4()), lane=(gpu + 1) % LANES)
        tab.until(prompt_id)
        assert [data["gpu_id"] for data in tab.data("execution_start")] == [gpu]
        assert site.finish([prompt_id])[prompt_id]["gpu_id"] == gpu
        tab.close()


def test_the_answer_names_the_gpu_and_a_bare_workflow_works(site: Site, proxy: Proxy) -> None:
    for gpu in range(LANES):
        answer = through(site, proxy.url(gpu)).request("POST", "/api/prompt", data=json.dumps(job()).encode())
        assert answer.json()["gpu_id"] == gpu
    bad = through(site, proxy.url(0)).request("POST", "/prompt", data=b"{")
    assert (bad.status, bad.error()) == (400, "invalid_json")


def test_the_front_page_answers_head_on_every_port(site: Site, proxy: Proxy) -> None:
    for port in (*proxy.site.ports, proxy.site.path_port):
        assert proxy.ask(port, "/", "HEAD", [("Host", f"localhost:{port}")])[0] == 200
        assert proxy.ask(port, "/", headers=[("Host", f"evil.example:{port}")])[0] == 403
        foreign = [("Host", f"127.0.0.1:{port}"), ("Origin", "http://evil.example")]
        assert proxy.ask(port, "/interrupt", "POST", foreign)[0] == 403


def test_an_upload_of_100_mb_arrives(site: Site, proxy: Proxy) -> None:
    """A picture with nothing in it but that many bytes behind it; multipart as a browser sends it."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    content = picture.getvalue().ljust(100_000_000, b"\0")
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="big.png"\r\nContent-Type: image/png\r\n\r\n'
    body = head + content + b"\r\n--x--\r\n"
    status, _, answer = proxy.ask(proxy.site.ports[0], "/upload/image", "POST", [("Content-Type", "multipart/form-data; boundary=x")], body)
    assert (status, json.loads(answer)["name"]) == (200, "big.png")
    assert (site.base / "input/big.png").stat().st_size == len(content)


def test_stored_workflows_keep_their_slashes_by_path(site: Site, proxy: Proxy) -> None:
    stored = through(site, f"{proxy.path_url}/gpu1").request("POST", "/api/userdata/workflows%2Fa%20b.json", data=b"{}")
    assert stored.status == 200
    assert (site.base / "user/default/workflows/a b.json").read_text() == "{}"


@pytest.mark.timeout(300)  # two cold starts of the front end; a crowded machine takes a minute for them
def test_the_stock_front_end_works_on_two_ports(site: Site, proxy: Proxy, tmp_path: Path) -> None:
    """Each queues the default workflow on its own GPU and shows its own picture."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    for package in ("playwright", "comfyui_frontend_package"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    from playwright.sync_api import sync_playwright

    before = set(site.get("/history").json())
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path / "profile"), executable_path=CHROMIUM, headless=True, args=[*FLAGS], viewport={"width": 1280, "height": 720}
        )
        context.route(lambda url: not url.startswith(("http://127.0.0.1:", "blob:", "data:")), lambda route: route.fulfill(json=[]))
        for gpu in (0, 1):
            window = Window(context.new_page())
            window.start(proxy.url(gpu))
            window.page.get_by_role("button", name="Fit View (.)").click()
            window.set_widget("CheckpointLoaderSimple", ckpt_name=PLACEHOLDER)
            window.set_widget("EmptyLatentImage", width=64, height=64)
            window.set_widget("KSampler", steps=1, seed=gpu)
            window.run()
            window.until_seen("execution_success")
            shown = "() => app.graph._nodes.find((node) => node.type === 'SaveImage').imgs?.[0]"
            window.page.wait_for_function(f"{shown}?.naturalWidth === 64")
            assert window.page.evaluate(f"({shown})().src").startswith(proxy.url(gpu))
            assert not any("429" in error for error in window.errors), window.errors
            window.page.close()
        context.close()
    made = {name: record for name, record in site.get("/history").json().items() if name not in before}
    assert [record["gpu_id"] for record in made.values()] == [0, 1]
