"""What the folder of a saved model says of its class."""

import json
from pathlib import Path


def architecture_in(folder: str | Path) -> str | None:
    """The name of the class of the model in a folder; `None` if none is there that says so."""
    path = Path(folder).expanduser() / "config.json"
    if not path.is_file():
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8")).get("architectures")
    except (ValueError, AttributeError):
        # Whoever loads the model says what is wrong with its file.
        return None
    return str(said[0]) if said else None
