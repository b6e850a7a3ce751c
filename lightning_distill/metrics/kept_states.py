"""The states of all metrics of a test after each of its rows, and the one way to feed a metric."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric

from ..models.batch import batch_size, row_numbers
from .row_interval import Interval, interval_of_rows, interval_of_units
from .row_states import RowStates
from .traits import units_of


class KeptStates:
    """What each test row adds to each metric.

    Args:
        metrics: by the names under which their intervals are known.
    """

    def __init__(self, metrics: Mapping[str, Metric]):
        self.metrics = dict(metrics)
        self._states = {name: RowStates(metric) for name, metric in metrics.items()}
        # By identity: metrics hash by what they hold.
        self._of = {id(metric): self._states[name] for name, metric in metrics.items()}
        self._keys: list[int] = []
        self._rows = 0

    def begin(self, batch: Any) -> None:
        """Say what the metrics are fed with next."""
        numbers = row_numbers(batch)
        if numbers is None:
            ranks, rank = 1, 0
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                ranks, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
            rows = batch_size(batch)
            self._keys = [(self._rows + i) * ranks + rank for i in range(rows)]
            self._rows += rows
        else:
            self._keys = numbers.tolist()

    def add(
        self,
        metric: Metric,
        rows: Int[Tensor, " samples"],
        args: Sequence[Any],
        named: Mapping[str, Any],
    ) -> None:
        """Keep what a metric was given, if it is one of these; see `RowStates.add`."""
        states = self._of.get(id(metric))
        if states is not None:
            states.add(self._keys, rows, args, named)

    def gather(self) -> None:
        """Put those of all processes together; every one of them must call it."""
        self._states = {name: states.whole() for name, states in self._states.items()}

    def intervals(self, values: Mapping[str, float]) -> dict[str, Interval]:
        """The 95 % intervals of those metrics that have one, by name.

        Args:
            values: of the metrics on all rows, after they were computed.
        """
        found = {}
        for name, value in values.items():
            if name not in self._states:
                continue
            units = units_of(self.metrics[name])
            if units is None:
                interval = interval_of_rows(self._states[name], value)
            else:
                interval = interval_of_units(units)
            if interval is not None:
                found[name] = interval
        return found


def give(
    metric: Metric,
    rows: Int[Tensor, " samples"],
    args: Sequence[Any],
    named: Mapping[str, Any],
    kept: KeptStates | None = None,
) -> None:
    """Feed a metric, and keep what each row adds to it.

    Args:
        metric: any.
        rows: of each sample, the place of its row in the batch.
        args: of `update`.
        named: the same by keyword.
        kept: where the states of rows are kept; by default they are not.
    """
    metric.update(*args, **named)
    if kept is not None:
        kept.add(metric, rows, args, named)
