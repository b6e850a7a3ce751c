"""List the layers of both models with the shapes they return, and suggest which to compare."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import nn, Tensor

from ..check_values import check_number
from ..models.capture import capture, read
from ..models.row_head import ROW_HEAD, row_head_of
from ..models.source import Source
from ..models.submodules import submodules, unwrapped
from ..objective.layer_mapping import pair_layers
from ..run.cached_teacher import teacher_weights
from ..run.data import build_data
from ..run.models import build_student, build_teacher
from ..run.objective import build_label_objective
from ..students.layer_stacks import layer_stacks
from ..training.module import DistillationModule


def inspect(cfg: DictConfig, run: str | None = None, depth: int | None = 6) -> dict[str, Any]:
    """Run both models on one batch and show every module's path and output shape.

    Args:
        cfg: the run's configuration.
        run: the directory of a run, of which `cfg` was made.
        depth: leave out modules nested deeper than this.

    Returns:
        Paths and shapes of both models, their layers by stack, and the suggested mapping, also in
        `layers.json`.
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
    layers = {"student": layers_of(student), "teacher": layers_of(teacher)}
    mapping = suggested(layers["student"], layers["teacher"])
    if not mapping:
        # Models of two kinds, of which one may have no decoder.
        longest = [{"": repeated_blocks(model)} for model in (student, teacher)]
        mapping = suggested(*longest)
    found = {**shapes, "layers": layers, "suggested_mapping": mapping}
    _show(found, depth, Path(str(cfg.output_dir)))
    return found


@torch.no_grad()
def layer_shapes(model: nn.Module, forward: Any, batch: Any, role: str) -> dict[str, str]:
    """From every module's path to the shapes of what it returns on `batch`."""
    paths = [name for name in submodules(model) if name]
    sources, head = [Source(role, "layer", path) for path in paths], row_head_of(model)
    # It runs where it is read, and not within the model.
    more = [] if head is None else [Source(role, "pooled", f"{head.pooling},{ROW_HEAD}")]
    with capture(model, [*sources, *more], copies=False) as captured:
        outputs = forward(batch)
        for source in more:
            read(source, outputs, captured)
    return {path: _shape(captured.get(f"layer:{path}")) for path in paths}


def layers_of(model: nn.Module) -> dict[str, list[str]]:
    """The paths of the model's layers, by the name of the stack that they are in.

    Such as `encoder` and `decoder`, `stage 1` and so on, or `""` where there is one. What is no
    model of transformers has its longest list of equal modules.
    """
    found = {}
    for stack in layer_stacks(unwrapped(model)):
        for i, (paths, count) in enumerate(zip(stack.paths, stack.counts, strict=True)):
            name = f"{stack.name} stage {i}".strip() if stack.staged else stack.name
            for path in paths[:1]:
                found[name] = [f"{path}.{n}" for n in range(count)]
    return found or {"": repeated_blocks(model)}


def suggested(
    student: Mapping[str, list[str]], teacher: Mapping[str, list[str]]
) -> list[list[str]]:
    """Pairs of paths: each layer of the student with one of the teacher's stack of that name."""
    return [
        [ours[s], teacher[name][t]]
        for name, ours in student.items()
        if ours and teacher.get(name)
        for s, t in pair_layers(len(ours), len(teacher[name]), "uniform")
    ]


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
        for name, paths in found["layers"][role].items():
            if paths:
                of = f" ({name})" if name else ""
                line = f"Layers of the {role}{of}: {len(paths)}, {paths[0]} to {paths[-1]}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
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
