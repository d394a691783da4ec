"""How the process ends when a GPU failed for good: soon, whatever its threads do, with a status of its own."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from comfy_execution.scheduler import Scheduler

FATAL_STATUS = 75  #: exit status; "temporary failure, try again" in sysexits.h: a supervisor starts the server again
LINGER_S = 2.0  #: how long clients may still read why their prompts failed
PATIENCE_S = 5.0  #: how long flushing the log may take on top


def exit_when_failed(scheduler: Scheduler, leave: Callable[[int], object] = os._exit) -> None:
    """End the process LINGER_S after a GPU failed for good. The driver's own clean-up would hang, so nothing is cleaned up."""

    def end(reason: str) -> None:
        last_resort = threading.Timer(LINGER_S + PATIENCE_S, leave, (FATAL_STATUS,))
        last_resort.daemon = True
        last_resort.start()
        threading.Thread(target=_end, args=(leave,), name="fatal-exit", daemon=True).start()

    scheduler.on_failed(end)


def _end(leave: Callable[[int], object]) -> None:
    time.sleep(LINGER_S)
    logging.shutdown()
    leave(FATAL_STATUS)
