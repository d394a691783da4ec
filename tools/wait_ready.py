"""Wait until a server that was just started answers: `wait_ready.py URL PID TIMEOUT_S` (start_multi_gpu.sh --detach).

Exit status 0: URL answered 200; 3: the process PID is gone; 1: TIMEOUT_S passed. Standard library only.
"""

from __future__ import annotations

import os
import ssl
import sys
import time
import urllib.error
import urllib.request


def answers(url: str) -> bool:
    """Whether GET url gives 200. The certificate of a local server is not checked: only its own health is asked."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if url.startswith("https:"):
        handlers.append(urllib.request.HTTPSHandler(context=ssl._create_unverified_context()))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie, which its shell has not collected yet, does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def main(url: str, pid: int, timeout_s: float) -> int:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not alive(pid):
            return 3
        if answers(url):
            return 0
        time.sleep(0.2)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
