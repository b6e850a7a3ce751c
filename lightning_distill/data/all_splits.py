"""The splits that a data set lacks, made of those that it has."""

import logging
from collections.abc import Sequence

import datasets
import torch

log = logging.getLogger("lightning_distill")


def all_splits(
    splits: dict[str, datasets.Dataset],
    validation_fraction: float,
    seed: int,
    name: str,
    together: str | None = None,
) -> dict[str, datasets.Dataset]:
    """The splits `train`, `validation` and `test`.

    Args:
        splits: `train`, and what else there is.
        validation_fraction: cut from the training rows if there is no validation split.
        seed: of the choice of these rows.
        name: of the data module, for errors.
        together: a column of which all rows with one value are on one side of the cut.

    Raises:
        ValueError: if there is no training split, or a split has no rows or would have none.
    """
    splits = dict(splits)
    if "train" not in splits:
        raise ValueError(
            f"{name}.load() must give a split `train`, got {', '.join(splits) or 'none'}."
        )
    for split, rows in splits.items():
        if len(rows) == 0:
            raise ValueError(f"The {split} data has no rows.")
    if "validation" not in splits:
        total = len(splits["train"])
        held = round(total * validation_fraction)
        if not 0 < held < total:
            raise ValueError(
                f"There is no validation data, and {validation_fraction:.0%} of the "
                f"{total} training rows is {held}: name a validation file, or bring more rows."
            )
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(total, generator=generator)
        if together is not None:
            order, held = _groups(splits["train"][together], held, generator)
        log.info("no validation data: %d training rows are held out for it", held)
        train = splits["train"]
        splits["validation"] = train.select(sorted(order[:held].tolist()))
        splits["train"] = train.select(sorted(order[held:].tolist()))
    if "test" not in splits:
        log.warning(
            "no test data: the validation rows are used, which chose the best student; "
            "its figures will be too good"
        )
        splits["test"] = splits["validation"]
    return {split: splits[split] for split in ("train", "validation", "test")}


def _groups(
    values: Sequence[str], held: int, generator: torch.Generator
) -> tuple[torch.Tensor, int]:
    """Rows in an order in which equal values follow each other, and how many of them to hold out.

    Raises:
        ValueError: if all rows have one value.
    """
    groups: dict[str, list[int]] = {}
    for i, value in enumerate(values):
        groups.setdefault(value, []).append(i)
    if len(groups) < 2:
        raise ValueError(
            "There is no validation data, and all training rows are of one text: name a validation "
            "file."
        )
    own = list(groups.values())
    order = torch.randperm(len(own), generator=generator).tolist()
    count, rows = 0, 0
    while (rows < held and count < len(own) - 1) or not count:
        rows += len(own[order[count]])
        count += 1
    return torch.tensor([row for i in order for row in own[i]]), rows
