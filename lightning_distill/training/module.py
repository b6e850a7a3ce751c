"""The LightningModule: a frozen teacher, a trainable student and an objective."""

import logging
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import lightning as L
import torch
from torch import nn, Tensor
from torchmetrics import Metric

from ..callbacks import ExactResuming
from ..metrics import KeptStates
from ..metrics.traits import best_mode
from ..models.batch import batch_size
from ..models.configuration import label_names
from ..models.inputs import call_model, model_inputs
from ..models.label_order import label_order
from ..objective.objective import Objective
from ..schedules import Schedule
from ..tasks import Task, task_named
from ..teachers.keeper import KeepsTeachers
from ..teachers.teacher import Teacher
from . import trial
from .attached import Attached
from .checkpoint import check_same_teacher, held_back, put_back, without_objects
from .evaluation import metrics_of_stages
from .measured import Measured
from .optimization import (
    adamw,
    check_optimizer,
    clip,
    keep_task_gradient,
    parameter_groups,
    trainable_by_name,
)
from .preconditions import check_teacher, make_attentions
from .scheduling import scheduler_config, Scheduling, UNKNOWN_END
from .set_up_first import SetUpFirst
from .shared_encoder import SharedEncoder
from .step_log import StepLog
from .strategies import check_strategy
from .values import read_values, Values
from .window import Window

log = logging.getLogger("lightning_distill")


class DistillationModule(KeepsTeachers, Attached, Measured):
    """Trains a student to minimise an objective that may look at a teacher.

    The teacher is frozen, in eval mode and under `no_grad`, whoever calls what: it is no
    submodule, so that no optimizer, checkpoint, weight average or gradient bucket contains
    it, but it follows the module to its device and dtype. So is every other model that a subclass
    assigns to an attribute and that nothing trains, see [`is_teacher`][DistillationModule].

    Override `student_inputs`, `teacher_inputs`, `student_forward`, `teacher_forward`,
    `predictions`, `training_batch` or `example_batch` where your models or batches differ.
    `losses` is there for a loop of your own, without a Trainer.

    Args:
        student: any module; trained.
        teacher: any module, or `None` if the objective needs none. Its parameters are
            frozen in place.
        objective: what is minimised.
        metrics: torchmetrics objects by name, or one of them; fed with the predictions and the
            labels of labelled rows, or labelled tokens, in validation and test. A metric with an
            attribute `needs_teacher`, such as [`Agreement`][], gets the predictions of both; one
            with `batch_entries`, a tuple of names, gets those entries of the batch by keyword;
            [`FromSources`][lightning_distill.metrics.FromSources] gets what it names.
        optimizer: called with parameter groups, returns an optimizer; AdamW at 1e-4 by default.
            Parameters of one dimension (biases, norms) get no weight decay.
        scheduler: called with the optimizer, and with the number of training steps where it takes
            `num_training_steps` or `total_steps`; returns a scheduler or Lightning's dictionary.
            `scheduler_config` says when
            it is stepped; `ReduceLROnPlateau` watches the first metric, or the loss.
        task: what labels mean, a [`Task`][lightning_distill.tasks.Task] or the name of one; by
            default what the first batch shows, see
            [`infer_task`][lightning_distill.tasks.infer_task]. Terms that compare token by token
            and name no mask get the task's.

    Raises:
        ValueError: in `setup`, before the first step, if sources, shapes, labels or gradients are
            not as the objective needs them, and on resuming with another teacher.
    """

    teacher: nn.Module | None
    # Whether the student learns of the teacher where no term reads one.
    learns_of_teacher: ClassVar[bool] = False
    # Whether it asks the teacher about other rows than the data's, or runs parts of it.
    needs_live_teacher: ClassVar[bool] = False

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        objective: Objective,
        metrics: Mapping[str, Metric] | Metric | None = None,
        optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | Scheduling | None = None,
        task: Task | str | None = None,
    ):
        super().__init__()
        self.task: Task | None = None if task is None else task_named(task)
        for name, model in (("student", student), ("teacher", teacher)):
            if not isinstance(model, nn.Module) and not (name == "teacher" and model is None):
                raise ValueError(
                    f"`{name}` must be a torch.nn.Module, got a {type(model).__name__}."
                )
        if objective.prepared:
            raise ValueError(
                "This objective was used before: its layers were paired and its adapters built, "
                "and maybe trained, for that model. Make a new one for each module."
            )
        if teacher is not None:
            check_teacher(student, teacher)
        self.student = student
        self.objective = objective
        self.teacher = teacher
        self.metrics = metrics_of_stages(metrics, {*objective.terms, *objective.sums})
        # A batch is only tried: a teacher that keeps its answers need not keep these.
        self.is_trying = False
        # Where a batch is tried before there is a trainer: the data module that it is of.
        self.tried_data: Any = None
        # Whether a test keeps what is predicted for each row, and by `student` and `teacher` what
        # the last one has kept.
        self.keeps_test_rows = False
        self.test_rows: dict[str, dict[str, Tensor]] = {}
        # What each row of it adds to each metric.
        self.test_states: KeptStates | None = None
        # Whether the terms were seen to be finite and to give the student a gradient.
        self.is_checked = False
        self._step_log = StepLog(self)
        self.shared_encoder = SharedEncoder()
        # Of a checkpoint, for parts that are built when a batch is seen.
        self._held_back: dict[str, Any] = {}
        self.optimizer = optimizer or adamw
        self.scheduler = scheduler
        self._total_steps: float = math.inf
        self._window = Window(anew=self._replaces_batches())
        make_attentions(student, objective.sources("student"))
        if self.taught_by is not None:
            make_attentions(self.taught_by.model, objective.sources("teacher"))

    # Teachers stay out of the module tree, and still go where the module goes.

    @property
    def taught_by(self) -> Teacher | None:
        """What the teacher is asked through, whether it is live or its answers are on disk."""
        return self.kept_teachers.get("teacher")

    @cached_property
    def label_order(self) -> list[int] | None:
        """Where each of the student's labels stands among the teacher's; `None` if they agree.

        Asked first when a batch is tried: by then the task is known, which may have no labels.

        Raises:
            ValueError: for labels that are not the same.
        """
        if self.taught_by is None or (self.task is not None and not self.task.one_width):
            return None
        return label_order(label_names(self.student), self.taught_by.label_names)

    @property
    def teacher_fingerprint(self) -> str | None:
        """A hash of the teacher's weights, as they were before they were converted."""
        return None if self.taught_by is None else self.taught_by.fingerprint

    def begin_teachers(self) -> None:
        """Put teachers on the module's device, and see whether the student has one's encoder."""
        super().begin_teachers()
        self._look_at_encoders()

    def _look_at_encoders(self) -> None:
        model = None if self.taught_by is None else self.taught_by.model
        self.shared_encoder.look(self.student, model, bool(self.objective.sources("teacher")))

    def is_teacher(self, name: str, model: nn.Module) -> bool:
        """Whether a model that is assigned to an attribute is kept as a teacher.

        So is every one with parameters which nothing trains: not a part of student or objective. A
        `configure_optimizers` of your own may train more; beside it, assign `Teacher(model)`.
        """
        if name == "teacher" or isinstance(model, Teacher):
            return True
        own = type(self).configure_optimizers is not DistillationModule.configure_optimizers
        if own or name in ("student", "objective", "metrics"):
            return False
        trained = {id(p) for part in (self.student, self.objective) for p in part.parameters()}
        parameters = {id(p) for p in model.parameters()}
        return bool(parameters) and not parameters & trained

    # What to override.

    def student_inputs(self, batch: Any) -> Any:
        """What the student is given: a dict of keywords, a tuple of arguments or one tensor."""
        return model_inputs(batch, self.student)

    def teacher_inputs(self, batch: Any) -> Any:
        """What the teacher is given; `batch["teacher"]` if the batch has such an entry."""
        assert self.taught_by is not None
        return self.taught_by.teacher_inputs(batch)

    def student_forward(self, batch: Any, **options: Any) -> Any:
        """Run the student; `options` ask for hidden states or attentions."""
        return call_model(self.student, self.student_inputs(batch), options)

    def teacher_forward(self, batch: Any, **options: Any) -> Any:
        """Run the teacher; called under `no_grad` with the teacher in eval mode."""
        assert self.taught_by is not None
        return self.taught_by.run(self.teacher_inputs(batch), options)

    def predictions(self, outputs: Any) -> Tensor:
        """What metrics are given, from the outputs of either model: as the task says, its logits.

        Regression heads of one output give shape `(batch,)`, others `(batch, classes)`.
        """
        return (self.task or Task()).predictions(outputs)

    def training_batch(self, batch: Any) -> Any:
        """What is trained on in the place of a batch, such as the student's own texts."""
        return batch

    def trial_batch(self, batch: Any) -> Any:
        """What stands for `training_batch` where a batch is only tried before the training."""
        return self.training_batch(batch)

    def example_batch(self) -> Any:
        """One batch, as its loader gives it, to try the objective on before training.

        `None` where the data can be read only once: then the first batch of the training is tried.
        """
        return trial.example_batch(self.trainer)

    # Without a Trainer.

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Every term on one batch, and their weighted sum as `loss`; scalars with a graph.

        For a training loop of your own: `module.losses(batch)["loss"].backward()`. The batch is on
        the module's device. The first call tries the objective on it and builds what it trains
        (adapters, say), so call it once, or `prepare(batch)`, before you make an optimizer of
        `module.parameters()`.
        """
        if not self.is_checked:
            self.prepare(batch)
        values, _, _ = self.read_sources(self.training_batch(batch), heads="skipped")
        return self.objective(values)

    def forward(self, batch: Any) -> Any:
        """The student's outputs for a batch."""
        return self.student_forward(batch)

    def prepare(self, batch: Any, check: bool = True) -> None:
        """Try the objective on one batch: pair layers, build adapters, refuse what cannot work.

        Args:
            batch: one batch as the data loader gives it.
            check: also demand that each term is finite and gives the student a gradient.
        """
        self._look_at_encoders()
        trial.prepare(self, batch, check)
        self.is_checked |= check
        later, self._held_back = self._held_back, {}
        put_back(self, later)

    # Lightning's hooks.

    def configure_callbacks(self) -> list[L.Callback]:
        """See that this module is set up before any callback looks at its parameters."""
        callbacks: list[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        if not any(isinstance(c, SetUpFirst) for c in callbacks):
            callbacks.insert(0, SetUpFirst())
        return [ExactResuming()]

    def setup(self, stage: str) -> None:
        """Check models against batch and objective; build what depends on their sizes."""
        check_strategy(self.trainer.strategy)
        if stage == "fit":
            # Of the weights as they are now: the trainer's precision may convert them.
            _ = self.teacher_fingerprint
        done = self.is_checked if stage == "fit" else self.objective.prepared
        if not done and stage in ("fit", "validate", "test"):
            with torch.random.fork_rng():
                batch = self.example_batch()
            if batch is not None:
                self.prepare(batch, check=stage == "fit")
        # Models from from_pretrained come in eval mode, and Lightning leaves them so; where only
        # parts are in eval mode, such as frozen batch norms, someone meant it.
        if stage == "fit" and not any(m.training for m in self.student.modules()):
            self.student.train()

    def configure_optimizers(self) -> Any:
        """An optimizer over what is trainable: student, adapters and criteria."""
        optimizer = self.optimizer(parameter_groups(self.student, self.objective))
        check_optimizer(optimizer, self.objective.balance, self.trainer)
        if self.scheduler is None:
            return optimizer
        config = scheduler_config(self.scheduler, optimizer, self.watched(), self.trainer)
        return {"optimizer": optimizer, "lr_scheduler": config}

    def on_fit_start(self) -> None:
        """Put the teacher on the module's device, and see how long the run will be."""
        self.begin_teachers()
        # Read here and not in the constructor: a trainer knows it only once data is attached.
        self._total_steps = self.trainer.estimated_stepping_batches
        if self._total_steps < 0 and any(isinstance(m, Schedule) for m in self.modules()):
            raise ValueError(f"A schedule of the objective {UNKNOWN_END}.")
        self._window.begin()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step; logs the total and every term as `train/NAME`."""
        if not self.is_checked:
            trial.try_first_batch(self, batch)
            self.is_checked = True
        self.objective.advance(min(self.global_step / max(self._total_steps - 1, 1), 1.0))
        batch, shares = self._window.take(self, batch, batch_idx)
        values, _, _ = self.read_sources(batch, heads="skipped")
        with self.section("objective"):
            losses, means = self.objective.measure(values, shares)
            loss = self.objective.minimised(losses, trainable_by_name(self.student))
            keep_task_gradient(self.trainer, self.objective, losses)
        self._step_log.add(means, shares, batch_size(batch))
        return loss

    def on_train_epoch_end(self) -> None:
        """Say which terms were 0 throughout the first epoch; refuse to go on if all were."""
        for teacher in self.kept_teachers.values():
            teacher.end_epoch(self.trainer.strategy.barrier)
        # Of a few steps that are only tried nothing of the kind can be said.
        if not self.is_trying:
            self._step_log.check_silent()

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer says; an optimizer that keeps a part of the gradient is told."""
        clip(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_fit_end(self) -> None:
        """Let teachers that keep their answers write what is left."""
        self.end_teachers()

    def on_validation_end(self) -> None:
        """As `on_fit_end`, unless a fit goes on."""
        if self.trainer.state.fn == "validate":
            self.end_teachers()

    def on_test_end(self) -> None:
        """Let teachers that keep their answers write what is left."""
        self.end_teachers()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the teacher's fingerprint in place of the teacher; only what can be read safely."""
        checkpoint["teacher_fingerprint"] = self.teacher_fingerprint
        if self._held_back:
            checkpoint["state_dict"] |= self._held_back
        without_objects(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with another teacher than the one that trained so far.

        Adapters and criteria that are built when a batch is seen get their weights then.
        """
        if not self.objective.prepared and "state_dict" in checkpoint:
            self._held_back = held_back(self, checkpoint["state_dict"], "objective.")
        if self.teacher is not None:
            check_same_teacher(checkpoint, self.teacher_fingerprint)

    # What the parts of the training ask of a module.

    def read_sources(self, batch: Any, **options: Any) -> tuple[Values, Any, Any]:
        """Each source's tensor on a batch, and what both models returned; see `read_values`."""
        return read_values(self, batch, **options)

    def watched(self) -> tuple[str, str]:
        """The first metric, or the loss, and what is best of it: `max` or `min`."""
        for name, metric in dict(self.metrics["val"].items()).items():  # type: ignore[union-attr,operator]
            return f"val/{name}", best_mode(metric)
        return "val/loss", "min"

    def _replaces_batches(self) -> bool:
        return type(self).training_batch is not DistillationModule.training_batch
