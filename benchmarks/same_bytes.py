"""Is a picture the same alone and with all lanes busy, on every lane, and are the weights in RAM once?

    python -m benchmarks.same_bytes                      # true SD1.5 shapes, random weights, 2 and 4 CPU lanes
    python -m benchmarks.same_bytes --gpu --lanes 4      # the same on cuda:0 … cuda:3
    python -m benchmarks.same_bytes --small              # a small checkpoint: what CI runs

Makes the checkpoint, runs 12 jobs one after the other on one lane, then all at once on N lanes, and compares the files
byte by byte; then one seed on every lane. Memory is the server's proportional set size (PSS). Exits 1 when bytes
differ, or when PSS with N lanes is over 110 % of that with one lane plus the activations.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Server, sha256, text_to_image

CHECKPOINT = "random_sd15.safetensors"
JOBS = 12


def prompts(size: int, steps: int) -> list[dict[str, Any]]:
    """Jobs that differ in seed, sampler and text."""
    samplers = ("euler", "euler_ancestral", "dpmpp_2m")
    return [text_to_image(CHECKPOINT, seed=i, size=size, steps=steps, sampler=samplers[i % 3], text=f"picture {i}") for i in range(JOBS)]


def one_by_one(server: Server, jobs: list[dict[str, Any]], lane: int) -> list[str]:
    """Digest of each job's picture, each job alone on the server."""
    return [sha256(server.pictures(server.wait([prompt_id])[prompt_id])[0]) for prompt_id in (_run(server, job, lane) for job in jobs)]


def _run(server: Server, job: dict[str, Any], lane: int) -> str:
    prompt_id = server.submit(job, lane)
    server.wait([prompt_id])
    return prompt_id


def all_at_once(server: Server, jobs: list[dict[str, Any]], lanes: int) -> tuple[list[str], float]:
    """Digest of each job's picture with every lane busy, and the seconds that all took."""
    started = time.monotonic()
    ids = [server.submit(job, i % lanes) for i, job in enumerate(jobs)]
    records = server.wait(ids)
    return [sha256(server.pictures(records[prompt_id])[0]) for prompt_id in ids], time.monotonic() - started


def measure(
    base: Path, lanes: int, flags: list[str], size: int, steps: int, alone: list[str] | None, threads: int | None
) -> dict[str, Any]:
    """One server with `lanes` lanes: memory with one lane in use and with all, bytes alone and together."""
    jobs = prompts(size, steps)
    with harness.server(base, lanes, *flags, threads=threads) as server:
        first = one_by_one(server, jobs, 0)
        pss_one = server.pss_bytes()
        server.free()
        busy, seconds = all_at_once(server, jobs, lanes)
        pss_all = server.pss_bytes()
        server.free()
        ids = [server.submit(jobs[0], lane) for lane in range(lanes)]
        records = server.wait(ids)
        per_lane = [sha256(server.pictures(records[prompt_id])[0]) for prompt_id in ids]
        ran_on = [records[prompt_id]["gpu_id"] for prompt_id in ids]
        weights = _weights_bytes(server)
    return {
        "lanes": lanes,
        "jobs": len(jobs),
        "same_bytes_alone_and_busy": first == busy,
        "same_bytes_as_other_lane_counts": alone is None or alone == first,
        "same_bytes_on_every_lane": len(set(per_lane)) == 1,
        "ran_on": ran_on,
        "distinct_pictures": len(set(first)),
        "seconds_all_at_once": round(seconds, 2),
        "pss_one_lane_gib": round(pss_one / 2**30, 3),
        "pss_all_lanes_gib": round(pss_all / 2**30, 3),
        "pss_ratio": round(pss_all / pss_one, 3),
        "weights": weights,
        "digests": first,
    }


def _weights_bytes(server: Server) -> Any:
    return [lane["resident_models"] for lane in server.json("/queue/all")["queues"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--lanes", type=int, nargs="+", default=None)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of each lane")
    parser.add_argument("--base", type=Path, default=None, help="folder to keep the checkpoint in between runs")
    args = parser.parse_args()
    from comfy.models.random_checkpoint import full_sizes, small_sizes, write_checkpoint

    with tempfile.TemporaryDirectory(prefix="same_bytes_") as scratch:
        base = args.base or Path(scratch)
        checkpoint = base / "models" / "checkpoints" / CHECKPOINT
        if not checkpoint.exists():
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            write_checkpoint(checkpoint, small_sizes() if args.small else full_sizes())
        flags = [] if args.gpu else ["--cpu"]
        runs: list[dict[str, Any]] = []
        for lanes in args.lanes or ([1] if args.gpu else [2, 4]):
            alone = runs[0]["digests"] if runs else None
            runs.append(measure(base, lanes, flags, args.size or (512 if args.gpu else 128), args.steps, alone, args.threads))
            print({key: value for key, value in runs[-1].items() if key != "digests"}, flush=True)
        size_gib = round(checkpoint.stat().st_size / 2**30, 3)
    name = "same_bytes" + ("_gpu" if args.gpu else "_cpu") + ("_small" if args.small else "")
    path = harness.keep(
        name, {"checkpoint_gib": size_gib, "size": args.size or (512 if args.gpu else 128), "steps": args.steps, "runs": runs}
    )
    print(f"results: {path}")
    keys = ("same_bytes_alone_and_busy", "same_bytes_as_other_lane_counts", "same_bytes_on_every_lane")
    good = all(run[key] for run in runs for key in keys) and all(run["distinct_pictures"] == JOBS for run in runs)
    if not args.gpu and not args.small:
        good = good and all(run["pss_ratio"] <= 1.10 for run in runs)
    print("PASS" if good else "FAIL")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
