"""The trials of a search, one after another, and what they have found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from optuna import TrialPruned
from optuna.trial import FrozenTrial, Trial, TrialState

from ..error_message import message_of, UNWRITABLE
from ..report import SearchResult, Tried
from ..search import open_study, StudyOnDisk
from ..search.study import measured
from ..search_plan import LATENCY, METRIC, Plan, SIZE, SIZE_MB
from .inner_run import free_memory
from .search_trial import (
    command_of,
    drop_weights,
    NOT_OF_A_TRIAL,
    train_trial,
    trial_config,
)
from .stage import say
from .trial_of_search import COMPLETE, FAILED, PRUNED, STUDY, TRIALS
from .typed import typed_words

# What has no influence on a trial, or is compared by itself.
PLACES = ("output_dir", "resume", "job", "allow_targets", "trust_remote_code")
STATES = {
    TrialState.COMPLETE: COMPLETE,
    TrialState.PRUNED: PRUNED,
    TrialState.FAIL: FAILED,
}


def run_search(
    cfg: DictConfig, plan: Plan, monitored: tuple[str, str], teacher: Any
) -> SearchResult:
    """Try what is yet to be tried; what was found is on the disk after each trial.

    Args:
        cfg: the run's configuration.
        plan: the search.
        monitored: the metric's name, such as `val/accuracy`, and `max` or `min`.
        teacher: the configuration of the teacher of all trials; `None` is that of `cfg`.

    Raises:
        ValueError: if the run's directory holds another search, and if all trials have failed.
    """
    directory = Path(str(cfg.output_dir))
    asked: Any = OmegaConf.to_container(cfg, resolve=False)
    about = {str(k): v for k, v in asked.items() if k not in PLACES} | {"monitored": monitored}
    study = open_study(directory / STUDY, plan, monitored[1], int(cfg.seed), about)
    words = study.study.user_attrs.get("words")
    if words is None:
        # A search that goes on is told nothing but its folder.
        words = typed_words(NOT_OF_A_TRIAL)
        study.study.set_user_attr("words", words)
    if study.trials:
        say("Search", f"{len(study.trials)} of {study.total} trials are done")
    for trial in study.left():
        values = study.draw(trial)
        one = trial_config(cfg, plan, values, teacher)
        _try(one, study, trial, directory / TRIALS / f"{trial.number:03d}")
        result = search_result(study, monitored, words)
        result.save(directory)
        for tried in result.trials:
            if not tried.best:
                drop_weights(directory / tried.folder)
        _say(result, study.total)
        free_memory()
    result = search_result(study, monitored, words)
    _check_some_worked(result)
    result.save(directory)
    return result


def _try(cfg: DictConfig, study: StudyOnDisk, trial: Trial, directory: Path) -> None:
    try:
        study.tell(trial, train_trial(cfg, study, trial, directory))
    except TrialPruned as end:
        study.tell_without(trial, TrialState.PRUNED, str(end))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            # The next trial would fare no better.
            raise
        study.tell_without(trial, TrialState.FAIL, message_of(error))


def search_result(
    study: StudyOnDisk, monitored: tuple[str, str], words: Sequence[str]
) -> SearchResult:
    """What a study has found so far.

    Args:
        study: of the search.
        monitored: the metric's name, such as `val/accuracy`, and `max` or `min`.
        words: what was typed, for the commands.
    """
    best = study.best
    return SearchResult(
        metric=monitored[0].removeprefix("val/"),
        higher_is_better=monitored[1] == "max",
        objectives=study.plan.objectives,
        trials=[_tried(study.plan, trial, trial.number in best, words) for trial in study.trials],
    )


def _tried(plan: Plan, trial: FrozenTrial, best: bool, words: Sequence[str]) -> Tried:
    values, attributes = plan.values(trial.params), trial.user_attrs
    metrics = measured(trial)
    # Of one that has not come to its end, what it had then.
    last = metrics[-1] if metrics else None
    metric = trial.values[plan.objectives.index(METRIC)] if trial.values else last
    return Tried(
        number=trial.number,
        state=STATES[trial.state],
        params=values,
        metric=metric,
        parameters=attributes.get(SIZE),
        size_mb=attributes.get(SIZE_MB),
        latency_ms=attributes.get(LATENCY),
        validations=len(metrics),
        seconds=attributes.get("seconds"),
        reason=attributes.get("reason"),
        folder=f"{TRIALS}/{trial.number:03d}",
        best=best,
        command=command_of(words, values),
    )


def _say(result: SearchResult, total: int) -> None:
    """A line for the trial that has just ended."""
    tried = max(result.trials, key=lambda one: one.number)
    what = " ".join(f"{key}={value}" for key, value in tried.params.items())
    figures = [] if tried.metric is None else [f"{result.metric} {tried.metric:.4f}"]
    if tried.parameters is not None and tried.latency_ms is not None:
        figures += [f"{tried.parameters:,} parameters", f"{tried.latency_ms:.2f} ms"]
    figures += [] if tried.seconds is None else [f"{tried.seconds:.0f} s"]
    end = "" if tried.reason is None else f"; {tried.state}: {tried.reason}"
    title = f"Trial {tried.number} ({len(result.trials)} of {total})"
    say(title, f"{what}: {', '.join(figures)}{end}")


def _check_some_worked(result: SearchResult) -> None:
    if any(trial.state == COMPLETE for trial in result.trials):
        return
    failed = [trial for trial in result.trials if trial.state == FAILED]
    reasons = list(dict.fromkeys(str(trial.reason) for trial in failed))
    early = len(result.trials) - len(failed)
    count = f"{len(failed)} of {len(result.trials)}" if early else f"All {len(failed)}"
    rest = " The others ended early, and job.prune=false trains them." if early else ""
    raise ValueError(
        f"{count} trials have failed: {'; '.join(reasons[:3])}{rest} Change job.space, or what all "
        "trials have in common."
    )
