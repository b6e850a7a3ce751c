"""Validation and test: metrics are fed, and the mean of every term is taken over all rows."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn, Tensor
from torchmetrics import Metric

from ..metrics import check_pairs, feed_texts, KeptStates, Samples, teacher_batch
from ..metrics.traits import batch_entries, needs_teacher, parts_of, reads_texts, sources_of
from ..models.batch import (
    batch_size,
    counted_rows,
    entry,
    labels_of,
    take_rows,
    with_entries,
)
from ..models.inputs import named
from ..models.source import Source
from ..objective.names import check_name
from ..objective.normalisation import Means
from .metric_sources import as_of_teacher, feed_sources, sources_of_metrics, told_by_teacher
from .monitored import check_measured
from .rows_of_test import RowsOfTest


def metrics_of_stages(
    metrics: Mapping[str, Metric] | Metric | None, logged: Collection[str]
) -> nn.ModuleDict:
    """The metrics of validation, of test, and of the teacher in a test; each has its own state.

    Args:
        metrics: by name, or one of them.
        logged: names of terms, under which no metric can be logged.

    Raises:
        ValueError: for a name that cannot be used.
    """
    if isinstance(metrics, Metric):
        metrics = {type(metrics).__name__.lower(): metrics}
    metrics = {name: metric for name, metric in (metrics or {}).items() if metric is not None}
    for name in metrics:
        check_name("metric", name)
    twice = ", ".join(name for name in metrics if name in logged)
    if twice:
        raise ValueError(
            f"{twice} is the name of a term and of a metric, and both are logged by name. Give "
            "the metric another, as in +metrics.measured._target_=CLASS metrics.NAME=null."
        )
    return nn.ModuleDict(
        {
            stage: nn.ModuleDict({name: metric.clone() for name, metric in metrics.items()})
            for stage in ("val", "test", "teacher")
        }
    )


def parts_of_test(metrics: nn.ModuleDict) -> dict[str, dict[str, float]]:
    """What the metrics of a test are made of, by their names; the teacher's begin with `teacher_`.

    Args:
        metrics: those of all stages, after the test.
    """
    found = {name: parts_of(metric) for name, metric in metrics_of_test(metrics).items()}
    return {name: parts for name, parts in found.items() if parts}


def metrics_of_test(metrics: nn.ModuleDict) -> dict[str, Metric]:
    """The metrics of a test by the names under which it logs them; the teacher's begin so.

    Args:
        metrics: those of all stages.
    """
    return {
        f"{begin}{name}": metric
        for stage, begin in (("test", ""), ("teacher", "teacher_"))
        for name, metric in dict(metrics[stage].items()).items()  # type: ignore[union-attr,operator]
    }


class Evaluation:
    """What is measured in one pass over the loaders of a stage.

    The first loader's figures are logged as `val/NAME`, those of the next as
    `val/NAME/dataloader_idx_1` and so on.

    Args:
        module: the [`DistillationModule`][] that is measured.
        stage: `val` or `test`.
        loaders: how many loaders it has.
    """

    def __init__(self, module: Any, stage: str, loaders: int):
        self.module, self.stage = module, stage
        self._told_by_teacher: list[str] | None = None
        keeps = stage == "test" and module.keeps_test_rows
        self._kept = {name: RowsOfTest() for name in ("student", "teacher")} if keeps else {}
        self._states = KeptStates(metrics_of_test(module.metrics)) if keeps else None
        with module.objective.evaluating():
            self.means = [Means(len(module.objective.terms)) for _ in range(loaders)]
        for i in range(1, loaders):
            self._add_metrics(i)

    def _add_metrics(self, loader: int) -> None:
        metrics = self.module.metrics
        for first in (self.stage, "teacher"):
            if f"{first}_{loader}" not in metrics:
                more = {name: metric.clone() for name, metric in metrics[first].items()}
                metrics[f"{first}_{loader}"] = nn.ModuleDict(more).to(self.module.device)

    def step(self, batch: Any, loader: int = 0) -> None:
        """Measure one batch."""
        with self.module.objective.evaluating():
            self._step(batch, loader)

    def _step(self, batch: Any, loader: int) -> None:
        module, metrics = self.module, self._metrics(self.stage, loader)
        batch = named(batch, module.student)
        if self._states is not None:
            self._states.begin(batch)
        compared = self.stage == "test" or any(map(needs_teacher, metrics.values()))
        values, student, teacher = module.read_sources(
            batch,
            with_teacher=compared and module.teacher is not None,
            heads="whole" if metrics else "skipped",
            more=self._more_sources(loader, batch),
        )
        rows = counted_rows(batch)
        if rows is None or rows.any():
            if rows is not None:
                values = {s: take_rows(v, rows) for s, v in values.items()}
            if module.objective.prepared and module.objective.terms:
                counted = batch_size(batch) if rows is None else int(rows.sum())
                _, means = module.objective.measure(values)
                self.means[loader].add(means, module.objective.count(values, counted))
            self._update_metrics(loader, batch, rows, student, teacher)
            self._feed_sources(loader, batch, rows, values)
        # On every rank, whatever its rows are: the others wait for it.
        self._log_metrics(loader, batch, student, teacher)

    def end(self) -> None:
        """Log the mean of every term over all rows of each loader that count in it.

        Raises:
            ValueError: if what chooses the best weights was measured on nothing.
        """
        expected, found = self._measured()
        with self.module.objective.evaluating():
            if self.module.objective.prepared and self.module.objective.terms:
                expected.append(f"{self.stage}/loss")
                found |= self._log_means()
        check_measured(self.module.trainer, self.stage, expected, found)
        if self._kept:
            whole = {name: kept.whole() for name, kept in self._kept.items()}
            self.module.test_rows = {name: rows for name, rows in whole.items() if rows}
        if self._states is not None:
            self._states.gather()
            self.module.test_states = self._states

    def _measured(self) -> tuple[list[str], set[str]]:
        """The names of all metrics of the student, and of those that were given anything."""
        metrics = {
            _of_loader(f"{self.stage}/{name}", loader): metric
            for loader in range(len(self.means))
            for name, metric in self._metrics(self.stage, loader).items()
        }
        times = torch.tensor([m.update_count for m in metrics.values()], device=self.module.device)
        if metrics:
            times = self.module.trainer.strategy.reduce(times, reduce_op="sum")
        return list(metrics), {n for n, t in zip(metrics, times.tolist(), strict=True) if t}

    def _log_means(self) -> set[str]:
        objective, found = self.module.objective, set()
        weights = objective.weights()
        for loader, own in enumerate(self.means):
            sums = own.sums.to(self.module.device)
            means, there = own.of(self.module.trainer.strategy.reduce(sums, reduce_op="sum"))
            values = {
                name: mean for name, mean, any_ in zip(weights, means, there, strict=True) if any_
            }
            if not values:
                continue
            total = torch.zeros((), device=sums.device)
            for name, value in values.items():
                total += weights[name] * value
            # Not one that no row counts in.
            for name, value in {**values, **objective.summed(values)}.items():
                self._log(f"{self.stage}/{name}", value, loader)
            self._log(f"{self.stage}/loss", total, loader)
            found.add(f"{self.stage}/loss")
        return found

    def _log(self, name: str, value: Tensor, loader: int) -> None:
        # Equal on every rank already; Lightning warns of what is not marked so.
        self.module.log(_of_loader(name, loader), value, sync_dist=True, add_dataloader_idx=False)

    def _update_metrics(
        self, loader: int, batch: Any, rows: Tensor | None, student: Any, teacher: Any
    ) -> None:
        module, metrics = self.module, self._metrics(self.stage, loader)
        if not metrics:
            return
        batch = self._with_labels_that_follow(batch)
        predicted, of_teacher = module.predictions(student), None
        if teacher is not None and any(map(needs_teacher, metrics.values())):
            check_pairs(batch, predicted, metrics)
            of_teacher = module.predictions(teacher)
        found, task = metrics.values(), module.task
        for samples in Samples.of(batch, predicted, of_teacher, rows, found, task):
            for metric in metrics.values():
                samples.feed(metric, self._states)
            self._keep("student", loader, samples, batch, rows)
        own, metrics = self._teacher_metrics(loader, batch, student, teacher)
        if metrics:
            taught = module.predictions(teacher)
            for samples in Samples.of(own, taught, None, rows, metrics.values(), task):
                for metric in metrics.values():
                    samples.feed(metric, self._states)
                self._keep("teacher", loader, samples, own, rows)
        self._update_texts(loader, batch, rows, own, metrics)

    def _keep(
        self, name: str, loader: int, samples: Samples, batch: Any, rows: Tensor | None
    ) -> None:
        if name in self._kept and loader == 0:
            self._kept[name].add(samples, batch, rows)

    def _more_sources(self, loader: int, batch: Any) -> list[Source]:
        """What metrics name of the models; in a test also where the teacher tells the same."""
        module, there = self.module, self.module.teacher is not None
        found = sources_of_metrics(self._metrics(self.stage, loader).values(), there)
        if self.stage != "test" or not there:
            return found
        own = self._metrics("teacher", loader)
        if self._told_by_teacher is None:
            self._told_by_teacher = told_by_teacher(module, batch, own)
        told = [s for name in self._told_by_teacher for s in as_of_teacher(own[name]).values()]
        return [*found, *(source for source in told if source.role == "teacher")]

    def _feed_sources(self, loader: int, batch: Any, rows: Tensor | None, values: Any) -> None:
        """Feed the metrics that name what they read, and in a test those of the teacher alone."""
        for metric in self._metrics(self.stage, loader).values():
            there = self.module.teacher is not None or not needs_teacher(metric)
            if sources_of(metric) and there:
                feed_sources(metric, values, batch, rows, kept=self._states)
        for name in self._told_by_teacher or ():
            metric = self._metrics("teacher", loader)[name]
            feed_sources(metric, values, batch, rows, True, self._states)

    def _update_texts(
        self, loader: int, batch: Any, rows: Tensor | None, own: Any, of_teacher: dict[str, Metric]
    ) -> None:
        """Feed what reads texts that a model writes: of the student, and in a test of both."""
        module, metrics = self.module, self._metrics(self.stage, loader).values()
        if any(map(reads_texts, metrics)):
            inputs = module.student_inputs(batch)
            feed_texts(module.student, inputs, batch, rows, metrics, self._states)
        if any(map(reads_texts, of_teacher.values())):
            taught, inputs = module.taught_by.model, module.teacher_inputs(batch)
            feed_texts(taught, inputs, own, rows, of_teacher.values(), self._states)

    def _with_labels_that_follow(self, batch: Any) -> Any:
        """The batch with labels where they are predicted, if the objective moves them there."""
        terms = self.module.objective.terms.values()
        labels = labels_of(batch)
        if labels is None or not any(term.criterion.shift_labels for term in terms):
            return batch
        moved = {"labels": nn.functional.pad(labels[..., 1:], (0, 1), value=-100)}
        of_bytes = entry(batch, "label_bytes")
        if of_bytes is not None:
            moved["label_bytes"] = nn.functional.pad(of_bytes[..., 1:], (0, 1))
        return with_entries(batch, moved)

    def _teacher_metrics(
        self, loader: int, batch: Any, student: Any, teacher: Any
    ) -> tuple[Any, dict[str, Metric]]:
        """The batch as the teacher sees it, and what is measured of the teacher alone."""
        if self.stage != "test" or teacher is None or not self._metrics("teacher", loader):
            return batch, {}
        own = teacher_batch(batch, self.module.predictions(student))
        if labels_of(own) is None:
            return own, {}
        # Bytes of the student's tokens say nothing of the teacher's.
        return own, {
            name: metric
            for name, metric in self._metrics("teacher", loader).items()
            if not needs_teacher(metric)
            and not sources_of(metric)
            # One that is not there writes nothing.
            and not (reads_texts(metric) and self.module.taught_by.model is None)
            and all(entry(own, n) is not None for n in batch_entries(metric))
        }

    def _log_metrics(self, loader: int, batch: Any, student: Any, teacher: Any) -> None:
        for name, metric in self._metrics(self.stage, loader).items():
            labelled = labels_of(batch) is not None or bool(sources_of(metric))
            if teacher is not None if needs_teacher(metric) else labelled:
                self._log_metric(f"{self.stage}/{name}", metric, self.stage, name, loader)
        of_teacher = self._teacher_metrics(loader, batch, student, teacher)[1]
        own = self._metrics("teacher", loader)
        of_teacher |= {name: own[name] for name in self._told_by_teacher or ()}
        for name, metric in of_teacher.items():
            self._log_metric(f"test/teacher_{name}", metric, "teacher", name, loader)

    def _log_metric(self, shown: str, metric: Metric, of: str, name: str, loader: int) -> None:
        self.module.log(
            _of_loader(shown, loader),
            metric,
            on_step=False,
            on_epoch=True,
            prog_bar=shown.startswith("val/") and loader == 0,
            add_dataloader_idx=False,
            metric_attribute=f"metrics.{_set(of, loader)}.{name}",
        )

    def _metrics(self, of: str, loader: int) -> dict[str, Metric]:
        return dict(self.module.metrics[_set(of, loader)].items())


def _set(of: str, loader: int) -> str:
    return of if loader == 0 else f"{of}_{loader}"


def _of_loader(name: str, loader: int) -> str:
    return name if loader == 0 else f"{name}/dataloader_idx_{loader}"
