"""How many answers are exactly right, as SQuAD counts them."""

from collections.abc import Callable
from typing import ClassVar

from ..tasks import References
from ._answers import OfAnswers


class AnswerExactMatch(OfAnswers):
    """Share of questions whose best answer equals a right one, from 0 to 1.

    They are compared in small letters, without punctuation and articles (Rajpurkar et al., 2016,
    https://arxiv.org/abs/1606.05250, and 2018, https://arxiv.org/abs/1806.03822).

    Args:
        references: the questions and their right answers; the data module has them.
    """

    of_texts: ClassVar[Callable[[References, int, str], float]] = References.exact_match
