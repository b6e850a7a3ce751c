"""What a search is asked for: the options that it tries, its objectives and its budget."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .check_values import check_number
from .extras import check_extra
from .search_parameters import Parameter, read_parameter

METRIC, LATENCY, SIZE, SIZE_MB = OBJECTIVES = ("metric", "latency", "size", "size_mb")
EXAMPLE = "job.space.student.layers=[1,2,3]"
# A trial of so many optimizer steps is measured so often: with 1, 3 and 9 validations behind it,
# it may end early.
VALIDATIONS = 9
# By the name of what makes the student: what is searched where nobody says it. What a student does
# not have is left out.
DEFAULTS: dict[str, dict[str, list[Any]]] = {
    "from_config": {
        "student.num_hidden_layers": [1, 2],
        "student.hidden_size": [32, 64, 96],
    },
    "from_teacher": {"student.layers": [1, 2, 3, 4]},
    "pruned_student": {"student.parameters": ["20%", "40%", "60%", "80%"]},
}
# What all trials must have in common, and why.
ALIKE = "all trials are measured alike"
FIXED = {
    **{name: ALIKE for name in ("monitor", "mode", "metrics", "task", "data.task")},
    **{name: ALIKE for name in ("data.validation", "data.validation_fraction", "data.test")},
    **{
        name: "job.epochs or job.steps is the budget of a trial"
        for name in ("trainer.max_epochs", "trainer.max_steps")
    },
    **{name: "it says whose code is run" for name in ("allow_targets", "trust_remote_code")},
    **{
        name: "it is no option of a training"
        for name in (
            *("job", "output_dir", "resume", "stages", "baseline", "control", "profile"),
            "logger",
        )
    },
}


@dataclass(frozen=True)
class Plan:
    """A search, as it is asked for.

    Attributes:
        parameters: what is tried.
        objectives: `metric`, and `latency`, `size` or `size_mb` if they count too.
        trials: how many shapes are tried.
        epochs: of a trial; `None` if it has `steps`.
        steps: optimizer steps of a trial; `None` if it has `epochs`.
        prune: whether trials may end early.
    """

    parameters: tuple[Parameter, ...]
    objectives: tuple[str, ...]
    trials: int
    epochs: int | None
    steps: int | None
    prune: bool

    @property
    def validations(self) -> int:
        """How often a trial is measured."""
        return min(VALIDATIONS, self.steps) if self.steps is not None else int(self.epochs or 1)

    @property
    def count(self) -> int | None:
        """How many different trials there can be; `None` if they cannot be counted."""
        counts = [parameter.count for parameter in self.parameters]
        known = [count for count in counts if count is not None]
        return math.prod(known) if len(known) == len(counts) else None

    def values(self, codes: Mapping[str, Any]) -> dict[str, Any]:
        """Options of a trial by their keys, of what a storage holds."""
        return {p.key: p.value(codes[p.key]) for p in self.parameters if p.key in codes}


def read_plan(
    cfg: DictConfig,
    space: Mapping[str, Any] | None = None,
    objectives: Any = (METRIC, SIZE),
    trials: int = 12,
    epochs: int | None = 3,
    steps: int | None = None,
    prune: bool = True,
) -> Plan:
    """The search that the options of the job ask for.

    Args:
        cfg: the run's configuration, whose options are searched.
        space: from options by their dotted keys, or nested, to a list of choices or to a range
            `{low, high}` with `step` or `log`; empty is what suits the student.
        objectives: some of `metric`, `latency`, `size` and `size_mb`, with `metric` among them.
        trials: how many are tried.
        epochs: of a trial.
        steps: of a trial, in the place of its epochs.
        prune: whether trials may end early.

    Raises:
        ValueError: naming the option, what it must be and what it is.
    """
    check_extra("job=search", "search", "optuna")
    check_number("job.trials", trials, whole=True, least=1, required=True)
    check_number("job.steps", steps, whole=True, least=1)
    check_number("job.epochs", epochs, whole=True, least=1, required=steps is None)
    if not isinstance(prune, bool):
        raise ValueError(f"job.prune must be true or false, got {prune!r}.")
    if cfg.get("stages"):
        raise ValueError(
            "job=search trains each trial at once, and `stages` trains one after another: leave "
            "out `stages`, and add them to the command that the search ends with."
        )
    if str(OmegaConf.select(cfg, "teacher._target_")).endswith(".caching_teacher"):
        raise ValueError(
            "job=search keeps the teacher's answers by itself, for all trials: choose the teacher "
            "that answers, as in teacher=pretrained teacher.path=DIR, in the place of "
            "teacher=caching."
        )
    return Plan(
        _read_space(cfg, space or {}),
        _read_objectives(objectives),
        trials,
        None if steps is not None else epochs,
        steps,
        prune,
    )


def _read_objectives(given: Any) -> tuple[str, ...]:
    names = [given] if isinstance(given, str) else list(given or ())
    for name in names:
        if name not in OBJECTIVES:
            near = get_close_matches(str(name), OBJECTIVES, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"job.objectives must be some of {', '.join(OBJECTIVES)}, got {name!r}. Which "
                f"metric that is says `monitor`, as in monitor=val/accuracy.{hint}"
            )
    if METRIC not in names:
        raise ValueError(
            "job.objectives must have metric among them, as in job.objectives=[metric,size], got "
            f"[{', '.join(names)}]: what is fast or small is known without training."
        )
    return tuple(dict.fromkeys(names))


def _read_space(cfg: DictConfig, space: Any) -> tuple[Parameter, ...]:
    if not isinstance(space, Mapping):
        raise ValueError(
            f"job.space must be options with their choices, as in {EXAMPLE}, got {space!r}."
        )
    given = dict(_leaves(space, "")) or _default(cfg)
    if not given:
        raise ValueError(
            "job.space is empty, and nothing is known to search of this student: name options of "
            f"it, as in {EXAMPLE} or job.space.optimizer.lr='{{low: 1e-4, high: 1e-2, log: true}}'."
        )
    for key in given:
        _check_key(cfg, key)
    return tuple(read_parameter(key, value) for key, value in given.items())


def _default(cfg: DictConfig) -> dict[str, Any]:
    maker = str(OmegaConf.select(cfg, "student._target_")).rpartition(".")[2]
    found = DEFAULTS.get(maker, {})
    return {key: value for key, value in found.items() if key in _keys(cfg)}


def _leaves(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and value and not {*value} & {"low", "high"}:
            yield from _leaves(value, here)
        else:
            yield here, value


def _keys(cfg: DictConfig) -> list[str]:
    """The options that have a value, by their dotted keys."""
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    found = []

    def walk(node: Any, path: str) -> None:
        for key, value in node.items():
            here = f"{path}.{key}" if path else str(key)
            if isinstance(value, dict) and value:
                walk(value, here)
            elif not str(key).startswith("_"):
                found.append(here)

    walk(plain, "")
    return found


def _check_key(cfg: DictConfig, key: str) -> None:
    where = f"job.space.{key}"
    for name, reason in FIXED.items():
        if key == name or key.startswith(f"{name}."):
            raise ValueError(f"{where} cannot be searched: {reason}. Leave it out of job.space.")
    known = _keys(cfg)
    if key in known:
        return
    inner = [name for name in known if name.startswith(f"{key}.")]
    if inner:
        raise ValueError(
            f"{where} names a group, and a search tries values of single options, as in "
            f"job.space.{inner[0]}=[...]. Compare groups by a sweep, as in -m {key}=A,B."
        )
    near = get_close_matches(key, [name for name in known if not _is_fixed(name)], n=3)
    parent, _, last = key.rpartition(".")
    is_group = bool(parent) and any(name.startswith(f"{parent}.") for name in known)
    more = f" If {parent} takes {last}, type +{key}=VALUE too." if is_group else ""
    hint = f" Nearest: {', '.join(near)}." if near else ""
    raise ValueError(f"job.space has {key}, and there is no such option.{hint}{more}")


def _is_fixed(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in FIXED)
