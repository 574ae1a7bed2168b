"""Files of named tensors in the safetensors format, in plain Python: training machines may have little beside torch.

Format: eight bytes with the length of the header (little endian), a JSON header, the bytes of the tensors.
Reference: https://github.com/huggingface/safetensors, section "Format".
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slam.parsing import parse_json

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
MAX_HEADER = 100_000_000  # bytes; a longer one is no header


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors of any device by name, and texts by name. Replaces the file atomically.

    Raises:
        OSError: if the file cannot be written.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # aligned
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:  # one at a time: they can be large
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    partial.replace(path)


def read_header(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Metadata, and the entries of the tensors by name.

    Raises:
        ValueError: if the file is not of this format.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= MAX_HEADER else b""
    if len(text) != length or not text:
        raise ValueError("its header is cut off")
    header = parse_json(text)
    if not isinstance(header, dict):
        raise ValueError("its header is no mapping")
    return header.pop("__metadata__", {}), header


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Raises:
        ValueError: if the file is not of this format, or damaged.
        OSError: if it cannot be read.
    """
    _, header = read_header(path)
    data = path.read_bytes()
    data = data[8 + int.from_bytes(data[:8], "little") :]
    tensors = {}
    for name, entry in header.items():
        try:
            dtype, shape = DTYPES[entry["dtype"]], [int(n) for n in entry["shape"]]
            begin, end = (int(n) for n in entry["data_offsets"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"tensor {name} has a damaged entry ({error})") from error
        if (
            min(shape, default=0) < 0
            or not 0 <= begin <= end <= len(data)
            or end - begin != math.prod(shape) * dtype.itemsize
        ):
            raise ValueError(f"tensor {name} is cut off")
        flat = torch.frombuffer(bytearray(data[begin:end]), dtype=dtype) if end > begin else torch.empty(0, dtype=dtype)
        tensors[name] = flat.reshape(shape)
    return tensors
