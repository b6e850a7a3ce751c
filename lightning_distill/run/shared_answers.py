"""Whether one cache of the teacher's answers serves all trials of a search."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..data.data import check_cacheable, DataFacts
from ..objective.objective import Objective
from ..search_plan import Plan
from ..teachers import CachedTeacher
from ..teachers.refusals import NotKeptError
from .objective import build_objective
from .trainer import module_learns_of_teacher, module_needs_live_teacher

# Of the data: in which rows share a batch no answer differs.
OF_BATCHES = ("batch_size", "eval_batch_size", "num_workers")
ANSWERED_BY = ("teacher", "data")


def why_none_serves_all(cfg: DictConfig, plan: Plan, data: Any) -> str | None:
    """Why each trial has to ask the teacher itself; `None` if a cache can be written for all.

    Args:
        cfg: the search's configuration, with which the cache would be written.
        plan: what the trials try.
        data: the data module, set up.
    """
    answered = _answered(cfg)
    changing = _changing(cfg, plan, lambda one: _answered(one) == answered)
    if changing:
        return f"{', '.join(changing)} may change its answers"
    if module_learns_of_teacher(cfg) or module_needs_live_teacher(cfg):
        return f"{cfg.module.get('_target_')} asks it itself"
    if DataFacts(data).draws_anew:
        return "the training rows are other ones in each epoch"
    sources = build_objective(cfg).sources("teacher")
    sparse = [str(source) for source in sources if source.kind == "sparse"]
    if sparse:
        return f"of {', '.join(sparse)} it would keep what one criterion reads at one temperature"
    read = _read(cfg)
    reading = _changing(cfg, plan, lambda one: _read(one) <= read)
    if any(key.startswith("student.") for key in reading):
        many = ", ".join(str(source) for source in sources if source.is_many)
        return f"each student is compared with other layers of it ({many})"
    if reading:
        return f"{', '.join(reading)} may change what is read of it"
    try:
        check_cacheable(data, "job=search")
    except ValueError as error:
        return f"its answers cannot be kept: {error}"
    return None


def why_not_read(cfg: DictConfig, plan: Plan, folder: Path) -> str | None:
    """Why a cache that was written for all trials cannot be read by each; `None` if it can.

    Args:
        cfg: the search's configuration.
        plan: what the trials try.
        folder: of the cache.
    """
    teacher = CachedTeacher(folder)
    try:
        for objective in (build_objective(cfg), *_objectives(cfg, plan)):
            teacher.check(dict(objective.terms.items()))
    except NotKeptError as error:
        return f"its answers cannot be kept: {error.what}"
    return None


def _answered(cfg: DictConfig) -> tuple[Any, ...]:
    """What the teacher's answers depend on."""
    teacher, data = (OmegaConf.to_container(cfg[name], resolve=True) for name in ANSWERED_BY)
    rows = {key: value for key, value in dict(data).items() if key not in OF_BATCHES}  # type: ignore[arg-type]
    return teacher, rows, OmegaConf.select(cfg, "trainer.precision")


def _read(cfg: DictConfig) -> set[str]:
    """What terms read of the teacher; of many layers, by all that decides which of them."""
    found = set()
    student = OmegaConf.to_container(cfg.student, resolve=True)
    for term in build_objective(cfg).terms.values():
        own = [source for source in term.sources() if source.role == "student"]  # type: ignore[operator]
        pairing = (term.mapping, term.pair, [str(source) for source in own], student)
        for source in term.sources():  # type: ignore[operator]
            if source.role == "teacher":
                found.add(f"{source} {pairing if source.is_many else ''}")
    return found


def _changing(cfg: DictConfig, plan: Plan, same: Callable[[DictConfig], bool]) -> list[str]:
    """The options with a value for which something is not as it is without."""
    found = []
    for key, one in _tried(cfg, plan):
        try:
            changes = not same(one)
        except Exception:
            # What cannot be made by itself may be made together with other values.
            changes = True
        if changes and key not in found:
            found.append(key)
    return found


def _objectives(cfg: DictConfig, plan: Plan) -> Iterator[Objective]:
    for _, one in _tried(cfg, plan):
        try:
            yield build_objective(one)
        except Exception:
            # A trial says itself why it cannot be made.
            continue


def _tried(cfg: DictConfig, plan: Plan) -> Iterator[tuple[str, DictConfig]]:
    """Each option alone with each of its values, of a range with both ends."""
    for parameter in plan.parameters:
        for value in parameter.examples:
            one = cfg.copy()
            OmegaConf.update(one, parameter.key, value, merge=False)
            yield parameter.key, one
