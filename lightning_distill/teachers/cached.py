"""A teacher that is not there: its answers are read from disk."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..cache import AnswerStore
from ..cache.plan import check_same
from ..models.batch import labels_of, row_numbers, teacher_entries
from ..models.decoder_inputs import mask_of_labels, moved_by_one
from ..models.forward import LOGITS, PREDICTED
from ..models.head import Head
from ..models.source import Source
from .recall import outputs_of, recall_sources, Rows
from .refusals import check_encodings, check_source, not_kept
from .teacher import Asker, SCORES, Teacher


class CachedTeacher(Teacher):
    """Stands for a teacher whose answers were written before; none of its weights is in memory.

    A row is found by what the teacher would be given for it, whatever the order, the batch, the
    padding, the epoch or the rank. Give it to a [`DistillationModule`][] in the teacher's place.

    Args:
        folder: that `lightning-distill job=cache` or `CachingTeacher` wrote.

    Raises:
        FileNotFoundError: if there is no cache.
        DamagedCacheError: if a file is not what was written; also for a row, when it is read.
    """

    def __init__(self, folder: str | Path):
        super().__init__(None)
        self.store = AnswerStore(folder)
        names = self._about["labels"]
        labels = None if names is None else {int(k): v for k, v in names.items()}
        self._config = SimpleNamespace(id2label=labels)
        self._heads: dict[str, Head] = {}

    @property
    def is_live(self) -> bool:
        """It answers only rows that were cached."""
        return False

    @property
    def _about(self) -> dict[str, Any]:
        of_teacher: dict[str, Any] = self.store.about["teacher"]
        return of_teacher

    @property
    def fingerprint(self) -> str:
        """That of the teacher that answered."""
        return str(self._about["fingerprint"])

    @property
    def module_names(self) -> list[str]:
        """The paths within the teacher that answered."""
        return list(self._about["modules"])

    @property
    def input_names(self) -> list[str]:
        """The keywords that the teacher took."""
        return list(self._about["inputs"])

    @property
    def config(self) -> Any:
        """The names of its classes."""
        return self._config

    @property
    def label_names(self) -> Any:
        """The names of its classes by their numbers, if it had any."""
        return self._config.id2label

    @property
    def row_label_names(self) -> list[str] | None:
        """The labels of whole rows in order, if it had a head for them."""
        found: list[str] | None = self._about.get("row_labels")
        return found

    def about(self, outputs: Any = None) -> dict[str, Any]:
        """What is known of the teacher that answered."""
        return self._about

    def teacher_inputs(self, batch: Any) -> Any:
        """What the teacher was given of a batch, with what its decoder read, if it had one."""
        inputs, decoder = super().teacher_inputs(batch), self._about.get("decoder")
        labels = labels_of(teacher_entries(batch) or batch)
        present = not isinstance(inputs, dict) or "decoder_input_ids" in inputs
        if decoder is None or present or not isinstance(labels, Tensor):
            return inputs
        made = {"decoder_input_ids": moved_by_one(labels, **decoder)}
        if "decoder_attention_mask" in self.input_names:
            made["decoder_attention_mask"] = mask_of_labels(labels)
        return {**inputs, **made}

    def forward(self, *args: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """The logits of these rows, (rows, classes) or (rows, tokens, classes), in float32.

        Of answers to questions `start_logits` and `end_logits`, (rows, tokens).
        """
        outputs = outputs_of(Rows(self.store, args or inputs), self.head)
        found = {name: outputs[name] for name in PREDICTED if name in outputs}
        if not found:
            raise not_kept(self.store, LOGITS)
        return found

    def head(self, path: str, device: torch.device) -> Head:
        """A head of the teacher, on a device; read from disk once."""
        head = self._heads.get(path) or self.store.heads()[path]
        if head.weight.device != device:
            bias = None if head.bias is None else head.bias.to(device)
            head = Head(head.weight.to(device), bias, head.scale, head.softcap)
        self._heads[path] = head
        return head

    def _answers(
        self, batch: Any, sources: list[Source], asker: Asker, heads: str, keep: bool
    ) -> tuple[Any, dict[Source, Any]]:
        inputs = asker.teacher_inputs(batch)
        return recall_sources(self.store, inputs, sources, self.head, row_numbers(batch))

    def vectors_for(self, source: Source) -> Source:
        """Those that were kept, in whichever way the teacher's tokens were pooled."""
        names = [name for name in self.store.answers if name.startswith("pooled:")]
        wanted = str(source).partition(".")[2]
        if not names and "logits" in self.store.answers:
            # Of a reranker its scores are kept.
            return SCORES
        return source if wanted in names or not names else Source.parse(f"teacher.{names[0]}")

    def check(self, terms: Mapping[str, Any]) -> None:
        """Refuse terms that ask for what is not in the cache, or would compare its padding."""
        for name, term in terms.items():
            for source in term.sources():
                if source.role == "teacher":
                    check_source(self.store, source, name, term)
        answers, where = self.store.answers, f"the cache {self.store.folder}"
        check_encodings(terms, lambda name: answers[name].encoding, where, "job.")

    def begin(self, rank: int, barrier: Callable[[], None], precision: str) -> None:
        """Refuse answers that were made under another precision, as `check_precision` does."""
        self.check_precision(precision)

    def check_precision(self, precision: str) -> None:
        """Refuse a training under another precision than that of the answers.

        Raises:
            ValueError: that names both.
        """
        made = self.store.about.get("precision")
        if made is not None:
            advice = (
                f"A live teacher would answer otherwise here. Train with trainer.precision={made}, "
                f"or make a cache with trainer.precision={precision}: lightning-distill job=cache."
            )
            check_same(self.store.folder, {"precision": made}, {"precision": precision}, advice)

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self._about['class']}, {len(self.store):,} rows in {self.store.folder}"
