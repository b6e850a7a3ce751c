"""A data set of the Hugging Face hub, or a local folder in its layout."""

from collections.abc import Mapping
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


def load_splits(
    path: str, name: str | None, revision: str | None, names: Mapping[str, str | None]
) -> dict[str, datasets.Dataset]:
    """Those of its splits that a run uses, by what the run calls them.

    Args:
        path: as for [`load_from_hub`][].
        name: the same.
        revision: the same.
        names: from `train`, `validation` and `test` to the names that the data set has for them;
            `None` for a split that is not used.

    Raises:
        FileNotFoundError: if it cannot be reached.
        ValueError: for a split that there is not.
    """
    found, splits = load_from_hub(path, name, revision), {}
    for split, own in names.items():
        if own is None:
            continue
        if own not in found:
            # The defaults of validation and test may be absent; a name that was chosen not.
            if split == "train" or own != split:
                raise ValueError(
                    f"{path} has no split {own!r} (data.{split}); it has {', '.join(found)}."
                )
            continue
        splits[split] = found[own]
    return splits
