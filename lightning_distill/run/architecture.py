"""What the folder of a saved model says of its class."""

import json
from pathlib import Path
from typing import Any


def config_in(folder: Any) -> dict[str, Any]:
    """The configuration of the model in a folder; empty if there is none that can be read."""
    path = None if folder is None else Path(str(folder)).expanduser() / "config.json"
    if path is None or not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        # Whoever loads the model says what is wrong with its file.
        return {}
    return said if isinstance(said, dict) else {}


def architecture_in(folder: Any) -> str | None:
    """The name of the class of the model in a folder; `None` if none is there that says so."""
    said = config_in(folder).get("architectures")
    return str(said[0]) if isinstance(said, list) and said else None
