"""The first batch is tried before the first step, so that what cannot work is refused then."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader

from ..callbacks.one_shot import is_one_shot
from ..metrics import check_pairs, check_vectors
from ..metrics.traits import needs_teacher
from ..models.capture import check_layers
from ..models.embeddings import check_vocabulary
from ..models.gradient_checkpointing import checkpointing_in_eval
from ..models.modes import in_eval_mode
from ..models.source import Source
from ..models.submodules import submodules
from .last_batch import check_last_batch
from .metric_sources import sources_of_metrics
from .optimization import trainable, trainable_by_name
from .own_tokens import check_tokens
from .preconditions import (
    check_causal,
    check_label_order,
    check_packed,
    check_shift,
    check_unused,
)
from .settle_task import settle_task
from .transfer import transferred, working_device
from .values import Values

log = logging.getLogger("lightning_distill")

ROLES = ("student", "teacher", "batch")

# How alike layers are differs little between batches of many tokens.
BATCHES_TO_LOOK_AT = 4


def example_batch(trainer: Any) -> Any:
    """One batch of the loop that begins; `None` if the data can be read only once.

    Raises:
        ValueError: if there is none.
    """
    loops = {"fit": trainer.fit_loop, "validate": trainer.validate_loop, "test": trainer.test_loop}
    loop = loops.get(str(getattr(trainer.state.fn, "value", trainer.state.fn)))
    if loop is None:
        return None
    loop.setup_data()
    loaders = {
        "fit": trainer.train_dataloader,
        "validate": trainer.val_dataloaders,
        "test": trainer.test_dataloaders,
    }[trainer.state.fn.value]
    if trainer.state.fn.value != "fit" and isinstance(loaders, list | tuple):
        loaders = loaders[0] if loaders else ()
    if loaders is None or is_one_shot(loaders):
        # Nothing is trained, or what is read is gone.
        return None
    for batch in loaders if not is_several(loaders) else _batches_of_several(loaders):
        return batch
    raise ValueError("The data has no batch: it is empty, or shorter than one batch.")


def is_several(loaders: Any) -> bool:
    """Whether these are several loaders, and not one."""
    return isinstance(loaders, Mapping) or (
        isinstance(loaders, list | tuple) and all(isinstance(one, DataLoader) for one in loaders)
    )


def _batches_of_several(loaders: Any) -> Iterator[Any]:
    for batch, *_ in CombinedLoader(loaders, "min_size"):
        yield batch


def prepare(module: Any, batch: Any, check: bool = True) -> None:
    """Try the objective on a batch as a loader gives it; see [`DistillationModule.prepare`][]."""
    device = None
    if module.is_attached:
        trainer = module.trainer
        if trainer.world_size == trainer.num_devices * trainer.num_nodes:
            device = working_device(module)
    batch = transferred(module, batch, device=device)
    try_batch(module, batch, check)
    if check and module.is_attached:
        check_last_batch(module, batch, module.trainer.train_dataloader)


def try_first_batch(module: Any, batch: Any) -> None:
    """Try a batch of the training itself, where the data can be read only once.

    Raises:
        ValueError: if the objective has parts to build from a batch: the optimizer exists already.
    """
    known = {id(p) for p in trainable(module.student, module.objective)}
    try_batch(module, batch, check=True)
    if any(id(p) not in known for p in trainable(module.student, module.objective)):
        raise ValueError(
            "The objective trains parts of its own (an adapter, say), whose sizes a batch tells, "
            "and this data can be read only once: the first batch would be lost to it. Give a "
            "DataLoader that can be iterated again, or override example_batch to return a batch."
        )


def try_batch(module: Any, batch: Any, check: bool) -> None:
    """Try the objective on a batch that is on the module's device; the models stay as they are."""
    with without_a_trace(module), torch.enable_grad(), module.autocast():
        batch = module.trial_batch(batch)
        settle_task(module, batch)
        _check_sources(module, batch)
        values, student, teacher = module.read_sources(batch, heads="checked")
        settle_task(module, batch, values, student)
        check_tokens(dict(module.objective.terms.items()), batch, values)
        if module.teacher is not None:
            _check_pairs(module, batch, student)
        if teacher is not None:
            _check_predictions(module, student, teacher)
            check_label_order(values, module.label_order)
        _try_sources_of_metrics(module, batch)
        before = _all_sources(module)
        if not module.objective.prepared:
            _prepare_objective(module, values)
        if not check:
            return
        now = _all_sources(module)
        if now != before or any(source.kind == "head" for source in now):
            # Layers are paired now, which changes what is read, and heads are known.
            values, _, _ = module.read_sources(batch, heads="skipped")
        _check_gradients(module, values)


def _prepare_objective(module: Any, values: Values) -> None:
    if not module.is_attached:
        module.objective.prepare(values, _layers(module))
        return
    _look_at_more(module)
    module.objective.prepare(values, _layers(module), module.trainer.strategy.broadcast)
    for name, layers in module.objective.similar_layers().items():
        log.info("%s: layers by similarity (CKA): %s", name, layers.describe())


def _look_at_more(module: Any) -> None:
    """Show the objective some more batches, where it pairs layers by what these are like."""
    if not module.objective.similar_layers():
        return
    loader = module.trainer.train_dataloader
    if loader is None or is_one_shot(loader) or is_several(loader):
        return
    for batch in islice(loader, 1, BATCHES_TO_LOOK_AT):
        batch = module.trial_batch(transferred(module, batch, device=module.device))
        values, _, _ = module.read_sources(batch, heads="skipped")
        module.objective.look(values)


@contextmanager
def without_a_trace(module: Any) -> Iterator[None]:
    """Modes, buffers and random numbers are afterwards what they were."""
    # Criteria in training may keep what they saw; this batch is no part of the training.
    module.is_trying = True
    trained = (module.student, module.objective)
    parts = {part for model in trained for part in model.modules()}
    states = {b: b.clone() for b in module.objective.buffers()}
    try:
        with in_eval_mode(*trained), checkpointing_in_eval(module.student), torch.random.fork_rng():
            yield
    finally:
        module.is_trying = False
        for part in set(module.objective.modules()) - parts:
            part.train(module.objective.training)
        for buffer, state in states.items():
            buffer.copy_(state)


def _check_gradients(module: Any, values: Values) -> None:
    losses = module.objective(values)
    module.objective.check(losses, trainable(module.student), values)
    loss = module.objective.minimised(losses, trainable_by_name(module.student))
    strategy = module.trainer.strategy if module.is_attached else None
    check_unused(loss, module.student, module.objective, strategy)


def _check_sources(module: Any, batch: Any) -> None:
    objective, student, teacher = module.objective, module.student, module.taught_by
    terms = dict(objective.terms.items())
    check_layers(student, objective.sources("student"))
    check_vocabulary(batch, student, "student")
    check_packed("student", student, module.student_inputs(batch))
    if teacher is not None:
        teacher.check(terms)
        check_vocabulary(batch, teacher.model, "teacher")
        if teacher.is_live:
            check_packed("teacher", teacher.model, module.teacher_inputs(batch))
    if check_shift(terms, batch, student):
        check_causal("student", student, module.student_inputs(batch))
        if teacher is not None and teacher.is_live and objective.sources("teacher"):
            check_causal("teacher", teacher.model, module.teacher_inputs(batch))


def _check_pairs(module: Any, batch: Any, student: Any) -> None:
    try:
        predicted = module.predictions(student)
    except ValueError:
        return
    check_pairs(batch, predicted, dict(module.metrics["val"].items()))


def _check_predictions(module: Any, student: Any, teacher: Any) -> None:
    one_width = module.task is None or module.task.one_width
    if not one_width:
        check_vectors(module.predictions(teacher), dict(module.metrics["val"].items()))
    if not one_width or not _compares_logits(module):
        # They are not made for this alone.
        return
    try:
        predicted, of_teacher = module.predictions(student), module.predictions(teacher)
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


def _try_sources_of_metrics(module: Any, batch: Any) -> None:
    """Read what metrics name, which validation would find missing after an epoch only."""
    metrics = module.metrics["val"].values()
    more = sources_of_metrics(metrics, with_teacher=module.teacher is not None)
    if more:
        module.read_sources(batch, heads="whole", more=more)


def _compares_logits(module: Any) -> bool:
    return any(
        s.name == "logits" and s.kind == "output" for s in module.objective.sources("teacher")
    ) or any(map(needs_teacher, module.metrics["val"].values()))


def _all_sources(module: Any) -> list[Source]:
    return [source for role in ROLES for source in module.objective.sources(role)]


def _layers(module: Any) -> dict[str, list[str]]:
    layers = {"student": list(submodules(module.student)), "teacher": [], "batch": []}
    if module.taught_by is not None:
        layers["teacher"] = module.taught_by.module_names
    return layers
