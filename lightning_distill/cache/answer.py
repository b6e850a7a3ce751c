"""One of the teacher's tensors in a cache: its name, its shape, and how it is written."""

import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .full import Full
from .sampled import Sampled
from .top_k import TopK

Encoding = Full | TopK | Sampled


@dataclass(frozen=True)
class Answer:
    """A tensor of the teacher that is kept for every row.

    Attributes:
        name: where it comes from, without the role: `logits`, `hidden_states[2]`, `layer:PATH`.
        per_token: whether it has a vector for each token, which is kept without the padding.
        shape: of a row's, or of a token's.
        encoding: how it is written.
    """

    name: str
    per_token: bool
    shape: tuple[int, ...]
    encoding: Encoding

    def settings(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return {
            "name": self.name,
            "per": "token" if self.per_token else "row",
            "shape": list(self.shape),
            **self.encoding.settings(),
        }

    def mark(self, teacher: str) -> int:
        """32 bits that checksums begin with: no row of another teacher or encoding fits.

        Args:
            teacher: who answers, as `identity_of` says.
        """
        return zlib.crc32(_text([teacher, self.settings()]))

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "Answer":
        """The answer that a manifest describes."""
        rest = dict(settings)
        name, per, shape = rest.pop("name"), rest.pop("per"), tuple(rest.pop("shape"))
        kinds = {"full": Full, "top_k": TopK, "sampled": Sampled}
        return cls(name, per == "token", shape, kinds[rest.pop("kind")](**rest))


def signature(teacher: str, answers: Iterable[Answer]) -> str:
    """SHA-256, in hex, of who answers and what is kept of it, by which a shard is known.

    Args:
        teacher: who answers, as `identity_of` says.
        answers: what is kept of each row.
    """
    text = _text([teacher, [answer.settings() for answer in answers]])
    return hashlib.sha256(text).hexdigest()


def _text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
