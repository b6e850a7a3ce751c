"""How many entities a tagger finds, as conlleval counts them."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

OUTSIDE = "O"
# Of BILOU as those of IOBES.
PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S"}
UNLABELLED = -100


class EntityF1(Metric):
    r"""F1 of entities: spans of words of one kind, which are right where span and kind are.

    $$F_1=\frac{2\,\mathrm{right}}{\mathrm{found}+\mathrm{there}}$$

    summed over all rows, as the script conlleval of the CoNLL tasks does (Tjong Kim Sang and
    De Meulder, 2003, https://aclanthology.org/W03-0419). A span begins at a tag `B-x`, and at a tag
    `I-x` that does not follow a tag of the kind x; it ends where another begins and at `O`, so that
    IOB1 and BIO are read alike. Of IOBES and BILOU, `E-x` and `L-x` go on as `I-x` and are the last
    word, and `S-x` and `U-x` are spans of one word; so are tags without any prefix.

    Args:
        label_names: all tags in the order of their numbers.

    Raises:
        ValueError: if no tag names an entity.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    reads_rows = True

    def __init__(self, label_names: Sequence[str]):
        super().__init__()
        self.label_names = [str(name) for name in label_names]
        if not any("-" in name for name in self.label_names):
            raise ValueError(
                "EntityF1 counts spans of tags such as B-place and I-place; the tags are "
                f"{', '.join(self.label_names[:10])}. Choose metrics=[accuracy] for single words."
            )
        self.right: Tensor
        self.found: Tensor
        self.there: Tensor
        for name in ("right", "found", "there"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self, predicted: Float[Tensor, "rows tokens tags"], labels: Int[Tensor, "rows tokens"]
    ) -> None:
        """Add the rows of one batch.

        Args:
            predicted: logits.
            labels: the tag's number at the first token of each word, -100 elsewhere.
        """
        if predicted.shape[:-1] != labels.shape:
            raise ValueError(
                f"Each token needs one label: got logits of shape {tuple(predicted.shape)} and "
                f"labels of shape {tuple(labels.shape)}."
            )
        counted = labels != UNLABELLED
        chosen = predicted.argmax(-1)
        for i in range(len(labels)):
            ours = entities(self._names(chosen[i][counted[i]]))
            theirs = entities(self._names(labels[i][counted[i]]))
            self.right += len(ours & theirs)
            self.found += len(ours)
            self.there += len(theirs)

    def compute(self) -> Float[Tensor, ""]:
        """F1 over all batches and ranks, from 0 to 1; 0 if no entity is right."""
        return 2 * self.right / (self.found + self.there).clamp(min=1)

    def _names(self, numbers: Tensor) -> list[str]:
        return [self.label_names[n] for n in numbers.tolist()]


def entities(tags: Iterable[str]) -> set[tuple[str, int, int]]:
    """The entities of a sentence as (kind, first word, word behind the last)."""
    found = set()
    kind, start = "", 0
    for i, tag in enumerate([*tags, OUTSIDE]):
        prefix, name = _parts(tag)
        goes_on = prefix in ("I", "E") and name == kind
        if kind and not goes_on:
            found.add((kind, start, i))
            kind = ""
        if prefix and not goes_on:
            kind, start = name, i
        if prefix in ("E", "S"):
            found.add((kind, start, i + 1))
            kind = ""
    return found


def _parts(tag: str) -> tuple[str, str]:
    """Prefix and kind of a tag; no prefix outside of entities."""
    if tag == OUTSIDE:
        return "", ""
    prefix, _, kind = tag.partition("-")
    return (PREFIXES[prefix], kind) if kind and prefix in PREFIXES else ("S", tag)
