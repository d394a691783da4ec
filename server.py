"""PromptServer: the aiohttp application, its life, and the object that custom nodes know as `PromptServer.instance`."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from aiohttp import web

from comfy import control
from comfy.config import Config
from comfy.errors import NotReady
from comfy.nodes.registry import NodeRegistry
from comfy.web import app as web_app
from comfy.web import frames, frontend, listen, middleware
from comfy.web.compat_queue import CompatQueue
from comfy.web.frames import BinaryEventTypes
from comfy.web.websocket import Hub
from comfy_execution.events import Audience, BinaryMessage, Message

if TYPE_CHECKING:
    from comfy.device.context import DeviceContext
    from comfy_execution.scheduler import Scheduler

__all__ = ["BinaryEventTypes", "PromptServer"]

log = logging.getLogger(__name__)

OnPrompt = Callable[[dict[str, Any]], dict[str, Any]]

STOP_S = 5.0  #: how long answers under way may take to end when the server stops


class PromptServer:
    """Built before custom nodes load, so that they may register routes and handlers; then `attach`, then `start`."""

    instance: ClassVar[PromptServer]

    def __init__(
        self, config: Config, registry: NodeRegistry, folders: Any = None, *, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        """`loop` is the one that will serve: packs may ask for it while they load. Else it is known from `start` on."""
        PromptServer.instance = self
        self.config = config
        self.registry = registry
        self.folders = folders
        self.loop = loop
        self.address, self.port = config.listen[0], config.port
        self.app = middleware.build_app(config)
        self.routes = web.RouteTableDef()
        self.supports = ["custom_nodes_from_web"]
        self.user_manager: Any = None
        self.on_prompt_handlers: list[OnPrompt] = []
        root = frontend.find_web_root(config)
        self.web_root = None if root is None else str(root)
        self.hub = Hub(self)
        self._scheduler: Scheduler | None = None
        #: the lanes' devices, whose statistics /metrics shows
        self.contexts: Sequence[DeviceContext] = ()
        #: the jobs, as packs read and change them; NotReady from each of its methods before `attach`
        self.prompt_queue = CompatQueue(lambda: self.scheduler)
        self._early_number = 0
        self._routes_added = False
        self._runner: web.AppRunner | None = None
        self._pings: asyncio.Task[None] | None = None

    # life

    def attach(self, scheduler: Scheduler, contexts: Sequence[DeviceContext] = ()) -> None:
        """Serve this scheduler's lanes, which have these devices, and pass on what they say."""
        self._scheduler = scheduler
        self.contexts = contexts
        if self._early_number:
            scheduler.number = self._early_number
        scheduler.set_sink(self.hub.publish)

    def add_routes(self) -> None:
        """Add all routes to the application, those of custom nodes included; once, when the packs are loaded."""
        if not self._routes_added:
            self._routes_added = True
            web_app.add_routes(self)

    async def start(self) -> None:
        """Bind every address of --listen and serve. Raises ConfigError when one cannot be bound, with nothing left open."""
        self.loop = asyncio.get_running_loop()
        self.add_routes()
        self._runner = web.AppRunner(self.app, access_log=None, handle_signals=False, shutdown_timeout=STOP_S)
        await self._runner.setup()
        try:
            self.port = await listen.bind(self._runner, self.config)
        except BaseException:
            await self._runner.cleanup()
            self._runner = None
            raise
        self._pings = asyncio.create_task(self.hub.ping_forever(), name="websocket-pings")
        if not self.config.dont_print_server:
            for line in listen.ready_lines(self.config, self.port):
                log.info("%s", line)
        if self.config.auto_launch:
            self.loop.run_in_executor(None, webbrowser.open, listen.browser_url(self.config, self.port))

    async def stop(self) -> None:
        """Close the websockets, let answers under way end, and unbind; idempotent."""
        if self._pings is not None:
            self._pings.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pings
            self._pings = None
        await self.hub.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # what handlers use

    @property
    def scheduler_or_none(self) -> Scheduler | None:
        """The lanes, None before `attach`."""
        return self._scheduler

    @property
    def scheduler(self) -> Scheduler:
        """The lanes; NotReady before `attach`."""
        if self._scheduler is None:
            raise NotReady()
        return self._scheduler

    def trigger_on_prompt(self, body: dict[str, Any]) -> dict[str, Any]:
        """Let each handler of a pack see, and perhaps replace, a submission; one that raises is logged and skipped."""
        for handler in self.on_prompt_handlers:
            try:
                answer = handler(body)
            except Exception:
                log.exception("an on_prompt handler failed and is skipped")
                continue
            if isinstance(answer, dict):
                body = answer
            else:
                if inspect.iscoroutine(answer):
                    answer.close()
                log.warning("an on_prompt handler of %s gave no dict back and is skipped", getattr(handler, "__module__", "?"))
        return body

    # what custom nodes use

    def add_on_prompt_handler(self, handler: OnPrompt) -> None:
        """Have `handler(body)` called on the event loop for each submission; it returns the body to go on with."""
        self.on_prompt_handlers.append(handler)

    @property
    def client_id(self) -> str | None:
        """The websocket session that owns the calling code's job; None outside a job, or when it is anonymous."""
        job = control.current()
        return None if job is None else job.client_id

    @property
    def last_node_id(self) -> str | None:
        """The node of the calling code's job that runs now."""
        job = control.current()
        return None if job is None else job.node_id

    @property
    def last_prompt_id(self) -> str | None:
        """The calling code's job."""
        job = control.current()
        return None if job is None else job.prompt_id

    @property
    def number(self) -> int:
        """The number that the next prompt without one will get."""
        return self._early_number if self._scheduler is None else self._scheduler.number

    @number.setter
    def number(self, value: int) -> None:
        if self._scheduler is None:
            self._early_number = int(value)
        else:
            self._scheduler.number = int(value)

    @property
    def sockets(self) -> dict[str, web.WebSocketResponse]:
        """Connected websockets by session id: a copy. Send through `send_sync`, which keeps the order."""
        return {sid: session.ws for sid, session in list(self.hub.sessions.items())}

    @property
    def sockets_metadata(self) -> dict[str, dict[str, Mapping[str, Any]]]:
        """What each session negotiated: {sid: {"feature_flags": {…}}}; a copy."""
        return {sid: {"feature_flags": session.flags} for sid, session in list(self.hub.sessions.items())}

    def send_sync(self, event: str | int, data: Any, sid: str | None = None) -> None:
        """Send an event to one session, or to all when `sid` is None. Thread-safe; never waits, never raises for a slow client.

        A text event carries JSON data; an integer one (BinaryEventTypes) bytes, or a picture to be encoded. The data are
        read before this returns.
        """
        if isinstance(event, str):
            audience = Audience.ALL if sid is None else Audience.OWNER
            self.hub.publish(Message(event, data, audience, sid))
            return
        kind, payload = frames.payload_of(event, data)
        self.hub.publish(BinaryMessage(kind, payload, sid))

    async def send(self, event: str | int, data: Any, sid: str | None = None) -> None:
        """`send_sync`, for code that awaits."""
        self.send_sync(event, data, sid)

    def send_progress_text(self, text: str | bytes, node_id: str, sid: str | None = None) -> None:
        """Show text on a node: to `sid`, else to the client of the calling code's job, else to all."""
        payload = frames.text_payload(text, str(node_id))
        self.send_sync(BinaryEventTypes.TEXT, payload, sid if sid is not None else self.client_id)
