import json

import pytest
import torch

from slam.io.tensor_file import DTYPES, read_header, read_tensors, write_tensors
from slam.networks.storage import WEIGHTS_DIR


def many() -> dict[str, torch.Tensor]:
    """One tensor of each type, one without axes, one without elements, one not contiguous."""
    g = torch.Generator().manual_seed(0)
    tensors = {name: (10 * torch.randn(2, 3, generator=g)).to(dtype) for name, dtype in DTYPES.items()}
    return tensors | {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "turned": torch.arange(15.0).view(3, 5).T,
    }


def test_tensors_and_metadata_come_back(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, many(), {"who": "ä"})
    assert read_header(path)[0] == {"who": "ä"}
    back = read_tensors(path)
    assert back.keys() == many().keys()
    for name, tensor in many().items():
        assert back[name].dtype == tensor.dtype and back[name].shape == tensor.shape
        assert torch.equal(back[name], tensor)


def test_the_format_is_that_of_the_library(tmp_path):
    """Files written here are read there, and the other way round."""
    library = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    tensors = {name: tensor.contiguous() for name, tensor in many().items()}
    write_tensors(tmp_path / "ours.safetensors", tensors, {"a": "b"})
    library.save_file(tensors, str(tmp_path / "theirs.safetensors"), metadata={"a": "b"})
    assert read_header(tmp_path / "theirs.safetensors")[0] == {"a": "b"}
    theirs, ours = library.load_file(str(tmp_path / "ours.safetensors")), read_tensors(tmp_path / "theirs.safetensors")
    for name, tensor in tensors.items():
        assert torch.equal(theirs[name], tensor) and torch.equal(ours[name], tensor)
    for shipped in WEIGHTS_DIR.glob("*.safetensors"):
        expected = library.load_file(str(shipped))
        assert all(torch.equal(expected[name], tensor) for name, tensor in read_tensors(shipped).items())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut off"),
        (b"\xff" * 64, "cut off"),
        (b"\x04" + bytes(7) + b"[12]", "no mapping"),
        (b"\x04" + bytes(7) + b"no{}", "Expecting value"),
        (b"\x0f" + bytes(7) + b'{"a":{"x":"y"}}', "damaged entry"),
    ],
)
def test_what_is_no_such_file_is_refused(data: bytes, message: str, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_tensors(path)


def test_a_shortened_file_is_refused(tmp_path):
    path = tmp_path / "short.safetensors"
    write_tensors(path, {"a": torch.zeros(9)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="tensor 'a' is cut off"):
        read_tensors(path)


def test_damage_anywhere_is_seen(tmp_path):
    """A file of before, without a checksum, is read as it is."""
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.arange(9.0), "b": torch.arange(6, dtype=torch.int32).view(2, 3)}, {"who": "me"})
    whole = path.read_bytes()
    for old, new in ((whole[-1:], b"\x7f"), (b'"me"', b'"my"'), (b"[2,3]", b"[3,2]"), (b'"a":', b'"c":')):
        path.write_bytes(new.join(whole.rsplit(old, 1)))
        with pytest.raises(ValueError, match="checksum is wrong"):
            read_tensors(path)
    path.write_bytes(whole.replace(b"crc32", b"notes"))
    assert torch.equal(read_tensors(path)["a"], torch.arange(9.0))


def entry(shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": "U8", "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({f"t{n}": entry([64], 0, 64) for n in range(9)}, "overlaps another"),  # each would take memory of its own
        ({"a": entry([10**15], 0, 10**15)}, "'a' is cut off"),
        ({"a": entry([-8, -8], 0, 64)}, "damaged entry"),
        ({"a": entry([60], 0, 60)}, "4 bytes belong to no tensor"),
        ({"a": entry([64], 0, 64), "__metadata__": [1]}, "metadata are no texts"),
        ({"a": entry([64], 0, 64), "__metadata__": {"format": {}}}, "metadata are no texts"),
        ({"a": {"dtype": "U8", "shape": 64, "data_offsets": [0, 64]}}, "damaged entry"),
        ({"a": [1]}, "damaged entry"),
    ],
)
def test_headers_that_lie_are_refused_before_memory_is_taken(tmp_path, header, message):
    text = json.dumps(header).encode()
    (tmp_path / "a").write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    with pytest.raises(ValueError, match=message):
        read_tensors(tmp_path / "a")
