"""What share of the rows, or of the tokens, each term learns from."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from ..cache.row_id import row_lengths
from ..data.data import DataFacts
from ..data.truncation import MANY
from ..models.batch import batch_size, row_count
from ..models.inputs import model_inputs
from ..objective.objective import Objective
from ..training.transfer import transferred
from ..training.trial import without_a_trace
from .finding import Finding, Level

# Shares below which most of the data serves no term. Masked tokens are 15 % of all.
ROWS, TOKENS = 0.5, 0.02


def check_learnt(batches: Iterable[Any], module: Any, data: Any) -> Iterator[Finding]:
    """Count what the terms count, as each criterion says it.

    Args:
        batches: of training rows, as their loader gives them.
        module: a [`DistillationModule`][] whose objective was tried on a batch.
        data: the data module.
    """
    objective: Objective = module.objective
    counted, rows, texts, tokens = torch.zeros(len(objective.terms)), 0, 0, 0
    are_rows = [True] * len(objective.terms)
    with without_a_trace(module), torch.no_grad():
        for batch in batches:
            # The terms read what is made of it, as masks that only the module knows.
            batch = module.trial_batch(transferred(module, batch, data))
            counted += objective.count_batch(batch).amax(0).cpu()
            are_rows = objective.counts_rows(batch)
            rows, texts = rows + row_count(batch), texts + batch_size(batch)
            tokens += sum(_lengths(batch, module.student))
    best, all_found = 0.0, []
    shares: dict[str, list[str]] = {}
    for name, number, of_rows in zip(objective.terms, counted.tolist(), are_rows, strict=True):
        total, unit = (tokens, "tokens") if tokens and not of_rows else (rows, "rows")
        if of_rows and number > rows:
            # Of which a row may have several.
            total, unit = texts, "texts"
        share = min(number / max(total, 1), 1.0)
        best = max(best, share / (TOKENS if unit == "tokens" else ROWS))
        found = f"learns from {number:,.0f} of {total:,} {unit} ({share:.1%})"
        of = f"of {total:,} training {unit}"
        shares.setdefault(of, []).append(f"{name} {100 * share:.3g}%")
        all_found.append((name, found, of))
    nothing = [name for name, number in zip(objective.terms, counted.tolist(), strict=True)
               if number == 0]  # fmt: skip
    for name, found, of in all_found:
        # One line for all terms that learn from as much.
        same = shares.pop(of, None)
        brief = f"Learnt from: {', '.join(same)} {of}" if same else ""
        if name in nothing:
            level = Level.WRONG if len(nothing) == len(all_found) else Level.WARNING
            do = "No label or mask counts: is data.label the right column?"
        else:
            level = Level.WARNING if best < 1 else Level.RIGHT
            do = (
                "Most of the data serves no term: add one that reads the teacher "
                "(criteria=[soft_target]), or labels."
                if best < 1
                else ""
            )
        yield Finding("learnt.share", f"term {name}", found, level, do, brief)


def _lengths(batch: Any, student: Any) -> list[int]:
    return row_lengths(model_inputs(batch, student)) or []


def check_cut(data: Any) -> Iterator[Finding]:
    """What share of the training rows was cut at the longest length.

    Args:
        data: a data module that is set up.
    """
    counts = DataFacts(data).counts
    for name, count in counts.items():
        # Of rows or of documents, as the data calls them.
        what, _, by = name.partition(" cut by ")
        if not by or not what.startswith("train "):
            continue
        rows = counts.get(what, 0)
        share = count / max(rows, 1)
        if share <= MANY:
            # Where it is more, the data has warned of it.
            found = f"{by} cuts {count:,} of {rows:,} {what} ({share:.1%})"
            yield Finding("learnt.cut", "length", found)
