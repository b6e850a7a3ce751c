"""A teacher whose answers are kept: the model is run for rows that are new, others are read."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn, Tensor

from ..cache import AnswerStore, EncodedRows, Plan, row_ids, row_lengths, token_count
from ..models.batch import row_numbers
from ..models.forward import kept_heads
from ..models.head import Head, head_of
from ..models.source import Source
from .answer_writer import AnswerWriter
from .answers import names_of, raw_values
from .encodings import encoding_of
from .plan_of import plan_of
from .recall import Outputs, recall_sources
from .refusals import check_effects, check_encodings, check_mask
from .teacher import Asker, Teacher

# So many rows of an epoch are looked at, before it is said that none of them was seen before.
LOOKED_AT = 512


class CachingTeacher(Teacher):
    """A teacher that answers each row once, and from disk ever after.

    Rows that are not in the folder are asked of the model and written, at most `shard_mb` behind;
    all others are read. At the end of each epoch what the other ranks wrote is there for all. The
    folder can be given to [`CachedTeacher`][] afterwards, and a run that was killed goes on with
    what was written. One run at a time writes into a folder.

    Args:
        teacher: any module; frozen by the [`DistillationModule`][] that it is given to.
        folder: where the answers are kept.
        logits: `full`, or fewer numbers by `top_k` or `sampled`.
        dtype: of logits: `float32`, `bfloat16` or `float16`.
        hidden_dtype: of all other tensors: these, or `float8`.
        k: how many logits `top_k` keeps.
        draws: how many classes `sampled` draws.
        temperature: at which top-k tails are exact and classes are drawn.
        views: how many versions of each row keyed augmentation makes.
        shard_mb: megabytes of a file.
        preprocessing: plain values that decide what the teacher is given, kept for who reads the
            answers.

    Raises:
        ValueError: in training, for a folder of another teacher, precision or other settings, for
            one into which another process writes, and if no row of an epoch was seen before,
            because augmentation draws anew.
    """

    def __init__(
        self,
        teacher: nn.Module,
        folder: str | Path,
        logits: str = "full",
        dtype: str = "float32",
        hidden_dtype: str = "bfloat16",
        k: int = 64,
        draws: int = 64,
        temperature: float = 1.0,
        views: int = 1,
        shard_mb: float = 64,
        preprocessing: Mapping[str, Any] | None = None,
    ):
        super().__init__(teacher)
        self.folder = Path(folder)
        self.options: dict[str, Any] = {
            "logits": logits,
            "dtype": dtype,
            "hidden_dtype": hidden_dtype,
        }
        self.options |= {"k": k, "draws": draws, "temperature": float(temperature)}
        self.encoding = encoding_of(**self.options)
        self.preprocessing, self.views = preprocessing, views
        self.writer = AnswerWriter(self.folder, int(shard_mb * 2**20), self.head)
        self.store: AnswerStore | None = None
        self._terms: Mapping[str, Any] = {}
        self._epochs = self._asked = self._found = 0
        self._masks_checked = False

    @property
    def is_live(self) -> bool:
        """It is of use where rows come again."""
        return False

    @property
    def live(self) -> Teacher:
        """The teacher without what it keeps."""
        assert self.model is not None
        found = Teacher(self.model)
        found._fingerprint = self.fingerprint
        return found

    def check(self, terms: Mapping[str, Any]) -> None:
        """The model has all that any term may ask for; what is kept of it must be that too."""
        super().check(terms)
        check_encodings(terms, self.encoding, "this teacher", "teacher.")
        read = {s for term in terms.values() for s in term.sources() if s.role == "teacher"}
        check_effects(sorted(read, key=str), self.options, "this teacher", "teacher.")
        self._terms, self._masks_checked = terms, False

    def _answers(
        self, batch: Any, sources: list[Source], asker: Asker, heads: str, keep: bool
    ) -> tuple[Any, dict[Source, Any]]:
        inputs = asker.teacher_inputs(batch)
        ids, numbers = row_ids(inputs), row_numbers(batch)
        found = np.zeros(len(ids), bool) if self.store is None else self.store.find(ids) >= 0
        if keep and asker.training:
            self._look_for_new_inputs(found)
        if self.store is not None and found.all() and _holds(self.store, sources):
            if keep:
                self._check_masks(inputs)
            return recall_sources(self.store, inputs, sources, self.head, numbers, ids)
        made = kept_heads(sources)
        # Logits follow from what is kept; that they do is seen when the first batch is tried.
        how = "whole" if not made else "checked" if heads == "checked" else "skipped"
        outputs, values = super()._answers(batch, sources, asker, how, keep)
        if keep and self.writer.precision is not None and not found.all():
            if self.writer.plan is None:
                self._begin_plan(asker, batch, sources, (outputs, values))
            self._check_masks(inputs)
            rows = self._encoded(ids, raw_values(sources, outputs, values), row_lengths(inputs))
            self.writer.add_new(rows.take(np.flatnonzero(~found)))
            if _holds(rows, sources):
                # Read again, they would be these, and so a run that is resumed or repeated learns
                # from the same numbers.
                return recall_sources(rows, inputs, sources, self.head, numbers, ids)
        if made:
            given = next(s for s in sources if s.kind == "layer_input" and s.name == made[0])
            head = self.head(made[0])
            return Outputs({"logits": lambda: head(values[given])}), values
        return outputs, values

    def _encoded(
        self, ids: np.ndarray, values: Mapping[str, Tensor], lengths: Sequence[int] | None
    ) -> EncodedRows:
        """What is kept of these answers, if the plan has them."""
        plan = self.writer.plan
        assert plan is not None
        kept = [answer for answer in plan.answers if answer.name in values]
        about = plan.about, plan.heads, self.folder
        return EncodedRows.of(kept, ids, values, lengths, *about)

    def head(self, path: str, device: Any = None) -> Head:
        """A head of the model."""
        assert self.model is not None
        return head_of(self.model, path)

    # Writing.

    def begin(
        self,
        rank: int,
        barrier: Callable[[], None],
        precision: str,
        plan: Plan | None = None,
    ) -> None:
        """Lock the folder, and open what an earlier run left; called on every rank.

        Args:
            rank: of this process.
            barrier: returns when all ranks have called it.
            precision: the trainer's, such as `bf16-mixed`.
            plan: what is kept, where that is known; else it is found with the first rows.

        Raises:
            ValueError: if another process writes into the folder, or if it holds answers that were
                made otherwise.
        """
        if self.writer.precision == precision:
            return
        # A run that raised has not come to its end.
        self.writer.close()
        # Views begin anew with each training, as with each stage of a run.
        self._epochs = self._asked = self._found = 0

        def wanted(before: Plan) -> dict[str, Any]:
            if plan is not None:
                return plan.parts()
            of = {f"teacher.{a.name}": self.encoding(a.name).settings() for a in before.answers}
            who = {"teacher": {"fingerprint": self.fingerprint}, "precision": precision}
            return {"rows_per_shard": None, **who, **of}

        self.writer.open(rank, barrier, precision, wanted, plan)
        # What is planned is written before it is read: a shard may be damaged until then.
        self.store = self.writer.store() if plan is None else None

    def end_epoch(self, barrier: Callable[[], None]) -> None:
        """Write what is left, and see what the other ranks wrote."""
        if self.writer.precision is None:
            return
        self._finish(barrier)
        self._epochs += 1
        self._asked = self._found = 0

    def end(self, barrier: Callable[[], None]) -> None:
        """Write what is left, and let others write; what was kept can still be read."""
        if self.writer.precision is not None:
            self._finish(barrier)
        self.writer.close()

    def _finish(self, barrier: Callable[[], None]) -> None:
        self.writer.finish(barrier)
        self.store = self.writer.store()

    def record(self, asker: Asker, batch: Any, sources: Sequence[Source]) -> int:
        """Ask the model a batch, and keep the answers to all of its rows, known or not.

        Args:
            asker: who says what the model is given.
            batch: as its loader gave it.
            sources: of the teacher.

        Returns:
            How many rows there are.
        """
        how = "skipped" if kept_heads(sources) else "whole"
        values = raw_values(sources, *self.live.answers(batch, sources, asker, how))
        inputs = asker.teacher_inputs(batch)
        ids = row_ids(inputs)
        self.writer.add(ids, values, row_lengths(inputs))
        return len(ids)

    def _begin_plan(
        self,
        asker: Asker,
        batch: Any,
        sources: Sequence[Source],
        answered: tuple[Any, Mapping[Source, Any]],
    ) -> None:
        precision, how = self.writer.precision, self.encoding
        assert precision is not None
        data = {} if self.preprocessing is None else {"preprocessing": self.preprocessing}
        plan = plan_of(self.live, asker, batch, sources, how, precision, data, answered)
        self.writer.begin(plan)

    # What is refused.

    def _look_for_new_inputs(self, found: np.ndarray) -> None:
        if self._epochs < self.views or self._asked >= LOOKED_AT:
            return
        self._asked += len(found)
        self._found += int(found.sum())
        if self._asked >= LOOKED_AT and not self._found:
            raise ValueError(
                f"None of {self._asked} rows of epoch {self._epochs} was seen before, "
                "so that a cache is of no use: augmentation draws anew in each epoch, or rows are "
                "packed anew. Use augmentation that is keyed (data.views=N), or a live teacher."
            )

    def _check_masks(self, inputs: Any) -> None:
        """Refuse terms that would compare padding: it is the teacher's now, and zeros when read."""
        lengths, plan = row_lengths(inputs), self.writer.plan
        if self._masks_checked or plan is None or lengths is None:
            return
        if min(lengths, default=0) == token_count(inputs):
            return
        self._masks_checked = True
        per_token = {answer.name for answer in plan.answers if answer.per_token}
        for name, term in self._terms.items():
            for source in term.sources():
                if source.role == "teacher" and per_token & set(names_of(source, plan.teacher)):
                    check_mask(source, name, term)


def _holds(store: AnswerStore | EncodedRows, sources: Sequence[Source]) -> bool:
    """Whether each source is of one tensor, which is kept."""
    if any(source.is_many for source in sources):
        return False
    single = [source for source in sources if source.kind != "head"]
    return {n for s in single for n in names_of(s, store.about["teacher"])} <= store.answers.keys()
