"""Any damage to a file gives an index that is true, or a typed error; never another exception, never a wild read."""

import io

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from comfy.errors import WeightFileInvalid
from comfy.weights.fill import fill_slab
from comfy.weights.header import open_index
from comfy.weights.slab import Slab, SlabKey, plan_slab
from tests.fakes import entries_of

TENSORS = {"first.weight": torch.arange(6.0).view(2, 3), "second": torch.ones(3, dtype=torch.float16)}


def _pickled(new_format):
    buffer = io.BytesIO()
    torch.save({"state_dict": TENSORS}, buffer, _use_new_zipfile_serialization=new_format)
    return buffer.getvalue()


VALID = {"a.safetensors": save(TENSORS, {"k": "v"}), "new.ckpt": _pickled(True), "old.pt": _pickled(False)}
CHANGES = st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=4)), max_size=4)
calm = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("name", VALID)
@calm
@given(changes=CHANGES, length=st.floats(0.2, 1.1))
def test_a_damaged_file_is_read_truly_or_refused(tmp_path, name, changes, length):
    content = bytearray(VALID[name])
    for place, new in changes:
        start = int(place * len(content))
        content[start : start + len(new)] = new
    path = tmp_path / name
    path.unlink(missing_ok=True)
    path.write_bytes(content[: int(length * len(content))] + bytes(max(0, int((length - 1) * len(content)))))
    try:
        index = open_index(path)
        key = SlabKey(index.identity, "denoiser")
        slab = Slab(key, plan_slab(key, entries_of(index)))
        fill_slab(slab)
    except WeightFileInvalid:
        return
    for info in index.tensors.values():
        assert info.start + info.nbytes <= path.stat().st_size
        assert slab.tensor(info.name).shape == info.shape
