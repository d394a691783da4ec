import io
import os
import pickle
import zipfile

import pytest
import torch

from comfy.errors import WeightFileInvalid, WeightFileMissing
from comfy.weights.fill import fill_slab
from comfy.weights.header import open_index, read_pickle
from comfy.weights.slab import Slab, plan_slab
from tests.fakes import entries_of, key_of

TENSORS = {"a": torch.arange(12.0).view(3, 4), "half": torch.tensor([1.5, -2.0]).half(), "tail": torch.arange(10)[4:7]}


class Attack:
    """Pickles as a call of os.mkdir."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: {"state_dict": t, "global_step": 7}, lambda t: {"only": t}], ids=["plain", "state_dict", "nested"]
)
def test_pickles_fill_a_slab_like_any_file(tmp_path, wrap, new_format):
    path = tmp_path / "model.ckpt"
    strided = torch.arange(6.0).view(2, 3).t()
    torch.save(wrap({**TENSORS, "strided": strided, "step": 3}), path, _use_new_zipfile_serialization=new_format)
    index = open_index(path)
    assert {name: (info.dtype, info.shape) for name, info in index.tensors.items()} == {
        name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in {**TENSORS, "strided": strided}.items()
    }
    slab = Slab(key_of(path), plan_slab(key_of(path), entries_of(index)))
    fill_slab(slab)
    for name, tensor in {**TENSORS, "strided": strided}.items():
        assert torch.equal(slab.tensor(name), tensor), name


def test_tensors_of_an_archive_are_read_from_their_places(tmp_path):
    torch.save(TENSORS, tmp_path / "model.pt")
    raw = (tmp_path / "model.pt").read_bytes()
    for name, info in open_index(tmp_path / "model.pt").tensors.items():
        assert raw[info.start : info.start + info.nbytes] == TENSORS[name].numpy().tobytes()


def test_read_pickle_gives_tensors_and_the_plain_values_beside_them(tmp_path):
    torch.save({"state_dict": {"w": torch.nn.Parameter(torch.ones(2))}, "global_step": 7, "name": "n"}, tmp_path / "a.pth")
    tensors, metadata = read_pickle(tmp_path / "a.pth")
    assert torch.equal(tensors["w"], torch.ones(2))
    assert not tensors["w"].requires_grad
    assert metadata == {"global_step": "7", "name": "n"}


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not(tmp_path, new_format):
    path, made = tmp_path / "evil.ckpt", tmp_path / "made-by-the-pickle"
    torch.save({"w": torch.ones(1), "x": Attack(str(made))}, path, _use_new_zipfile_serialization=new_format)
    for ask in (open_index, read_pickle):
        with pytest.raises(WeightFileInvalid, match="never run"):
            ask(path)
    path.write_bytes(pickle.dumps(Attack(str(made)), protocol=2))
    for ask in (open_index, read_pickle):
        with pytest.raises(WeightFileInvalid):
            ask(path)
    assert not made.exists()
    pickle.loads(path.read_bytes())  # the attack itself is sound: Python's own unpickler runs it
    assert made.is_dir()


def _truncated_archive():
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer)
    return buffer.getvalue()[:-200]


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02.", b"random bytes", b"\x80\x02}q\x00", _truncated_archive()], ids=["empty", "stop", "text", "cut", "zip"]
)
def test_broken_pickles_are_typed_errors(tmp_path, content):
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    for ask in (open_index, read_pickle):
        with pytest.raises(WeightFileInvalid) as caught:
            ask(path)
        assert caught.value.facts["file"] == "broken.pt"


def test_a_pickle_without_a_dictionary_is_refused(tmp_path):
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(WeightFileInvalid, match="dictionary"):
        open_index(tmp_path / "tensor.pt")


def test_a_compressed_archive_is_refused(tmp_path):
    torch.save(TENSORS, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as plain, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    with pytest.raises(WeightFileInvalid, match="compressed"):
        open_index(tmp_path / "b.pt")


def test_a_missing_pickle_is_missing(tmp_path):
    for ask in (open_index, read_pickle):
        with pytest.raises(WeightFileMissing):
            ask(tmp_path / "none.ckpt")
