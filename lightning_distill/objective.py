"""What is minimised: named terms, each a criterion with its inputs and its weight."""

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn, Tensor

from .adapter import build_adapter, student_and_teacher_arguments
from .batches import batch_size
from .features import nearest, read, Source
from .mapping import pair_layers
from .schedules import Schedule

Weight = float | Schedule


def check_weight(weight: Any) -> Weight:
    """A weight: a finite number that is not negative, or a schedule of such."""
    if isinstance(weight, Schedule):
        return weight
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ValueError(f"`weight` must be a number or a schedule, got {weight!r}.")
    if not math.isfinite(weight) or weight < 0:
        raise ValueError(
            f"`weight` must be finite and not negative, got {weight}. "
            "A weight of 0 switches the term off."
        )
    return float(weight)


class Term(nn.Module):
    """A criterion, where its arguments come from, and how much it counts.

    Args:
        criterion: any callable module that returns a scalar, such as those of
            `lightning_distill.criteria` or `torch.nn.MSELoss()`.
        inputs: from the criterion's argument names to sources, as in
            `{"student": "student.logits", "teacher": "teacher.logits"}`;
            see [`lightning_distill.features`][] for all forms.
        weight: what the term is multiplied by in the total; a number or a schedule.
        adapter: `"linear"` maps the student's tensor to the teacher's width where they
            differ; `None` compares them as they are; a module, or a callable that takes the
            two widths, is used instead.
        mapping: for sources of many layers: `uniform`, `last`, `first`, `skip`, `every_2`, or
            pairs `[[student, teacher], ...]` counted from 0 within the sources. The term is
            the mean over the pairs. `together` gives the criterion lists of all of them at once.

    A criterion with more to say than its value has a method `logged`, which returns scalars by name
    of its last call; they are logged as `train/TERM_NAME`.

    A criterion with parts of its own to train has a method `prepare`, with the arguments of
    `forward`, which builds them for the sizes that it is shown; each pair of layers gets its own.

    Raises:
        ValueError: at construction for unknown arguments and malformed sources; in
            [`prepare`][lightning_distill.Term.prepare] for tensors that do not fit.
    """

    def __init__(
        self,
        criterion: nn.Module,
        inputs: Mapping[str, str | Source],
        weight: Weight = 1.0,
        adapter: str | nn.Module | Callable[[int, int], nn.Module] | None = None,
        mapping: str | Sequence[Sequence[int]] = "uniform",
    ):
        super().__init__()
        self.criterion = criterion
        self.weight = check_weight(weight)
        self.inputs = {
            name: source if isinstance(source, Source) else Source.parse(source)
            for name, source in inputs.items()
        }
        _check_arguments(criterion, list(self.inputs))
        self.adapter = adapter
        self.mapping = mapping
        self.adapters = nn.ModuleDict()
        # Of the pairs after the first, if the criterion has parts to train.
        self.copies = nn.ModuleDict()
        self.pairs = [self.inputs]
        if adapter is not None and mapping == "together":
            raise ValueError(
                "An adapter goes between two layers, but mapping=together compares all at once; "
                "leave `adapter` null."
            )
        if adapter is not None:
            student_and_teacher_arguments({k: s.role for k, s in self.inputs.items()})

    @property
    def active(self) -> bool:
        """Whether the term ever counts; one that does not is neither computed nor logged."""
        largest = self.weight.largest if isinstance(self.weight, Schedule) else self.weight
        return largest > 0

    def sources(self) -> list[Source]:
        """Everything the term reads."""
        return list(dict.fromkeys(source for pair in self.pairs for source in pair.values()))

    def prepare(self, values: Mapping[Source, Any], layers: Mapping[str, Sequence[str]]) -> Tensor:
        """Pair the layers and build the adapters, from the tensors of one batch; returns the loss.

        Args:
            values: every source's tensor, or list of tensors.
            layers: by role, the paths of all submodules.
        """
        many = {name: source for name, source in self.inputs.items() if source.is_many}
        if many and self.mapping != "together":
            counts = {name: len(values[source]) for name, source in many.items()}
            self.pairs = self._pair(many, counts, layers)
            values = {**values, **self._singles(values, layers)}
        if self.adapter is not None:
            roles = {name: source.role for name, source in self.inputs.items()}
            student, teacher = student_and_teacher_arguments(roles)
            for i, pair in enumerate(self.pairs):
                adapter = build_adapter(self.adapter, values[pair[student]], values[pair[teacher]])
                if adapter is not None:
                    self.adapters[str(i)] = adapter
        if hasattr(self.criterion, "prepare"):
            for i in range(1, len(self.pairs)):
                self.copies[str(i)] = copy.deepcopy(self.criterion)
            # A seed of its own: the parts are the same whatever drew random numbers before.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                for i in range(len(self.pairs)):
                    self._criterion(i).prepare(**self._arguments(i, values))
        return self(values)

    def _pair(
        self,
        many: Mapping[str, Source],
        counts: Mapping[str, int],
        layers: Mapping[str, Sequence[str]],
    ) -> list[dict[str, Source]]:
        of_role = {"student": 0, "teacher": 0}
        for name, source in many.items():
            if of_role[source.role] not in (0, counts[name]):
                raise ValueError(
                    f"the {source.role}'s sources must name equally many layers, got "
                    f"{of_role[source.role]} and {counts[name]}."
                )
            of_role[source.role] = counts[name]
        singles = {
            name: source.singles(counts[name], layers[source.role]) for name, source in many.items()
        }
        students, teachers = of_role["student"], of_role["teacher"]
        if not students or not teachers:
            both = range(max(students, teachers))
            pairs = [(i, i) for i in both]
        else:
            pairs = pair_layers(students, teachers, self.mapping)
        return [
            {
                name: singles[name][s if source.role == "student" else t]
                if name in singles
                else source
                for name, source in self.inputs.items()
            }
            for s, t in pairs
        ]

    def _singles(
        self, values: Mapping[Source, Any], layers: Mapping[str, Sequence[str]]
    ) -> dict[Source, Tensor]:
        found: dict[Source, Tensor] = {}
        for source in self.inputs.values():
            if source.is_many:
                tensors = values[source]
                singles = source.singles(len(tensors), layers[source.role])
                if len(singles) != len(tensors):
                    raise ValueError(
                        f"{source} names {len(singles)} layers, of which the {source.role} ran "
                        f"{len(tensors)}; list those that it runs, with commas between them."
                    )
                found.update(zip(singles, tensors, strict=True))
        return found

    def forward(self, values: Mapping[Source, Any]) -> Tensor:
        """The criterion's mean over the pairs of layers, without the weight; a scalar."""
        losses = [self._criterion(i)(**self._arguments(i, values)) for i in range(len(self.pairs))]
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _criterion(self, i: int) -> Any:
        first = str(i) not in self.copies
        return self.criterion if first else self.copies[str(i)]

    def _arguments(self, i: int, values: Mapping[Source, Any]) -> dict[str, Any]:
        pair = self.pairs[i]
        arguments = {name: values[source] for name, source in pair.items()}
        if str(i) in self.adapters:
            name, _ = student_and_teacher_arguments({k: s.role for k, s in pair.items()})
            arguments[name] = self.adapters[str(i)](arguments[name])
        return arguments

    def extra_repr(self) -> str:  # noqa: D102
        inputs = ", ".join(f"{name}={source}" for name, source in self.inputs.items())
        weight = "" if isinstance(self.weight, Schedule) else f", weight={self.weight}"
        return f"{inputs}{weight}"


def _count(
    term: Any, values: Mapping[Source, Any], rows: int | None = None, of_labels: bool = False
) -> Tensor:
    """How much counts in a term: its labels, mask and weight, or rows if it reads none.

    With `of_labels`, in the cross-entropy that a term has within itself (`label_weight`).
    """
    inputs = getattr(term, "inputs", {})
    names = ("labels", "mask", "weight")
    found = {name: values.get(inputs[name]) for name in names if name in inputs}
    labels, mask, weight = (found.get(name) for name in names)
    criterion: Any = getattr(term, "criterion", None)
    if isinstance(labels, Tensor) and getattr(criterion, "shift_labels", False):
        labels = torch.nn.functional.pad(labels[..., 1:], (0, 1), value=-100)
    if hasattr(criterion, "counted"):
        # It is a mean over something else than rows or tokens, such as spans of text.
        given = {n: values[source] for n, source in inputs.items() if source.role == "batch"}
        counted = criterion.counted(**given)
    else:
        # Of what makes its own logits, a mask alone says which tokens are compared.
        by_mask = isinstance(mask, Tensor) and hasattr(criterion, "label_weight")
        by_mask = by_mask and not (of_labels and criterion.label_weight)
        counted = _counted(None if by_mask else labels, mask)
    # A mean by weights is a mean over their sum, unless the criterion divides by how many count.
    by_weight = getattr(criterion, "normalize", True)
    if isinstance(weight, Tensor) and weight.dim() and by_weight:
        heavy = weight.float()
        if counted is None:
            return heavy.sum()
        if counted.shape[: heavy.dim()] == heavy.shape:
            # One weight per row, for all of its tokens.
            heavy = heavy.reshape(*heavy.shape, *[1] * (counted.dim() - heavy.dim()))
            return torch.where(counted, heavy, 0.0).sum()
    if counted is not None:
        return counted.sum().float()
    for source in term.sources():
        value = values.get(source)
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, Tensor) and first.dim():
            return torch.tensor(first.shape[0], dtype=torch.float32, device=first.device)
    return torch.tensor(1 if rows is None else rows, dtype=torch.float32)


def _counted(labels: Any, mask: Any) -> Tensor | None:
    counted = None
    if isinstance(labels, Tensor):
        counted = labels != -100
        if labels.is_floating_point():
            counted = counted & ~labels.isnan()
            # Several labels of one row, of which one is unknown.
            counted = counted if labels.dim() < 2 else counted.flatten(1).all(1)
    if isinstance(mask, Tensor):
        if counted is None or counted.shape != mask.shape:
            return mask != 0
        return counted & (mask != 0)
    return counted


def _check_arguments(criterion: nn.Module, names: list[str]) -> None:
    signature = inspect.signature(criterion.forward)
    name = type(criterion).__name__
    if not names:
        raise ValueError(f"`inputs` of {name}{signature} is empty; name a source per argument.")
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        return
    for argument in names:
        if argument not in signature.parameters:
            raise ValueError(
                f"{name} takes no argument {argument!r}. {nearest(argument, signature.parameters)}"
            )
    missing = [
        p.name
        for p in signature.parameters.values()
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and p.name not in names
    ]
    if missing:
        raise ValueError(
            f"`inputs` of {name} lacks {', '.join(missing)}; it has {', '.join(names)}."
        )


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
        return {name: _count(term, values) for name, term in self.terms.items()}

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
            found[name] = _count(term, values if says else {}, rows, of_labels)
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
    if not _count(term, values):
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
