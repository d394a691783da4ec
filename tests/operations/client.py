"""Requests to a server of which only the address is known, and a look into its log."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any


def post(url: str, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str = "POST") -> Any:
    """The JSON that a request gives; raises urllib.error.HTTPError when it is refused."""
    data = None if method == "GET" else json.dumps(body or {}).encode()
    request = urllib.request.Request(url + path, data, headers or {}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def finished(log_dir: Path, words: str, process: subprocess.Popen[bytes], timeout_s: float = 60) -> bool:
    """Once the process has ended: whether a line of its log has these words."""
    process.wait(timeout_s)
    return any(words in path.read_text(encoding="utf-8") for path in log_dir.glob("comfyui_*.log"))
