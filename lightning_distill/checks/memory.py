"""How much memory a training step takes, found out without any: models have shapes and no data."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from rich.filesize import decimal
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ..models.batch import map_entries, tensors
from ..models.live_memory import LiveMemory
from ..models.operations import counting_operations
from ..models.submodules import submodules
from ..training.optimization import parameter_groups, trainable
from .finding import Finding, Level


@contextmanager
def on_paper() -> Iterator[FakeTensorMode]:
    """Within it every new tensor has a shape and a type, and no data."""
    with warnings.catch_warnings(), FakeTensorMode() as mode:
        # Whether two models share memory is asked of where it lies.
        warnings.filterwarnings("ignore", message=".*data pointer of FakeTensor.*")
        yield mode


@dataclass(frozen=True)
class StepMemory:
    """What a training step takes, in bytes.

    Attributes:
        weights: of both models, with buffers.
        kept: gradients and what the optimizer keeps.
        peak: the most at any moment, all of it.
        flops: floating-point operations of the step; `None` where they were not counted.
        whole: whether the criteria are in it.
    """

    weights: int
    kept: int
    peak: int
    flops: int | None
    whole: bool


def step_memory(
    module: Any,
    batch: Any,
    precision: Any,
    accumulated: int = 1,
    mode: Any = None,
    with_flops: bool = True,
) -> StepMemory:
    """Go through a training step of a module, and see how much memory it takes after another one.

    Args:
        module: a [`DistillationModule`][], whose terms were not tried yet.
        batch: as its loader gives it.
        precision: Lightning's plugin.
        accumulated: batches of a step.
        mode: that of [`on_paper`][], in which the module was made; `None` takes real steps.
        with_flops: whether operations are counted, which takes half as long again.
    """
    if mode is not None:
        batch = map_entries(batch, lambda v: mode.from_tensor(v) if isinstance(v, Tensor) else v)
    parts = [module.student, *([] if module.taught_by is None else [module.taught_by])]
    module.student.train()
    weights = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
    live, whole = LiveMemory(weights), True
    of_weights = live.live
    optimizer: Any = None
    before: Any = None
    with live:
        # The first loss makes adapters and criteria with weights of their own, and shows which
        # criteria look at values.
        while before != (now := (len(trainable(module.student, module.objective)), whole)):
            before = now
            # The one before keeps nothing beside it.
            optimizer = None
            optimizer = _after_a_step(module)
            # A third batch of a step finds what the second finds.
            for number in range(min(accumulated, 2)):
                with precision.forward_context():
                    loss, whole = _loss(module, batch, whole)
                if number == 0:
                    # Lightning keeps the gradients of a step until the next has its loss.
                    optimizer.zero_grad()
                loss.backward()
                del loss
    kept = live.live - of_weights
    flops = None
    if with_flops:
        # Apart, for it takes some operations to pieces.
        with counting_operations() as counter, precision.forward_context():
            _loss(module, batch, whole)[0].backward()
        flops = counter.get_total_flops() * accumulated
    return StepMemory(of_weights, kept, live.peak, flops, whole)


def _after_a_step(module: Any) -> torch.optim.Optimizer:
    """The optimizer with all that it keeps, and gradients, as a step leaves them."""
    # Their values are of no interest, so that no loss is needed.
    for parameter in trainable(module.student, module.objective):
        parameter.grad = torch.zeros_like(parameter)
    optimizer = module.optimizer(parameter_groups(module.student, module.objective))
    optimizer.step()
    return optimizer


def _loss(module: Any, batch: Any, whole: bool) -> tuple[Tensor, bool]:
    """The loss; where criteria look at values, something that keeps as much for the gradient."""
    values, _, _ = module.read_sources(batch, heads="skipped" if whole else "whole")
    if whole:
        try:
            if not module.objective.prepared:
                taught_by = module.taught_by
                teacher = [] if taught_by is None else taught_by.module_names
                layers = {"student": list(submodules(module.student)), "teacher": teacher}
                module.objective.prepare(values, {**layers, "batch": []})
            return module.objective(values)["loss"], True
        except Exception:
            # Whatever it is that has no values: there are as many kinds as there are criteria.
            pass
    read = tensors([value for source, value in values.items() if source.role == "student"])
    return torch.stack([v.float().log_softmax(-1).mean() for v in read]).sum(), False


def check_memory(found: StepMemory, there: int, rows: int) -> Iterator[Finding]:
    """Compare what a step takes with what there is.

    Args:
        found: what a step takes.
        there: bytes of memory of this machine.
        rows: of the largest batch.
    """
    more = found.peak - found.weights - found.kept
    said = (
        f"{decimal(found.peak)} predicted for the largest batch ({rows} rows): weights "
        f"{decimal(found.weights)}, gradients and optimizer {decimal(found.kept)}, activations "
        f"{decimal(max(more, 0))}"
    )
    said += "" if found.whole else "; without the criteria, which look at values"
    said += "" if found.flops is None else f"; {found.flops / 1e9:.3g} GFLOP a step"
    if found.peak <= there:
        brief = f"Memory: {decimal(found.peak)} predicted for a step of the largest batch, "
        brief += f"{rows} rows"
        yield Finding("cost.memory", "memory", said, brief=brief)
        return
    said += f"; this machine has {decimal(there)}"
    do = "Lower data.batch_size or data.max_length, or set gradient_checkpointing=true."
    yield Finding("cost.memory", "memory", said, Level.WRONG, do)
