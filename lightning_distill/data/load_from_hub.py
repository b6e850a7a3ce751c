"""A data set of the Hugging Face hub, or a local folder in its layout."""

from pathlib import Path
from typing import Any

import datasets


def load_from_hub(path: str, name: str | None = None, revision: str | None = None) -> Any:
    """The splits of a data set by their names.

    Args:
        path: the data set's name, or a folder; also one that `save_to_disk` wrote.
        name: its configuration, if it has several.
        revision: a commit or tag.

    Raises:
        FileNotFoundError: if it cannot be reached.
    """
    folder = Path(path).expanduser()
    if (folder / "dataset_dict.json").is_file():
        return datasets.load_from_disk(str(folder))
    try:
        return datasets.load_dataset(path, name, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        raise FileNotFoundError(
            f"The data set {path!r}{f' ({name})' if name else ''} could not be "
            f"loaded: {str(error).splitlines()[0]} Without a network, give a local folder."
        ) from error
