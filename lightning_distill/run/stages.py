"""A run in stages: a list in the configuration, each a training of its own of the same student."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..models.fake_quantization import without_rounding
from ..models.source import matching, nearest
from ..models.submodules import named_parameters, submodules
from ..objective.objective import Objective
from .labels import on_labels
from .objective import build_objective
from .sparsity import keep_zeros, makes_zeros
from .stage_monitor import goes_by
from .stage_settings import check_stages, listed, name_of, PREVIOUS, STUDENT
from .trainer import learns_of_teacher


@dataclass(frozen=True)
class Stage:
    """One training of a run.

    Attributes:
        cfg: the run's configuration, with what the stage has of its own.
        name: in the log, and of its folder; empty for the only one of a run.
        number: from 1.
        of: how many stages there are.
        trainable: patterns of the names of the student's parameters that are trained; `None` is
            all that the student trains.
        start: the name of a stage before whose weights it starts from, `previous`, or `student`
            for those that the student was made with.
        block: which of the pairs of layers its terms compare, and how many there are; `None` is
            all of them.
        rounds: whether a student that is quantised rounds its weights in it.
    """

    cfg: DictConfig
    name: str = ""
    number: int = 1
    of: int = 1
    trainable: tuple[str, ...] | None = None
    start: str = PREVIOUS
    block: tuple[int, int] | None = None
    rounds: bool = True

    def __str__(self) -> str:
        return f"stage {self.name!r}" if self.name else "the training"

    @property
    def learns_of_teacher(self) -> bool:
        """Whether its terms or its module look at the teacher."""
        return learns_of_teacher(self.cfg)

    def folder(self, directory: Path) -> Path:
        """Where its checkpoints and curves lie.

        The last one is the run itself, so that its result lies where every run has it.

        Args:
            directory: of the run.
        """
        return directory if self.number == self.of else directory / "stages" / self.name

    def rows(self, data: Any) -> Any:
        """What of the data it is trained on: rows without labels only where a term reads a teacher.

        Args:
            data: of the run.
        """
        alone = self.name and not build_objective(self.cfg).sources("teacher")
        return on_labels(data) if alone else data

    @contextmanager
    def trains(self, student: nn.Module) -> Iterator[None]:
        """While it lasts, only what the stage trains of the student can be trained.

        Raises:
            ValueError: for a pattern that fits no parameter, and if nothing is left to train.
        """
        with nullcontext() if self.rounds else without_rounding(student):
            yield from self._trains(student)

    def _trains(self, student: nn.Module) -> Iterator[None]:
        if self.trainable is None:
            yield
            return
        named = named_parameters(student)
        for pattern in self.trainable:
            if not any(fnmatchcase(name, pattern) for name, _ in named):
                raise ValueError(
                    f"{self} trains {pattern!r}, and no parameter of the student has such a name. "
                    f"{nearest(pattern, [name for name, _ in named])} A * stands for any letters, "
                    "as in trainable:['*.layer.0.*']."
                )
        before = {parameter: parameter.requires_grad for _, parameter in named}
        kept = {p for name, p in named if any(fnmatchcase(name, one) for one in self.trainable)}
        if not any(before[parameter] for parameter in kept):
            raise ValueError(
                f"{self} trains nothing: all of {', '.join(self.trainable)} is frozen "
                "(student.freeze, or weights beside adapters)."
            )
        try:
            for parameter, trained in before.items():
                parameter.requires_grad_(trained and parameter in kept)
            yield
        finally:
            for parameter, trained in before.items():
                parameter.requires_grad_(trained)


def stages_of(cfg: DictConfig, student: nn.Module) -> list[Stage]:
    """The stages of a run, in order; one that is the run itself where no list says more.

    Args:
        cfg: the run's configuration, with its learning rate, epochs and monitor settled.
        student: whose blocks are counted.

    Raises:
        ValueError: as [`check_stages`][], and for a pattern that names no block.
    """
    check_stages(cfg)
    entries = cfg.get("stages")
    if entries is None:
        return [Stage(cfg)]
    found: list[Stage] = []
    # Of blocks, what the last one has left.
    ends = {PREVIOUS: PREVIOUS, STUDENT: STUDENT}
    for number, entry in enumerate(entries, 1):
        own = goes_by(cfg, entry)
        name, start = name_of(entry, number), ends[str(entry.get("start", PREVIOUS))]
        stage = Stage(own, name, start=start, rounds=bool(entry.get("quantization", True)))
        if "trainable" in entry:
            stage = replace(stage, trainable=tuple(listed(entry.trainable)))
        found += _of_blocks(stage, entry, student) if "blocks" in entry else [stage]
        ends[name] = found[-1].name
    _keep_zeros(found, student)
    return [replace(stage, number=i, of=len(found)) for i, stage in enumerate(found, 1)]


def _keep_zeros(stages: Sequence[Stage], student: nn.Module) -> None:
    """Weights that one stage has made 0 stay so in those that go on from it."""
    # Which layers have zeros where a stage starts.
    of_start: dict[str, list[str]] = {STUDENT: [], PREVIOUS: []}
    for stage in stages:
        try:
            found = keep_zeros(stage.cfg, of_start[stage.start], student)
        except ValueError as error:
            raise ValueError(f"In {stage}: {error}") from error
        of_start[stage.name] = of_start[PREVIOUS] = found


def sparsity_of(stages: Sequence[Stage]) -> Any:
    """How the student of a run becomes sparse, so that one without a teacher can, too.

    That is what the last stage says which has made weights of it 0. Nothing, where none has.
    """
    of_start: dict[str, Any] = {STUDENT: None, PREVIOUS: None}
    for stage in stages:
        own = stage.cfg.sparsity if makes_zeros(stage.cfg) else of_start[stage.start]
        of_start[stage.name] = of_start[PREVIOUS] = own
    return of_start[PREVIOUS]


def _of_blocks(stage: Stage, entry: DictConfig, student: nn.Module) -> list[Stage]:
    """A stage for each block, in which it alone is trained, on its pair of layers."""
    patterns, there = listed(entry.blocks), list(submodules(student))
    paths = matching(",".join(patterns), there)
    if not paths:
        raise ValueError(
            f"{stage} has blocks={patterns}, and the student has no such parts. "
            f"{nearest(patterns[0], there)}"
        )
    of_layers = [
        name
        for name, node in stage.cfg.criteria.items()
        if any(s.is_many for s in _objective(stage.cfg, {name: node}).sources("student"))
    ]
    if not of_layers:
        raise ValueError(
            f"{stage} trains block after block, and none of its terms "
            f"({', '.join(map(str, stage.cfg.criteria))}) compares many layers: every block would "
            "learn the same. Let one read them, as in "
            "\"criteria.hint.inputs.student='student.hidden_states[1:]'\" "
            "\"criteria.hint.inputs.teacher='teacher.hidden_states[1:]'\"."
        )
    found = []
    for i, path in enumerate(paths):
        criteria = {
            name: OmegaConf.merge(node, {"pair": i} if name in of_layers else {})
            for name, node in stage.cfg.criteria.items()
        }
        own = copy.deepcopy(stage.cfg)
        own.criteria = criteria
        start = stage.start if i == 0 else PREVIOUS
        found.append(
            replace(stage, cfg=own, name=f"{stage.name}_{i}", trainable=(f"{path}.*",),
                    start=start, block=(i, len(paths)))
        )  # fmt: skip
    return found


def _objective(cfg: DictConfig, criteria: Mapping[Any, Any]) -> Objective:
    own = copy.deepcopy(cfg)
    own.criteria = dict(criteria)
    return build_objective(own)
