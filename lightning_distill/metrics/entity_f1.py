"""How many entities a tagger finds, as conlleval counts them."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

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

    Of a sentence in several windows (`word_number`) the tags are put together first. `parts` is the
    F1 of each kind, once it has been computed.

    Args:
        label_names: all tags in the order of their numbers.

    Raises:
        ValueError: if no tag names an entity.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    reads_rows = True
    optional_entries = ("word_number",)

    def __init__(self, label_names: Sequence[str]):
        super().__init__()
        self.label_names = [str(name) for name in label_names]
        if not any("-" in name for name in self.label_names):
            raise ValueError(
                "EntityF1 counts spans of tags such as B-place and I-place; the tags are "
                f"{', '.join(self.label_names[:10])}. Choose metrics=[accuracy] for single words."
            )
        kinds = {_parts(name)[1] for name in self.label_names if name != OUTSIDE}
        self.kinds = sorted(kinds)
        self.parts: dict[str, float] = {}
        self.right: Tensor
        self.found: Tensor
        self.there: Tensor
        self.words: list[Tensor]
        for name in ("right", "found", "there"):
            zeros = torch.zeros(len(self.kinds), dtype=torch.long)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")
        self.add_state("words", default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all rows."""
        super().reset()
        # Ranks put theirs together, and one that has none must have as many columns.
        self.words.append(torch.zeros(0, 3, dtype=torch.long, device=self.device))

    def update(
        self,
        predicted: Float[Tensor, "rows tokens tags"],
        labels: Int[Tensor, "rows tokens"],
        word_number: Int[Tensor, "rows tokens"] | None = None,
    ) -> None:
        """Add the rows of one batch.

        Args:
            predicted: logits.
            labels: the tag's number at the first token of each word, -100 elsewhere.
            word_number: of all words of a split, in order, at the first token of each; one number
                is left out between two sentences. By default a row is a sentence.
        """
        if predicted.shape[:-1] != labels.shape:
            raise ValueError(
                f"Each token needs one label: got logits of shape {tuple(predicted.shape)} and "
                f"labels of shape {tuple(labels.shape)}."
            )
        chosen = predicted.argmax(-1)
        if word_number is not None:
            # A window may end within an entity: they are counted when all are there.
            words = torch.stack([word_number, chosen, labels], dim=-1)
            self.words.append(words[word_number > 0])
            return
        counted = labels != UNLABELLED
        for i in range(len(labels)):
            self._count(chosen[i][counted[i]], labels[i][counted[i]])

    def _count(self, chosen: Tensor, labels: Tensor) -> tuple[int, int]:
        """Count the entities of a sentence; returns numerator and denominator of its F1."""
        ours, theirs = entities(self._names(chosen)), entities(self._names(labels))
        for state, spans in (
            (self.right, ours & theirs),
            (self.found, ours),
            (self.there, theirs),
        ):
            for kind, _, _ in spans:
                state[self.kinds.index(kind)] += 1
        return 2 * len(ours & theirs), len(ours) + len(theirs)

    def compute(self) -> Float[Tensor, ""]:
        """F1 over all batches and ranks, from 0 to 1; 0 if no entity is right."""
        kept = self.right.clone(), self.found.clone(), self.there.clone()
        self._count_windows()
        shares = 2 * self.right / (self.found + self.there).clamp(min=1)
        there = (self.found + self.there) > 0
        self.parts = {
            kind: float(share)
            for kind, share, any_ in zip(self.kinds, shares, there, strict=True)
            if any_
        }
        total = 2 * self.right.sum() / (self.found.sum() + self.there.sum()).clamp(min=1)
        # Windows that come later may go on where these end.
        self.right, self.found, self.there = kept
        return total

    def _count_windows(self) -> None:
        words = dim_zero_cat(self.words)
        words = words[words[:, 0].argsort()]
        counts = []
        ends = (words[1:, 0] - words[:-1, 0] > 1).nonzero().flatten() + 1
        for sentence in words.tensor_split(ends.cpu()):
            labelled = sentence[sentence[:, 2] != UNLABELLED]
            counts.append(self._count(labelled[:, 1], labelled[:, 2]))
        if len(words):
            # Of each sentence; its windows alone would not add up to it.
            self.units = torch.tensor(counts, device=words.device).float()

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
