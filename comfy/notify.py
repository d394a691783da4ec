"""Telling systemd how the server does: sd_notify's datagrams to the socket that $NOTIFY_SOCKET names.

The protocol is sd_notify(3)'s: lines of NAME=value. Without the variable nobody asked, and nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)

SLACK_S = 30.0  #: what an orderly stop takes besides the jobs: answers under way, files, the interpreter's own end


def ready(status: str, env: Mapping[str, str] = os.environ) -> bool:
    """The server takes jobs; `status` is the line that `systemctl status` shows. Whether it was sent."""
    return send(f"READY=1\nSTATUS={status}", env)


def stopping(drain_s: float, env: Mapping[str, str] = os.environ) -> bool:
    """The server drains: running jobs have `drain_s` seconds, and systemd waits that long whatever its own limit is."""
    extend_us = round((drain_s + SLACK_S) * 1e6)
    return send(f"STOPPING=1\nSTATUS=Draining: running jobs have {drain_s:g} s\nEXTEND_TIMEOUT_USEC={extend_us}", env)


def send(message: str, env: Mapping[str, str] = os.environ) -> bool:
    """Send the lines of `message`; False without a supervisor. One that cannot be reached is a warning: the server goes on."""
    address = env.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    target = "\0" + address[1:] if address.startswith("@") else address  # @ stands for the abstract namespace
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(target)
            sender.sendall(message.encode())
    except OSError as error:
        log.warning("the supervisor does not hear us: %s: %s", address, error)
        return False
    return True
