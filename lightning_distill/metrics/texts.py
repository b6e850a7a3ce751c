"""Metrics of texts that a model writes, by those of torchmetrics.

They are fed with what the model writes from a source (`reads_texts`), once for all that write
alike, and with the labels; both are decoded here.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import nn, Tensor
from torchmetrics import Metric
from torchmetrics.text import ROUGEScore, SacreBLEUScore, WordErrorRate as WER

from ..models.batch import labels_of, row_numbers, take_rows
from ..models.written_texts import check_writes, write_texts, Writing
from .kept_states import give, KeptStates
from .traits import reads_texts

UNLABELLED = -100


class _Shared:
    """Something that a copy of a metric does not copy."""

    def __init__(self, value: Any):
        self.value = value

    def __deepcopy__(self, memo: Any) -> "_Shared":
        return self


class WrittenTexts(Metric):
    """What metrics of written texts share; a subclass defines `add` and `compute`.

    Args:
        tokenizer: makes texts of ids; on the command line that of the data.
        max_new_tokens: of a text at most.
        beams: how many texts a search follows; 1 takes the likeliest token each time.
        rows: measure the first so many rows of the data alone, for writing takes long; all by
            default.
        options: those of torchmetrics.

    Raises:
        ValueError: for options that cannot be.
    """

    is_differentiable = False
    full_state_update = False
    reads_texts = True

    def __init__(
        self,
        tokenizer: Any = None,
        max_new_tokens: int = 64,
        beams: int = 1,
        rows: int | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
            raise ValueError(f"`rows` must be a whole number of 1 at least, got {rows!r}.")
        self.writing, self.rows = Writing(max_new_tokens, beams), rows
        self._tokenizer = _Shared(tokenizer)

    def update(self, written: Int[Tensor, "rows _"], labels: Int[Tensor, "rows _"]) -> None:
        """Add some rows.

        Args:
            written: ids that the model has written, -100 behind a text.
            labels: ids of the rows' own texts, -100 where there is none.

        Raises:
            ValueError: without a tokenizer.
        """
        self.add(self._texts(written), self._texts(labels))

    def add(self, written: list[str], own: list[str]) -> None:
        """Add texts.

        Args:
            written: by the model.
            own: those of the rows.
        """
        raise TypeError(f"{type(self).__name__} must define `add()`.")

    def _texts(self, ids: Tensor) -> list[str]:
        tokenizer = self._tokenizer.value
        if tokenizer is None:
            raise ValueError(
                f"{type(self).__name__} needs a tokenizer to make texts of ids: "
                f"{type(self).__name__}(tokenizer=...). The data of the run has none."
            )
        rows = [row[row != UNLABELLED].tolist() for row in ids.cpu()]
        return [t.strip() for t in tokenizer.batch_decode(rows, skip_special_tokens=True)]


class ExactMatch(WrittenTexts):
    """The share of rows of which the model writes the very text, from 0 to 1."""

    higher_is_better = True

    def __init__(self, tokenizer: Any = None, **options: Any):
        super().__init__(tokenizer, **options)
        self.right: Tensor
        self.all: Tensor
        for name in ("right", "all"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def add(self, written: list[str], own: list[str]) -> None:
        """Add texts."""
        self.right += sum(a == b for a, b in zip(written, own, strict=True))
        self.all += len(own)

    def compute(self) -> Float[Tensor, ""]:
        """Over all rows and ranks."""
        return self.right / self.all.clamp(min=1)


class Rouge(WrittenTexts, ROUGEScore):  # type: ignore[misc]
    """Words, or sequences of them, that written and own text share: F1, from 0 to 1.

    Lin, *ROUGE: A Package for Automatic Evaluation of Summaries*, 2004,
    https://aclanthology.org/W04-1013.

    Args:
        tokenizer: makes texts of ids.
        key: `rouge1` (words), `rouge2` (pairs) or `rougeL` (the longest common sequence).
        options: those of [`WrittenTexts`][].
    """

    higher_is_better = True
    units: Tensor | None = None

    def __init__(self, tokenizer: Any = None, key: str = "rougeL", **options: Any):
        if key not in ("rouge1", "rouge2", "rougeL"):
            raise ValueError(f"`key` must be rouge1, rouge2 or rougeL, got {key!r}.")
        super().__init__(tokenizer, rouge_keys=key, **options)
        self.key = key

    def add(self, written: list[str], own: list[str]) -> None:
        """Add texts."""
        ROUGEScore.update(self, written, own)

    def compute(self) -> Float[Tensor, ""]:  # type: ignore[override]
        """The mean over all rows and ranks."""
        found = [value.flatten() for value in getattr(self, f"{self.key}_fmeasure")]
        if found:
            values = torch.cat(found)
            self.units = torch.stack([values, torch.ones_like(values)], dim=1)
        return ROUGEScore.compute(self)[f"{self.key}_fmeasure"]


class Bleu(WrittenTexts, SacreBLEUScore):  # type: ignore[misc]
    """BLEU of all rows together, from 0 to 1, of the words as SacreBLEU cuts them (`13a`).

    Papineni et al., *BLEU*, 2002, https://aclanthology.org/P02-1040; Post, *A Call for Clarity in
    Reporting BLEU Scores*, 2018, https://arxiv.org/abs/1804.08771.
    """

    higher_is_better = True

    def add(self, written: list[str], own: list[str]) -> None:
        """Add texts."""
        SacreBLEUScore.update(self, written, [[text] for text in own])

    def compute(self) -> Float[Tensor, ""]:
        """Over all rows and ranks."""
        return SacreBLEUScore.compute(self)


class WordErrorRate(WrittenTexts, WER):  # type: ignore[misc]
    """Words that were changed, left out or put in, as a share of the own texts' words."""

    higher_is_better = False

    def add(self, written: list[str], own: list[str]) -> None:
        """Add texts."""
        WER.update(self, written, own)

    def compute(self) -> Float[Tensor, ""]:
        """Over all rows and ranks."""
        return WER.compute(self)


def feed_texts(
    model: nn.Module,
    inputs: Any,
    batch: Any,
    rows: Tensor | None,
    metrics: Iterable[Metric],
    kept: KeptStates | None = None,
) -> None:
    """Let a model write from the sources of a batch, and feed the metrics that read what it wrote.

    Args:
        model: that is measured.
        inputs: what it is given of the batch.
        batch: as the data loader gives it.
        rows: which rows count; `None` if all.
        metrics: any; those that read no texts are passed over.
        kept: where it is kept what each row adds to a metric; by default nowhere.

    Raises:
        ValueError: for a model that writes none.
    """
    labels, numbers, written = labels_of(batch), row_numbers(batch), dict[Any, Tensor]()
    for metric in metrics:
        if not reads_texts(metric) or labels is None:
            continue
        check_writes(model, type(metric).__name__)
        counted = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
        if rows is not None:
            counted &= rows
        if metric.rows is not None and numbers is not None:
            counted &= numbers < metric.rows  # type: ignore[operator]
        if not counted.any():
            continue
        how = (metric.writing, metric.rows)
        if how not in written:
            own = {n: take_rows(v, counted) for n, v in _named(inputs).items()}
            written[how] = write_texts(model, own, metric.writing)  # type: ignore[arg-type]
        given = (written[how], labels[counted])
        give(metric, counted.nonzero().flatten(), given, {}, kept)


def _named(inputs: Any) -> Mapping[str, Any]:
    if isinstance(inputs, Mapping):
        return inputs
    raise ValueError(
        "Texts are written from inputs by name, and the batch gives the model "
        f"{type(inputs).__name__}. Let the collate function return a dict."
    )
