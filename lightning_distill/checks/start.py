"""The student before its first step: how far it is from the teacher, and what would move it."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor

from ..models.size import parameter_count
from ..models.source import Source
from ..objective.objective import Objective
from .finding import Finding, Level

# A difference of models in float32 that are the same.
SAME = 1e-6
# A part of the loss that moves nothing.
LITTLE = 1e-4
# Of the largest entropy: then the teacher tells no class from another.
FLAT = 0.999
LARGER = 1.05


def check_start(
    measured: Mapping[str, float],
    objective: Objective,
    compared: Collection[str],
    becomes_sparse: bool,
) -> Iterator[Finding]:
    """What the terms are on validation rows, and how often both models predict the same.

    Args:
        measured: what a test has logged, by name.
        objective: of the training.
        compared: names of the metrics that compare with the teacher.
        becomes_sparse: whether weights of the student are made 0 while it learns.
    """
    weights = objective.weights()
    values = {n: measured[f"test/{n}"] for n in weights if f"test/{n}" in measured}
    parts = {name: weights[name] * value for name, value in values.items()}
    total = sum(abs(part) for part in parts.values())
    for name, value in values.items():
        found = f"{value:.4g} at the start, weight {weights[name]:.3g}"
        little = total > 0 and abs(parts[name]) < LITTLE * total and value > SAME
        level = Level.WARNING if little else Level.RIGHT
        do = (
            f"It is {abs(parts[name]) / total:.1g} of the loss, and moves nothing: raise "
            f"criteria.{name}.weight."
            if little
            else ""
        )
        brief = f"Start: {name} {value:.3g}"
        yield Finding("term.value", f"term {name}", found, level, do, brief)
    for name in compared:
        if f"test/{name}" in measured:
            found = f"{name} {measured[f'test/{name}']:.4g} with the teacher"
            yield Finding(
                "student.compared", "student", f"{found} at the start", brief=f"Start: {found}"
            )
    of_teacher = [n for n in values if _reads_teacher(objective, n)]
    equal = of_teacher and all(abs(values[n]) < SAME for n in of_teacher)
    if equal and not becomes_sparse:
        yield Finding(
            "student.is_teacher",
            "student",
            f"answers what the teacher answers: {', '.join(of_teacher)} "
            f"{'is' if len(of_teacher) == 1 else 'are'} 0",
            Level.WRONG,
            "There is nothing to learn of it: take a smaller student, as in student=from_teacher "
            "student.layers=2.",
        )


def _reads_teacher(objective: Objective, name: str) -> bool:
    term: Any = objective.terms[name]
    return any(source.role == "teacher" for source in term.sources())


def check_sizes(student: Any, teacher: Any) -> Iterator[Finding]:
    """How large both models are.

    Args:
        student: the model.
        teacher: a [`Teacher`][]; `None` without one.
    """
    count = parameter_count(student)
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
    frozen = "" if trained == count else f", of which {trained:,} are trained"
    found = f"student {count:,} parameters{frozen}"
    theirs = None
    if teacher is not None:
        # Of one that is there, without a hash of all its weights.
        live = teacher.model
        theirs = teacher.about().get("parameters") if live is None else parameter_count(live)
    if theirs is None:
        yield Finding("sizes", "sizes", found, brief=f"Parameters: {found}")
        return
    found += f", teacher {theirs:,} ({theirs / max(count, 1):.3g} times as many)"
    if count <= LARGER * theirs:
        brief = f"Parameters: student {count:,}{frozen}, teacher {theirs:,}"
        yield Finding("sizes", "sizes", found, brief=brief)
        return
    do = "The student is larger: are student.path and teacher.path exchanged?"
    yield Finding("sizes", "sizes", found, Level.WARNING, do)


def check_temperatures(objective: Objective, values: Mapping[Source, Any]) -> Iterator[Finding]:
    """Whether a temperature leaves anything of what the teacher says.

    Args:
        objective: of the training.
        values: every source's tensor on a batch.
    """
    for name, term in objective.terms.items():
        own: Any = term
        temperature = own.criterion.softened_at
        if temperature is None or not own.criterion.needs_classes:
            continue
        for source in own.sources():
            logits = values.get(source)
            plain = source.role == "teacher" and source.name == "logits"
            if not plain or not isinstance(logits, Tensor) or logits.shape[-1] < 2:
                continue
            share = float(_entropy(logits.float() / temperature))
            found = f"at temperature {temperature:g} the teacher's entropy is {share:.1%} of the "
            found += "largest"
            # One that is flat without is no matter of the temperature.
            flattens = share > FLAT > float(_entropy(logits.float()))
            level = Level.WARNING if flattens else Level.RIGHT
            do = f"Nothing is left of its answers: lower criteria.{name}.criterion.temperature."
            do = do if level is Level.WARNING else ""
            yield Finding("term.temperature", f"term {name}", found, level, do)


def _entropy(logits: Tensor) -> Tensor:
    """The mean entropy, as a share of that of the uniform distribution."""
    log_p = logits.log_softmax(-1)
    entropy = -(log_p.exp() * log_p.masked_fill(log_p.isinf(), 0.0)).sum(-1)
    return entropy.mean() / math.log(logits.shape[-1])
