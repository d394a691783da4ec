"""Stands for main.py in the tests of start_multi_gpu.sh: prints what it was given, or serves /ready with `--serve`.

With `--refuse` it ends as main.py does on a wrong setting: a line on stderr, exit status 2.
"""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import sys
import time

NAMES = ("COMFY_MULTI_GPU_SCHED", "COMFY_NUM_GPUS", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()


def main(argv: list[str]) -> int:
    if "--refuse" in argv:
        print("A setting is wrong; the server does not start.", file=sys.stderr)
        return 2
    if "--serve" in argv:
        log = pathlib.Path("logs") / time.strftime("comfyui_%Y%m%d_%H%M%S.log")
        log.write_text("Worker started\n")
        http.server.HTTPServer(("127.0.0.1", int(argv[argv.index("--port") + 1])), Ready).serve_forever()
    try:
        import torch

        version = torch.__version__
    except ImportError:
        version = None
    facts = {"argv": argv, "pid": os.getpid(), "torch": version, "prefix": sys.prefix, "cwd": os.getcwd()}
    print(json.dumps({**facts, "env": {name: os.environ.get(name) for name in NAMES}}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
