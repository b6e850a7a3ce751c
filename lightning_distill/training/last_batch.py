"""The last batch of an epoch, which may have one row alone."""

from typing import Any

import torch
from torch.utils.data import DataLoader

from ..models.batch import batch_size, first_rows
from ..models.modes import modes_kept


def last_rows(loader: Any) -> int | None:
    """How many rows the last batch of a loader has; `None` if the loader does not say."""
    if not isinstance(loader, DataLoader) or loader.batch_size is None or loader.drop_last:
        return None
    try:
        rows = len(loader.sampler)  # type: ignore[arg-type]
    except TypeError:
        return None
    return rows % loader.batch_size or loader.batch_size


@torch.no_grad()
def check_last_batch(module: Any, batch: Any, loader: Any) -> None:
    """Refuse a last batch of one row where the student cannot be trained on one.

    A batch norm has no variance of one value per channel, and torch says so when the epoch is over.

    Args:
        module: the [`DistillationModule`][] that will be trained.
        batch: any batch of more rows, on the module's device; its first row is tried.
        loader: of the training.
    """
    if last_rows(loader) != 1 or batch_size(batch) < 2:
        return
    student = module.student
    buffers = {buffer: buffer.clone() for buffer in student.buffers()}
    try:
        with modes_kept(student), torch.random.fork_rng(), module.autocast():
            if not any(part.training for part in student.modules()):
                student.train()
            module.student_forward(first_rows(batch))
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"The last batch of each epoch has one row ({len(loader.sampler)} rows in batches of "
            f"{loader.batch_size}), and {type(student).__name__} cannot be trained on one: "
            f"{str(error).splitlines()[0]} Take another batch size, or leave that batch out: "
            "DataLoader(..., drop_last=True)."
        ) from error
    finally:
        for buffer, state in buffers.items():
            buffer.copy_(state)
