"""One class of many for each pixel of a picture."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import nn, Tensor

from ..criteria import HardLabel
from ..criteria._pixels import has_class, OverPixels, resized
from ..models.batch import labels_of
from ..models.capture import read
from ..models.source import Source
from ..objective.term import Term, Terms
from .language_modelling import PerToken
from .task import LOGITS

PIXELS = Source("batch", "output", "labels", optional=True)


class Segmentation(PerToken):
    """Classes of pixels: int64 `(rows, height, width)`; -100, and `ignore`, where none counts.

    Models return maps of logits `(rows, classes, h, w)`, which may be smaller than the labels, as
    those of SegFormer: they are resized to the labels' size, bilinearly. Each pixel that counts is
    a sample of the terms that read logits, and of the metrics.

    Args:
        ignore: the class that stands for none in the masks, as at borders; often 255.

    References:
        Xie et al., *SegFormer*, 2021, https://arxiv.org/abs/2105.15203.
    """

    name: ClassVar[str] = "segmentation"
    heads: ClassVar[Mapping[str, str]] = {
        "ForSemanticSegmentation": "AutoModelForSemanticSegmentation"
    }
    peft_task: ClassVar[str | None] = None
    label_of: ClassVar[str] = "pixels"
    metrics: ClassVar[tuple[str, ...]] = ("mean_iou", "accuracy", "agreement")
    measured_by: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, ignore: int = 255):
        self.ignore = ignore

    def __repr__(self) -> str:
        return f"Segmentation(ignore={self.ignore})"

    # What is learnt.

    def terms(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Those that read logits, pixel by pixel."""
        return {
            name: OfPixels(given, self.ignore) if isinstance(given, Terms) else given
            for name, given in terms.items()
        }

    def label_term(self, model: nn.Module, label_smoothing: float = 0.0) -> Terms:
        """Cross-entropy of the pixels that have a class."""
        inputs = {"student": "student.logits", "labels": "batch.labels"}
        return OfPixels(Term(HardLabel(self.label_kind, label_smoothing), inputs), self.ignore)

    def mask(self, batch: Any) -> Source | None:
        """None: terms are given only the pixels that count."""
        return None

    # What is measured.

    def predictions(self, outputs: Any) -> Float[Tensor, "rows h w classes"]:
        """The logits, with the classes last."""
        logits = read(LOGITS, outputs, {})
        if logits.dim() != 4:
            raise ValueError(
                "data.task=segmentation needs models that return maps of logits (rows, classes, "
                f"height, width), got {tuple(logits.shape)}."
            )
        return logits.movedim(1, -1)

    def as_labelled(self, batch: Any, predicted: Tensor) -> Tensor:
        """The predictions in the size of the labels."""
        labels = labels_of(batch)
        if labels is None:
            return predicted
        return resized(predicted.movedim(-1, 1), labels.shape[1:]).movedim(1, -1)

    def counted(self, batch: Any, predicted: Tensor) -> Tensor | None:
        """The pixels that have a class; `None` without labels."""
        labels = labels_of(batch)
        return None if labels is None else has_class(labels, self.ignore)

    # Labels of files.

    def read_labels(self, values: Sequence[Any], names: Sequence[str], split: str) -> Any:
        """Nothing: masks are pictures, which a data module of one's own reads.

        Raises:
            ValueError: saying so.
        """
        raise ValueError(
            f"data.task={self.name} has a class for each pixel, and no label beside a picture: "
            "name a data module of your own by data._target_, see docs/tasks/pictures.md."
        )


class OfPixels(Terms):
    """Terms of which those that read logits compare them pixel by pixel.

    Args:
        terms: one term, or several under one name.
        ignore: see [`Segmentation`][].
    """

    def __init__(self, terms: Terms, ignore: int):
        super().__init__()
        self.given, self.weight, self.ignore = terms, terms.weight, ignore

    def sources(self) -> list[Source]:
        """Everything that the terms read."""
        terms = (term for _, term in self.expanded().values())
        return list(dict.fromkeys(source for term in terms for source in term.sources()))

    def expanded(self) -> Mapping[str, tuple[float, Term]]:
        """The same terms, of pixels if they read logits."""
        return {
            name: (ratio, _of_pixels(term, self.ignore))
            for name, (ratio, term) in self.given.expanded().items()
        }


def _of_pixels(term: Term, ignore: int) -> Term:
    if any(source.kind == "sparse" for source in term.inputs.values()):
        raise ValueError(
            f"{term.criterion.class_name} reads the largest or the drawn logits of a cache, and "
            "maps of logits are kept whole. Take another, as in criteria=[hard_label,soft_target]."
        )
    logits = [
        name
        for name, source in term.inputs.items()
        if source.role != "batch" and (source.kind, source.name) == ("output", "logits")
    ]
    if not logits:
        return term
    labels = [name for name, source in term.inputs.items() if str(source) == "batch.labels"]
    return Term(
        OverPixels(term.criterion, logits, labels, ignore),
        {**term.inputs, "pixels": PIXELS},
        weight=term.weight,
        training_only=term.training_only,
    )
