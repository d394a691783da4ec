"""The jobs that are over, as `/history` shows them: bounded, in completion order, each kept as JSON bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from comfy import jsonio
from comfy_execution.events import JobResult
from comfy_execution.job import Job

MAX_ENTRIES = 10_000
MAX_BYTES = 512 * 1024**2


class History:
    """Finished jobs by prompt id, oldest first. Thread-safe.

    Invariant: at most `max_entries` records, their JSON at most `max_bytes` together (a single larger one is kept alone).
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, bytes] = {}
        self._bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes

    def put(self, job: Job, result: JobResult, gpu_id: int | None = None) -> None:
        """Keep one finished job; `gpu_id` is the lane that ran it, None on a single-GPU server."""
        record: dict[str, Any] = {"prompt": job.as_list(), "outputs": result.outputs, "status": result.status, "meta": result.meta}
        if gpu_id is not None:
            record["gpu_id"] = gpu_id
        data = jsonio.dump_bytes(record)
        with self._lock:
            self._forget(job.prompt_id)
            self._records[job.prompt_id] = data
            self._bytes += len(data)
            while len(self._records) > self._max_entries or (self._bytes > self._max_bytes and len(self._records) > 1):
                self._forget(next(iter(self._records)))

    def __contains__(self, prompt_id: str) -> bool:
        with self._lock:
            return prompt_id in self._records

    def __len__(self) -> int:
        with self._lock:
            return len(self._records)

    def get(self, max_items: int | None = None, offset: int | None = None) -> bytes:
        """`{prompt_id: record, …}` as JSON, oldest first.

        `offset` >= 0 counts from the oldest; without one (or with a negative one) `max_items` gives the newest.
        """
        with self._lock:
            records = list(self._records.items())
        if offset is not None and offset >= 0:
            records = records[offset:]
            if max_items is not None:
                records = records[: max(max_items, 0)]
        elif max_items is not None:
            records = records[-max_items:] if max_items > 0 else []
        return _join(records)

    def one(self, prompt_id: str) -> bytes:
        """`{prompt_id: record}` as JSON, `{}` when there is none."""
        with self._lock:
            data = self._records.get(prompt_id)
        return _join([] if data is None else [(prompt_id, data)])

    def delete(self, prompt_ids: Iterable[str]) -> None:
        """Drop those records; unknown ids are ignored."""
        with self._lock:
            for prompt_id in prompt_ids:
                self._forget(prompt_id)

    def clear(self) -> None:
        """Drop all records."""
        with self._lock:
            self._records.clear()
            self._bytes = 0

    def _forget(self, prompt_id: str) -> None:
        data = self._records.pop(prompt_id, None)
        if data is not None:
            self._bytes -= len(data)


def _join(records: Iterable[tuple[str, bytes]]) -> bytes:
    return b"{" + b", ".join(jsonio.dump_bytes(prompt_id) + b": " + data for prompt_id, data in records) + b"}"
