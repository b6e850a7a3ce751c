"""The teacher's heads, kept once beside the hidden states that its logits follow from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..models.head import Head
from .shard import DamagedCacheError, sha256_of, Shard, write_shard

FILE = "heads.safetensors"


def write_heads(folder: Path, heads: Mapping[str, Head]) -> dict[str, Any] | None:
    """Write heads by their paths; returns what a manifest keeps of the file, `None` of none."""
    columns: dict[str, Tensor] = {}
    for path, head in heads.items():
        # Copied: a file holds no two tensors that share memory, as tied heads do.
        columns[f"{path}/weight"] = head.weight.detach().cpu().clone()
        if head.bias is not None:
            columns[f"{path}/bias"] = head.bias.detach().cpu().clone()
    if not columns:
        return None
    made = {path: {"scale": head.scale, "softcap": head.softcap} for path, head in heads.items()}
    return write_shard(folder / FILE, columns) | {"heads": made}


def read_heads(folder: Path, facts: Mapping[str, Any]) -> dict[str, Head]:
    """The heads of a cache by their paths, once it is seen that they are what was written.

    Raises:
        DamagedCacheError: if they are not.
    """
    file = Shard(folder / facts["file"], facts)
    if sha256_of(file.path) != facts["sha256"]:
        raise DamagedCacheError(f"{file.path} is damaged: its checksum differs.")

    def whole(name: str) -> Tensor | None:
        return file.take_range(name, 0, len(file[name])) if name in file.columns else None

    found = {}
    for path, made in facts["heads"].items():
        weight = whole(f"{path}/weight")
        assert weight is not None
        found[path] = Head(weight, whole(f"{path}/bias"), made["scale"], made["softcap"])
    return found
