"""Chromium with the stock front end on a server of its own. A failed test leaves a screenshot in $OUT or the test's folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.site import Site, serving

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
)  # fmt: skip
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
START_MS = 60_000
STEP_MS = 40_000

COUNT_EVENTS = """() => {
    window.seen = {};
    const names = ["status", "progress", "executed", "b_preview_with_metadata"];
    for (const end of ["start", "success", "interrupted", "error"]) names.push("execution_" + end);
    for (const name of names)
        app.api.addEventListener(name, ({ detail }) => (window.seen[name] ??= []).push(name.startsWith("b_") ? 1 : detail));
}"""


@pytest.fixture(scope="module")
def browser_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with two lanes and previews, whose one user has been here before."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    for package in ("playwright", "comfyui_frontend_package"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    base = tmp_path_factory.mktemp("browser")
    with serving(base, 2, "--preview-method", "latent2rgb") as site:
        site.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.InstalledVersion": "1.27.10"})
        yield site


class Window:
    """The browser's one page and what it complained about."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("response", lambda answer: answer.status >= 500 and self.errors.append(f"{answer.status} {answer.url}"))
        page.set_default_timeout(STEP_MS)

    def start(self, url: str) -> None:
        """Open the front end and wait for its graph; every event of its socket is counted from then on."""
        self.page.goto(url)
        self.page.wait_for_function("() => window.app?.graph?._nodes?.length > 0", timeout=START_MS)
        self.page.evaluate(COUNT_EVENTS)

    def until_seen(self, event: str, n: int = 1) -> None:
        """Wait for the n-th event of that name."""
        self.page.wait_for_function("([event, n]) => (window.seen[event] ?? []).length >= n", arg=[event, n])

    def count(self, event: str) -> int:
        """How many events of that name came."""
        return int(self.page.evaluate("(event) => (window.seen[event] ?? []).length", event))

    def set_widget(self, node_type: str, **values: Any) -> None:
        """Set widgets of the first node of that class; they are drawn on the canvas, where nothing can be typed into."""
        self.page.evaluate(
            """([type, values]) => {
                const node = app.graph._nodes.find((node) => node.type === type);
                for (const [name, value] of Object.entries(values)) {
                    const widget = node.widgets.find((widget) => widget.name === name);
                    if (!widget) throw new Error(`${type} has no widget ${name}`);
                    widget.value = value;
                    widget.callback?.(value);
                }
            }""",
            [node_type, values],
        )

    def run(self) -> None:
        """Press the button that queues the graph."""
        self.page.get_by_role("button", name="Run", exact=True).click()


@pytest.fixture(scope="module")  # no longer: as long as it lives this thread has a running event loop, and no other test may start one
def _window(browser_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")),
            executable_path=CHROMIUM,
            headless=True,
            args=[*FLAGS],
            viewport={"width": 1280, "height": 720},
        )
        page = context.pages[0]
        # the front end asks its makers for news; tests reach nothing but the server
        context.route(lambda url: not url.startswith((browser_site.url, "blob:", "data:")), lambda route: route.fulfill(json=[]))
        window = Window(page)
        window.start(browser_site.url)
        yield window
        context.close()


@pytest.fixture
def window(_window: Window, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Window]:
    """The page as the test before left it."""
    yield _window
    if getattr(request.node, "failed_here", False):
        _window.page.screenshot(path=str(Path(os.environ.get("OUT") or tmp_path) / f"{request.node.name}.png"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Tell the fixture that its test failed."""
    outcome = yield
    if outcome.get_result().when == "call" and outcome.get_result().failed:
        item.failed_here = True
