"""Trials that fall behind end early."""

import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from optuna import TrialPruned
from optuna.trial import FrozenTrial, Trial

from ..callbacks.kept_weights import chooser
from ..search_plan import METRIC
from ..sparsity import zeros_in_place
from .study import measured, METRICS, StudyOnDisk

# A trial is compared after 1, 3, 9, ... validations, as Hyperband does.
FACTOR = 3


class EndEarly(Callback):
    """Watches the metric of a trial, and ends the trial if others show that it is not worth it.

    With the metric alone Optuna's `HyperbandPruner` decides (Li et al., 2018). Optuna prunes
    nothing where there are several objectives. There a trial ends early if another one is not
    larger and not slower, as far as these are objectives, and had a better metric after as many
    validations. A student that is yet to become sparse is not compared.

    Args:
        study: of the trial.
        trial: that is trained.
        monitor: the metric's name, such as `val/accuracy`.
        mode: `max` or `min`.

    Raises:
        TrialPruned: in training, with the reason.
        ValueError: in training, if the metric is not finite.
    """

    def __init__(self, study: StudyOnDisk, trial: Trial, monitor: str, mode: str):
        self.study, self.trial, self.monitor = study, trial, monitor
        self.choose = max if mode == "max" else min
        # At each validation the metric of the weights that would be kept if the trial ended there;
        # `None` where weights that shall be 0 are not yet.
        self.values: list[float | None] = []
        # At each validation how many steps there were, and the metric of the weights of then.
        self._seen: list[tuple[int, float]] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the metric, and compare it."""
        if trainer.sanity_checking:
            return
        value = float(trainer.callback_metrics[self.monitor])
        if not math.isfinite(value):
            raise ValueError(f"{self.monitor} is {value}, which no trial can be compared by.")
        self._seen.append((trainer.global_step, value))
        self.values.append(self._kept(trainer, value) if zeros_in_place(trainer) else None)
        self.trial.set_user_attr(METRICS, self.values)
        plan, count = self.study.plan, len(self.values)
        own = self.values[-1]
        if not plan.prune or count >= plan.validations or own is None:
            return
        alone = plan.objectives == (METRIC,)
        reason = self._of_hyperband(own, count) if alone else self._beaten(own, count)
        if reason is not None:
            raise TrialPruned(reason)

    def of_weights(self, step: int) -> float:
        """The metric of the weights that were kept, at the last validation that saw them.

        Args:
            step: how many optimizer steps they have behind them.
        """
        return next((value for at, value in reversed(self._seen) if at <= step), self._seen[0][1])

    def _kept(self, trainer: L.Trainer, value: float) -> float:
        chosen_by = chooser(trainer)
        if chosen_by is None or chosen_by.monitor != self.monitor:
            return value
        before = [found for found in self.values[-1:] if found is not None]
        return float(self.choose([*before, value]))

    def _of_hyperband(self, own: float, count: int) -> str | None:
        # A trial that was cut off has reported this before.
        if count not in self.trial.study.trials[self.trial.number].intermediate_values:
            self.trial.report(own, count)
        return "Hyperband" if self.trial.should_prune() else None

    def _beaten(self, own: float, count: int) -> str | None:
        if not is_rung(count):
            return None
        for other in self.study.trials:
            if self._is_beaten_by(other, own, count):
                return f"trial {other.number} was better, and is no larger and no slower"
        return None

    def _is_beaten_by(self, other: FrozenTrial, own: float, count: int) -> bool:
        its = next(iter(measured(other)[count - 1 :]), None)
        if its is None:
            return False
        sizes = [name for name in self.study.plan.objectives if name != METRIC]
        attributes: dict[str, Any] = self.trial.user_attrs
        no_larger = all(other.user_attrs[name] <= attributes[name] for name in sizes)
        return no_larger and its != own and self.choose(own, its) == its


def is_rung(count: int) -> bool:
    """Whether a trial is compared after so many validations."""
    while count > 1 and count % FACTOR == 0:
        count //= FACTOR
    return count == 1
