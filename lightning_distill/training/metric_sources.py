"""Metrics that name their sources: what is read for them, and what they are fed with."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ..metrics import give, KeptStates
from ..metrics.traits import needs_teacher, sources_of
from ..models.batch import batch_size, pairs_tokens, teacher_entries
from ..models.capture import read
from ..models.source import Source
from .values import Values


def sources_of_metrics(metrics: Iterable[Metric], with_teacher: bool = True) -> list[Source]:
    """All sources of the models that metrics name.

    Args:
        metrics: any; those that name none have none.
        with_teacher: also of those that need a teacher.
    """
    found = [
        source
        for metric in metrics
        if with_teacher or not needs_teacher(metric)
        for source in sources_of(metric).values()
        if source.role != "batch"
    ]
    return list(dict.fromkeys(found))


def feed_sources(
    metric: Metric,
    values: Values,
    batch: Any,
    rows: Tensor | None,
    taught: bool = False,
    kept: KeptStates | None = None,
) -> None:
    """Give a metric the tensors that it names.

    Args:
        metric: that names sources.
        values: of the models' sources, of the rows that count.
        batch: of all rows.
        rows: which of them count; `None` if all.
        taught: measure the teacher in the student's place.
        kept: where it is kept what each row adds to the metric; by default nowhere.
    """
    sources = as_of_teacher(metric) if taught else sources_of(metric)
    found = {}
    for name, source in sources.items():
        if source.role == "batch":
            value = read(source, batch, {})
            found[name] = value if rows is None or value is None else value[rows]
        else:
            found[name] = values[source]
    places = torch.arange(batch_size(batch))
    give(metric, places if rows is None else places[rows.cpu()], (), found, kept)


def as_of_teacher(metric: Metric) -> dict[str, Source]:
    """The sources of a metric with the teacher in the student's place."""
    return {
        name: replace(source, role="teacher") if source.role == "student" else source
        for name, source in sources_of(metric).items()
    }


def told_by_teacher(module: Any, batch: Any, metrics: Mapping[str, Metric]) -> list[str]:
    """Names of the metrics that can be measured of the teacher alone, as it has what they read.

    Args:
        module: the [`DistillationModule`][] whose teacher is asked, once for each metric.
        batch: on the module's device.
        metrics: by name.
    """
    found = []
    for name, metric in metrics.items():
        sources = as_of_teacher(metric)
        if not sources or needs_teacher(metric):
            continue
        asked = [source for source in sources.values() if source.role == "teacher"]
        try:
            _, values = module.taught_by.answers(batch, asked, module, "whole", keep=False)
        except ValueError:
            # It has no such head or layer, or a cache did not keep it.
            continue
        apart = teacher_entries(batch) is not None and not pairs_tokens(batch)
        tensors = [value for value in values.values() if isinstance(value, Tensor)]
        if len(tensors) == len(values) and not (apart and any(t.dim() > 2 for t in tensors)):
            found.append(name)
    return found
