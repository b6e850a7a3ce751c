"""The task of a module is found out from the first batch, and terms get its masks."""

from contextlib import suppress
from typing import Any

from ..models.capture import read
from ..tasks import infer_task, label_kind_of, mask_terms
from .values import Values


def settle_task(module: Any, batch: Any, values: Values | None = None, student: Any = None) -> None:
    """Find out the task where nobody named it, and give its masks to terms that name none.

    Called before the models run, so that a teacher can see the masks, and once more afterwards,
    when the shapes of what they return are known.

    Args:
        module: a [`DistillationModule`][] that is tried.
        batch: on the module's device.
        values: of every source, once the models have run; the new masks are added.
        student: what the student has returned.
    """
    terms = dict(module.objective.terms.items())
    if module.task is None:
        predicted = None
        if student is not None:
            with suppress(ValueError):
                predicted = module.predictions(student)
        module.task = infer_task(module.student, batch, predicted, label_kind_of(terms))
    if module.task is not None and not module.objective.prepared:
        mask_terms(terms, module.task, batch, values)
    if values is not None:
        new = [source for source in module.objective.sources("batch") if source not in values]
        values.update({source: read(source, batch, {}) for source in new})
