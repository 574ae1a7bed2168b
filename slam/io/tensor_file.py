"""Files of named tensors in the safetensors format, in plain Python: training machines may have little beside torch.

Format: eight bytes with the length of the header (little endian), a JSON header, the bytes of the tensors. Files that
are written here hold a checksum of all that among their metadata; those of others may have none.
Reference: https://github.com/huggingface/safetensors, section "Format".
"""

import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from slam.errors import shown
from slam.io.files import replacing
from slam.parsing import parse_json
from slam.reading import open_file

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MAX_HEADER = 64 << 20  # bytes; a longer one is no header
METADATA, CHECKSUM = "__metadata__", "crc32"  # the latter of the data, and then of the header without it


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors of any device by name, and texts by name. Replaces the file atomically.

    Raises:
        OutputError: if the file cannot be written.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {METADATA: dict(metadata or {})}
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # aligned
    end = checksum = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        checksum = zlib.crc32(_bytes_of(tensor), checksum)
    header[METADATA][CHECKSUM] = str(zlib.crc32(_encoded(header), checksum))
    text = _encoded(header)
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:  # one at a time: they can be large
            file.write(_bytes_of(tensor))


def read_header(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Metadata (texts by name), and the entries of the tensors by name.

    Raises:
        ValueError: if the file is not of this format.
        OSError: if it cannot be read.
    """
    with open_file(path) as file:
        header = _read_header(file)
    metadata = header.pop(METADATA)
    metadata.pop(CHECKSUM, None)
    return metadata, header


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Raises:
        ValueError: if the file is not of this format, or damaged.
        OSError: if it cannot be read.
    """
    with open_file(path) as file:
        header = _read_header(file)
        stated = header[METADATA].pop(CHECKSUM, None)
        tensors, checksum = {}, 0
        for name, dtype, shape, size in _layout(header, os.fstat(file.fileno()).st_size - file.tell()):
            data = bytearray(size)
            if file.readinto(data) != size:  # type: ignore[attr-defined]
                raise ValueError(f"tensor {name} is cut off")
            checksum = zlib.crc32(data, checksum)
            flat = torch.frombuffer(data, dtype=dtype) if size else torch.empty(0, dtype=dtype)
            tensors[name] = flat.reshape(shape)
    if stated is not None and stated != str(zlib.crc32(_encoded(header), checksum)):
        raise ValueError("its checksum is wrong")
    return tensors


def _read_header(file: BinaryIO) -> dict[str, Any]:
    """The header of a file, with its metadata; raises ValueError."""
    length = int.from_bytes(file.read(8), "little")
    text = file.read(length) if length <= min(MAX_HEADER, os.fstat(file.fileno()).st_size) else b""
    if len(text) != length or not text:
        raise ValueError("its header is cut off")
    header = parse_json(text)
    if not isinstance(header, dict):
        raise ValueError("its header is no mapping")
    metadata = header.setdefault(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are no texts")
    return header


def _layout(header: Mapping[str, Any], total: int) -> list[tuple[str, torch.dtype, list[int], int]]:
    """Name, type, shape and bytes of the tensors, in the order of the file.

    Raises:
        ValueError: unless they fill the `total` bytes behind the header, without a gap and without overlap.
    """
    entries = []
    for name, entry in header.items():
        if name == METADATA:
            continue
        try:
            dtype, shape = DTYPES[entry["dtype"]], [int(n) for n in entry["shape"]]
            begin, end = (int(n) for n in entry["data_offsets"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"tensor {shown(name)} has a damaged entry ({error})") from error
        if min(shape, default=0) < 0 or end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"tensor {shown(name)} has a damaged entry (its size is another)")
        entries.append((begin, end, name, dtype, shape))
    entries.sort(key=lambda entry: entry[:2])
    at = 0
    for begin, end, name, *_ in entries:
        if end > total:
            raise ValueError(f"tensor {shown(name)} is cut off")
        if begin != at:
            raise ValueError(f"tensor {shown(name)} overlaps another")
        at = end
    if at != total:
        raise ValueError(f"{total - at} bytes belong to no tensor")
    return [(name, dtype, shape, end - begin) for begin, end, name, dtype, shape in entries]


def _encoded(header: Mapping[str, Any]) -> bytes:
    """A header as text, the same whoever wrote it."""
    return json.dumps(header, separators=(",", ":")).encode()


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
