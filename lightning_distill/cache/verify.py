"""How far the answers of a cache are from those of the live teacher."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .answer import Answer
from .sampled import Sampled
from .store import AnswerStore


class Verification:
    """Compares batch by batch.

    Args:
        store: of which the answers are compared.

    Attributes:
        differences: the largest of each answer.
        largest: value of each answer, of the live teacher.
    """

    def __init__(self, store: AnswerStore):
        self.store = store
        self.differences = dict.fromkeys(store.answers, 0.0)
        self.largest = dict.fromkeys(store.answers, 0.0)
        self._by_chance: set[str] = {*store.answers}

    def add(
        self,
        live: Mapping[str, Tensor],
        kept: Mapping[str, Tensor],
        ids: np.ndarray,
        lengths: Sequence[int] | None,
    ) -> None:
        """Compare the answers to a batch.

        Args:
            live: the teacher's, by name.
            kept: those that were read, padded as the inputs were.
            ids: of the rows.
            lengths: tokens of each row, where answers are per token.
        """
        for name, answer in self.store.answers.items():
            mine, theirs = _comparable(answer, live[name], kept[name], ids, lengths)
            if not mine.numel():
                continue
            difference = (mine - theirs).abs()
            self.differences[name] = max(self.differences[name], float(difference.max()))
            self.largest[name] = max(self.largest[name], float(mine.abs().max()))
            if isinstance(answer.encoding, Sampled):
                # Shares of draws are off by chance; six standard deviations are not chance.
                spread = (mine * (1 - mine) / answer.encoding.draws).sqrt()
                if (difference > 6 * spread + 1 / answer.encoding.draws).any():
                    self._by_chance.discard(name)

    def check(self, tolerance: float) -> float:
        """The largest difference.

        Args:
            tolerance: how far answers may be off, as a share of the largest value.

        Raises:
            ValueError: if one is off by more.
        """
        for name, found in self.differences.items():
            sampled = isinstance(self.store.answers[name].encoding, Sampled)
            near = found <= tolerance * max(self.largest[name], 1e-30)
            if not (name in self._by_chance if sampled else near):
                raise ValueError(
                    f"teacher.{name} differs by {found:.3g} from the live teacher, of values up to "
                    f"{self.largest[name]:.3g}; job.tolerance allows a share of {tolerance}. Was "
                    "the cache made on other hardware, or with other libraries? Make it anew."
                )
        return max(self.differences.values())


def _comparable(
    answer: Answer, live: Tensor, kept: Tensor, ids: np.ndarray, lengths: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    """Both as a cache gives them; drawn classes as probabilities."""
    if answer.per_token:
        assert lengths is not None
        inside = torch.arange(kept.shape[1]) < torch.tensor(lengths)[:, None]
        live, kept = live.cpu()[inside], kept.cpu()[inside]
        marks = torch.zeros(len(live), 2, dtype=torch.long)
    else:
        marks = torch.from_numpy(ids.copy())
    if isinstance(answer.encoding, Sampled):
        temperature = answer.encoding.temperature
        return (live.float() / temperature).softmax(-1).cpu(), (kept / temperature).exp().cpu()
    fields = answer.encoding.encode(live.cpu(), marks)
    mine = answer.encoding.decode(fields, answer.shape)
    kept = kept.cpu()
    # Classes that the teacher rules out are so in both.
    both = mine.isinf() & kept.isinf()
    return mine.masked_fill(both, 0.0), kept.masked_fill(both, 0.0)
