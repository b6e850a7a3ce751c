"""Search for a student that is good, small or fast, in short distillations."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..cache.manifest import MANIFEST
from ..run.cached_teacher import TARGETS
from ..run.data import build_data
from ..run.metrics import build_metrics, without_agreement
from ..run.shared_answers import why_none_serves_all, why_not_read
from ..run.stage import say
from ..run.trainer import process_count
from ..search_plan import Plan, read_plan
from ..teachers.refusals import NotKeptError
from .cache import cache

ANSWERS, PICTURE = "answers", "search.png"


def search(
    cfg: DictConfig,
    space: Mapping[str, Any] | None = None,
    objectives: Any = ("metric", "size"),
    trials: int = 12,
    epochs: int | None = 3,
    steps: int | None = None,
    prune: bool = True,
) -> float:
    """Try students in short distillations, and show those that no other beats.

    Writes `search.json`, `search.csv` and `search.png`; each trial is a run in `trials/NUMBER`, of
    which those that no other beats keep their weights. A search that was killed goes on with
    `resume`.

    Args:
        cfg: the run's configuration, of which each trial is made.
        space: from options to their choices, or to ranges; empty is what suits the student.
        objectives: `metric`, and `latency`, `size` or `size_mb` if they count too.
        trials: how many are tried.
        epochs: of a trial.
        steps: of the optimizer, in the place of the epochs of a trial.
        prune: whether trials that fall behind end early.

    Returns:
        The best metric of all trials on the validation rows.

    Raises:
        ValueError: for a search that cannot be, before its first trial, and if all trials fail.
    """
    plan = read_plan(cfg, space, objectives, trials, epochs, steps, prune)
    # An extra of this package, which no other job needs.
    from ..run.search_loop import run_search

    if process_count(cfg) > 1:
        raise ValueError(
            "job=search trains its trials in one process, and trainer.devices="
            f"{cfg.trainer.get('devices')} trainer.num_nodes={cfg.trainer.get('num_nodes')} are "
            "more: write trainer.devices=1 trainer.num_nodes=1."
        )
    directory = Path(str(cfg.output_dir))
    first = cfg.copy()
    if first.teacher is None:
        without_agreement(first)
    data = build_data(first)
    build_metrics(first, data)
    monitored = str(first.monitor), str(first.mode)
    teacher = _teacher_of_all(cfg, first, plan, data)
    count = "" if plan.count is None else f" of {plan.count} that there are"
    budget = f"{plan.steps} steps" if plan.epochs is None else f"{plan.epochs} epochs"
    say("Search", f"{min(plan.trials, plan.count or plan.trials)} trials{count}, {budget} each")
    result = run_search(cfg, plan, monitored, teacher)
    result.show()
    result.draw(directory / PICTURE)
    say("Written", f"{directory}: search.json, search.csv, {PICTURE}, trials/")
    chosen = result.front[0]
    say(f"Train trial {chosen.number} to the end", chosen.command)
    if len(result.front) > 1:
        say("The others", "their commands are in search.json")
    assert chosen.metric is not None
    return chosen.metric


def _teacher_of_all(cfg: DictConfig, first: DictConfig, plan: Plan, data: Any) -> Any:
    """The configuration of the teacher whose answers all trials read; `None` is the run's own."""
    if cfg.teacher is None or str(cfg.teacher.get("_target_")) in TARGETS:
        return None
    folder = Path(str(cfg.output_dir)).absolute() / ANSWERS
    reason = why_none_serves_all(first, plan, data) or _kept(cfg, first, plan, folder)
    if reason is not None:
        say("Teacher", f"asked anew in each trial, for {reason}")
        return None
    path = cfg.teacher.get("path")
    # Of a folder the cache knows where it is; a name is of the hub, and brings the tokenizer.
    named = None if path is None or Path(str(path)).is_dir() else str(path)
    return {"_target_": TARGETS[0], "folder": str(folder), "path": named, "auto_class": None}


def _kept(cfg: DictConfig, first: DictConfig, plan: Plan, folder: Path) -> str | None:
    """Let the teacher answer once, if it has not; what stands against it is only seen then."""
    if not (folder / MANIFEST).is_file():
        try:
            _write_answers(cfg, plan, folder)
        except NotKeptError as error:
            return f"its answers cannot be kept: {error.what}"
    return why_not_read(first, plan, folder)


def _write_answers(cfg: DictConfig, plan: Plan, folder: Path) -> None:
    """Let the teacher answer once, with the first student that can be made."""
    first: Exception | None = None
    for values in _students(plan):
        one = cfg.copy()
        for key, value in values.items():
            OmegaConf.update(one, key, value, merge=False)
        try:
            cache(one, folder=str(folder))
            return
        except NotKeptError:
            # Of no student it would be kept.
            raise
        except ValueError as error:
            first = first or error
    assert first is not None
    raise first


def _students(plan: Plan) -> Iterator[dict[str, Any]]:
    """Students of which one at least should be possible: as typed, and the ends of the space."""
    yield {}
    own = [parameter for parameter in plan.parameters if parameter.key.startswith("student.")]
    for end in (0, -1) if own else ():
        yield {parameter.key: parameter.ends[end] for parameter in own}
