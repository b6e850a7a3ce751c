"""Where the time of a step goes, by a clock that stands still where nothing sleeps."""

import copy
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.profilers import PassThroughProfiler, SimpleProfiler
from tiny import Batches, loader, text_batches, trainer
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, IterableDataset

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.callbacks import StepProfile
from lightning_distill.callbacks.step_profile import PHASES
from lightning_distill.criteria import HardLabel, SoftTarget

SLOW = 0.05
LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}
LABELS = {"student": "student.logits", "labels": "batch.labels"}


NOW = [0.0]


def sleep(seconds: float) -> None:
    NOW[0] += seconds


@pytest.fixture(autouse=True)
def clock(request, monkeypatch):
    if "gpu" not in request.node.name:
        fake = SimpleNamespace(perf_counter=lambda: NOW[0])
        monkeypatch.setattr("lightning_distill.callbacks.step_profile.time", fake)


class Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        sleep(SLOW)
        return gradient


class Criterion(HardLabel):
    slow: str | None = None

    def forward(self, student, labels):
        loss = super().forward(student, labels)
        if self.slow == "objective":
            sleep(SLOW)
        return Slow.apply(loss) if self.slow == "backward" else loss


class Optimizer(torch.optim.SGD):
    slow = slow_zero = False

    def step(self, closure=None):
        found = super().step(closure)
        if self.slow:
            sleep(SLOW)
        return found

    def zero_grad(self, set_to_none=True):
        super().zero_grad(set_to_none)
        if self.slow_zero:
            sleep(SLOW)


class Scheduler(StepLR):
    def step(self, epoch=None):
        sleep(SLOW)
        super().step(epoch)


class Module(DistillationModule):
    """One of its parts sleeps in every training step."""

    slow: str | None = None

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        if self.slow == "transfer":
            sleep(SLOW)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def configure_gradient_clipping(self, *arguments, **options):
        if self.slow == "clipping":
            sleep(SLOW)
        super().configure_gradient_clipping(*arguments, **options)

    def student_forward(self, batch, **options):
        if self.slow == "student":
            sleep(SLOW)
        return super().student_forward(batch, **options)

    def teacher_forward(self, batch, **options):
        if self.slow == "teacher":
            sleep(SLOW)
        return super().teacher_forward(batch, **options)


class SlowBatches(Batches):
    def __getitem__(self, i):
        sleep(SLOW)
        return super().__getitem__(i)


class SlowCallback(L.Callback):
    def on_before_backward(self, trainer, pl_module, loss):
        sleep(SLOW / 2)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        sleep(SLOW / 2)


def module(student, teacher, slow=None):
    criterion = Criterion()
    criterion.slow = slow
    terms = {"hard": Term(criterion, LABELS), "soft": Term(SoftTarget(), LOGITS)}

    def optimizer(groups):
        made = Optimizer(groups, lr=0.1)
        made.slow, made.slow_zero = slow in ("optimizer", "both"), slow in ("zero_grad", "both")
        return made

    def scheduler(optimizer):
        made = Scheduler(optimizer, 1) if slow == "scheduler" else StepLR(optimizer, 1)
        return {"scheduler": made, "interval": "step"}

    made = Module(student, teacher, Objective(terms), optimizer=optimizer, scheduler=scheduler)
    made.slow = slow
    return made


def profiled(tmp_path, model, batches, val=None, warmup=2, callbacks=(), **options):
    profile = StepProfile(warmup)
    batches = batches if isinstance(batches, DataLoader) else loader(batches)
    made = trainer(tmp_path, callbacks=[*callbacks, profile], **options)
    made.fit(model, batches, val)
    return profile.times


@pytest.mark.parametrize("slow", [*PHASES, "clipping", "scheduler", "zero_grad"])
def test_the_part_that_sleeps_is_the_part_that_is_named(slow, student, teacher, tmp_path):
    batches = text_batches(count=7)
    data = DataLoader(SlowBatches(batches), batch_size=None) if slow == "data" else batches
    callbacks = [SlowCallback()] if slow == "other" else []
    times = profiled(tmp_path, module(student, teacher, slow), data, callbacks=callbacks)
    slow = slow if slow in PHASES else "optimizer"
    assert list(times.seconds) == list(PHASES)
    assert times.steps == 5 and times.seen == 7
    expected = {phase: 1000 * SLOW * (phase == slow) for phase in PHASES}
    assert {phase: times.milliseconds(phase) for phase in PHASES} == pytest.approx(expected)


class Ends(L.Callback):
    """When steps end at the earliest, and at the latest."""

    def __init__(self):
        self.ended, self.stop = [], 0.0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.ended.append(NOW[0])

    def on_train_epoch_end(self, trainer, pl_module):
        self.stop = NOW[0]


class Asked(Batches):
    """Remembers when each batch was asked for."""

    def __init__(self, batches):
        super().__init__(batches)
        self.at = []

    def __getitem__(self, i):
        self.at.append(NOW[0])
        return super().__getitem__(i)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_parts_sum_to_the_time_of_the_steps(student, teacher, tmp_path, accumulated):
    data, ends = Asked(text_batches(count=9)), Ends()
    times = profiled(
        tmp_path,
        module(student, teacher, "teacher"),
        DataLoader(data, batch_size=None),
        callbacks=[ends],
        accumulate_grad_batches=accumulated,
    )
    # The first batch of all was asked for when the module tried it.
    asked = data.at[1:]
    assert len(asked) == 9 and times.steps == 7
    assert ends.ended[-1] - asked[2] <= times.total <= ends.stop - ends.ended[1]
    assert times.total == pytest.approx(7 * SLOW)
    assert sum(times.share(phase) for phase in PHASES) == pytest.approx(1.0)
    assert min(times.seconds.values()) >= 0.0


def test_an_accumulated_step_takes_the_optimizer_once(student, teacher, tmp_path):
    times = profiled(
        tmp_path,
        module(student, teacher, "both"),
        text_batches(count=10),
        accumulate_grad_batches=4,
        warmup=2,
    )
    # Steps after the 4th, the 8th and the last batch, gradients cleared at the 5th and the 9th.
    assert times.steps == 8
    assert times.seconds["optimizer"] == pytest.approx(5 * SLOW)


def test_validation_and_the_ends_of_epochs_lie_between_the_steps(student, teacher, tmp_path):
    val = DataLoader(SlowBatches(text_batches(count=2)), batch_size=None)
    times = profiled(
        tmp_path,
        module(student, teacher),
        text_batches(count=6),
        val,
        max_epochs=2,
        val_check_interval=3,
        num_sanity_val_steps=1,
        warmup=4,
        callbacks=[ModelCheckpoint(tmp_path, every_n_epochs=1)],
        enable_checkpointing=True,
    )
    assert (times.steps, times.seen) == (8, 12)
    # Three of the four validations come after a measured step, each with two batches.
    assert times.between == pytest.approx(3 * 2 * SLOW)
    assert times.total == 0.0


class Stream(IterableDataset):
    """Batches of which nobody knows how many there are: the next is fetched ahead."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        for batch in self.batches:
            sleep(SLOW)
            yield batch


def test_a_stream_that_is_read_ahead_is_waited_for(student, teacher, tmp_path):
    data = DataLoader(Stream(text_batches(count=4)), batch_size=None)
    times = profiled(tmp_path, module(student, teacher), data, warmup=0, max_epochs=2)
    assert times.steps == 8
    # All but the very first, which is fetched before the training starts.
    assert times.seconds["data"] == pytest.approx(7 * SLOW)


def test_what_is_learnt_stays_the_same(student, teacher, batches, tmp_path):
    student.train()

    class Losses(L.Callback):
        def __init__(self):
            self.found = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.found.append(outputs["loss"])

    found, weights = [], []
    for callbacks in ([], [StepProfile(0)]):
        torch.manual_seed(0)
        losses, model = Losses(), module(copy.deepcopy(student), teacher)
        made = trainer(tmp_path, callbacks=[losses, *callbacks], max_epochs=2)
        made.fit(model, loader(batches), loader(batches))
        found.append(torch.stack(losses.found))
        weights.append(model.state_dict())
    assert callbacks[0].times.steps == len(found[0]) == 8
    assert torch.equal(*found)
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_padding_rows_and_tokens_are_counted(student, teacher, tmp_path):
    # Four rows of seven tokens, two of them padded by two; validation and warm-up do not count.
    batches = text_batches(count=5)
    times = profiled(
        tmp_path, module(student, teacher), batches, loader(batches), warmup=2, val_check_interval=2
    )
    assert times.samples == 3 * 4
    assert times.tokens == {"student": 3 * 28, "teacher": 3 * 28}
    assert times.padding == {"student": 3 * 4, "teacher": 3 * 4}
    assert times.padding_share("student", "teacher") == pytest.approx(1 / 7)


def test_a_teacher_with_its_own_tokens_has_its_own_padding(student, teacher, tmp_path):
    batches = text_batches(count=3)
    for batch, other in zip(batches, text_batches(count=3, tokens=10), strict=True):
        batch["teacher"] = {name: other[name] for name in ("input_ids", "attention_mask")}
    times = profiled(tmp_path, module(student, teacher), batches, warmup=0)
    assert times.padding_share("student") == pytest.approx(4 / 28)
    assert times.padding_share("teacher") == pytest.approx(4 / 40)
    assert times.padding_share() is None


def test_models_without_a_mask_have_no_padding(tmp_path):
    class Net(nn.Linear):
        def forward(self, x):
            return super().forward(x)

    batches = [(torch.randn(4, 5), torch.randint(0, 3, (4,))) for _ in range(3)]
    model = DistillationModule(
        Net(5, 3),
        Net(5, 3),
        Objective({"soft": Term(SoftTarget(), LOGITS)}),
    )
    times = profiled(tmp_path, model, batches, warmup=0)
    assert times.samples == 12 and times.tokens == {}
    assert times.padding_share("student") is None


def test_fewer_steps_than_warm_up_are_no_steps(student, teacher, batches, tmp_path):
    times = profiled(tmp_path, module(student, teacher), batches, warmup=5, max_steps=3)
    assert (times.seen, times.steps, times.total, times.between) == (3, 0, 0.0, 0.0)
    assert times.tokens == {} and times.milliseconds("data") == 0.0


def test_a_resumed_run_measures_what_is_left(student, teacher, batches, tmp_path):
    first = trainer(tmp_path, max_epochs=1)
    model = module(student, teacher)
    first.fit(model, loader(batches))
    first.save_checkpoint(tmp_path / "a.ckpt")
    profile = StepProfile(1)
    trainer(tmp_path, max_epochs=3, callbacks=[profile]).fit(
        model, loader(batches), ckpt_path=tmp_path / "a.ckpt"
    )
    assert (profile.times.seen, profile.times.steps) == (8, 7)
    # The same callback again forgets.
    trainer(tmp_path, max_epochs=1, callbacks=[profile]).fit(model, loader(batches))
    assert (profile.times.seen, profile.times.steps) == (4, 3)


def test_nothing_is_left_behind(student, teacher, batches, tmp_path):
    made = trainer(tmp_path, callbacks=[StepProfile()])
    made.fit(module(student, teacher), loader(batches))
    assert isinstance(made.profiler, PassThroughProfiler)
    assert not student._forward_pre_hooks and not teacher._forward_pre_hooks


class Breaks(L.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 2:
            raise RuntimeError("broken")


def test_nothing_is_left_behind_by_a_run_that_breaks(student, teacher, batches, tmp_path):
    profile = StepProfile(0)
    made = trainer(tmp_path, callbacks=[Breaks(), profile])
    with pytest.raises(RuntimeError, match="broken"):
        made.fit(module(student, teacher), loader(batches))
    assert profile.times.steps == 2
    assert isinstance(made.profiler, PassThroughProfiler)
    assert not student._forward_pre_hooks and not teacher._forward_pre_hooks


def test_a_profiler_of_ones_own_hears_everything(student, teacher, batches, tmp_path):
    profiler = SimpleProfiler()
    times = profiled(tmp_path, module(student, teacher), batches, profiler=profiler, warmup=0)
    assert times.steps == 4
    heard = profiler.recorded_durations
    assert len(heard["run_training_batch"]) == 4
    # And once when the module tried the objective, whose terms read no layers that are paired.
    assert len(heard["[DistillationModule].teacher"]) == 4 + 1


def test_an_accelerator_is_waited_for_at_every_border(student, teacher, tmp_path, monkeypatch):
    """One that is only pretended: its work is done when somebody waits for it."""
    queue = []

    class Queued(Module):
        def teacher_forward(self, batch, **options):
            queue.append(SLOW)
            return super().teacher_forward(batch, **options)

    monkeypatch.setattr("lightning_distill.callbacks.step_profile._runs_behind", lambda _: True)
    monkeypatch.setattr(
        torch.accelerator, "synchronize", lambda _: [sleep(queue.pop()) for _ in list(queue)]
    )
    model = module(student, teacher)
    model.__class__ = Queued
    times = profiled(tmp_path, model, text_batches(count=6))
    expected = {phase: 1000 * SLOW * (phase == "teacher") for phase in PHASES}
    assert {phase: times.milliseconds(phase) for phase in PHASES} == pytest.approx(expected)


def test_the_cpu_is_not_waited_for(student, teacher, batches, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda _: 1 / 0)
    assert profiled(tmp_path, module(student, teacher), batches, warmup=0).steps == 4


@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="shows that work on a GPU is waited for, and there is none",
)
def test_a_gpu_is_waited_for(student, teacher, tmp_path):
    class Busy(Module):
        def teacher_forward(self, batch, **options):
            torch.cuda._sleep(40_000_000)
            return super().teacher_forward(batch, **options)

    model = module(student, teacher)
    model.__class__ = Busy
    times = profiled(tmp_path, model, text_batches(count=6), accelerator="gpu", devices=1)
    assert times.device == "cuda"
    assert times.share("teacher") > 0.5


@pytest.mark.parametrize("warmup", [-1, 2.5, True, "3"])
def test_a_warm_up_that_is_no_number_of_steps_is_refused(warmup, unchecked_types):
    with pytest.raises(ValueError, match="`warmup` must be a whole number of at least 0, got"):
        StepProfile(warmup)
