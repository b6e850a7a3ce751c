"""Files of a folder that name others, which may have come from elsewhere."""

import json
from pathlib import Path
from typing import Any


def file_in(folder: Path, name: Any, named_by: str) -> Path:
    """A file by the name that another one gives it, which must lie in the same folder.

    Args:
        folder: that holds both.
        name: what is written there.
        named_by: the file that says so, for the error.

    Raises:
        ValueError: for a path that leads out of the folder, by itself or by a link.
    """
    if isinstance(name, str) and name and "\0" not in name:
        path = folder / name
        real, home = path.resolve(), folder.resolve()
        # In the cache of the Hugging Face hub each file is a link to its content.
        content = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
        if real.is_relative_to(home) or (".." not in path.parts and real.is_relative_to(content)):
            return path
    raise ValueError(
        f"{folder / named_by} names the file {name!r}, which does not lie in {folder}: only files "
        "of the same folder are read."
    )


def check_model_files(folder: Path) -> None:
    """Refuse the folder of a saved model of which a file would be read from elsewhere.

    Raises:
        ValueError: naming the file.
    """
    for path in [*folder.glob("*.json"), *folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        file_in(folder, path.name, "")
    for index in folder.glob("*.index.json"):
        try:
            weights = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = set(weights.values())
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{index} does not say in which files the weights are ({type(error).__name__}: "
                f"{error}). Save the model again, with save_pretrained."
            ) from error
        for name in names:
            file_in(folder, name, index.name)
