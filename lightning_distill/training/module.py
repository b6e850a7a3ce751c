"""The LightningModule: a frozen teacher, a trainable student and an objective."""

import inspect
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L
import torch
from torch import nn, Tensor
from torchmetrics import Metric

from ..metrics import check_pairs, Samples, teacher_batch
from ..models.capture import check_layers, read
from ..models.forward import run_model as run
from ..models.inputs import (
    batch_size,
    call_model,
    check_vocabulary,
    counted_rows,
    labels_of,
    model_inputs,
    take_rows,
)
from ..models.label_order import label_order, reordered
from ..models.source import OUTPUTS, Source
from ..models.submodules import submodules
from ..objective.objective import Objective
from ..schedules import Schedule
from ..teachers.keeper import KeepsTeachers
from ..teachers.teacher import Teacher
from .accumulation import Accumulation
from .preconditions import (
    check_causal,
    check_label_order,
    check_optimizer,
    check_packed,
    check_shift,
    check_teacher,
    check_unused,
    use_eager_attention,
)

log = logging.getLogger("lightning_distill")

UNKNOWN_END = (
    "goes over the whole run, and nobody knows how long that is: this data is a stream, or nothing "
    "ends the run. Set trainer.max_steps=N; for a teacher that is trained first, the batches of "
    "an epoch, as in +trainer.limit_train_batches=N"
)


class DistillationModule(KeepsTeachers, L.LightningModule):
    """Trains a student to minimise an objective that may look at a teacher.

    The teacher is frozen, in eval mode and under `no_grad`, whoever calls what: it is no
    submodule, so that no optimizer, checkpoint, weight average or gradient bucket contains
    it, but it follows the module to its device and dtype. So is every other model that a subclass
    assigns to an attribute, see [`is_teacher`][DistillationModule.is_teacher].

    Override `student_inputs`, `teacher_inputs`, `student_forward`, `teacher_forward`,
    `predictions`, `training_batch` or `example_batch` where your models or batches differ.

    Args:
        student: any module; trained.
        teacher: any module, or `None` if the objective needs none. Its parameters are
            frozen in place.
        objective: what is minimised.
        metrics: torchmetrics objects by name, or one of them; fed with the predictions and the
            labels of labelled rows, or labelled tokens, in validation and test. A metric with an
            attribute `needs_teacher`, such as [`Agreement`][], gets the predictions of both; one
            with `batch_entries`, a tuple of names, gets those entries of the batch by keyword.
        optimizer: called with parameter groups, returns an optimizer; AdamW at 1e-4 by default.
            Parameters of one dimension (biases, norms) get no weight decay.
        scheduler: called with the optimizer, and with the number of training steps where it takes
            `num_training_steps` or `total_steps`; stepped after every step.

    Raises:
        ValueError: in `setup`, before the first step, if sources, shapes, labels or gradients are
            not as the objective needs them, and on resuming with another teacher.
    """

    teacher: nn.Module | None

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        objective: Objective,
        metrics: Mapping[str, Metric] | Metric | None = None,
        optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
    ):
        super().__init__()
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
        if isinstance(metrics, Metric):
            metrics = {type(metrics).__name__.lower(): metrics}
        metrics = {name: metric for name, metric in (metrics or {}).items() if metric is not None}
        twice = ", ".join(name for name in metrics if name in objective.terms)
        if twice:
            raise ValueError(
                f"{twice} is the name of a term and of a metric, and both are logged by name. Give "
                "the metric another, as in +metrics.measured._target_=CLASS metrics.NAME=null."
            )
        self.metrics = nn.ModuleDict(
            {
                stage: nn.ModuleDict({name: metric.clone() for name, metric in metrics.items()})
                for stage in ("val", "test", "teacher")
            }
        )
        self._sums: Tensor | None = None
        # A batch is only tried: a teacher that keeps its answers need not keep these.
        self._trying = False
        # The largest value of every term so far, to notice one that never says anything.
        self._largest = torch.zeros(())
        self.optimizer = optimizer or _adamw
        self.scheduler = scheduler
        self._label_order: list[int] | None = None
        self._total_steps: float = math.inf
        self._accumulation = Accumulation(anew=self._replaces_batches())
        use_eager_attention(student, objective.sources("student"))
        if self.taught_by is not None:
            self._label_order = label_order(_label_names(student), self.taught_by.label_names)
            use_eager_attention(self.taught_by.model, objective.sources("teacher"))

    # Teachers stay out of the module tree, and still go where the module goes.

    @property
    def taught_by(self) -> Teacher | None:
        """What the teacher is asked through, whether it is live or its answers are on disk."""
        return self.kept_teachers.get("teacher")

    @property
    def teacher_fingerprint(self) -> str | None:
        """A hash of the teacher's weights, as they were given."""
        return None if self.taught_by is None else self.taught_by.fingerprint

    def is_teacher(self, name: str, model: nn.Module) -> bool:
        """Whether a model that is assigned to an attribute is kept as a teacher.

        So is every one with parameters which nothing trains: student and objective are trained, and
        what a `configure_optimizers` of your own may train, for which a model that is to be kept is
        assigned as [`Teacher(model)`][Teacher].
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
        """What metrics are given, from the outputs of either model: its logits.

        Regression heads of one output give shape `(batch,)`, others `(batch, classes)`.
        """
        logits = read(_STUDENT_LOGITS, outputs, {})
        return logits.squeeze(-1) if logits.shape[-1] == 1 else logits

    def training_batch(self, batch: Any) -> Any:
        """What is trained on in the place of a batch, such as the student's own texts."""
        return batch

    def example_batch(self) -> Any:
        """One batch, on the CPU, to try the objective on before training."""
        trainer = self.trainer
        loops: dict[str, Any] = {
            "fit": trainer.fit_loop,
            "validate": trainer.validate_loop,
            "test": trainer.test_loop,
        }
        loop = loops.get(str(getattr(trainer.state.fn, "value", trainer.state.fn)))
        if loop is None:
            return None
        loader = loop._data_source.dataloader()
        if isinstance(loader, list | tuple):
            loader = loader[0]
        batch = next(iter(loader), None)
        if batch is None:
            raise ValueError("The data has no batch: it is empty, or shorter than one batch.")
        return batch

    # Lightning's hooks.

    def setup(self, stage: str) -> None:
        """Check models against batch and objective; build what depends on their sizes."""
        if stage == "fit":
            # As they are now: strategy and precision may convert them.
            _ = self.teacher_fingerprint
        if not self.objective.prepared and stage in ("fit", "validate", "test"):
            with torch.random.fork_rng():
                batch = self.example_batch()
            if batch is not None:
                self.prepare(batch, check=stage == "fit")
        # Models from from_pretrained come in eval mode, and Lightning leaves them so; where only
        # parts are in eval mode, such as frozen batch norms, someone meant it.
        if stage == "fit" and not any(m.training for m in self.student.modules()):
            self.student.train()

    def prepare(self, batch: Any, check: bool = True) -> None:
        """Try the objective on one batch: pair layers, build adapters, refuse what cannot work.

        Args:
            batch: one batch as the data loader gives it.
            check: also demand that each term is finite and gives the student a gradient.
        """
        trainer = self._trainer
        if trainer is not None and trainer.world_size == trainer.num_devices * trainer.num_nodes:
            batch = self.transfer_batch_to_device(batch, self._working_device(), 0)
        # Criteria in training may keep what they saw; this batch is no part of the training.
        self._trying = True
        trained = (self.student, self.objective)
        modes = {m: m.training for model in trained for m in model.modules()}
        states = {b: b.clone() for b in self.objective.buffers()}
        for model in trained:
            model.eval()
        try:
            with torch.random.fork_rng(), torch.enable_grad(), self._autocast():
                values, student, teacher = self._values(batch, check_inputs=True, heads="checked")
                if self.teacher is not None:
                    self._check_pairs(batch, student)
                if teacher is not None:
                    self._check_predictions(student, teacher)
                    check_label_order(values, self._label_order)
                before = self._all_sources()
                self.objective.prepare(values, self._layers())
                if check:
                    now = self._all_sources()
                    if now != before or any(source.kind == "head" for source in now):
                        # Layers are paired now, which changes what is read, and heads are known.
                        values, _, _ = self._values(batch, heads="skipped")
                    losses = self.objective(values)
                    self.objective.check(losses, _trainable(self.student), values)
                    loss = self.objective.minimised(losses, self._parameters_by_name())
                    strategy = None if trainer is None else trainer.strategy
                    check_unused(loss, self.student, self.objective, strategy)
        finally:
            self._trying = False
            for module, mode in modes.items():
                module.training = mode
            for module in set(self.objective.modules()) - set(modes):
                module.train(self.objective.training)
            for buffer, state in states.items():
                buffer.copy_(state)

    def on_fit_start(self) -> None:
        """Put the teacher on the module's device, and see how long the run will be."""
        self._begin_teachers()
        # Read here and not in the constructor: a trainer knows it only once data is attached.
        self._total_steps = self.trainer.estimated_stepping_batches
        if self._total_steps < 0 and any(isinstance(m, Schedule) for m in self.modules()):
            raise ValueError(f"A schedule of the objective {UNKNOWN_END}.")
        self._accumulation.begin()

    def on_fit_end(self) -> None:
        """Let teachers that keep their answers write what is left."""
        self._end_teachers()

    def on_validation_start(self) -> None:
        """Put the teachers on the module's device."""
        self._begin_teachers()

    def on_validation_end(self) -> None:
        """Let teachers that keep their answers write what is left, unless a fit goes on."""
        if self.trainer.state.fn == "validate":
            self._end_teachers()

    def on_test_start(self) -> None:
        """Put the teachers on the module's device."""
        self._begin_teachers()

    def on_test_end(self) -> None:
        """Let teachers that keep their answers write what is left."""
        self._end_teachers()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step; logs the total and every term as `train/NAME`."""
        self.objective.advance(min(self.global_step / max(self._total_steps - 1, 1), 1.0))
        batch, factors = self._accumulation.take(self, batch, batch_idx)
        values, _, _ = self._values(batch, heads="skipped")
        shares = (
            None if factors is None else factors[1] / factors[0].masked_fill(factors[0] == 0, 1)
        )
        with self._section("objective"), self.objective.sharing(shares):
            losses = self.objective(values)
        # Each rank holds its share of every term: the mean over the ranks is the value.
        found = self.trainer.strategy.reduce(_stacked(losses), reduce_op="mean")
        if self.current_epoch == 0:
            self._largest = found.abs().maximum(self._largest.to(found))
        logged: dict[str, Any] = {f"train/{n}": v for n, v in zip(losses, found, strict=True)}
        size = batch_size(batch)
        if factors is not None:
            losses = self.objective.scaled(losses, factors[0].to(found))
        with self._section("objective"):
            loss = self.objective.minimised(losses, self._parameters_by_name())
        if self.objective.balance is not None:
            balanced: dict[str, float] = self.objective.balance.logged()  # type: ignore[operator]
            logged.update({f"train/balance_{name}": value for name, value in balanced.items()})
        with self._section("objective"):
            self._keep_task_gradient(losses)
        self.log("train/loss", logged.pop("train/loss"), prog_bar=True, batch_size=size)
        self.log_dict(logged, batch_size=size)
        said = {f"train/{name}": value for name, value in self.objective.logged().items()}
        self.log_dict(said, batch_size=size, sync_dist=True)
        return loss

    def on_train_epoch_end(self) -> None:
        """Say which terms were 0 throughout the first epoch; refuse to go on if all were."""
        for teacher in self.kept_teachers.values():
            teacher.end_epoch(self.trainer.strategy.barrier)
        if self.current_epoch > 0 or self._largest.dim() == 0:
            return
        weights = self.objective.weights()
        found = zip(weights, self._largest[1:].tolist(), strict=True)
        silent = [name for name, largest in found if largest == 0 and weights[name] > 0]
        if not silent:
            return
        what = (
            f"{', '.join(silent)} was 0 in every step of the first epoch, so nothing was learnt "
            "from it. Has any training row a label, if it reads labels? Is the student a copy of "
            "the teacher, if it reads both?"
        )
        if len(silent) == len(weights):
            raise ValueError(what)
        log.warning(what)

    def configure_callbacks(self) -> list[L.Callback]:
        """See that this module is set up before any callback looks at its parameters."""
        callbacks: list[L.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        if not any(isinstance(c, _SetUpFirst) for c in callbacks):
            callbacks.insert(0, _SetUpFirst())
        return []

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer says; an optimizer that keeps a part of the gradient is told."""
        scale = getattr(getattr(optimizer, "optimizer", optimizer), "scale_task_gradient", None)
        before = _norm(optimizer) if scale is not None and gradient_clip_val else None
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        if scale is not None and before is not None:
            scale(_norm(optimizer) / before.clamp(min=1e-12))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Feed the metrics and log every term as `val/NAME`."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Feed the metrics, of the teacher too (`test/teacher_NAME`), and log every term."""
        self._evaluate(batch, "test")

    def on_validation_epoch_start(self) -> None:
        """Begin the sums of the terms anew."""
        self._sums = torch.zeros(2, len(self.objective.terms))

    def on_test_epoch_start(self) -> None:
        """Begin the sums of the terms anew."""
        self._sums = torch.zeros(2, len(self.objective.terms))

    def on_validation_epoch_end(self) -> None:
        """Log the mean of every term over all validation rows that count in it."""
        self._log_losses("val")

    def on_test_epoch_end(self) -> None:
        """Log the mean of every term over all test rows that count in it."""
        self._log_losses("test")

    def _evaluate(self, batch: Any, stage: str) -> None:
        compared = stage == "test" or any(map(_needs_teacher, self._metrics(stage).values()))
        values, student, teacher = self._values(
            batch,
            with_teacher=compared and self.teacher is not None,
            heads="whole" if self._metrics(stage) else "skipped",
        )
        rows = counted_rows(batch)
        if rows is None or rows.any():
            if rows is not None:
                values = {s: take_rows(v, rows) for s, v in values.items()}
            if self.objective.prepared:
                self._add_losses(self.objective(values), self.objective.counts(values))
            self._update_metrics(stage, batch, rows, student, teacher)
        # On every rank, whatever its rows are: the others wait for it.
        self._log_metrics(stage, batch, student, teacher)

    def _update_metrics(
        self, stage: str, batch: Any, rows: Tensor | None, student: Any, teacher: Any
    ) -> None:
        metrics = self._metrics(stage)
        if not metrics:
            return
        batch = self._with_labels_that_follow(batch)
        predicted, of_teacher = self.predictions(student), None
        if teacher is not None and any(map(_needs_teacher, metrics.values())):
            check_pairs(batch, predicted, metrics)
            of_teacher = self.predictions(teacher)
        for samples in Samples.of(batch, predicted, of_teacher, rows, metrics.values()):
            for metric in metrics.values():
                samples.feed(metric)
        own, metrics = self._teacher_metrics(stage, batch, student, teacher)
        if metrics:
            taught = self.predictions(teacher)
            for samples in Samples.of(own, taught, None, rows, metrics.values()):
                for metric in metrics.values():
                    samples.feed(metric)

    def _with_labels_that_follow(self, batch: Any) -> Any:
        """The batch with labels where they are predicted, if the objective moves them there."""
        criteria = (getattr(term, "criterion", None) for term in self.objective.terms.values())
        labels = labels_of(batch)
        if labels is None or not any(getattr(c, "shift_labels", False) for c in criteria):
            return batch
        moved = {"labels": nn.functional.pad(labels[..., 1:], (0, 1), value=-100)}
        if "label_bytes" in batch:
            moved["label_bytes"] = nn.functional.pad(batch["label_bytes"][..., 1:], (0, 1))
        return {**batch, **moved}

    def _teacher_metrics(
        self, stage: str, batch: Any, student: Any, teacher: Any
    ) -> tuple[Any, dict[str, Metric]]:
        """The batch as the teacher sees it, and what is measured of the teacher alone."""
        if stage != "test" or teacher is None or not self._metrics("teacher"):
            return batch, {}
        own = teacher_batch(batch, self.predictions(student))
        if labels_of(own) is None:
            return own, {}
        # Bytes of the student's tokens say nothing of the teacher's.
        return own, {
            name: metric
            for name, metric in self._metrics("teacher").items()
            if not _needs_teacher(metric)
            and all(name in own for name in getattr(metric, "batch_entries", ()))
        }

    def _log_metrics(self, stage: str, batch: Any, student: Any, teacher: Any) -> None:
        for name, metric in self._metrics(stage).items():
            if (teacher if _needs_teacher(metric) else labels_of(batch)) is not None:
                self._log_metric(f"{stage}/{name}", metric)
        for name, metric in self._teacher_metrics(stage, batch, student, teacher)[1].items():
            self._log_metric(f"test/teacher_{name}", metric)

    def _log_metric(self, name: str, metric: Metric) -> None:
        self.log(name, metric, on_step=False, on_epoch=True, prog_bar=name.startswith("val/"))

    def _add_losses(self, losses: Mapping[str, Tensor], counts: Mapping[str, Tensor]) -> None:
        means = torch.stack([losses[name].detach().float() for name in counts])
        counted = torch.stack([count.to(means) for count in counts.values()])
        sums = torch.zeros(2, len(counts)) if self._sums is None else self._sums
        self._sums = sums.to(means) + torch.stack([means * counted, counted])

    def _log_losses(self, stage: str) -> None:
        if not self.objective.prepared or self._sums is None:
            return
        sums = self.trainer.strategy.reduce(self._sums.to(self.device), reduce_op="sum")
        weights = self.objective.weights()
        total = torch.zeros((), device=sums.device)
        for name, (value, count) in zip(weights, sums.T, strict=True):
            # Not one that no row counts in.
            if count > 0:
                self.log(f"{stage}/{name}", value / count, sync_dist=True)
                total += weights[name] * value / count
        # Equal on every rank already; Lightning warns of what is not marked so.
        self.log(f"{stage}/loss", total, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """An optimizer over what is trainable: student, adapters and criteria."""
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for parameter in _trainable(self.student, self.objective):
            (decayed if parameter.dim() > 1 else plain).append(parameter)
        if not decayed and not plain:
            raise ValueError(
                "Nothing is trainable: every parameter of the student is frozen. "
                "Call student.requires_grad_(True), or leave some layers unfrozen."
            )
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        optimizer = self.optimizer([g for g in groups if g["params"]])
        check_optimizer(optimizer, self.objective.balance, self.trainer)
        if self.scheduler is None:
            return optimizer
        scheduler = _with_steps(self.scheduler, optimizer, self.trainer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the teacher's fingerprint in place of the teacher."""
        checkpoint["teacher_fingerprint"] = self.teacher_fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with another teacher than the one that trained so far."""
        saved = checkpoint.get("teacher_fingerprint")
        if saved is None or self.teacher is None:
            return
        current = str(self.teacher_fingerprint)
        if saved != current:
            raise ValueError(
                f"This checkpoint was trained with another teacher (fingerprint {saved[:12]}, "
                f"this one is {current[:12]}). Resume with the same teacher, or start afresh "
                "from the student's weights."
            )

    # How a batch becomes values for the objective.

    def _values(
        self,
        batch: Any,
        check_inputs: bool = False,
        with_teacher: bool = False,
        heads: str = "whole",
    ) -> tuple[dict[Source, Any], Any, Any]:
        objective = self.objective
        sources = {role: objective.sources(role) for role in ("student", "teacher", "batch")}
        if check_inputs:
            self._check_sources(sources, batch)
        with self._section("student"):
            student, values = run(
                self.student, self.student_forward, batch, sources["student"], heads
            )
        teacher = None
        if sources["teacher"] or with_teacher:
            with self._section("teacher"):
                teacher, found = self._ask_teacher(batch, sources["teacher"], heads)
            values.update(found)
        values.update({source: read(source, batch, {}) for source in sources["batch"]})
        return values, student, teacher

    def _ask_teacher(
        self, batch: Any, sources: list[Source], heads: str
    ) -> tuple[Any, dict[Source, Any]]:
        if self.taught_by is None:
            names = ", ".join(map(str, sources))
            raise ValueError(f"The objective reads {names}, but `teacher` is None.")
        outputs, values = self.taught_by.answers(batch, sources, self, heads, not self._trying)
        if self._label_order is not None:
            outputs = reordered(outputs, self._label_order)
            ordered = [s for s in sources if s.kind in OUTPUTS and s.name == "logits"]
            values |= {source: read(source, outputs, {}) for source in ordered}
        return outputs, values

    def _check_sources(self, sources: dict[str, list[Source]], batch: Any) -> None:
        terms, teacher = dict(self.objective.terms.items()), self.taught_by
        # Of a teacher whose answers are kept the batches were seen when they were made.
        live = None if teacher is None or not teacher.is_live else teacher.model
        check_layers(self.student, sources["student"])
        if teacher is not None:
            teacher.check(terms)
            check_vocabulary(batch, teacher.model, "teacher")
        check_vocabulary(batch, self.student, "student")
        check_packed("student", self.student, self.student_inputs(batch))
        if live is not None:
            check_packed("teacher", live, self.teacher_inputs(batch))
        if check_shift(terms, batch, self.student):
            check_causal("student", self.student, self.student_inputs(batch))
            if live is not None and sources["teacher"]:
                check_causal("teacher", live, self.teacher_inputs(batch))

    def _check_pairs(self, batch: Any, student: Any) -> None:
        try:
            predicted = self.predictions(student)
        except ValueError:
            return
        check_pairs(batch, predicted, self._metrics("val"))

    def _check_predictions(self, student: Any, teacher: Any) -> None:
        if not self._compares_logits():
            # They are not made for this alone.
            return
        try:
            predicted, of_teacher = self.predictions(student), self.predictions(teacher)
        except ValueError:
            return
        shapes = tuple(predicted.shape), tuple(of_teacher.shape)
        # Heads of language models are padded to different sizes; criteria say themselves if they
        # do not go with that.
        of_tokens = predicted.dim() > 2 and predicted.dim() == of_teacher.dim()
        if shapes[0][1:] != shapes[1][1:] and not of_tokens:
            raise ValueError(
                f"student and teacher predict different classes: their logits have shapes "
                f"{shapes[0]} and {shapes[1]}. Give the student as many labels as the teacher."
            )

    def _compares_logits(self) -> bool:
        return any(
            s.name == "logits" and s.kind == "output" for s in self.objective.sources("teacher")
        ) or any(_needs_teacher(m) for m in self._metrics("val").values())

    def _all_sources(self) -> list[Source]:
        roles = ("student", "teacher", "batch")
        return [source for role in roles for source in self.objective.sources(role)]

    def _parameters_by_name(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.student.named_parameters() if p.requires_grad}

    def _keep_task_gradient(self, losses: Mapping[str, Tensor]) -> None:
        """Tell an optimizer that treats the teacher's gradient apart which part is not of it."""
        for optimizer in self.trainer.optimizers:
            keep = getattr(optimizer, "keep_task_gradient", None)
            of_labels = None if keep is None else self.objective.without_teacher(losses)
            if keep is not None and of_labels is not None:
                keep(of_labels, 1.0 / self.trainer.accumulate_grad_batches)

    def _layers(self) -> dict[str, list[str]]:
        layers = {"student": list(submodules(self.student)), "teacher": [], "batch": []}
        if self.taught_by is not None:
            layers["teacher"] = self.taught_by.module_names
        return layers

    def _metrics(self, stage: str) -> dict[str, Metric]:
        return dict(self.metrics[stage].items())  # type: ignore[union-attr,operator]

    def _begin_teachers(self) -> None:
        trainer = self.trainer
        for teacher in self.kept_teachers.values():
            # Strategies that shard the module move only what is inside it.
            teacher.settle(self.device)
            teacher.begin(self.global_rank, trainer.strategy.barrier, str(trainer.precision))

    def _end_teachers(self) -> None:
        for teacher in self.kept_teachers.values():
            teacher.end(self.trainer.strategy.barrier)

    def _working_device(self) -> torch.device:
        strategy = self.trainer.strategy
        if type(strategy).__name__ in ("SingleDeviceStrategy", "DDPStrategy"):
            self.to(strategy.root_device)
        return self.device

    def _replaces_batches(self) -> bool:
        return type(self).training_batch is not DistillationModule.training_batch

    def _section(self, name: str) -> AbstractContextManager[Any]:
        """Names a part of a step to the trainer's profiler, which by default does nothing."""
        if self._trainer is None:
            return nullcontext()
        profiler = self.trainer.profiler  # type: ignore[attr-defined]
        return profiler.profile(f"[DistillationModule].{name}")

    def _autocast(self) -> Any:
        if self._trainer is None:
            return nullcontext()
        return self.trainer.precision_plugin.forward_context()


_STUDENT_LOGITS = Source("student", "output", "logits")


class _SetUpFirst(L.Callback):
    """Builds adapters before callbacks that copy the module, such as averages of the weights."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        pl_module.setup(stage)


def _stacked(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([loss.detach().float() for loss in losses.values()])


def _adamw(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=1e-4)


def _trainable(*modules: nn.Module) -> list[nn.Parameter]:
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def _norm(optimizer: Any) -> Tensor:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def _needs_teacher(metric: Any) -> bool:
    return bool(getattr(metric, "needs_teacher", False))


def _label_names(model: nn.Module) -> Mapping[int, str] | None:
    return getattr(getattr(model, "config", None), "id2label", None)


def _with_steps(scheduler: Callable[..., Any], optimizer: Any, trainer: Any) -> Any:
    bound = getattr(scheduler, "keywords", {})
    parameters = inspect.signature(scheduler).parameters
    steps = int(trainer.estimated_stepping_batches)
    wanted = [n for n in ("num_training_steps", "total_steps") if n in parameters]
    if steps < 0 and any(bound.get(name) is None for name in wanted):
        raise ValueError(
            f"The scheduler {UNKNOWN_END}, or let the learning rate be constant "
            "(scheduler=constant)."
        )
    warmup = bound.get("pct_start")
    if warmup and steps * warmup <= 1:
        # OneCycleLR divides by zero where its warm-up is one step, and starts at the end below.
        steps = int(1 / warmup) + 1
    for name in wanted:
        if bound.get(name) is None:
            return scheduler(optimizer, **{name: steps})
    return scheduler(optimizer)


__all__ = ["DistillationModule"]
