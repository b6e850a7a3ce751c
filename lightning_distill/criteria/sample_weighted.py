"""Sample weighted: samples count as much as a module, or the data, says."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._check import masked_mean
from ._parts import learns
from ._plain import weighed
from ._weighing import weighing, Weights
from ._wrapper import Wrapper
from .criterion import Criterion, Part
from .soft_target import SoftTarget


def sample_weighted(
    values: Float[Tensor, "*batch"],
    weights: Weights,
    mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    normalize: bool = True,
) -> Float[Tensor, ""]:
    r"""The weighted mean of the values that count; 0 with a connected graph if none does.

    $$\frac{\sum_i w_i v_i}{\sum_i w_i}, \quad \text{or} \quad \frac1N \sum_i w_i v_i$$

    over the $N$ values that count, if not `normalize`. A value that is not finite does no harm
    under weight 0.

    Args:
        values: one per sample or token.
        weights: one per value; or of the first dimensions only, as one per row for all its tokens.
        mask: of the shape of the values; true (or not 0) counts. All count by default.
        normalize: divide by the sum of the weights, so that only their ratios matter.

    Raises:
        ValueError: for shapes that do not fit, and weights of what counts that are negative or not
            finite.
    """
    with weighing(weights, normalize):
        return masked_mean(values, mask)


class SampleWeighted(Wrapper):
    """Any criterion that takes a mean over samples, with a weight for each of them.

    Every [`masked_mean`][] within the criterion is the weighted one, [`sample_weighted`][]; if
    there are several, as in [`KnowledgeDistillation`][], each over what counts in it. Weights are
    looked at where they count: what is masked, or has no label, may have any. A sample of weight 0
    is still seen by trained parts, statistics and memories; `mask` leaves it out.

    No gradient reaches the models through a weight, as the module is called on detached logits. A
    module with parameters of its own learns; on its own it would learn to weigh what is easy. A
    weight for the whole term that is learned is `lightning_distill.balance.Uncertainty`.

    Where weights that a module makes divide the mean, in training their sum is that of all
    processes, and every one of them must call it equally often.

    Args:
        criterion: called as `criterion(student, teacher, ...)`; [`SoftTarget`][] by default.
        weight: called as `weight(student, teacher, mask)`, returns one weight per sample or token;
            a module of `lightning_distill.weights`. `None` if the weights come as a tensor.
        normalize: divide by the sum of the weights, not by how many samples count.
    """

    def __init__(
        self,
        criterion: nn.Module | None = None,
        weight: Any = None,
        normalize: bool = True,
    ):
        if weight is not None and not callable(weight):
            raise ValueError(
                "`weight` must be a module that is called on logits, such as those of "
                f"lightning_distill.weights, got {weight!r}. One number for all is the term's "
                "`weight`."
            )
        super().__init__(SoftTarget() if criterion is None else criterion)
        self.weight, self.normalize = weight, normalize
        if weight is not None and normalize:
            # What the mean is divided by is made of logits, of all processes.
            self.across_samples = self.gather = True

    def around(self, criterion: Criterion) -> "SampleWeighted":
        """The same weights for another criterion."""
        return SampleWeighted(criterion, self.weight, self.normalize)

    def parts(self) -> Mapping[str, Part]:
        """Those of the criterion, each with these weights, which may look at logits of both."""
        found = {}
        for name, part in super().parts().items():
            inputs = {**part.inputs, "weight": "weight"}
            if self.weight is not None:
                inputs |= {"weight_student": "weight_student", "weight_teacher": "weight_teacher"}
                if "teacher" not in part.inputs:
                    inputs["weight_teacher"] = "teacher"
            found[name] = Part(part.criterion, part.weight, inputs)
        return found

    def counted(self, **inputs: Any) -> Tensor | None:
        """What counts in the criterion, by the weights of the batch where they divide the mean."""
        weight = inputs.pop("weight", None)
        others = {n: x for n, x in inputs.items() if not n.startswith("weight_")}
        found = self.criterion.counted(**others)
        return weighed(found, weight) if weight is not None and self.normalize else found

    def prepare(self, student: Any, teacher: Any = None, **named: Any) -> None:
        """The criterion's, without the weights."""
        own = ("weight", "weight_student", "weight_teacher")
        others = {name: x for name, x in named.items() if name not in own}
        self.criterion.prepare(student, *([] if teacher is None else [teacher]), **others)

    def forward(
        self,
        student: Float[Tensor, "..."] | Sequence[Tensor],
        teacher: Float[Tensor, "..."] | Sequence[Tensor] | None = None,
        *,
        weight: Weights | None = None,
        weight_student: Float[Tensor, "..."] | None = None,
        weight_teacher: Float[Tensor, "..."] | None = None,
        **named: Any,
    ) -> Float[Tensor, ""]:
        """What the criterion says under these weights; other arguments go to it as they are.

        Args:
            student: as the criterion wants it.
            teacher: likewise.
            weight: weights from the batch, in place of the module.
            weight_student: what the module is given instead of `student`, such as the logits
                where the criterion compares hidden states.
            weight_teacher: likewise, instead of `teacher`.
            named: `mask`, which the module is given too, `labels`, and whatever else.

        Raises:
            ValueError: for weights that do not fit, are negative or not finite, and for criteria
                that take no mean over samples to weigh.
        """
        if weight is None:
            student_logits = student if weight_student is None else weight_student
            teacher_logits = teacher if weight_teacher is None else weight_teacher
            weight = self._weights(student_logits, teacher_logits, named.get("mask"))
        elif self.weight is not None:
            raise ValueError(
                "There are two weights per sample, a module and a tensor from the batch. Set the "
                "criterion's `weight` to null, or take `weight` out of the term's inputs."
            )
        arguments = (student,) if teacher is None else (student, teacher)
        gather = self.weight is not None and self.normalize and learns(self)
        with weighing(weight, self.normalize, gather) as weights:
            loss = self.criterion(*arguments, **named)
        if not weights.used:
            raise ValueError(
                f"{self.criterion.class_name} cannot be weighed by sample: it compares samples "
                "with each other, or takes a mean of its own and not masked_mean of "
                "lightning_distill.criteria over one value per sample."
            )
        return loss  # type: ignore[no-any-return]

    def _weights(self, student: Any, teacher: Any, mask: Tensor | None) -> Tensor:
        if self.weight is None:
            raise ValueError(
                "SampleWeighted needs weights: a module of lightning_distill.weights as `weight`, "
                "or a column of the batch among the term's inputs, as in weight=batch.weight."
            )
        for name, logits in (("student", student), ("teacher", teacher)):
            if logits is not None and not isinstance(logits, Tensor):
                raise ValueError(
                    f"Several layers of the {name} are given, by which nothing can be weighed; add "
                    f"weight_{name}={name}.logits to the term's inputs."
                )
        detached = (x if x is None else x.detach() for x in (student, teacher))
        found = self.weight(*detached, mask)
        if not isinstance(found, torch.Tensor):
            raise ValueError(
                f"{type(self.weight).__name__} must return a tensor of weights, one per sample, "
                f"got {found!r}."
            )
        return found

    def extra_repr(self) -> str:  # noqa: D102
        return f"normalize={self.normalize}"
