"""JSON with a checksum of itself, so that what was changed is never believed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..sealed import write_whole
from .shard import AGAIN, DamagedCacheError


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with a checksum of itself."""
    # As it will be read: a key that is a number would be a word, and sorted otherwise.
    content = json.loads(json.dumps(content))
    signed = {**content, "checksum": _checksum(content)}
    write_whole(path, json.dumps(signed, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedCacheError: if it is not what was written.
    """
    try:
        content = json.loads(path.read_bytes())
        checksum = content.pop("checksum")
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise DamagedCacheError(f"{path} is damaged. {AGAIN}") from error
    if checksum != _checksum(content):
        raise DamagedCacheError(f"{path} is damaged: its checksum differs. {AGAIN}")
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
