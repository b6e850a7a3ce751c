"""Measure a saved model on the test rows."""

import json
from pathlib import Path

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
from ..run.call import pad_token_id
from ..run.data import build_data, check_lengths
from ..run.data_of_run import take_data
from ..run.directory import newest_run
from ..run.labels import check_measurable
from ..run.metrics import build_metrics, without_agreement
from ..run.objective import build_label_objective
from ..run.resuming import why_not_ended
from ..run.save import check_hugging_face
from ..run.task import auto_class_of, task_in
from ..run.trainer import build_trainer
from ..training.module import DistillationModule


def evaluate(cfg: DictConfig, path: str | None = None) -> float:
    """Test a model on `cfg.data`; returns its monitored metric.

    Args:
        cfg: the job's configuration; its data and metrics are used.
        path: a folder that `save_pretrained` wrote, or a run's directory; the newest run if
            `None`. Of a run the data, task and metrics are taken too, unless data was typed.
    """
    given = str(newest_run()) if path is None else path
    if Path(given).is_dir():
        # The run's data may be read from another folder.
        given = str(Path(given).absolute())
    folder = Path(given) / "student" if (Path(given) / "student").is_dir() else given
    if (Path(given) / "config.yaml").is_file() and not (Path(given) / "report.json").is_file():
        raise ValueError(why_not_ended(Path(given)))
    if (Path(folder) / "model.safetensors").is_file():
        check_hugging_face(Path(folder))
    with open_dict(cfg):
        cfg.student, cfg.teacher = {"path": str(folder)}, None
    take_data(cfg, Path(given))
    without_agreement(cfg)
    data = build_data(cfg, loaders=("test_dataloader",))
    check_measurable(data, "job=evaluate")
    auto_class = auto_class_of(task_in(cfg), folder)
    model, info = load(str(folder), auto_class, dtype=torch.float32)
    set_pad_token(model, pad_token_id(data))
    check_complete(f"model {folder}", info)
    model.eval()
    metrics = build_metrics(cfg, data)
    order = label_order(
        DataFacts(data).label_names,
        label_names(model),
        ("data", "model"),
    )
    check_lengths(data, model=model)
    if order is not None:
        model.register_forward_hook(lambda _, __, outputs: reordered(outputs, order))
    objective = build_label_objective(cfg, model)
    module = DistillationModule(model, None, objective, metrics, task=task_in(cfg))
    trainer = build_trainer(cfg, Path(str(cfg.output_dir)), logger=False, callbacks=[])
    L.seed_everything(cfg.seed, verbose=False)
    trainer.test(module, datamodule=data, verbose=False)
    found = {
        name.removeprefix("test/"): float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("test/")
    }
    _show(found, str(folder), Path(str(cfg.output_dir)))
    return found[str(cfg.monitor).removeprefix("val/")]


@rank_zero_only
def _show(found: dict[str, float], folder: str, directory: Path) -> None:
    table = Table(title=folder)
    table.add_column("on the test rows")
    table.add_column("value", justify="right")
    for name, value in sorted(found.items()):
        table.add_row(name, f"{value:.4f}")
    Console().print(table)
    (directory / "evaluation.json").write_text(
        json.dumps({"path": folder, **found}, indent=2), encoding="utf-8"
    )
