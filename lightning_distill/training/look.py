"""Figures of both models on a few rows, while a training has not taken a step yet."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ..metrics.traits import reads_texts
from .evaluation import Evaluation
from .ranks import sum_over_ranks
from .transfer import transferred
from .trial import without_a_trace


class Look(Evaluation):
    """What a test measures, of a few batches; its figures are returned, and not logged.

    Metrics that read texts are left out: a model would have to write these.

    Args:
        module: a [`DistillationModule`][] within its trainer, whose objective was tried.
    """

    def __init__(self, module: Any):
        super().__init__(module, "test", 1)
        self._values: dict[str, float] = {}
        self._fed: dict[str, Metric] = {}

    def of(self, batches: Iterable[Any], data: Any) -> dict[str, float]:
        """Every term and metric, by the name under which a test logs it.

        The models, the metrics and the random numbers are afterwards what they were. Each process
        must call it with as many batches.

        Args:
            batches: as their loader gives them.
            data: the data module.
        """
        module = self.module
        try:
            with without_a_trace(module), torch.no_grad(), module.autocast():
                for batch in batches:
                    self.step(transferred(module, batch, data))
                with module.objective.evaluating():
                    if module.objective.terms:
                        self._log_means()
                self._compute()
        finally:
            for name in ("test", "teacher"):
                for metric in module.metrics[name].values():
                    metric.reset()
        return self._values

    def _compute(self) -> None:
        if not self._fed:
            return
        times = torch.tensor([float(m.update_count) for m in self._fed.values()])
        times = sum_over_ranks(self.module.trainer, times.to(self.module.device))
        for (name, metric), count in zip(self._fed.items(), times.tolist(), strict=True):
            if count:
                self._values[name] = float(metric.compute())

    def _metrics(self, of: str, loader: int) -> dict[str, Metric]:
        own = super()._metrics(of, loader)
        return {name: metric for name, metric in own.items() if not reads_texts(metric)}

    def _log_metric(self, shown: str, metric: Metric, of: str, name: str, loader: int) -> None:
        self._fed[shown] = metric

    def _log(self, name: str, value: Tensor, loader: int) -> None:
        self._values[name] = float(value)
