"""Where the time of a training step goes: data, teacher, student, criteria, backward, the rest."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from lightning.pytorch.profilers import Profiler
from torch import nn, Tensor

from ..models.batch import batch_size

OTHER = "other"
# What each part of a step is, in the order in which a step goes through them.
PHASES = {
    "data": "waiting for the next batch",
    "transfer": "the batch to the device",
    "student": "student forward",
    "teacher": "the teacher's answers",
    "objective": "criteria and their balance",
    "backward": "gradients, of all processes",
    "optimizer": "step, clipping, scheduler",
    OTHER: "logging, callbacks, the rest",
}
# The ends of the names of Lightning's actions, and of the module's own sections. `training_step`
# is called within `optimizer_step`; of its time only what no section claims is left.
ENDINGS = {
    "train_dataloader_next": "data",
    "batch_to_device": "transfer",
    "training_step": OTHER,
    "student": "student",
    "teacher": "teacher",
    "objective": "objective",
    "backward": "backward",
    "optimizer_step": "optimizer",
    "optimizer_zero_grad": "optimizer",
    "lr_scheduler_step": "optimizer",
}


@dataclass
class StepTimes:
    """What a [`StepProfile`][] has measured, in one process.

    A step here is one batch; with `accumulate_grad_batches=4` the optimizer takes a step after four
    of them.

    Attributes:
        seconds: of all measured steps together, by phase; they sum to the steps' wall time.
        steps: how many were measured.
        warmup: how many before them were not.
        seen: how many there were in all.
        between: seconds spent between measured steps: validation, and the ends of epochs.
        samples: rows in the measured steps.
        tokens: positions that a model was given in them, by `student` and `teacher`; only of
            models that are given an `attention_mask` of shape (batch, tokens).
        padding: how many of these are padding.
        device: on which the steps ran.
        processes: how many ran the same; each measures itself.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    steps: int = 0
    warmup: int = 0
    seen: int = 0
    between: float = 0.0
    samples: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    padding: dict[str, int] = field(default_factory=dict)
    device: str = "cpu"
    processes: int = 1

    @property
    def total(self) -> float:
        """Wall time of all measured steps, in seconds."""
        return sum(self.seconds.values())

    def share(self, phase: str) -> float:
        """Share of the steps' time, between 0 and 1; 0 if nothing was measured."""
        return self.seconds[phase] / self.total if self.total else 0.0

    def milliseconds(self, phase: str) -> float:
        """Of one step, on average."""
        return 1000 * self.seconds[phase] / max(self.steps, 1)

    def padding_share(self, *roles: str) -> float | None:
        """Share of the tokens that are padding, of these models together; `None` if unknown."""
        tokens = sum(self.tokens.get(role, 0) for role in roles)
        return sum(self.padding.get(role, 0) for role in roles) / tokens if tokens else None


class StepProfile(L.Callback):
    """Measures where the wall time of training steps goes; what is learnt stays the same.

    It listens to the actions that Lightning names to a profiler, and to the sections `student`,
    `teacher` and `objective` of a [`DistillationModule`][]. Each moment counts for the innermost
    phase that it lies in, so that the phases sum to the time of the steps. A step lasts until
    the next batch is asked for. Validation, and what happens at the ends of epochs, are counted
    apart.

        profile = StepProfile()
        L.Trainer(max_epochs=1, callbacks=[profile]).fit(module, train_loader)
        profile.times.milliseconds("teacher")
        lightning_distill.report.Profile(profile.times).show()

    Accelerators run behind the program, so that it waits for them whenever a phase ends. The
    times are true then, but the run is slower than without: use it to look, not always. A
    profiler that the trainer has hears everything as before.

    Args:
        warmup: so many steps at first are not measured; memory is allocated, kernels are chosen
            and worker processes begin in them.

    Attributes:
        times: a [`StepTimes`][] of this process, for the last `fit`.
    """

    def __init__(self, warmup: int = 5):
        if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 0:
            raise ValueError(f"`warmup` must be a whole number of at least 0, got {warmup!r}.")
        self.warmup = warmup
        self.times = StepTimes(warmup=warmup)
        self._trainer: Any = None
        self._remove: list[Callable[[], None]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to listen."""
        self.times = StepTimes(warmup=self.warmup, processes=trainer.world_size)
        self.times.device = trainer.strategy.root_device.type
        self._trainer = trainer
        self._device = trainer.strategy.root_device
        self._waits = _runs_behind(self._device)
        # None between the steps; in a step what it took so far, by phase.
        self._step: dict[str, float] | None = None
        self._stack: list[tuple[str, str]] = []
        self._validating = False
        self._rows: int | None = None
        self._masks: list[tuple[str, Tensor]] = []
        self._last = time.perf_counter()
        theirs = trainer.profiler  # type: ignore[attr-defined]
        trainer.profiler = _Listener(self, theirs)  # type: ignore[attr-defined]
        self._remove = [lambda: setattr(trainer, "profiler", theirs)]
        for role in ("student", "teacher"):
            model = getattr(pl_module, role, None)
            if isinstance(model, nn.Module):
                hook = _mask_reader(trainer, self._masks, role)
                handle = model.register_forward_pre_hook(hook, with_kwargs=True)
                self._remove.append(handle.remove)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, idx: int
    ) -> None:
        """Count rows and padding, but not while the models run."""
        self._rows = batch_size(batch)
        tokens, padding = self.times.tokens, self.times.padding
        for role, mask in self._masks if self.times.seen >= self.warmup else []:
            tokens[role] = tokens.get(role, 0) + mask.numel()
            padding[role] = padding.get(role, 0) + int((mask == 0).sum())
        self._masks.clear()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop to listen."""
        self._stop_listening()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Stop to listen; a step that was cut off does not count."""
        self._stop_listening()

    def _stop_listening(self) -> None:
        for remove in self._remove:
            remove()
        self._remove, self._trainer = [], None

    # What the trainer's actions call.

    def _started(self, action: str) -> None:
        self._look_for_validation()
        if action.endswith(".train_dataloader_next"):
            self._border()
            self._end_step()
            # A batch that was fetched ahead is waited for too.
            self._step = self._step or dict.fromkeys(PHASES, 0.0)
        phase = None if self._step is None or self._validating else _phase_of(action)
        if phase is not None:
            if phase != self._phase:
                self._border()
            self._stack.append((action, phase))

    def _stopped(self, action: str) -> None:
        self._look_for_validation()
        if action == "run_training_epoch":
            self._border()
            self._end_step()
            self._step, self._stack = None, []
        elif self._stack and self._stack[-1][0] == action:
            enclosing = self._stack[-2][1] if len(self._stack) > 1 else OTHER
            if enclosing != self._phase:
                self._border()
            self._stack.pop()

    @property
    def _phase(self) -> str:
        return self._stack[-1][1] if self._stack else OTHER

    def _look_for_validation(self) -> None:
        # Lightning sets this before anything of the validation begins.
        validating = bool(self._trainer.validating)
        if validating != self._validating:
            self._border()
            self._validating = validating

    def _border(self) -> None:
        """Count the time since the last border for the phase that ends here."""
        if self._waits:
            torch.accelerator.synchronize(self._device)
        now = time.perf_counter()
        if self._step is not None and not self._validating:
            self._step[self._phase] += now - self._last
        elif self.times.seen > self.warmup:
            self.times.between += now - self._last
        self._last = now

    def _end_step(self) -> None:
        if self._step is None or self._rows is None:
            return
        self.times.seen += 1
        if self.times.seen > self.warmup:
            self.times.steps += 1
            self.times.samples += self._rows
            for phase, seconds in self._step.items():
                self.times.seconds[phase] += seconds
        self._step, self._rows = None, None


class _Listener(Profiler):
    """Passes on what a trainer tells its profiler."""

    def __init__(self, profile: StepProfile, theirs: Profiler):
        super().__init__()
        self.profile_of_steps, self.theirs = profile, theirs

    def start(self, action_name: str) -> None:
        self.theirs.start(action_name)
        if self.profile_of_steps._trainer is not None:
            self.profile_of_steps._started(action_name)

    def stop(self, action_name: str) -> None:
        # Not after the end: the hook that ends it all is an action itself.
        if self.profile_of_steps._trainer is not None:
            self.profile_of_steps._stopped(action_name)
        self.theirs.stop(action_name)


def _phase_of(action: str) -> str | None:
    """The phase that an action is; `None` if it belongs to what it lies in."""
    if action.startswith("[Callback]"):
        return OTHER
    return ENDINGS.get(action.rpartition(".")[2])


def _runs_behind(device: torch.device) -> bool:
    if device.type == "cpu" or not torch.accelerator.is_available():
        return False
    accelerator = torch.accelerator.current_accelerator()
    return accelerator is not None and accelerator.type == device.type


def _mask_reader(
    trainer: L.Trainer, masks: list[tuple[str, Tensor]], role: str
) -> Callable[..., None]:
    # A function and not a method: a copy of the model must not copy the trainer along.
    def read(model: nn.Module, arguments: Any, keywords: dict[str, Any]) -> None:
        mask = keywords.get("attention_mask") if trainer.training else None
        # A floating mask may be one that is added to scores, where 0 is no padding.
        if isinstance(mask, Tensor) and mask.dim() == 2 and not mask.is_floating_point():
            masks.append((role, mask))

    return read
