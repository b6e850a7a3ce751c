"""Measure a saved model on the test rows of one data set, or of several."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, open_dict
from rich.console import Console
from rich.table import Table

from ..data.data import DataFacts
from ..models.configuration import label_names, set_pad_token
from ..models.hugging_face import check_complete, load
from ..models.label_order import label_order, reordered
from ..newest_run import newest_run
from ..run.call import pad_token_id
from ..run.data import build_data, check_lengths
from ..run.heads import check_head
from ..run.labels import check_measurable
from ..run.metrics import build_metrics, watching, without_agreement
from ..run.objective import build_label_objective
from ..run.resuming import has_ended, why_not_ended
from ..run.row_heads import check_row_head
from ..run.save import check_hugging_face
from ..run.task import auto_class_of, task_in
from ..run.trainer import build_trainer
from ..run.trial_of_search import keeps_student
from ..tasks import Task
from ..training.evaluation import parts_of_test
from ..training.module import DistillationModule


def evaluate(
    cfg: DictConfig,
    path: str | None = None,
    tests: Sequence[str] | Mapping[str, Any] | None = None,
) -> float:
    """Test a model on `cfg.data`; returns its monitored metric, on the first data set of several.

    Args:
        cfg: the job's configuration; its data and metrics are used.
        path: a folder that `save_pretrained` wrote, or a run's directory; the newest run if
            `None`. Of a run the data, task and metrics are taken, but for what is typed.
        tests: several values of `data.test`, in a list or by name; that of the data by default.

    Raises:
        ValueError: for a model that cannot be measured, and data without a label.
    """
    given = str(newest_run()) if path is None else path
    folder = Path(given) / "student" if (Path(given) / "student").is_dir() else given
    run = Path(given)
    if (run / "config.yaml").is_file() and not (has_ended(run) or keeps_student(run)):
        raise ValueError(why_not_ended(run))
    if (Path(folder) / "model.safetensors").is_file():
        check_hugging_face(Path(folder))
    with open_dict(cfg):
        cfg.student, cfg.teacher = {"path": str(folder)}, None
    without_agreement(cfg)
    results: dict[str, dict[str, float]] = {}
    model, monitor = None, ""
    for name, stage in _with_tests(cfg, tests).items():
        data = build_data(stage, loaders=("test_dataloader",))
        check_measurable(data, "job=evaluate")
        if model is None:
            model = _loaded(stage, folder)
        results[name], watched = _measured(stage, model, data)
        monitor = monitor or watched
    directory = Path(str(cfg.output_dir))
    if tests is None:
        _show(next(iter(results.values())), str(folder), directory)
    else:
        _show_all(results, str(folder), directory)
    return next(iter(results.values()))[monitor.removeprefix("val/")]


def _with_tests(cfg: DictConfig, tests: Any) -> dict[str, DictConfig]:
    """A configuration for each data set, by its name."""
    if tests is None:
        return {"": cfg}
    if isinstance(tests, str) or not tests:
        raise ValueError(
            "`job.tests` must name one data set or more, as in job.tests=[dev.csv,other.csv] or "
            f"'job.tests={{dev: dev.csv, other: other.csv}}', got {tests!r}."
        )
    if "test" not in cfg.data:
        raise ValueError(
            f"job.tests are values of data.test, and {cfg.data.get('_target_')} has no such "
            "option: measure one data set at a time."
        )
    named = dict(tests) if isinstance(tests, Mapping) else {str(test): test for test in tests}
    stages = {}
    for name, test in named.items():
        stages[str(name)] = stage = cfg.copy()
        stage.data.test = test
    return stages


def _loaded(cfg: DictConfig, folder: Any) -> Any:
    check_head("job.path", folder, task_in(cfg) or Task())
    model, info = load(str(folder), auto_class_of(task_in(cfg), folder), dtype=torch.float32)
    check_complete(f"model {folder}", info)
    return model.eval()


def _measured(cfg: DictConfig, model: Any, data: Any) -> tuple[dict[str, float], str]:
    """What is measured of a model on the test rows, and which of it is monitored."""
    set_pad_token(model, pad_token_id(data))
    metrics = build_metrics(cfg, data)
    order = label_order(DataFacts(data).label_names, label_names(model), ("data", "model"))
    check_row_head(data, model)
    check_lengths(data, model=model)
    objective = build_label_objective(cfg, model)
    module = DistillationModule(model, None, objective, metrics, task=task_in(cfg))
    trainer = build_trainer(cfg, Path(str(cfg.output_dir)), logger=False, callbacks=[])
    L.seed_everything(cfg.seed, verbose=False)
    with ExitStack() as stack:
        if order is not None:
            hook = model.register_forward_hook(lambda _, __, outputs: reordered(outputs, order))
            stack.callback(hook.remove)
        trainer.test(module, datamodule=data, verbose=False)
    found = {
        name.removeprefix("test/"): float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("test/")
    }
    for name, parts in parts_of_test(module.metrics).items():
        found |= {f"{name}/{part}": value for part, value in parts.items()}
    return found, str(watching(cfg, metrics, objective).monitor)


@rank_zero_only
def _show(found: dict[str, float], folder: str, directory: Path) -> None:
    table = Table(title=folder)
    table.add_column("on the test rows")
    table.add_column("value", justify="right")
    for name, value in sorted(found.items()):
        table.add_row(name, f"{value:.4f}")
    Console().print(table)
    _write(directory, {"path": folder, **found})


@rank_zero_only
def _show_all(results: dict[str, dict[str, float]], folder: str, directory: Path) -> None:
    names = sorted({name for found in results.values() for name in found})
    table = Table(title=folder)
    table.add_column("on the rows of")
    for name in names:
        table.add_column(name, justify="right")
    for test, found in results.items():
        table.add_row(test, *(f"{found[n]:.4f}" if n in found else "" for n in names))
    Console().print(table)
    _write(directory, {"path": folder, "tests": results})


def _write(directory: Path, evaluation: dict[str, Any]) -> None:
    text = json.dumps(evaluation, indent=2)
    (directory / "evaluation.json").write_text(text, encoding="utf-8")
