"""A study of Optuna in a file: what was tried, what is tried next, and what was cut off."""

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from ..search_plan import METRIC, OBJECTIVES, Plan

# Hyperband tells its brackets apart by it and by a trial's number.
NAME = "search"
# Of a trial: the trial whose values it was given, for it tries the same.
SAME_AS = "same_as"
# Of a trial: what it measured, by the name of an objective, and more.
METRICS = "validations"
# After so many draws of what was tried already, nothing new is expected.
MOST_REPEATED = 50
DONE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class StudyOnDisk:
    """The trials of a search, each of which is tried once, however often the search is killed.

    What a trial tries depends on the seed, its number and what was found before it, so that a
    search that goes on tries what it would have tried.

    Args:
        study: of Optuna.
        plan: the search.
        seed: of what is drawn.
    """

    def __init__(self, study: optuna.Study, plan: Plan, seed: int):
        self.study, self.plan, self.seed = study, plan, seed
        if self._each_once:
            self._enqueue_all()

    @property
    def trials(self) -> list[FrozenTrial]:
        """Those that ended, in order, without repetitions."""
        found = self.study.get_trials(deepcopy=False, states=DONE)
        return [trial for trial in found if SAME_AS not in trial.user_attrs]

    @property
    def total(self) -> int:
        """How many trials there will be."""
        count = self.plan.count
        return self.plan.trials if count is None else min(self.plan.trials, count)

    @property
    def best(self) -> set[int]:
        """The numbers of the trials that no other beats: the Pareto front, or the best one."""
        found = self.study.best_trials
        return {trial.number for trial in found if SAME_AS not in trial.user_attrs}

    @property
    def _each_once(self) -> bool:
        return self.plan.count is not None and self.plan.count <= self.plan.trials

    def left(self) -> Iterator[Trial]:
        """The trials that are yet to be done: first the one that was cut off, if any."""
        for found in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._seed(found.number)
            # Optuna gives out a trial by its number for reading alone.
            trial = Trial(self.study, found._trial_id)
            if self._is_new(trial):
                yield trial
        repeated = 0
        while len(self.trials) < self.total and repeated < MOST_REPEATED:
            self._seed(len(self.study.get_trials(deepcopy=False)))
            trial = self.study.ask()
            if self._is_new(trial):
                repeated = 0
                yield trial
            else:
                repeated += 1

    def _is_new(self, trial: Trial) -> bool:
        """Whether nothing like it was tried; it has the values of what was, if there is any."""
        values = self.draw(trial)
        for before in self.trials:
            if self.plan.values(before.params) == values:
                trial.set_user_attr(SAME_AS, before.number)
                self.study.tell(trial, before.values, before.state)
                return False
        return True

    def _seed(self, number: int) -> None:
        if not self._each_once:
            seed = random.Random(f"{self.seed} {number}").getrandbits(32)
            self.study.sampler = optuna.samplers.TPESampler(seed=seed)

    def _enqueue_all(self) -> None:
        codes = {parameter.key: parameter.codes for parameter in self.plan.parameters}
        every = [dict(zip(codes, one, strict=True)) for one in itertools.product(*codes.values())]
        random.Random(self.seed).shuffle(every)
        for one in every:
            # Also where the search was killed while it wrote them.
            self.study.enqueue_trial(one, skip_if_exists=True)

    def draw(self, trial: Trial) -> dict[str, Any]:
        """The options that a trial tries, by their keys; the same whenever it is asked."""
        return {parameter.key: parameter.suggest(trial) for parameter in self.plan.parameters}

    def tell(self, trial: Trial, found: Mapping[str, float]) -> None:
        """A trial has come to its end.

        Args:
            trial: that is meant.
            found: its values by the names of the objectives.
        """
        self.study.tell(trial, [found[name] for name in self.plan.objectives])

    def tell_without(self, trial: Trial, state: TrialState, reason: str) -> None:
        """A trial has no value: it has ended early, or cannot be done.

        Args:
            trial: that is meant.
            state: `PRUNED` or `FAIL`.
            reason: in words.
        """
        trial.set_user_attr("reason", reason)
        self.study.tell(trial, state=state)


def open_study(
    path: Path, plan: Plan, mode: str, seed: int, about: Mapping[str, Any]
) -> StudyOnDisk:
    """The study in a file, a new one if there is none.

    Args:
        path: of an SQLite file, which tools for Optuna read, too.
        plan: the search.
        mode: `max` or `min`, of the metric.
        seed: of what is drawn.
        about: what trials depend on beside what they try; plain values.

    Raises:
        ValueError: if the file holds another search.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    less, more = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
    directions = dict.fromkeys(OBJECTIVES, less)
    directions[METRIC] = more if mode == "max" else less
    study = optuna.create_study(
        storage=f"sqlite:///{path}",
        study_name=NAME,
        directions=[directions[name] for name in plan.objectives],
        pruner=optuna.pruners.HyperbandPruner(1, max(plan.validations, 1), 3),
        load_if_exists=True,
    )
    now = json.dumps(_asked(plan, about), sort_keys=True, default=str)
    before = study.user_attrs.get("about")
    if before is None:
        study.set_user_attr("about", now)
    elif before != now:
        then = json.loads(before)
        changed = [name for name, value in json.loads(now).items() if then.get(name) != value]
        raise ValueError(
            f"{path} holds another search: {', '.join(changed) or 'options'} differ. Name another "
            "folder, as in hydra.run.dir=DIR, or go on with the search as it began: "
            f"resume={path.parent}."
        )
    return StudyOnDisk(study, plan, seed)


def _asked(plan: Plan, about: Mapping[str, Any]) -> dict[str, Any]:
    """All of a search but how many trials it has, which may become more."""
    budget = {"job.epochs": plan.epochs, "job.steps": plan.steps, "job.prune": plan.prune}
    return {
        **about,
        "job.space": [str(parameter) for parameter in plan.parameters],
        "job.objectives": list(plan.objectives),
        **budget,
    }


def measured(trial: FrozenTrial | Trial) -> Sequence[float | None]:
    """At each validation of a trial the metric of the weights that it would keep; `None` without.

    There are none to keep where a student is yet to become sparse.
    """
    found: Sequence[float | None] = trial.user_attrs.get(METRICS, [])
    return found
