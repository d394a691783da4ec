"""A server that answers what quick_test.sh asks, well or badly: `fake_lanes_server.py MODE`; prints its port.

Modes: good; lane-missing (of four lanes the third is not there); ignores-header (everything goes to lane 0);
no-picture (/view answers 404); odd-refusal (bad headers are refused for another reason); two-processes (a worker
process of its own); single (the gate is off); lane-paused (the third).
"""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys

from aiohttp import web
from PIL import Image

MODE = sys.argv[1]
LANES = 4
records: dict[str, dict] = {}


async def queue_all(request: web.Request) -> web.Response:
    lanes = [lane for lane in range(LANES) if not (MODE == "lane-missing" and lane == 2)]
    empty = {"queue_running": [], "queue_pending": [], "running_count": 0, "pending_count": 0}
    return web.json_response({"queues": [{"gpu_id": lane, **empty} for lane in lanes], "total_running": 0, "total_pending": 0})


async def debug_queues(request: web.Request) -> web.Response:
    return web.json_response({"mode": "single-gpu" if MODE == "single" else "multi-gpu"})


async def ready(request: web.Request) -> web.Response:
    states = ["paused" if MODE == "lane-paused" and lane == 2 else "idle" for lane in range(LANES)]
    return web.json_response({"status": "ready", "lanes": [{"gpu_id": lane, "state": state} for lane, state in enumerate(states)]})


async def prompt(request: web.Request) -> web.Response:
    given = request.headers.getall("X-TARGET-GPU", [])
    valid = len(given) == 1 and given[0].isascii() and given[0].isdigit() and int(given[0]) < LANES
    if MODE != "ignores-header" and not valid:
        error = {"type": "target_gpu_invalid", "message": "not a lane", "extra_info": {"valid": f"0-{LANES - 1} or auto"}}
        return web.json_response({"error": error if MODE != "odd-refusal" else {"type": "invalid_prompt"}}, status=400)
    lane = 0 if MODE == "ignores-header" else int(given[0])
    prompt_id = f"prompt-{len(records)}"
    records[prompt_id] = {
        "status": {"status_str": "success", "completed": True, "messages": []},
        "outputs": {"7": {"images": [{"filename": "a.png", "subfolder": "test", "type": "output"}]}},
        "gpu_id": lane,
    }
    return web.json_response({"prompt_id": prompt_id, "number": 0, "node_errors": {}, "gpu_id": lane})


async def history(request: web.Request) -> web.Response:
    prompt_id = request.match_info["prompt_id"]
    return web.json_response({prompt_id: records[prompt_id]} if prompt_id in records else {})


async def view(request: web.Request) -> web.Response:
    if MODE == "no-picture" or request.query.get("filename") != "a.png":
        return web.Response(status=404)
    data = io.BytesIO()
    picture = Image.new("RGB", (128, 128), "white")
    for top, colour in ((0, "green" if MODE == "wrong-colour" else "red"), (86, "blue")):
        picture.paste(colour, (43, top, 85, top + 42))
    picture.save(data, "PNG")
    return web.Response(body=data.getvalue(), content_type="image/png")


async def serve_until_killed() -> None:
    app = web.Application()
    app.add_routes(
        [
            web.get("/queue/all", queue_all),
            web.get("/debug/queues", debug_queues),
            web.get("/ready", ready),
            web.post("/prompt", prompt),
            web.get("/history/{prompt_id}", history),
            web.get("/view", view),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if MODE == "two-processes":
        # its words, not its work, make it look like a second server; it ends with our end of the pipe
        subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", "main.py"], stdin=subprocess.PIPE)
    asyncio.run(serve_until_killed())
