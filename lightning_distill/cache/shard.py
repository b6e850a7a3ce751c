"""One file of rows: columns in the safetensors format, read through a memory map."""

import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ..sealed import write_whole

# Names in the format, and how numpy and torch hold them; numpy lacks the short floats.
TYPES: dict[str, tuple[Any, torch.dtype]] = {
    "F64": (np.float64, torch.float64),
    "F32": (np.float32, torch.float32),
    "F16": (np.float16, torch.float16),
    "BF16": (np.uint16, torch.bfloat16),
    "F8_E4M3": (np.uint8, torch.float8_e4m3fn),
    "I64": (np.int64, torch.int64),
    "I32": (np.int32, torch.int32),
    "I16": (np.int16, torch.int16),
    "U8": (np.uint8, torch.uint8),
}


AGAIN = (
    "Give the command that made the cache again: it checks every file and writes what is damaged."
)


class DamagedCacheError(ValueError):
    """A file of a cache is not what was written."""


def write_shard(path: Path, columns: Mapping[str, Tensor], of: str | None = None) -> dict[str, Any]:
    """Write columns; returns what a manifest keeps of the file, to know it again.

    Those are its `file` name, `bytes`, `sha256` and `header`, the SHA-256 of the part that says
    where the columns are.

    Args:
        path: of the file.
        columns: by name.
        of: the signature of the teacher and of what is kept, for files that [`whole_shard`][] finds
            before there is a manifest.
    """
    content = save({name: tensor.contiguous() for name, tensor in columns.items()})
    if of is not None:
        end = _header_length(content)
        places, data = json.loads(content[8:end]), content[end:]
        content = _header(places, _labels(path.name, of, places, data)) + data
    write_whole(path, content)
    return _facts(path.name, content)


def whole_shard(path: Path, of: str) -> dict[str, Any] | None:
    """The facts of a shard, with its `rows`; `None` if it is not what was written.

    The file itself holds a checksum of its content, its name and the signature, so that a file
    which was damaged, renamed or written for another cache is known.

    Args:
        path: of the shard.
        of: the signature of the teacher and of what is kept.
    """
    try:
        content = path.read_bytes()
        end = _header_length(content)
        places, data = json.loads(content[8:end]), content[end:]
        del places["__metadata__"]
        rows = places["id"]["shape"][0]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if content[:end] != _header(places, _labels(path.name, of, places, data)):
        return None
    return _facts(path.name, content) | {"rows": rows, "of": of}


def _labels(name: str, of: str, places: Mapping[str, Any], data: bytes) -> dict[str, str]:
    digest = hashlib.sha256(json.dumps(places, sort_keys=True).encode())
    digest.update(data)
    return {"file": name, "of": of, "sha256": digest.hexdigest()}


def _header(places: Mapping[str, Any], labels: Mapping[str, str]) -> bytes:
    """The first part of a file in the safetensors format: its length, and where the columns are."""
    text = json.dumps({"__metadata__": labels, **places}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _facts(name: str, content: bytes) -> dict[str, Any]:
    return {
        "file": name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "header": hashlib.sha256(content[: _header_length(content)]).hexdigest(),
    }


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _header_length(content: Any) -> int:
    return 8 + int.from_bytes(content[:8], "little")


class Shard:
    """The columns of a file, read where they are asked for and nowhere else.

    Args:
        path: of the file.
        facts: what `write_shard` returned for it.

    Raises:
        DamagedCacheError: if the file is missing, has another size or another header.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]):
        self.path = path
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != facts["bytes"]:
                    raise DamagedCacheError(
                        f"{path} has {size:,} bytes, but {facts['bytes']:,} were written."
                    )
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise DamagedCacheError(f"{path} is missing.") from error
        end = _header_length(self._map)
        if hashlib.sha256(self._map[: min(end, size)]).hexdigest() != facts["header"]:
            raise DamagedCacheError(f"The header of {path} is not what was written.")
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_RANDOM)
        self._types: dict[str, torch.dtype] = {}
        self._columns: dict[str, np.ndarray] = {}
        for name, column in json.loads(self._map[8:end]).items():
            if name == "__metadata__":
                continue
            kind, dtype = TYPES[column["dtype"]]
            start, stop = column["data_offsets"]
            count = (stop - start) // np.dtype(kind).itemsize
            # numpy reads no empty part of a buffer.
            flat = np.empty(0, kind)
            if count:
                flat = np.frombuffer(self._map, dtype=kind, count=count, offset=end + start)
            self._types[name] = dtype
            self._columns[name] = flat.reshape(column["shape"])
        self._read = 0

    def __getitem__(self, name: str) -> np.ndarray:
        """A whole column, still on disk; short floats as whole numbers of their size."""
        return self._columns[name]

    @property
    def columns(self) -> list[str]:
        """The names of all columns."""
        return list(self._columns)

    def take(self, name: str, rows: np.ndarray) -> Tensor:
        """Some rows of a column, in memory."""
        return _as_tensor(self._columns[name][rows], self._types[name])

    def take_range(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of a column, in memory."""
        return _as_tensor(self._columns[name][start:stop].copy(), self._types[name])

    def release(self) -> None:
        """Give the pages that were read back to the system, which may still keep them in reach."""
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _as_tensor(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(values)
    return tensor if tensor.dtype == dtype else tensor.view(dtype)
