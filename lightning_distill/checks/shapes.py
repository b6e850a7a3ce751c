"""What every source of a batch is like: shapes and types, and which terms read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from ..metrics.traits import sources_of
from ..models.batch import entries
from ..models.capture import forward_options
from ..models.head import Head
from ..models.inputs import named
from ..models.source import Source
from ..models.submodules import unwrapped
from ..training.metric_sources import sources_of_metrics
from ..training.trial import without_a_trace

ORDER = ("batch", "student", "teacher")


@dataclass(frozen=True)
class Row:
    """One source.

    Attributes:
        source: as it is written in a configuration; it begins with `batch`, `student` or `teacher`.
        shape: as `32 x 64 x 128`, and how many there are of it.
        dtype: as `float32`.
        read_by: names of terms and metrics; empty if none reads it.
    """

    source: str
    shape: str
    dtype: str
    read_by: str = ""


class ShowsShapes(L.Callback):
    """Prints a table of the sources of the first training batch.

    Args:
        title: above the table.

    Attributes:
        rows: of the table; empty before it is printed.
    """

    def __init__(self, title: str = ""):
        self.title = title
        self.rows: list[Row] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Print it before the step, which may fail."""
        module: Any = pl_module
        # The first batch of data that can be read only once is tried within the step.
        if module.is_checked:
            self._show(module, batch)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Print it, where that was too early before the step."""
        self._show(pl_module, batch)

    def _show(self, module: Any, batch: Any) -> None:
        if not self.rows:
            self.rows = rows_of(module, batch)
            show_models(module)
            show_rows(self.rows, self.title)


def rows_of(module: Any, batch: Any) -> list[Row]:
    """Everything that terms and metrics read on a batch, and all that is in it and is returned.

    Args:
        module: a [`DistillationModule`][] within its trainer, whose objective was tried.
        batch: on its device.
    """
    taught_by = module.taught_by
    with without_a_trace(module), torch.no_grad(), module.autocast():
        batch = named(module.trial_batch(batch), module.student)
        metrics = dict(module.metrics["val"].items())
        more = sources_of_metrics(metrics.values(), taught_by is not None)
        values, _, _ = module.read_sources(batch, more=more)
        found = {str(source): value for source, value in values.items()}
        found |= _more(found, "batch", entries(batch))
        outputs = module.student_forward(batch, **_with_layers(module, "student"))
        found |= _more(found, "student", outputs)
        if taught_by is not None and taught_by.is_live:
            outputs = module.teacher_forward(batch, **_with_layers(module, "teacher"))
            found |= _more(found, "teacher", outputs)
    readers = _readers(module.objective, metrics)
    rows = []
    for name, value in found.items():
        shape, dtype = _described(value)
        if shape:
            rows.append(Row(name, shape, dtype, ", ".join(readers.get(name, ()))))
    return sorted(rows, key=lambda row: ORDER.index(row.source.partition(".")[0]))


def _with_layers(module: Any, role: str) -> dict[str, bool]:
    """What makes a model of transformers return its hidden states, too.

    Attentions only where a term reads some: others compute none.
    """
    model = module.student if role == "student" else module.taught_by.model
    asked = [Source(role, "output", "hidden_states")]
    asked += [s for s in module.objective.sources(role) if s.name.endswith("attentions")]
    return forward_options(model, asked)


def _more(found: Mapping[str, Any], role: str, given: Any) -> dict[str, Any]:
    """What a model returned or a batch holds, by the names of sources, where it is not there."""
    if isinstance(given, Tensor):
        # Of a batch it has no name.
        given = {"logits": given} if role != "batch" else {}
    named_entries = dict(given) if isinstance(given, Mapping) else {}
    more: dict[str, Any] = {}
    for name, value in named_entries.items():
        nested = value.items() if isinstance(value, Mapping) else ()
        more |= {f"{role}.{name}[{key}]": inner for key, inner in nested}
        more[f"{role}.{name}"] = value
    return {name: value for name, value in more.items() if name not in found}


def _readers(objective: Any, metrics: Mapping[str, Any]) -> dict[str, list[str]]:
    """By source, the names of the terms and metrics that read it."""
    readers: dict[str, list[str]] = {}
    for name, term in objective.terms.items():
        for source in term.sources():
            readers.setdefault(str(source), []).append(name)
    for name, metric in metrics.items():
        for source in sources_of(metric).values():
            readers.setdefault(str(source), []).append(f"metric {name}")
    return readers


def _described(value: Any) -> tuple[str, str]:
    """The shape and the type of a value; empty of what is no tensor."""
    if isinstance(value, Head):
        value = value.weight
    if isinstance(value, Tensor):
        shape = " x ".join(map(str, value.shape)) or "a number"
        return shape, str(value.dtype).removeprefix("torch.")
    if not isinstance(value, list | tuple) or not all(isinstance(v, Tensor) for v in value):
        return "", ""
    each = list(dict.fromkeys(_described(v) for v in value))
    if len(each) == 1:
        return f"{len(value)} of {each[0][0]}", each[0][1]
    return ", ".join(shape for shape, _ in each), ", ".join(dict.fromkeys(t for _, t in each))


@rank_zero_only
def show_rows(rows: Sequence[Row], title: str, console: Console | None = None) -> None:
    """Print the table.

    Args:
        rows: of it.
        title: above it.
        console: where to.
    """
    table = Table(title=title or None, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("source", overflow="fold", ratio=3)
    table.add_column("shape", overflow="fold", ratio=2)
    table.add_column("type", no_wrap=True)
    table.add_column("read by", overflow="fold", ratio=2)
    for row in rows:
        table.add_row(*map(escape, (row.source, row.shape, row.dtype, row.read_by or "-")))
    (console or Console()).print(table)


@rank_zero_only
def show_models(module: Any, console: Console | None = None) -> None:
    """Print of which classes the models are.

    Args:
        module: a [`DistillationModule`][].
        console: where to.
    """
    taught_by = module.taught_by
    models = {"student": module.student, "teacher": None if taught_by is None else taught_by.model}
    for role, model in models.items():
        if model is not None:
            text = f"{role}: {type(unwrapped(model)).__name__}"
            (console or Console()).print(text, markup=False, highlight=False)
