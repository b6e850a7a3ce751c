"""Going through the stages of a run: each is tried before the first, and then trained in turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import nn
from torchmetrics import Metric

from ..objective.objective import Objective
from ..objective.term import Term
from ..report import save_layer_similarity
from ..training.module import DistillationModule
from .objective import build_objective
from .rehearse import rehearse
from .sparsity import facts_of_zeros
from .stage import load_student, Result, say, train
from .stage_settings import PREVIOUS, STUDENT
from .stages import Stage
from .trainer import build_module, check_validations, precision_of


@dataclass
class Trained:
    """What the stages of a run have left.

    Attributes:
        module: of the last stage, with its best weights.
        result: its metrics, with steps, epochs, seconds and validations of all stages.
        curves: of each stage, how many steps were made before it, and its `metrics.csv`.
        facts: what the report says of them.
    """

    module: DistillationModule
    result: Result
    curves: list[tuple[int, Path]] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)


def rehearse_stages(
    stages: Sequence[Stage],
    data: Any,
    student: nn.Module,
    teacher: nn.Module | None,
    metrics: Mapping[str, Metric],
    with_first: bool = True,
) -> None:
    """Try every stage on one batch, before the first one begins; the models stay as they are.

    Args:
        stages: of a run.
        data: a data module that is set up.
        student: the model to train.
        teacher: the one that it shall learn from, trained or not.
        metrics: those of the run.
        with_first: false where the first one begins at once, and tries its terms on its own device.

    Raises:
        ValueError: naming the stage, and what of it does not work.
    """
    for stage in stages:
        objective = build_objective(stage.cfg)
        tried = with_first or stage.number > 1 or stage.block is not None
        try:
            with stage.trains(student):
                rows = stage.rows(data)
                module = build_module(stage.cfg, student, teacher, objective, metrics)
                rehearse(stage.cfg, rows, module, metrics, tried)
                check_validations(stage.cfg, rows)
                for kept in module.kept_teachers.values():
                    kept.check_precision(precision_of(stage.cfg))
        except ValueError as error:
            # The cause, where a block was to learn of layers that are not its own.
            cause = _wrong_pairs(stage, objective) or str(error)
            if not stage.name or cause.startswith("stage "):
                raise
            raise ValueError(f"In {stage}: {cause}") from error
        if wrong := _wrong_pairs(stage, objective):
            raise ValueError(f"In {stage}: {wrong}")


def _wrong_pairs(stage: Stage, objective: Objective) -> str | None:
    """What is wrong where the layers of a term are not as many as the blocks."""
    if stage.block is None or not objective.prepared:
        return None
    blocks = stage.block[1]
    for name, term in objective.terms.items():
        if isinstance(term, Term) and term.pair is not None and term.paired != blocks:
            return (
                f"there are {blocks} blocks, and the term {name!r} compares {term.paired} "
                "layers. hidden_states begin with the embeddings: for the blocks alone write "
                "hidden_states[1:]."
            )
    return None


def train_stages(
    cfg: DictConfig,
    stages: Sequence[Stage],
    models: tuple[nn.Module, nn.Module | None],
    metrics: Mapping[str, Metric],
    data: Any,
    directory: Path,
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Train a student stage by stage; a run that goes on begins with the first that has not ended.

    Args:
        cfg: the run's configuration.
        stages: of it.
        models: the student, trained in place, and its teacher.
        metrics: those of the run.
        data: a LightningDataModule.
        directory: of the run.
        callbacks: of the first stage, besides those of its configuration.
    """
    student, teacher = models
    # Where every job looks for the checkpoints of a run, also of one that ends in its first stage.
    (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
    made = any(stage.start == STUDENT for stage in stages)
    first = {n: v.detach().clone() for n, v in student.state_dict().items()} if made else {}
    results: dict[str, Result] = {}
    curves: list[tuple[int, Path]] = []
    module, steps = None, 0
    for stage in stages:
        if stage.start == STUDENT:
            student.load_state_dict(first)
        elif stage.start != PREVIOUS:
            folder = next(s for s in stages if s.name == stage.start).folder(directory)
            load_student(student, folder / results[stage.start].checkpoint)
        objective = build_objective(stage.cfg)
        title = f"Stage {stage.number} of {stage.of}, {stage.name}" if stage.name else "Student"
        say(title, f"learning from {', '.join(objective.terms)}")
        folder = stage.folder(directory)
        folder.mkdir(parents=True, exist_ok=True)
        with stage.trains(student):
            module = build_module(stage.cfg, student, teacher, objective, metrics)
            # Whether it goes on is the run's business.
            stage.cfg.resume = cfg.resume
            more = callbacks if stage.number == 1 else ()
            results[stage.name] = train(stage.cfg, module, stage.rows(data), folder, more)
        save_layer_similarity(objective.similar_layers(), folder)
        curves.append((steps, folder / "metrics.csv"))
        steps += results[stage.name].steps
    assert module is not None
    facts = _facts(results) | facts_of_zeros(stages[-1].cfg, module.student)
    return Trained(module, _sum(list(results.values())), curves, facts)


def _sum(results: Sequence[Result]) -> Result:
    """The result of the last stage, and what all of them took."""
    sums = {
        name: sum(getattr(result, name) for result in results)
        for name in ("steps", "epochs", "seconds", "validations")
    }
    return replace(results[-1], **sums)


def _facts(results: Mapping[str, Result]) -> dict[str, str]:
    if len(results) == 1:
        return {}
    each = ", ".join(f"{name} {result.steps} steps" for name, result in results.items())
    return {"stages": each}
