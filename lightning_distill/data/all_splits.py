"""The splits that a data set lacks, made of those that it has."""

import logging

import datasets
import torch

log = logging.getLogger("lightning_distill")


def all_splits(
    splits: dict[str, datasets.Dataset], validation_fraction: float, seed: int, name: str
) -> dict[str, datasets.Dataset]:
    """The splits `train`, `validation` and `test`.

    Args:
        splits: `train`, and what else there is.
        validation_fraction: cut from the training rows if there is no validation split.
        seed: of the choice of these rows.
        name: of the data module, for errors.

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
        order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
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
