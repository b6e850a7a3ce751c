"""F1 of the words of answers, as SQuAD counts it."""

from collections.abc import Callable
from typing import ClassVar

from ..tasks import References
from ._answers import OfAnswers


class AnswerF1(OfAnswers):
    """Mean over questions of the F1 of words that the best answer shares with a right one.

    Words are compared in small letters, without punctuation and articles, with that right answer
    which is most like it; an answer where there is none counts 0. From 0 to 1, where the scripts of
    SQuAD print percent (Rajpurkar et al., 2016, https://arxiv.org/abs/1606.05250, and 2018,
    https://arxiv.org/abs/1806.03822).

    Args:
        references: the questions and their right answers; the data module has them.
    """

    of_texts: ClassVar[Callable[[References, int, str], float]] = References.f1
