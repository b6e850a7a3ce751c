"""A live teacher whose answers are kept: run in the first epoch, and read from the second."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn, Tensor

from ..cache import (
    Answer,
    AnswerStore,
    DamagedCacheError,
    row_ids,
    row_lengths,
    ShardWriter,
    token_count,
    write_heads,
    write_manifest,
)
from ..cache.answer import signature
from ..cache.store import MANIFEST, PLAN, read_json, whole, write_json
from ..models.fingerprint import fingerprint
from ..models.forward import kept_heads, run_model as run
from ..models.head import Head, head_of
from ..models.inputs import input_names
from ..models.source import Source
from ..models.submodules import submodules
from .answers import about, answer_name, describe, raw_values, without_last_token
from .cached import check_encodings, check_mask, names_of, Outputs, recall_sources, row_numbers
from .encodings import encoding_of

# So many rows of an epoch are looked at, before it is said that none of them was seen before.
LOOKED_AT = 512


class CachingTeacher(nn.Module):
    """A teacher that answers each row once, and from disk ever after.

    Rows that are not in the folder are asked of the teacher and written, at most `shard_mb` behind;
    all others are read. At the end of each epoch what the other ranks wrote is there for all. The
    folder can be given to [`CachedTeacher`][] afterwards, and a run that was killed goes on with
    what was written.

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
        ValueError: in training, for a folder of another teacher or other settings, and if no row of
            an epoch was seen before, because augmentation draws anew.
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
        super().__init__()
        self.teacher, self.folder = teacher, Path(folder)
        self.encoding = encoding_of(logits, dtype, hidden_dtype, k, draws, temperature)
        self.preprocessing = preprocessing
        self.views, self.shard_bytes = views, int(shard_mb * 2**20)
        self.input_names = input_names(teacher)
        self.store: AnswerStore | None = None
        self.plan: dict[str, Any] | None = None
        self._writer: ShardWriter | None = None
        self._pending: set[bytes] = set()
        self._rank, self._written, self._epochs = 0, 0, 0
        self._asked = self._found = 0
        self._print: str | None = None
        self._keeping = self._masks_checked = False

    @property
    def config(self) -> Any:
        """That of the live teacher."""
        return getattr(self.teacher, "config", None)

    @property
    def fingerprint(self) -> str:
        """That of the live teacher."""
        if self._print is None:
            self._print = fingerprint(self.teacher)
        return self._print

    @property
    def module_names(self) -> list[str]:
        """The paths within the live teacher."""
        return list(submodules(self.teacher))

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """Run the live teacher."""
        return self.teacher(*args, **inputs)

    def check(self, terms: Mapping[str, Any]) -> None:
        """The live teacher has all that any term may ask for; what is kept of it must be that too.

        Args:
            terms: those of an objective.
        """
        check_encodings(terms, self.encoding, "this teacher", "teacher.")

    def recall(
        self, module: Any, batch: Any, sources: Sequence[Source], keep: bool = False
    ) -> tuple[Any, dict[Source, Any]]:
        """The teacher's outputs and the tensor of each source, read or made.

        Args:
            module: the [`DistillationModule`][] that asks.
            batch: as its loader gave it.
            sources: of the teacher.
            keep: write what is new; false for a batch that is only tried.
        """
        inputs = module.teacher_inputs(batch)
        ids = row_ids(inputs)
        found = np.zeros(len(ids), bool) if self.store is None else self.store.find(ids) >= 0
        known = bool(found.all())
        if keep and module.training:
            self._look_for_new_inputs(found)
        if known and not any(source.is_many for source in sources):
            assert self.store is not None
            if keep:
                self._check_masks(module, inputs)
            if set(raw_names(sources, self.store)) <= set(self.store.answers):
                return recall_sources(self.store, inputs, sources, self.head, row_numbers(batch))
        heads = kept_heads(sources)
        # Logits follow from what is kept; that they do is seen when the first batch is tried.
        how = "whole" if not heads else "skipped" if keep else "checked"
        outputs, values = run(self.teacher, module.teacher_forward, batch, sources, how)
        if keep and self._keeping and not known:
            self._keep(module, batch, inputs, ids, sources, outputs, values)
        if heads:
            given = next(s for s in sources if s.kind == "layer_input" and s.name == heads[0])
            head = head_of(self.teacher, heads[0])
            return Outputs({"logits": lambda: head(values[given])}), values
        return outputs, values

    def head(self, path: str, device: Any) -> Head:
        """A head of the live teacher."""
        return head_of(self.teacher, path)

    # Writing.

    def begin(self, rank: int, barrier: Callable[[], None]) -> None:
        """Open what an earlier run left; called on every rank when training begins.

        Args:
            rank: of this process.
            barrier: returns when all ranks have called it.
        """
        self._rank, self._keeping = rank, True
        if rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_plan()
            for part in self.folder.glob(".*.part"):
                # Left by a killed process.
                part.unlink()
            self._index()
        barrier()
        self._reopen()

    def store_answers(self, barrier: Callable[[], None]) -> None:
        """Write what is left, and see what the other ranks wrote; at the end of each epoch."""
        if not self._keeping:
            return
        if self._writer is not None and len(self._writer):
            self._flush()
        barrier()
        if self._rank == 0:
            self._index()
        barrier()
        self._reopen()
        self._epochs += 1
        self._asked = self._found = 0

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

    def _keep(
        self,
        module: Any,
        batch: Any,
        inputs: Any,
        ids: np.ndarray,
        sources: Sequence[Source],
        outputs: Any,
        values: Mapping[Source, Any],
    ) -> None:
        lengths = row_lengths(inputs)
        found = raw_values(sources, outputs, values)
        if self._writer is None:
            if self.plan is None:
                self._make_plan(module, batch, inputs, sources, outputs, found)
            assert self.plan is not None
            answers = [Answer.from_settings(a) for a in self.plan["answers"]]
            self._writer = ShardWriter(self.folder, answers, self.fingerprint)
        self._check_masks(module, inputs)
        if not {a.name for a in self._writer.answers} <= set(found):
            # Another objective asks for less, such as that of a student without a teacher.
            return
        stored = self.store.find(ids) >= 0 if self.store is not None else np.zeros(len(ids), bool)
        new = []
        for i, row in enumerate(ids):
            key = row.tobytes()
            if not stored[i] and key not in self._pending:
                self._pending.add(key)
                new.append(i)
        if new:
            own = None if lengths is None else [lengths[i] for i in new]
            self._writer.add(ids[new], {n: v[new] for n, v in found.items()}, own)
        if self._writer.bytes >= self.shard_bytes:
            self._flush()

    def _check_masks(self, module: Any, inputs: Any) -> None:
        """Refuse terms that would compare padding: it is the teacher's now, and zeros when read."""
        lengths = row_lengths(inputs)
        if self._masks_checked or self.plan is None or lengths is None:
            return
        if min(lengths, default=0) == token_count(inputs):
            return
        self._masks_checked = True
        of_teacher = self.plan["about"]["teacher"]
        per_token = {a["name"] for a in self.plan["answers"] if a["per"] == "token"}
        for name, term in module.objective.terms.items():
            for source in term.sources():
                if source.role == "teacher" and per_token & set(names_of(source, of_teacher)):
                    check_mask(source, name, term)

    def _make_plan(
        self,
        module: Any,
        batch: Any,
        inputs: Any,
        sources: Sequence[Source],
        outputs: Any,
        found: Mapping[str, Tensor],
    ) -> None:
        shorter = None
        if (cut := without_last_token(batch)) is not None:
            how = "skipped" if kept_heads(sources) else "whole"
            other, tensors = run(self.teacher, module.teacher_forward, cut, sources, how)
            shorter = raw_values(sources, other, tensors)
        answers = describe(found, shorter, token_count(inputs), self.encoding)
        self.plan = {
            "about": {
                "teacher": about(self.teacher, outputs, self.input_names, self.fingerprint),
                **({} if self.preprocessing is None else {"preprocessing": self.preprocessing}),
            },
            "answers": [answer.settings() for answer in answers],
            "heads": sorted({source.name for source in sources if source.kind == "head"}),
        }
        write_json(self.folder / PLAN, self.plan)

    def _check_plan(self) -> None:
        if not (self.folder / PLAN).is_file():
            if (self.folder / MANIFEST).is_file() or any(self.folder.glob("shard-*")):
                raise ValueError(
                    f"{self.folder} holds a cache without its {PLAN}, and it is not known whose "
                    "answers these are. Name another folder, or remove this one."
                )
            return
        try:
            plan = read_json(self.folder / PLAN)
        except DamagedCacheError as error:
            raise DamagedCacheError(
                f"{self.folder / PLAN} is damaged, and it is not known whose answers are beside "
                "it. Name another folder, or remove this one."
            ) from error
        if "rows_per_shard" in plan["about"]:
            raise ValueError(
                f"{self.folder} was made by lightning-distill job=cache; train from it with "
                "teacher=cached, or name another folder."
            )
        made = plan["about"]["teacher"]["fingerprint"]
        if made != self.fingerprint:
            raise ValueError(
                f"{self.folder} holds the answers of another teacher (fingerprint {made[:12]}, "
                f"this one is {self.fingerprint[:12]}). Name another folder."
            )
        for settings in plan["answers"]:
            answer = Answer.from_settings(settings)
            if answer.encoding != self.encoding(answer.name):
                raise ValueError(
                    f"{self.folder} holds teacher.{answer.name} as {answer.encoding}, and "
                    f"{self.encoding(answer.name)} is asked for. Name another folder."
                )

    def _flush(self) -> None:
        assert self._writer is not None
        facts = self._writer.write(f"shard-{self._rank:03d}-{self._written:05d}")
        write_json(self.folder / f"{Path(facts['file']).stem}.json", facts)
        self._written += 1

    def _index(self) -> None:
        """Make a cache of all shards that are whole; the others are removed."""
        if not (self.folder / PLAN).is_file():
            return
        plan = read_json(self.folder / PLAN)
        answers = [Answer.from_settings(a) for a in plan["answers"]]
        of = signature(self.fingerprint, answers)
        known = {} if self.store is None else {facts["file"]: facts for facts in self.store.shards}
        shards = []
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            facts = known.get(path.name) or whole(path, of)
            if facts is not None:
                shards.append(facts)
                continue
            # Its rows are asked of the teacher again.
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)
        if self.store is None or shards != self.store.shards:
            own = {path: head_of(self.teacher, path) for path in plan.get("heads", [])}
            heads = write_heads(self.folder, own)
            write_manifest(self.folder, plan["about"], answers, shards, heads)

    def _reopen(self) -> None:
        if not (self.folder / MANIFEST).is_file():
            return
        self.plan = read_json(self.folder / PLAN)
        self.store = AnswerStore(self.folder)
        self._pending.clear()
        own = f"shard-{self._rank:03d}-"
        numbers = [
            int(f["file"][len(own) : -12]) for f in self.store.shards if f["file"].startswith(own)
        ]
        self._written = max(numbers, default=-1) + 1


def live(teacher: nn.Module) -> nn.Module:
    """The model that answers: the teacher itself, or the one whose answers it keeps."""
    return teacher.teacher if isinstance(teacher, CachingTeacher) else teacher


def raw_names(sources: Sequence[Source], store: AnswerStore) -> list[str]:
    """The names that sources of one tensor have in a cache."""
    outputs = store.about["teacher"]["outputs"]
    return [answer_name(source, outputs) for source in sources if source.kind != "head"]
