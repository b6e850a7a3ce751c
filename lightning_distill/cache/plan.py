"""What a cache shall hold, and of whom: decided before the first row, and never changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .answer import Answer, signature
from .manifest import identity_of
from .signed_json import read_json, write_json

PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """What is kept of whose answers, and under which precision they are made.

    Attributes:
        teacher: what is known of the teacher, with its `fingerprint`, as plain values.
        precision: the trainer's, such as `bf16-mixed`.
        answers: what is kept of each row.
        heads: the paths of the teacher's heads that are kept once.
        data: what is known of the rows: how they were preprocessed, and if all of them are written
            in an order that is known before, how many there are in a file.
    """

    teacher: Mapping[str, Any]
    precision: str
    answers: Sequence[Answer]
    heads: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def about(self) -> dict[str, Any]:
        """What a manifest says of the answers."""
        return {"teacher": dict(self.teacher), "precision": self.precision, **self.data}

    @property
    def identity(self) -> str:
        """Who answers: the teacher, under a precision."""
        return identity_of(self.about)

    @property
    def signature(self) -> str:
        """By which the shards of this plan are known."""
        return signature(self.identity, self.answers)

    @property
    def bytes(self) -> int:
        """About how many bytes all rows take; 0 where it is not known how many there are."""
        return int(self.data.get("rows", 0) * self.data.get("bytes_per_row", 0))

    def bytes_per_row(self, tokens: float) -> int:
        """About how many bytes a row of so many tokens takes, with its id, place and checksums."""
        size = 16.0 + 8 + 8 * len(self.answers) + 24
        ids = torch.zeros(1, 2, dtype=torch.long)
        for answer in self.answers:
            fields = answer.encoding.encode(torch.zeros(1, *answer.shape), ids)
            bytes_ = sum(f.numel() * f.element_size() for f in fields.values())
            size += bytes_ * (tokens if answer.per_token else 1)
        return int(size)

    def settings(self) -> dict[str, Any]:
        """As `plan.json` keeps it."""
        answers = [answer.settings() for answer in self.answers]
        return {"about": self.about, "answers": answers, "heads": list(self.heads)}

    def parts(self) -> dict[str, Any]:
        """By the names that `check_same` compares."""
        return {
            "rows_per_shard": None,
            **self.about,
            "answers": sorted(answer.name for answer in self.answers),
            **{f"teacher.{answer.name}": answer.settings() for answer in self.answers},
            "heads": sorted(self.heads),
        }

    def write(self, folder: Path) -> None:
        """Write `plan.json`."""
        write_json(folder / PLAN, self.settings())

    @classmethod
    def read(cls, folder: Path) -> "Plan | None":
        """The plan of a folder; `None` if it has none.

        Raises:
            DamagedCacheError: if it is not what was written.
        """
        if not (folder / PLAN).is_file():
            return None
        content = read_json(folder / PLAN)
        data = dict(content["about"])
        teacher, precision = data.pop("teacher"), data.pop("precision", None)
        answers = [Answer.from_settings(settings) for settings in content["answers"]]
        return cls(teacher, precision, answers, content.get("heads", ()), data)


def check_same(
    folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], advice: str
) -> None:
    """Refuse answers that were made otherwise than they are wanted.

    Args:
        folder: that holds them.
        before: how they were made: parts of a plan, by name.
        now: how they are wanted; each entry must be as it was, and what else there was before
            does not matter.
        advice: what to do, for the error.

    Raises:
        ValueError: that says all that differs.
    """
    differing = [line for key in now for line in _differences(before.get(key), now[key], key)]
    if differing:
        raise ValueError(
            f"{folder} holds answers that were made otherwise: {'; '.join(differing)}. {advice}"
        )


def _differences(before: Any, now: Any, name: str) -> list[str]:
    if before == now:
        return []
    if name == "precision":
        return [f"under precision {before or 'that is not known'}, and this run has {now}"]
    if name == "rows_per_shard" and None in (before, now):
        by_job = "by lightning-distill job=cache (train from it with teacher=cached)"
        return [by_job if now is None else "while a student learnt (teacher=caching)"]
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        made, given = (str(one.get("fingerprint"))[:12] for one in (before, now))
        if made != given:
            # All else of another teacher may differ as well, and says no more.
            return [f"by another teacher (fingerprint {made}, this one is {given})"]
        names = {key: f"{name}.{key}" for key in now}
        return [
            line for key in names for line in _differences(before.get(key), now[key], names[key])
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [line for i, (b, n) in pairs for line in _differences(b, n, f"{name}[{i}]")]
    return [f"{name} was {_short(before)} and is {_short(now)}"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
