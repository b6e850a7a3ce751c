"""What is minimised: named terms, each a criterion with its inputs and its weight."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import nn, Tensor

from ..criteria._label_share import sharing_labels
from ..models.batch import batch_size
from ..models.capture import read
from ..models.source import Source
from ..schedules import Schedule
from .gradient import check_gradient
from .layer_similarity import SimilarLayers
from .names import check_name
from .normalisation import count, count_rows, rows_of, Shares
from .term import Term, Terms


class Objective(nn.Module):
    """Named terms; their weighted sum is the loss.

    A term whose criterion is the sum of several means, such as `KnowledgeDistillation`, is
    replaced by a term for each of them; under its own name their weighted sum is logged.

    Args:
        terms: from names, under which they are logged, to terms. `None` leaves one out.
        balance: what is minimised in training instead of the weighted sum, made from the terms and
            their weights, such as those of `lightning_distill.balance`.

    Raises:
        ValueError: if no term counts, or a name cannot be used.
    """

    def __init__(self, terms: Mapping[str, nn.Module | None], balance: nn.Module | None = None):
        super().__init__()
        expanded: dict[str, Term] = {}
        # Of names that stand for several terms: these, and what each is multiplied by in the sum.
        self.sums: dict[str, dict[str, float]] = {}
        for name, given in terms.items():
            if given is None:
                continue
            check_name("term", name)
            if not isinstance(given, Terms):
                raise ValueError(
                    f"Term {name!r} is a {type(given).__name__}; wrap a criterion in "
                    "lightning_distill.Term(criterion, inputs=..., weight=...)."
                )
            parts = {_joined(name, part): (r, t) for part, (r, t) in given.expanded().items()}
            twice = [n for n in parts if n in expanded or (n != name and n in terms)]
            if twice:
                raise ValueError(
                    f"{', '.join(twice)} is the name of two terms, one of them a part of "
                    f"{name!r}; give one of them another name."
                )
            expanded |= {n: term for n, (_, term) in parts.items()}
            if list(parts) != [name] and given.active:
                self.sums[name] = {n: ratio for n, (ratio, _) in parts.items()}
        self.terms = nn.ModuleDict({n: t for n, t in expanded.items() if t.active})
        if not self.terms:
            raise ValueError(
                "The objective has no term with a positive weight, so there is nothing to learn. "
                "Choose some, for example criteria=[hard_label,soft_target]."
            )
        self.prepared = False
        if balance is not None:
            for method in ("prepare", "logged"):
                if not callable(getattr(balance, method, None)):
                    raise ValueError(
                        f"`balance` must have a method `{method}`, which {type(balance).__name__} "
                        "lacks. Choose one of lightning_distill.balance: Uncertainty, GradNorm, "
                        "PCGrad. DOT is an optimizer."
                    )
            balance.prepare(list(self.terms))  # type: ignore[operator]
        self.balance = balance

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within it there are no terms that are for training only."""
        everything = self.terms
        kept = {n: t for n, t in zip(everything, self._terms(), strict=True) if not t.training_only}
        self.terms = everything if len(kept) == len(everything) else nn.ModuleDict(kept)
        try:
            yield
        finally:
            self.terms = everything

    def sources(self, role: str) -> list[Source]:
        """What all terms read from the `student`, the `teacher` or the `batch`."""
        found = (s for term in self.terms.values() for s in term.sources() if s.role == role)
        return list(dict.fromkeys(found))

    def similar_layers(self) -> dict[str, SimilarLayers]:
        """By the names of terms with `mapping=auto`, what pairs their layers."""
        named = zip(self.terms, self._terms(), strict=True)
        return {name: term.similar for name, term in named if term.similar is not None}

    def look(self, values: Mapping[Source, Any]) -> None:
        """See how alike layers are in one more batch, before [`prepare`][] pairs them by it."""
        for term in self._terms():
            term.look(values)

    def prepare(
        self,
        values: Mapping[Source, Any],
        layers: Mapping[str, Sequence[str]],
        agree: Callable[[Any], Any] = lambda chosen: chosen,
    ) -> None:
        """Pair layers, build adapters and try every term on the tensors of one batch.

        Args:
            values: every source's tensor, or list of tensors.
            layers: by role, the paths of all submodules.
            agree: from what one process has found to what all of them take.
        """
        for name, term in zip(self.terms, self._terms(), strict=True):
            try:
                loss = term.prepare(values, layers, agree)
                if loss.dim() != 0:
                    raise ValueError(
                        f"its criterion returns shape {tuple(loss.shape)}; "
                        "let it take the mean over samples and return a scalar."
                    )
            except (ValueError, TypeError, RuntimeError) as error:
                described = ", ".join(f"{k}={s}" for k, s in term.inputs.items())
                shapes = ", ".join(
                    f"{s} {tuple(v.shape)}"
                    for s in term.sources()
                    if isinstance(v := values.get(s), Tensor)
                )
                raise ValueError(
                    f"Term {name!r} ({described}) does not work on the first batch: {error}"
                    + (f" Shapes: {shapes}." if shapes else "")
                ) from error
        self.prepared = True

    def advance(self, progress: float) -> None:
        """Set every schedule to `progress`, a fraction of the run from 0 to 1."""
        for module in self.modules():
            if isinstance(module, Schedule):
                module.progress = progress

    def weights(self) -> dict[str, float]:
        """The weight of every term now."""
        return {
            name: float(term.weight() if isinstance(term.weight, Schedule) else term.weight)  # type: ignore[arg-type]
            for name, term in self.terms.items()
        }

    def fixed_weights(self) -> dict[str, float]:
        """The weights of terms that they have from the first step to the last."""
        if self.balance is not None:
            return {}
        terms = self.terms.items()
        return {n: float(t.weight) for n, t in terms if not isinstance(t.weight, Schedule)}  # type: ignore[arg-type]

    def count(
        self, values: Mapping[Source, Any], rows: int | None = None
    ) -> Float[Tensor, "means terms"]:
        """How much of a batch counts in the means of each term, see `objective.normalisation`.

        Args:
            values: what the terms read of the batch; other values are not looked at.
            rows: how many rows the batch has; by default those of the first tensor of `values`.
        """
        return count(self._terms(), values, rows_of(values) if rows is None else rows)

    def count_batch(self, batch: Any) -> Float[Tensor, "means terms"]:
        """The same for a batch that no model has seen."""
        values = {source: read(source, batch, {}) for source in self.sources("batch")}
        return self.count(values, batch_size(batch))

    def counts_rows(self, batch: Any) -> list[bool]:
        """Of each term, whether what counts of a batch are rows, and not tokens of rows."""
        values = {source: read(source, batch, {}) for source in self.sources("batch")}
        return count_rows(self._terms(), values)

    def counts(self, values: Mapping[Source, Any], rows: int | None = None) -> dict[str, Tensor]:
        """Over how much each term's value on these tensors is a mean, by name."""
        return dict(zip(self.terms, self.count(values, rows)[0], strict=True))

    def gathers(self) -> list[bool]:
        """Of each term, whether its value in training is that of all processes together."""
        return [term.criterion.gather for term in self._terms()]

    def forward(
        self, values: Mapping[Source, Any], shares: Shares | None = None
    ) -> dict[str, Tensor]:
        """Every term under its name, unweighted, and their weighted sum as `loss`; scalars.

        Args:
            values: every source's tensor, or list of tensors.
            shares: what each mean of this batch counts in the step; its own mean by default.
        """
        return self.measure(values, shares)[0]

    def measure(
        self, values: Mapping[Source, Any], shares: Shares | None = None
    ) -> tuple[dict[str, Tensor], Float[Tensor, "means terms"]]:
        """What `forward` returns, and the means of this batch, without shares or graph.

        The second mean of a term is the cross-entropy within a fused loss, 0 for all others.
        """
        losses, means = {}, []
        for i, (name, term) in enumerate(self.terms.items()):
            of_labels = 1.0 if shares is None else shares.labels[i]
            with sharing_labels(of_labels) as label:
                loss = term(values)
            own = loss.detach()
            second = torch.zeros_like(own) if label.mean is None else label.mean.to(own)
            means.append(torch.stack([own - of_labels * second, second]).float())
            # Selected and not multiplied: what is a mean over nothing may be NaN.
            share = None if shares is None else shares.terms[i].to(loss)
            losses[name] = loss if share is None else torch.where(share > 0, share * loss, 0.0)
        weights = self.weights()
        total = torch.stack([weights[n] * loss for n, loss in losses.items()]).sum()
        return {"loss": total, **losses, **self.summed(losses)}, torch.stack(means, dim=1)

    def summed(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values of names that stand for several terms, of those of the terms that count."""
        found = {}
        for name, parts in self.sums.items():
            there = [ratio * losses[n] for n, ratio in parts.items() if n in losses]
            if there:
                found[name] = torch.stack(there).sum()
        return found

    def observe(self, means: Float[Tensor, " terms"]) -> None:
        """Tell every criterion the mean of the last batch over all processes."""
        for term, mean in zip(self._terms(), means, strict=True):
            term.criterion.observe(mean)

    def logged(self) -> list[tuple[str, int, Tensor]]:
        """What criteria say beside their value: `TERM_WHAT`, the term's place, and the value."""
        return [
            (f"{name}_{what}", i, value)
            for i, (name, term) in enumerate(zip(self.terms, self._terms(), strict=True))
            for what, value in term.criterion.logged().items()
        ]

    def _terms(self) -> list[Term]:
        return [term for term in self.terms.values() if isinstance(term, Term)]

    def minimised(
        self, losses: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]
    ) -> Tensor:
        """What training minimises: the weighted sum, or what the balance makes of the terms.

        Args:
            losses: what `forward` returned.
            parameters: the student's trainable parameters by name.
        """
        if self.balance is None:
            return losses["loss"]
        terms = {name: losses[name] for name in self.terms}
        return self.balance(terms, self.weights(), parameters)

    def without_teacher(self, losses: Mapping[str, Tensor]) -> Tensor | None:
        """The weighted sum of the terms that read no teacher; `None` if no term reads it."""
        of_labels = [
            name
            for name, term in self.terms.items()
            if all(source.role != "teacher" for source in term.sources())
        ]
        if len(of_labels) == len(self.terms):
            return None
        weights = self.weights()
        return sum((weights[n] * losses[n] for n in of_labels), 0.0 * losses["loss"].detach())

    def check(
        self,
        losses: Mapping[str, Tensor],
        parameters: Iterable[Tensor],
        values: Mapping[Source, Any] | None = None,
    ) -> None:
        """Refuse terms that are not finite, or from which the student would learn nothing.

        Args:
            losses: what `forward` returned for one batch, with its graph.
            parameters: the student's trainable parameters.
            values: what it was given, to tell a term that is 0 here from one that always is.
        """
        for name, term in zip(self.terms, self._terms(), strict=True):
            check_gradient(name, term, losses[name], list(parameters), values)


def _joined(name: str, part: str) -> str:
    return f"{name}_{part}" if part else name
