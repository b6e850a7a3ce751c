"""A run in stages: a list in the configuration, each a training of its own of the same student."""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..models.fake_quantization import without_rounding
from ..models.source import matching, nearest
from ..models.submodules import submodules
from ..objective.objective import Objective
from .call import group
from .labels import on_labels
from .objective import build_objective
from .sparsity import kept_after
from .student_quantization import check_rounds
from .trainer import check_training, module_learns_of_teacher

# What a stage may have of its own in the place of the run's.
PARTS = (
    *("optimizer", "scheduler", "trainer", "callbacks", "balance", "sparsity"),
    *("monitor", "mode", "module"),
)
KEYS = ("name", "criteria", "trainable", "blocks", "start", "quantization", *PARTS)
# What a stage starts from, beside the name of one before it.
PREVIOUS, STUDENT = "previous", "student"
# One that says its steps is not ended by the run's epochs.
BUDGET = ("max_epochs", "max_steps")
EXAMPLE = "stages=[{criteria:[hint],trainer:{max_epochs:2}},{criteria:[hard_label,soft_target]}]"


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
        return module_learns_of_teacher(self.cfg) or bool(
            build_objective(self.cfg).sources("teacher")
        )

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
        before = {name: p.requires_grad for name, p in student.named_parameters()}
        kept = {n for n in before if any(fnmatchcase(n, one) for one in self.trainable)}
        for pattern in self.trainable:
            if not any(fnmatchcase(name, pattern) for name in before):
                raise ValueError(
                    f"{self} trains {pattern!r}, and no parameter of the student has such a name. "
                    f"{nearest(pattern, before)} A * stands for any letters, as in "
                    "trainable:['*.layer.0.*']."
                )
        if not any(before[name] for name in kept):
            raise ValueError(
                f"{self} trains nothing: all of {', '.join(self.trainable)} is frozen "
                "(student.freeze)."
            )
        try:
            for name, parameter in student.named_parameters():
                parameter.requires_grad_(before[name] and name in kept)
            yield
        finally:
            for name, parameter in student.named_parameters():
                parameter.requires_grad_(before[name])


# Reading the list.


def check_stages(cfg: DictConfig) -> None:
    """Refuse a list of stages that cannot be, before anything is loaded.

    Raises:
        ValueError: naming the stage, what is wrong with it, and what can be written.
    """
    stages = cfg.get("stages")
    if stages is None:
        return
    if not OmegaConf.is_list(stages) or not stages:
        raise ValueError(f"`stages` must be a list, as in {EXAMPLE}, got {stages!r}.")
    names: list[str] = []
    for number, entry in enumerate(stages, 1):
        where = f"stages[{number - 1}]"
        if not OmegaConf.is_dict(entry):
            raise ValueError(f"{where} must be settings by name, as in {EXAMPLE}, got {entry!r}.")
        _check_entry(cfg, entry, where, names)
        check_rounds(cfg, entry, where, is_last=number == len(stages))
        names.append(_name(entry, number))


def _check_entry(cfg: DictConfig, entry: DictConfig, where: str, before: Sequence[str]) -> None:
    for key in entry:
        if key not in KEYS:
            near = get_close_matches(str(key), KEYS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"{where} has a {key!r}; it can have {', '.join(KEYS)}.{hint}")
    name = _name(entry, len(before) + 1)
    if not re.fullmatch(r"[\w-]+", name) or name in (*before, PREVIOUS, STUDENT):
        raise ValueError(
            f"{where}.name must be letters, digits, - and _, and none of "
            f"{', '.join([*before, PREVIOUS, STUDENT])}, got {name!r}."
        )
    start = str(entry.get("start", PREVIOUS))
    if start not in (PREVIOUS, STUDENT, *before):
        raise ValueError(
            f"{where}.start must be {PREVIOUS}, {STUDENT} or the name of a stage before it "
            f"({', '.join(before) or 'there is none'}), got {start!r}."
        )
    pool = [str(term) for term, node in group(cfg, "criteria").items() if node is not None]
    for term in _chosen(entry, pool):
        if term not in pool:
            every = ",".join([*pool, term])
            raise ValueError(
                f"{where}.criteria names {term!r}, and the run has {', '.join(pool)}. All terms "
                f"are listed once for the run, as in criteria=[{every}]; a stage says which of "
                "them it takes."
            )
    if not _chosen(entry, pool):
        raise ValueError(f"{where}.criteria is empty; the run has {', '.join(pool)}.")
    for key in ("trainable", "blocks"):
        if key in entry and not _is_names(entry[key]):
            raise ValueError(
                f"{where}.{key} must be a name or a list of names, with * for any letters, as in "
                f"{key}:['bert.encoder.layer.*'], got {entry[key]!r}."
            )
    if "trainable" in entry and "blocks" in entry:
        raise ValueError(
            f"{where} has `blocks`, which says what is trained: leave out `trainable`."
        )
    check_training(_own(cfg, entry))


def _name(entry: DictConfig, number: int) -> str:
    return str(entry.get("name") or f"stage{number}")


def _chosen(entry: DictConfig, pool: Sequence[str]) -> list[str]:
    """The names of the terms that a stage takes."""
    criteria = entry.get("criteria")
    if criteria is None:
        return list(pool)
    return [str(term) for term in ([criteria] if isinstance(criteria, str) else criteria)]


def _is_names(value: Any) -> bool:
    names = _listed(value)
    return bool(names) and all(isinstance(name, str) and name for name in names)


def _listed(value: Any) -> list[Any]:
    return list(value) if OmegaConf.is_list(value) else [value]


def _own(cfg: DictConfig, entry: DictConfig) -> DictConfig:
    """The run's configuration with what a stage has of its own."""
    own = copy.deepcopy(cfg)
    OmegaConf.set_struct(own, False)
    own.stages = None
    pool = {str(name): node for name, node in group(cfg, "criteria").items() if node is not None}
    chosen = entry.get("criteria")
    more = chosen if OmegaConf.is_dict(chosen) else {}
    own.criteria = {
        name: OmegaConf.merge(pool[name], more.get(name) or {}) for name in _chosen(entry, [*pool])
        if name in pool
    }  # fmt: skip
    for key in PARTS:
        if key not in entry:
            continue
        value, there = entry[key], own.get(key)
        # Another class has other arguments.
        merges = OmegaConf.is_dict(value) and OmegaConf.is_dict(there) and "_target_" not in value
        own[key] = OmegaConf.merge(there, value) if merges else value
    given = entry.get("trainer") or {}
    for key in BUDGET:
        if any(given.get(other) is not None for other in BUDGET) and given.get(key) is None:
            own.trainer[key] = -1
    return own


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
        own = _own(cfg, entry)
        if not {"monitor", "mode"} & {*map(str, entry)} and not _predicts(build_objective(own)):
            # What it predicts has nothing to do with what it learns yet.
            own.monitor, own.mode = "val/loss", "min"
        name, start = _name(entry, number), ends[str(entry.get("start", PREVIOUS))]
        stage = Stage(own, name, start=start, rounds=bool(entry.get("quantization", True)))
        if "trainable" in entry:
            stage = replace(stage, trainable=tuple(_listed(entry.trainable)))
        found += _of_blocks(stage, entry, student) if "blocks" in entry else [stage]
        ends[name] = found[-1].name
    _keep_zeros(found)
    return [replace(stage, number=i, of=len(found)) for i, stage in enumerate(found, 1)]


def _keep_zeros(stages: Sequence[Stage]) -> None:
    """Weights that one stage has made 0 stay so in those that go on from it."""
    of_start: dict[str, Any] = {STUDENT: None, PREVIOUS: None}
    for stage in stages:
        if not group(stage.cfg, "sparsity"):
            stage.cfg.sparsity = kept_after(of_start[stage.start])
        of_start[stage.name] = of_start[PREVIOUS] = stage.cfg.sparsity


def sparsity_of(stages: Sequence[Stage]) -> Any:
    """How the student of a run becomes sparse, so that one without a teacher can, too."""
    return next((s.cfg.sparsity for s in stages if group(s.cfg, "sparsity")), None)


def _predicts(objective: Objective) -> bool:
    """Whether any term looks at what the student predicts, and not at its layers alone."""
    return any(not source.is_inner for source in objective.sources("student"))


def _of_blocks(stage: Stage, entry: DictConfig, student: nn.Module) -> list[Stage]:
    """A stage for each block, in which it alone is trained, on its pair of layers."""
    patterns, there = _listed(entry.blocks), list(submodules(student))
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
