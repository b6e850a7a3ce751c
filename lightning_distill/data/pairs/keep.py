"""Which texts of a teacher are learnt from: filters, one for each measure."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from torchmetrics.functional.text import edit_distance, rouge_score, word_error_rate

# Whether a row is learnt from, by its own target, the teacher's text and its log-probability.
Filter = Callable[[str, str, float], bool]


def plain(text: str) -> str:
    """Small letters and single blanks, without punctuation."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


class KeepByEditDistance:
    """Texts that are near the row's own target, letter by letter.

    Args:
        most: edits (Levenshtein, 1966) at most, as a share of the longer text's letters.
    """

    def __init__(self, most: float = 0.5):
        self.most = _share("most", most)

    def __call__(self, target: str, text: str, log_probability: float) -> bool:
        """Whether the row is kept."""
        longer = max(len(target), len(text), 1)
        return float(edit_distance([text], [target])) <= self.most * longer

    def __repr__(self) -> str:
        return f"KeepByEditDistance(most={self.most})"


class KeepByRouge:
    """Texts that share words with the row's own target (Lin, 2004).

    Args:
        least: F1 at least.
        key: `rouge1`, `rouge2` or `rougeL`.
    """

    def __init__(self, least: float = 0.3, key: str = "rougeL"):
        if key not in ("rouge1", "rouge2", "rougeL"):
            raise ValueError(f"`key` must be rouge1, rouge2 or rougeL, got {key!r}.")
        self.least, self.key = _share("least", least), key

    def __call__(self, target: str, text: str, log_probability: float) -> bool:
        """Whether the row is kept."""
        found = rouge_score(text, target, rouge_keys=self.key)
        return float(found[f"{self.key}_fmeasure"]) >= self.least

    def __repr__(self) -> str:
        return f"KeepByRouge(least={self.least}, key={self.key!r})"


class KeepByWordErrorRate:
    """Texts that say word by word what the row's own target says, as distil-whisper chooses them.

    Gandhi et al., *Distil-Whisper: Robust Knowledge Distillation via Large-Scale Pseudo Labelling*,
    2023, https://arxiv.org/abs/2311.00430, section 3.2, keep at most 10 %.

    Args:
        most: words that were changed, left out or put in, as a share of the target's.
        normalized: compare small letters without punctuation.
    """

    def __init__(self, most: float = 0.1, normalized: bool = True):
        self.most, self.normalized = _number("most", most), normalized

    def __call__(self, target: str, text: str, log_probability: float) -> bool:
        """Whether the row is kept."""
        if self.normalized:
            target, text = plain(target), plain(text)
        if not target:
            return not text
        return float(word_error_rate([text], [target])) <= self.most

    def __repr__(self) -> str:
        return f"KeepByWordErrorRate(most={self.most}, normalized={self.normalized})"


class KeepByLogProbability:
    """Texts of which the teacher was sure.

    Args:
        least: mean of the tokens' log-probabilities at least, in nats; 0 is certain.
    """

    def __init__(self, least: float = -1.0):
        self.least = _number("least", least)

    def __call__(self, target: str, text: str, log_probability: float) -> bool:
        """Whether the row is kept."""
        return log_probability >= self.least

    def __repr__(self) -> str:
        return f"KeepByLogProbability(least={self.least})"


def check_filters(keep: Any) -> list[Filter]:
    """The filters of `keep`, which is none, one or several.

    Raises:
        ValueError: for what cannot be asked.
    """
    given = [] if keep is None else list(keep) if isinstance(keep, Sequence) else [keep]
    for one in given:
        if not callable(one):
            raise ValueError(
                "`keep` must be callables (target, text, log_probability) -> bool, as in "
                "'data.keep=[{_target_: lightning_distill.data.KeepByWordErrorRate}]', got "
                f"{one!r}."
            )
    return given


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError(f"`{name}` must be a number, got {value!r}.")
    return float(value)


def _share(name: str, value: Any) -> float:
    if not 0 <= _number(name, value) <= 1:
        raise ValueError(f"`{name}` lies between 0 and 1, got {value!r}.")
    return float(value)
