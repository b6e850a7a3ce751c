"""What is minimised: named terms, each a criterion with its inputs and its weight."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn, Tensor

from ..models.batch import batch_size
from ..models.capture import read
from ..models.source import Source
from ..schedules import Schedule
from .count import count_of


class Objective(nn.Module):
    """Named terms; their weighted sum is the loss.

    Args:
        terms: from names, under which they are logged, to terms. `None` leaves one out.
        balance: what is minimised in training instead of the weighted sum, made from the terms and
            their weights, such as those of `lightning_distill.balance`.

    Raises:
        ValueError: if no term counts, or a name cannot be used.
    """

    def __init__(self, terms: Mapping[str, nn.Module | None], balance: nn.Module | None = None):
        super().__init__()
        given = {name: term for name, term in terms.items() if term is not None}
        for name, term in given.items():
            if not name.isidentifier() or name == "loss":
                raise ValueError(
                    f"A term's name must be a plain word other than 'loss', got {name!r}."
                )
            if not hasattr(term, "sources") or not hasattr(term, "weight"):
                raise ValueError(
                    f"Term {name!r} is a {type(term).__name__}; wrap a criterion in "
                    "lightning_distill.Term(criterion, inputs=..., weight=...)."
                )
        self.terms = nn.ModuleDict({n: t for n, t in given.items() if t.active})
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

    def sources(self, role: str) -> list[Source]:
        """What all terms read from the `student`, the `teacher` or the `batch`."""
        found = (s for term in self.terms.values() for s in term.sources() if s.role == role)
        return list(dict.fromkeys(found))

    def prepare(self, values: Mapping[Source, Any], layers: Mapping[str, Sequence[str]]) -> None:
        """Pair layers, build adapters and try every term on the tensors of one batch."""
        for name, term in self.terms.items():
            try:
                loss = term.prepare(values, layers)
                if loss.dim() != 0:
                    raise ValueError(
                        f"its criterion returns shape {tuple(loss.shape)}; "
                        "let it take the mean over samples and return a scalar."
                    )
            except (ValueError, TypeError, RuntimeError) as error:
                described = ", ".join(f"{k}={s}" for k, s in getattr(term, "inputs", {}).items())
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

    def counts(self, values: Mapping[Source, Any]) -> dict[str, Tensor]:
        """Over how many samples or tokens each term's value on these tensors is a mean."""
        return {name: count_of(term, values) for name, term in self.terms.items()}

    def batch_counts(self, batch: Any, of_labels: bool = False) -> dict[str, Tensor]:
        """The same for a batch that no model has seen; rows for terms that read nothing of it.

        Args:
            batch: as the objective's terms will read it.
            of_labels: of terms that have a cross-entropy within (`label_weight`), what counts in
                that.
        """
        values = {source: read(source, batch, {}) for source in self.sources("batch")}
        rows = batch_size(batch)
        found = {}
        for name, term in self.terms.items():
            # What else is in the batch, such as texts of other rows, says nothing of a count.
            says = getattr(term, "inputs", {}).keys() & {"labels", "mask", "weight"}
            says = says or hasattr(getattr(term, "criterion", None), "counted")
            found[name] = count_of(term, values if says else {}, rows, of_labels)
        return found

    def forward(self, values: Mapping[Source, Any]) -> dict[str, Tensor]:
        """Every term under its name, unweighted, and their weighted sum as `loss`; scalars."""
        losses = {name: term(values) for name, term in self.terms.items()}
        weights = self.weights()
        total = torch.stack([weights[n] * loss for n, loss in losses.items()]).sum()
        return {"loss": total, **losses}

    @contextmanager
    def sharing(self, label_shares: Tensor | None) -> Iterator[None]:
        """While it lasts, the cross-entropy within each term counts so often; shape (terms,)."""
        criteria = [getattr(term, "criterion", None) for term in self.terms.values()]
        shared = [(i, c) for i, c in enumerate(criteria) if getattr(c, "label_weight", 0)]
        if label_shares is not None:
            for i, criterion in shared:
                criterion.label_share = label_shares[i]  # type: ignore[union-attr]
        try:
            yield
        finally:
            for _, criterion in shared:
                vars(criterion).pop("label_share", None)

    def scaled(self, losses: Mapping[str, Tensor], factors: Tensor) -> dict[str, Tensor]:
        """What `forward` returned, each term times its factor; shape (terms,)."""
        scaled = {n: losses[n] * f for n, f in zip(self.terms, factors, strict=True)}
        weights = self.weights()
        total = torch.stack([weights[n] * loss for n, loss in scaled.items()]).sum()
        return {"loss": total, **scaled}

    def logged(self) -> dict[str, Tensor]:
        """What criteria with a method `logged` say beside their value, as `TERM_WHAT`."""
        criteria = {n: getattr(term, "criterion", None) for n, term in self.terms.items()}
        return {
            f"{name}_{what}": value
            for name, criterion in criteria.items()
            if hasattr(criterion, "logged")
            for what, value in criterion.logged().items()  # type: ignore[union-attr]
        }

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
        parameters = list(parameters)
        for name, term in self.terms.items():
            loss = losses[name]
            if not torch.isfinite(loss):
                raise ValueError(
                    f"Term {name!r} is {loss.item()} on the first batch. Look for NaN or infinity "
                    "in the logits of student and teacher, and for a temperature too small."
                )
            reached: list[Tensor] = []
            moved = False
            if loss.requires_grad:
                # Those next to the output first: one that is moved is enough, and they cost little.
                for some in (parameters[-2:], parameters):
                    found = torch.autograd.grad(loss, some, retain_graph=True, allow_unused=True)
                    reached = [g for g in found if g is not None]
                    moved = any(bool(g.count_nonzero()) for g in reached)
                    if moved:
                        break
            if not moved and reached and loss.item() == 0:
                moved = values is None or _moves_elsewhere(term, values)
            if not moved:
                raise ValueError(
                    f"Term {name!r} has a positive weight but gives the student no gradient: it "
                    "would be logged and never learnt from. Does one of its inputs come from the "
                    "student, through layers that are trained, and without detach()? Is a weight "
                    "within it 0?"
                )


def _moves_elsewhere(term: Any, values: Mapping[Source, Any]) -> bool:
    """Whether a term that is 0 gives a gradient once the student's tensors are others.

    A student that equals its teacher, or rows without labels, are no reason to refuse a term.
    """
    if not count_of(term, values):
        return True

    def other(value: Any) -> Any:
        if isinstance(value, list):
            return [other(v) for v in value]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        noise = torch.randn_like(value) * (value.detach().std(correction=0) + 1.0)
        return (value.detach() + noise).requires_grad_()

    changed = {s: other(v) if s.role == "student" else v for s, v in values.items()}
    leaves: list[Any] = []
    for source, value in changed.items():
        if source.role == "student":
            leaves += value if isinstance(value, list) else [value]
    leaves = [v for v in leaves if isinstance(v, Tensor) and v.requires_grad]
    loss = term(changed)
    if not leaves or not loss.requires_grad:
        return False
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return any(g is not None and bool(g.count_nonzero()) for g in found)
