"""List the layers of both models with the shapes they return, and suggest which to compare."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import nn, Tensor

from ..check_values import check_number
from ..models.capture import capture
from ..models.source import Source
from ..models.submodules import submodules
from ..objective.layer_mapping import pair_layers
from ..run.cached_teacher import teacher_weights
from ..run.data import build_data
from ..run.models import build_student, build_teacher
from ..run.objective import build_label_objective
from ..training.module import DistillationModule


def inspect(cfg: DictConfig, run: str | None = None, depth: int | None = 6) -> dict[str, Any]:
    """Run both models on one batch and show every module's path and output shape.

    Args:
        cfg: the run's configuration.
        run: the directory of a run, of which `cfg` was made.
        depth: leave out modules nested deeper than this.

    Returns:
        Paths and shapes of both models and the suggested mapping, also in `layers.json`.
    """
    check_number("job.depth", depth, whole=True, least=1)
    data = build_data(cfg, loaders=("train_dataloader",))
    teacher = build_teacher(cfg, data)
    teacher = teacher_weights(teacher, cfg)
    student = build_student(cfg, data, teacher)
    module = DistillationModule(student, teacher, build_label_objective(cfg, student)).eval()
    batch = next(iter(data.train_dataloader()))
    shapes = {
        "student": layer_shapes(student, module.student_forward, batch, "student"),
        "teacher": layer_shapes(teacher, module.teacher_forward, batch, "teacher"),
    }
    blocks = {"student": repeated_blocks(student), "teacher": repeated_blocks(teacher)}
    mapping = [
        [blocks["student"][s], blocks["teacher"][t]]
        for s, t in (
            pair_layers(len(blocks["student"]), len(blocks["teacher"]), "uniform")
            if blocks["student"] and blocks["teacher"]
            else []
        )
    ]
    found = {**shapes, "suggested_mapping": mapping}
    _show(found, depth, Path(str(cfg.output_dir)))
    return found


@torch.no_grad()
def layer_shapes(model: nn.Module, forward: Any, batch: Any, role: str) -> dict[str, str]:
    """From every module's path to the shapes of what it returns on `batch`."""
    paths = [name for name in submodules(model) if name]
    with capture(model, [Source(role, "layer", path) for path in paths], copies=False) as captured:
        forward(batch)
    return {path: _shape(captured.get(f"layer:{path}")) for path in paths}


def repeated_blocks(model: nn.Module) -> list[str]:
    """The paths of the model's layers: the entries of its longest list of equal modules."""
    best: list[str] = []
    for name, module in submodules(model).items():
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module):
            kinds = {type(child) for child in module}
            if len(kinds) == 1 and len(module) > len(best):
                best = [f"{name}.{i}" if name else str(i) for i in range(len(module))]
    return best


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return "x".join(map(str, value.shape)) or "scalar"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_shape(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_shape(v) for v in value) + ")"
    return "not run" if value is None else type(value).__name__


@rank_zero_only
def _show(found: dict[str, Any], depth: int | None, directory: Path) -> None:
    console = Console()
    for role in ("student", "teacher"):
        table = Table(title=f"{role}.layer:PATH")
        table.add_column("path")
        table.add_column("returns")
        for path, shape in found[role].items():
            if depth is None or path.count(".") < depth:
                table.add_row(path, shape)
        console.print(table)
    mapping = "[" + ",".join(f"[{s},{t}]" for s, t in found["suggested_mapping"]) + "]"
    if found["suggested_mapping"]:
        console.print("A mapping to start from:")
        console.print(
            "criteria=[hard_label,soft_target,intermediate_layers] "
            f"criteria.intermediate_layers.layer_mappings={mapping}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    else:
        console.print("No list of equal layers was found in both models; choose paths yourself.")
    (directory / "layers.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
