"""A criterion with its inputs and its weight."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn, Tensor

from ..criteria._plain import as_criterion
from ..criteria.criterion import Criterion
from ..extras import check_extra
from ..models.source import Source
from ..schedules import Schedule
from .adapter import build_adapters, Kind, student_and_teacher_arguments
from .criterion_arguments import check_arguments
from .layer_mapping import AUTO, check_mapping, EMD, pair_layers, TOGETHER
from .layer_similarity import SimilarLayers
from .layer_transport import LayerTransport
from .weight import check_weight, scaled, Weight


class Terms(nn.Module, ABC):
    """What an objective is made of: one term, or several under one name."""

    weight: Weight

    @property
    def active(self) -> bool:
        """Whether it ever counts; what does not is neither computed nor logged."""
        largest = self.weight.largest if isinstance(self.weight, Schedule) else self.weight
        return largest > 0

    @abstractmethod
    def sources(self) -> list[Source]:
        """Everything it reads."""

    @abstractmethod
    def expanded(self) -> "Mapping[str, tuple[float, Term]]":
        """Its terms by what is added to the name, and what each is multiplied by in the sum.

        Each of them is one mean. One that is a single mean itself adds the empty name.
        """


class Term(Terms):
    """A criterion, where its arguments come from, and how much it counts.

    Args:
        criterion: a module or function that returns a scalar, such as those of
            `lightning_distill.criteria`, `torch.nn.MSELoss()` or `torch.nn.functional.mse_loss`.
            What is no [`Criterion`][lightning_distill.criteria.Criterion] is wrapped in one.
        inputs: from the criterion's argument names to sources, as in
            `{"student": "student.logits", "teacher": "teacher.logits"}`;
            see [`lightning_distill.models.source`][] for all forms. `None` leaves an argument
            out; a `mask` that is `None` says that padding counts too.
        weight: what the term is multiplied by in the total; a number or a schedule.
        adapter: `"linear"` maps the student's tensor to the teacher's width where they
            differ; `"map"`, or a [`Maps`][lightning_distill.objective.Maps], makes maps of both,
            as of a convolution and a vision transformer; `None` compares them as they are; a
            module, or a callable that takes the two widths, is used instead.
        mapping: for sources of many layers: `uniform`, `last`, `first`, `skip`, `every_2`, or
            pairs `[[student, teacher], ...]` counted from 0 within the sources. The term is
            the mean over the pairs. `auto` takes the pairs whose tensors are most alike in the
            first batches, see `most_similar_pairs`. `emd` compares each layer with each, see
            `LayerTransport`. `together` gives the criterion lists of all of them at once.
        training_only: leave the term out of validation and tests, as one that reads what
            `training_batch` adds to a batch, such as the labels of mixed samples.
        until: the fraction of the run after which the term counts no more, as 0.6.
        pair: compare only this one of the pairs of layers, counted from 0.

    What else a criterion can say of itself, [`Criterion`][lightning_distill.criteria.Criterion]
    lists. Of one with parts of its own to train, each pair of layers gets its own.

    Raises:
        ValueError: at construction for unknown arguments, malformed sources, and a `mapping` or
            `pair` where no source names many layers; in
            [`prepare`][lightning_distill.Term.prepare] for tensors that do not fit.
    """

    def __init__(
        self,
        criterion: nn.Module | Callable[..., Any],
        inputs: Mapping[str, str | Source | None],
        weight: Weight = 1.0,
        adapter: Kind | None = None,
        mapping: str | Sequence[Sequence[int]] = "uniform",
        training_only: bool = False,
        until: float | None = None,
        pair: int | None = None,
    ):
        super().__init__()
        self.criterion = as_criterion(criterion)
        self.training_only, self.pair = training_only, pair
        # How many pairs of layers there are, of which `pair` is one.
        self.paired = 1
        self.weight = check_weight(weight, until)
        self.inputs = {
            name: source if isinstance(source, Source) else Source.parse(source)
            for name, source in inputs.items()
            # null leaves out what a configuration names and the batch does not have.
            if source is not None
        }
        # A mask that is named, and none: everything counts, padding too.
        self.counts_padding = "mask" in inputs and inputs["mask"] is None
        check_arguments(self.criterion, list(self.inputs))
        self.adapter = adapter
        check_mapping(mapping)
        self.mapping = mapping
        self._check_that_layers_are_paired()
        # With mapping=auto: what pairs the layers.
        self.similar: SimilarLayers | None = None
        # With mapping=emd: what makes one value of those of all pairs.
        self.transport: LayerTransport | None = None
        if mapping == EMD:
            check_extra("mapping=emd", "emd", "scipy")
        self.adapters = nn.ModuleDict()
        # What the teacher's tensors go through, which trains nothing.
        self.views = nn.ModuleDict()
        # Of the pairs after the first, if the criterion has parts to train.
        self.copies = nn.ModuleDict()
        self.pairs = [self.inputs]
        # The sources of single layers that an argument of many stands for.
        self._layers: dict[str, list[Source]] = {}
        if pair is not None and mapping in (TOGETHER, EMD):
            raise ValueError(f"`pair` names one pair of layers, and mapping={mapping} has none.")
        if adapter is not None and mapping == TOGETHER:
            raise ValueError(
                "An adapter goes between two layers, but mapping=together compares all at once; "
                "leave `adapter` null."
            )
        if adapter is not None or mapping in (AUTO, EMD):
            compared = {*self._compared}
            if mapping == AUTO and compared <= {*self._many}:
                self.similar = SimilarLayers()
                self.register_load_state_dict_post_hook(_pair_as_loaded)

    def _check_that_layers_are_paired(self) -> None:
        """Refuse a choice among layers where one is named: it would change nothing."""
        chosen = [f"mapping={self.mapping}"] if self.mapping != "uniform" else []
        chosen += [] if self.pair is None else [f"pair={self.pair}"]
        of = {source.role for source in self._many.values()}
        # Of one model alone there can be all layers, or one after the other, without pairs.
        needed = {"student", "teacher"} if self.mapping not in ("uniform", TOGETHER) else of
        single = [s for s in self.inputs.values() if s.role != "batch" and s.role not in of]
        if chosen and (not of or not of >= needed):
            one = f"{single[0]} is one tensor" if single else "nothing is read of a model"
            without = " and ".join(word.partition("=")[0] for word in chosen)
            raise ValueError(
                f"{' '.join(chosen)} chooses among the layers that the inputs name, and {one}. "
                "Name many, as student.hidden_states[*] and teacher.hidden_states[*], or leave "
                f"{without} out."
            )

    @property
    def _many(self) -> dict[str, Source]:
        return {name: source for name, source in self.inputs.items() if source.is_many}

    def sources(self) -> list[Source]:
        """Everything the term reads."""
        return list(dict.fromkeys(source for pair in self.pairs for source in pair.values()))

    def expanded(self) -> "Mapping[str, tuple[float, Term]]":
        """Itself; or a term for each mean of a criterion that is the weighted sum of several."""
        parts = self.criterion.parts()
        if not parts:
            return {"": (1.0, self)}
        return {
            name: (
                part.weight,
                Term(
                    part.criterion,
                    {own: self.inputs[of] for own, of in part.inputs.items() if of in self.inputs},
                    weight=scaled(self.weight, part.weight),
                    adapter=self.adapter if "teacher" in part.inputs else None,
                    # Of one model alone there is nothing to pair.
                    mapping=self.mapping if "teacher" in part.inputs else "uniform",
                    training_only=self.training_only,
                    pair=self.pair if "teacher" in part.inputs else None,
                ),
            )
            for name, part in parts.items()
        }

    def look(self, values: Mapping[Source, Any]) -> None:
        """See how alike the layers are in one more batch, where this is what pairs them.

        Args:
            values: as for `prepare`, which looks at its own batch too.
        """
        if self.similar is None:
            return
        students, teachers = (values[self.inputs[name]] for name in self._compared)
        source = self.inputs.get("mask")
        self.similar.look(students, teachers, None if source is None else values[source])

    def prepare(
        self,
        values: Mapping[Source, Any],
        layers: Mapping[str, Sequence[str]],
        agree: Callable[[Any], Any] = lambda chosen: chosen,
    ) -> Tensor:
        """Pair the layers and build the adapters, from the tensors of one batch; returns the loss.

        Args:
            values: every source's tensor, or list of tensors.
            layers: by role, the paths of all submodules.
            agree: from what one process has found to what all of them take.
        """
        many = self._many
        if many and self.mapping != TOGETHER:
            counts = {name: len(values[source]) for name, source in many.items()}
            self.look(values)
            if self.similar is not None:
                self.similar.decide(agree)
            self.pairs = self._chosen(self._pair(many, counts, layers))
            values = {**values, **self._singles(values, layers)}
        if self.adapter is not None:
            self._build_adapters(values)
        if self.criterion.builds_parts:
            for i in range(1, len(self.pairs)):
                self.copies[str(i)] = copy.deepcopy(self.criterion)
            # A seed of its own: the parts are the same whatever drew random numbers before.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                for i in range(len(self.pairs)):
                    self._criterion(i).prepare(**self._arguments(i, values))
        return self(values)

    @property
    def _compared(self) -> tuple[str, str]:
        """The criterion's arguments that read the student and the teacher."""
        return student_and_teacher_arguments({k: s.role for k, s in self.inputs.items()})

    def _build_adapters(self, values: Mapping[Source, Any]) -> None:
        student, teacher = self._compared
        # Where each layer is compared with each, one adapter serves all of the same sizes.
        shared: dict[Any, Any] = {}
        for i, pair in enumerate(self.pairs):
            tensors = values[pair[student]], values[pair[teacher]]
            sizes = tuple(tensor.shape for tensor in tensors) if self.transport else i
            if sizes not in shared:
                shared[sizes] = build_adapters(self.adapter, *tensors)  # type: ignore[arg-type]
            for parts, part in zip((self.adapters, self.views), shared[sizes], strict=True):
                if part is not None:
                    parts[str(i)] = part

    def _chosen(self, pairs: list[dict[str, Source]]) -> list[dict[str, Source]]:
        self.paired = len(pairs)
        if self.pair is None:
            return pairs
        if not 0 <= self.pair < len(pairs):
            raise ValueError(
                f"`pair` is {self.pair}, and the pairs of layers are numbered 0 to "
                f"{len(pairs) - 1}."
            )
        return [pairs[self.pair]]

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
        self._layers = singles
        students, teachers = of_role["student"], of_role["teacher"]
        if not students or not teachers:
            both = range(max(students, teachers))
            pairs = [(i, i) for i in both]
        elif self.mapping == EMD:
            pairs = [(s, t) for s in range(students) for t in range(teachers)]
            self.transport = LayerTransport(students, teachers).train(self.training)
        elif self.similar is not None:
            self.similar.students, self.similar.teachers = (singles[n] for n in self._compared)
            pairs = self.similar.pairs
        else:
            pairs = pair_layers(students, teachers, self.mapping)
        return self._of_pairs(pairs)

    def _of_pairs(self, pairs: Sequence[tuple[int, int]]) -> list[dict[str, Source]]:
        return [
            {
                name: self._layers[name][s if source.role == "student" else t]
                if name in self._layers
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
        if self.transport is not None:
            distances = torch.stack(losses)
            return self.transport(distances.view(-1, self.transport.teachers.numel()))
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _criterion(self, i: int) -> Criterion:
        first = str(i) not in self.copies
        return self.criterion if first else self.copies[str(i)]  # type: ignore[return-value]

    def _arguments(self, i: int, values: Mapping[Source, Any]) -> dict[str, Any]:
        pair = self.pairs[i]
        arguments = {name: values[source] for name, source in pair.items()}
        if str(i) in self.adapters:
            names = student_and_teacher_arguments({k: s.role for k, s in pair.items()})
            for name, parts in zip(names, (self.adapters, self.views), strict=True):
                if str(i) in parts:
                    arguments[name] = parts[str(i)](arguments[name])
        return arguments

    def extra_repr(self) -> str:  # noqa: D102
        inputs = ", ".join(f"{name}={source}" for name, source in self.inputs.items())
        weight = "" if isinstance(self.weight, Schedule) else f", weight={self.weight}"
        return f"{inputs}{weight}"


def _pair_as_loaded(term: Term, _: Any) -> None:
    """The layers are paired as they were when the checkpoint was written."""
    if term.similar is not None and term.similar.similarity is not None:
        term.pairs = term._chosen(term._of_pairs(term.similar.pairs))
