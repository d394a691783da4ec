"""Images per second over HTTP, on one GPU and on all, with and without CUDA graphs.

    python3 -m benchmarks.throughput --lanes 1 4            # SD1.5 shapes, random weights, 512², 20 steps euler
    python3 -m benchmarks.throughput --lanes 1 4 --eager    # the same without graphs, in the same run

Starts the server, sends every lane jobs with SaveImage and different seeds, and divides the pictures by the seconds from
the first submission to the last file. Each lane's models are brought and its graph is captured before the clock starts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Server, text_to_image

CHECKPOINT = "random_sd15.safetensors"


def rate(server: Server, lanes: int, jobs_per_lane: int, size: int, steps: int) -> dict[str, Any]:
    """Pictures per second with `lanes` lanes busy; and a lane's seconds for each job, as its log tells them."""

    def send(seed: int, lane: int, prefix: str) -> str:
        return server.submit(text_to_image(CHECKPOINT, seed=seed, size=size, steps=steps, prefix=prefix), lane)

    for _ in range(2):  # twice: bring the models, then capture
        server.wait([send(10_000 + lane + 100 * _, lane, "warm") for lane in range(lanes)])
    started = time.monotonic()
    ids = [send(seed * lanes + lane, lane, f"lane{lane}/t") for seed in range(jobs_per_lane) for lane in range(lanes)]
    server.wait(ids)
    seconds = time.monotonic() - started
    return {"lanes": lanes, "pictures": len(ids), "seconds": round(seconds, 3), "images_per_s": round(len(ids) / seconds, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lanes", type=int, nargs="+", default=[1])
    parser.add_argument("--jobs", type=int, default=24, help="pictures for each lane")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--eager", action="store_true", help="measure without CUDA graphs too")
    parser.add_argument("--base", type=Path, default=None)
    args = parser.parse_args()
    from comfy.models.random_checkpoint import full_sizes, write_checkpoint

    with tempfile.TemporaryDirectory(prefix="throughput_") as scratch:
        base = args.base or Path(scratch)
        checkpoint = base / "models" / "checkpoints" / CHECKPOINT
        if not checkpoint.exists():
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            write_checkpoint(checkpoint, full_sizes())
        rows = []
        for graphs in (True, False) if args.eager else (True,):
            for lanes in args.lanes:
                with harness.server(base, lanes, *([] if graphs else ["--disable-cuda-graphs"])) as server:
                    rows.append({"graphs": graphs, **rate(server, lanes, args.jobs, args.size, args.steps)})
                print(rows[-1], flush=True)
    for graphs in {row["graphs"] for row in rows}:
        by_lanes = {row["lanes"]: row["images_per_s"] for row in rows if row["graphs"] is graphs}
        print(f"graphs={graphs}: {max(by_lanes)} lanes against {min(by_lanes)}: {by_lanes[max(by_lanes)] / by_lanes[min(by_lanes)]:.2f}x")
    path = harness.keep("throughput_sd15", {"size": args.size, "steps": args.steps, "rows": rows})
    print(f"results: {path}")


if __name__ == "__main__":
    main()
