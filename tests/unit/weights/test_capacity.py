import psutil
import pytest

from comfy.weights.capacity import default_capacity_bytes

TOTAL = psutil.virtual_memory().total


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, TOTAL),
        ({"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/memory.max": "1000\n"}, 1000),
        ({"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/memory.max": "max\n"}, TOTAL),
        ({"proc/self/cgroup": "0::/out/in\n", "sys/fs/cgroup/out/memory.max": "500\n", "sys/fs/cgroup/out/in/memory.max": "900\n"}, 500),
        ({"proc/self/cgroup": "0::/of/the/host\n", "sys/fs/cgroup/memory.max": "700\n"}, 700),
        ({"proc/self/cgroup": "5:cpu:/\n4:memory:/box\n", "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "800\n"}, 800),
        ({"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, TOTAL),
    ],
)
def test_the_least_limit_counts(tmp_path, files, limit):
    write(tmp_path, files)
    assert default_capacity_bytes(tmp_path) == int(limit * 0.7)
