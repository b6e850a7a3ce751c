"""What the list of stages says: checked, and put in the place of what the run says."""

import copy
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from ..error_message import message_of
from .call import group
from .follow_task import choice
from .sparsity import build_sparsity
from .student_quantization import check_rounds
from .trainer import check_training

# What a stage may have of its own in the place of the run's.
PARTS = (
    *("optimizer", "scheduler", "trainer", "callbacks", "balance", "sparsity"),
    *("monitor", "mode", "module"),
)
KEYS = ("name", "criteria", "trainable", "blocks", "start", "quantization", *PARTS)
# Those that are settings by name, with an example of one, and whether a stage may do without.
SETTINGS: dict[str, tuple[str, bool]] = {
    "optimizer": ("{lr:5e-5}", False),
    "scheduler": ("{pct_start:0.2}", True),
    "trainer": ("{max_epochs:2}", False),
    "callbacks": ("{early_stopping:{patience:2}}", True),
    "balance": ("{alpha:1.0}", True),
    "sparsity": ("{amount:0.8}", True),
    "module": ("{student_fraction:0.5}", True),
}
# What a stage starts from, beside the name of one before it.
PREVIOUS, STUDENT = "previous", "student"
# One that says its steps is not ended by the run's epochs.
BUDGET = ("max_epochs", "max_steps")
EXAMPLE = "stages=[{criteria:[hint],trainer:{max_epochs:2}},{criteria:[hard_label,soft_target]}]"


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
        names.append(name_of(entry, number))


def _check_entry(cfg: DictConfig, entry: DictConfig, where: str, before: Sequence[str]) -> None:
    for key in entry:
        if key not in KEYS:
            near = get_close_matches(str(key), KEYS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"{where} has a {key!r}; it can have {', '.join(KEYS)}.{hint}")
    name = name_of(entry, len(before) + 1)
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
    for key, (example, may_be_null) in SETTINGS.items():
        value = entry.get(key)
        if key in entry and not OmegaConf.is_dict(value) and (value is not None or not may_be_null):
            raise ValueError(
                f"{where}.{key} must be settings by name, as in {key}:{example}, got {value!r}. "
                f"They change what the run has. {_way_to(key, value)}"
            )
    own = settings_of(cfg, entry)
    try:
        check_training(own)
        build_sparsity(own)
    except (ValueError, InstantiationException) as error:
        raise ValueError(f"In stage {name!r}: {message_of(error)}") from error


def _way_to(key: str, word: Any) -> str:
    """How a stage names another choice of a group, where it has typed one."""
    written = choice(key, str(word)) or {}
    # What is null is found out for the run, and what stands for another value needs no repeating.
    own = {k: v for k, v in written.items() if v is not None and "${" not in str(v)}
    if not own:
        return f"For another class write {key}:{{_target_:module.Class}} and its settings."
    settings = ",".join(f"{name}:{_typed(value)}" for name, value in own.items())
    return f"What {key}={word} is for a run is {key}:{{{settings}}} in a stage."


def _typed(value: Any) -> str:
    """A value as it stands within a list on the command line."""
    if isinstance(value, str) and not re.fullmatch(r"[\w.]+", value):
        return repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")


def name_of(entry: DictConfig, number: int) -> str:
    """What the log and its folder call a stage.

    Args:
        entry: of the list.
        number: of the stage, from 1.
    """
    return str(entry.get("name") or f"stage{number}")


def _chosen(entry: DictConfig, pool: Sequence[str]) -> list[str]:
    """The names of the terms that a stage takes."""
    criteria = entry.get("criteria")
    if criteria is None:
        return list(pool)
    return [str(term) for term in ([criteria] if isinstance(criteria, str) else criteria)]


def _is_names(value: Any) -> bool:
    names = listed(value)
    return bool(names) and all(isinstance(name, str) and name for name in names)


def listed(value: Any) -> list[Any]:
    """A name alone as a list of one."""
    return list(value) if OmegaConf.is_list(value) else [value]


def settings_of(cfg: DictConfig, entry: DictConfig) -> DictConfig:
    """The run's configuration with what a stage has of its own.

    Args:
        cfg: the run's configuration.
        entry: of the list.
    """
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
        if key == "callbacks" and OmegaConf.is_dict(value):
            value = _with_classes(value, there)
        # Another class has other arguments.
        merges = OmegaConf.is_dict(value) and OmegaConf.is_dict(there) and "_target_" not in value
        own[key] = OmegaConf.merge(there, value) if merges else value
    given = entry.get("trainer") or {}
    for key in BUDGET:
        if any(given.get(other) is not None for other in BUDGET) and given.get(key) is None:
            own.trainer[key] = -1
    return own


def _with_classes(callbacks: DictConfig, there: Any) -> DictConfig:
    """The callbacks of a stage; one that the run does not have is what `callbacks=[NAME]` makes."""
    own: dict[Any, Any] = dict(callbacks.items())
    for name, node in own.items():
        partial = OmegaConf.is_dict(node) and "_target_" not in node
        known = choice("callbacks", str(name)) if partial and not (there or {}).get(name) else None
        if known is not None:
            own[name] = OmegaConf.merge(known[name], node)
    return OmegaConf.create(own)
