"""Start the server: flags -> Config -> build everything once -> serve -> shut down.

    python main.py --help

Exit status: 0 after an orderly stop, 2 when a setting is wrong, 1 when a lane's thread outlasted the stop, 75 when a GPU
failed for good: start it again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfy import version_stamp

if problem := version_stamp.mixed(Path(__file__).resolve().parent):  # before other imports: they may fail in a mixed tree
    print(f"❌ {problem}", file=sys.stderr)
    sys.exit(2)

from comfy import cli_args, folders, logs, notify
from comfy.compat import loader
from comfy.config import PROGRAM_DIR, Config
from comfy.config import load as load_config
from comfy.errors import ConfigError
from comfy.web import logbuffer

if TYPE_CHECKING:  # both import torch, which waits for the prestartup scripts
    from comfy.device.context import DeviceContext
    from comfy_execution.events import Event
    from comfy_execution.scheduler import Scheduler
    from server import PromptServer

log = logging.getLogger("main")

WARMUP_S = 120.0  #: how long the start waits for the lanes' warm-up before it goes on without


@dataclass(frozen=True)
class House:
    """What lives as long as the process."""

    config: Config
    folders: folders.Folders
    packs: list[loader.Pack]
    server: PromptServer
    scheduler: Scheduler
    contexts: list[DeviceContext]


def main(argv: list[str]) -> int:
    """Run the server until SIGINT or SIGTERM; returns the exit status."""
    try:
        config = load_config(argv, argv0="main.py")
        cli_args.fill(config.args)
        log_file = logs.setup(config, _log_dir())
        logbuffer.install()
        log.debug("log file %s", log_file)
        _environment(config)
        places = folders.configure(config)
        packs = loader.find_packs(places.models.folders("custom_nodes"), config)
        loader.run_prestartup(packs)  # before torch is imported: some set variables that it reads
        loop = asyncio.new_event_loop()  # before packs load: they ask the server for it
        asyncio.set_event_loop(loop)
        house = _build(config, places, packs, loop)
        return 0 if config.quick_test else loop.run_until_complete(_serve(house))
    except ConfigError as error:
        print(f"❌ {error}", file=sys.stderr)
        return error.exit_status


def _log_dir() -> Path:
    """logs/ of the program, or where a systemd unit with LogsDirectory= says; its program folder cannot be written."""
    return Path(os.environ.get("LOGS_DIRECTORY", "").partition(":")[0] or PROGRAM_DIR / "logs")


def _environment(config: Config) -> None:
    """Variables that libraries read when they are imported; `--cuda-device` and `--default-device` act through one."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    first = config.args.default_device
    if config.args.cuda_device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(config.args.cuda_device)
    elif first is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, [first, *(i for i in range(32) if i != first)]))


def _build(config: Config, places: folders.Folders, packs: list[loader.Pack], loop: asyncio.AbstractEventLoop) -> House:
    """Build every part once, in the order in which the parts need each other."""
    import nodes
    from comfy import model_management
    from comfy.compat import threads
    from comfy.device import summary
    from comfy.device.context import make_contexts
    from comfy.device.gpu_stats import GpuStats
    from comfy.models import precision
    from comfy.sampling import preview
    from comfy.weights.cache import WeightCache
    from comfy.weights.capacity import default_capacity_bytes
    from comfy_execution.ending import exit_when_failed
    from comfy_execution.exclusive import Turns, exclusive_packs, say_unknown
    from comfy_execution.lane import Lane
    from comfy_execution.queue import MemoryJobStore, PromptQueue
    from comfy_execution.scheduler import Scheduler
    from execution import PromptExecutor
    from server import PromptServer

    preview.use_method(lambda: cli_args.args.preview_method)  # packs change it while the server runs
    precision.configure(precision.from_flags(config.args))
    capacity = default_capacity_bytes() if config.ram_cache_bytes is None else config.ram_cache_bytes
    contexts = make_contexts(config, WeightCache(capacity))
    _check_lanes(config, len(contexts))
    _say_mode(config, len(contexts))
    server = PromptServer(config, nodes.registry, places, loop=loop)
    alone = exclusive_packs(config.exclusive_packs, config.user_dir / "exclusive_packs.json")
    turns = Turns(nodes.registry, alone)
    threads.install()
    for one in loader.load_packs(packs, nodes.registry):
        nodes.LOADED_MODULE_DIRS[one.pack.listed_as] = str(one.pack.home)
        nodes.EXTENSION_WEB_DIRS.update(one.web_dirs)
    places.web_dirs = nodes.EXTENSION_WEB_DIRS
    say_unknown(alone, (pack.name for pack in packs))
    store = MemoryJobStore()
    scheduler = Scheduler(store, multi_gpu=config.multi_gpu, default_target=config.default_target, auto_lanes=config.auto_gpus)
    for ctx in contexts:

        def make_executor(publish: Callable[[Event], None], lane: int = ctx.index) -> PromptExecutor:
            return PromptExecutor(
                nodes.registry,
                lane,
                publish,
                cache_policy=config.cache_policy,
                cache_lru=config.cache_lru,
                show_gpu_id=config.multi_gpu,
                turns=turns,
            )

        queue = PromptQueue(ctx.index, store, config.max_queue)
        scheduler.add_lane(Lane(ctx.index, ctx, queue, make_executor, scheduler.handle, stall_s=config.stall_s))
    if config.multi_gpu:
        log.info("📋 Created %d task queues, up to %d waiting jobs each", len(contexts), config.max_queue)
    for line in summary.table(summary.lane_rows(contexts, GpuStats())):
        log.info("   %s", line)
    server.attach(scheduler, contexts)
    exit_when_failed(scheduler)
    model_management.on_stop_all(scheduler.interrupt)
    return House(config, places, packs, server, scheduler, contexts)


def _check_lanes(config: Config, n_lanes: int) -> None:
    for name, indices in (("COMFY_DEFAULT_TARGET_GPU", (config.default_target,)), ("COMFY_AUTO_GPUS", config.auto_gpus or ())):
        for index in indices:
            if index is not None and index >= n_lanes:
                raise ConfigError(f"{name} names a lane that is not there.", value=index, lanes=f"0-{n_lanes - 1}")


def _say_mode(config: Config, n_lanes: int) -> None:
    if config.multi_gpu:
        log.info("✅ Multi-GPU scheduling ENABLED")
        log.info("🚀 Multi-GPU mode ENABLED with %d GPUs", n_lanes)
    else:
        log.info("ℹ️ Multi-GPU scheduling DISABLED (COMFY_MULTI_GPU_SCHED is not 1)")
        log.info("ℹ️ Single-GPU mode (default)")


async def _serve(house: House) -> int:
    """Bind first, so that a taken port ends the start before anything else happened; then the lanes; then wait."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    saved = house.config.user_dir / "queue.json"
    await house.server.start()
    try:
        house.folders.prepare()
        await asyncio.to_thread(_make_ready, house)
        house.scheduler.start(saved)
        await asyncio.to_thread(_warm_up, house)
        loader.check_devices(house.packs)
        gc.collect()
        gc.freeze()  # what lives from here on for good need not be walked again: a full collection stalls every lane
        notify.ready(f"{len(house.contexts)} lanes take jobs on port {house.server.port}")
        await stopping.wait()
        house.scheduler.drain()  # before anyone hears of it: a job that starts now would have to be waited for
        notify.stopping(house.config.drain_s)
        log.info("Stopping: running prompts have %gs to finish", house.config.drain_s)
    finally:
        ended = await asyncio.to_thread(house.scheduler.close, house.config.drain_s, saved)
        await house.server.stop()
        house.folders.close()
    if ended:
        return 0
    logging.shutdown()
    os._exit(1)  # a thread sits in code that polls nothing; waiting for it would wait for ever


def _make_ready(house: House) -> None:
    """What may take seconds and must be there before the first job: a checkpoint to try the server with."""
    from comfy.models.random_checkpoint import ensure_placeholder

    ensure_placeholder(house.folders)


def _warm_up(house: House) -> None:
    from comfy.device.warmup import warm_up

    done = []
    for lane, ctx in zip(house.scheduler.all_lanes, house.contexts, strict=True):
        finished = threading.Event()
        done.append(finished)

        def chore(ctx: DeviceContext = ctx, finished: threading.Event = finished) -> None:
            try:
                warm_up(ctx.index, ctx.device)
            finally:
                finished.set()

        lane.queue.put_chore(chore)
    for finished in done:
        finished.wait(WARMUP_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
