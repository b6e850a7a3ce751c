"""Which texts were asked for, and how right an answer is, by the scripts of SQuAD."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
PUNCTUATION = str.maketrans("", "", string.punctuation)


class References:
    """The questions of all splits with their right answers, and the windows that models read.

    A window is a row of the data: the question and a part of its context.

    Args:
        contexts: of every question.
        answers: all right ones of every question; none if it has no answer.
        questions: of each window, the number of its question.
        nulls: of each window, the position that stands for no answer in it.
        starts: of each window, where in the context each token begins, counted in letters; -1 for
            a token that is not of the context.
        ends: the same for where it ends.
        no_answer: whether a question may have no answer.
        null_threshold: how much better than the best answer no answer must score, in logits, to be
            taken.
        max_answer_length: of an answer, in tokens.
    """

    def __init__(
        self,
        contexts: Sequence[str],
        answers: Sequence[Sequence[str]],
        questions: Sequence[int],
        nulls: Sequence[int],
        starts: Any,
        ends: Any,
        no_answer: bool = False,
        null_threshold: float = 0.0,
        max_answer_length: int = 30,
    ):
        self.contexts, self.answers = contexts, answers
        self.questions, self.nulls = questions, nulls
        self.starts, self.ends = starts, ends
        self.no_answer, self.null_threshold = no_answer, null_threshold
        self.max_answer_length = max_answer_length

    def __len__(self) -> int:
        return len(self.answers)

    def __deepcopy__(self, memo: Any) -> "References":
        # Metrics are cloned for every stage; texts never change, and may be many.
        return self

    def text(self, window: int, start: int, end: int) -> str:
        """The part of the context from one token to another."""
        context = self.contexts[self.questions[window]]
        return context[int(self.starts[window][start]) : int(self.ends[window][end])]

    def exact_match(self, question: int, text: str) -> float:
        """1 if an answer equals a right one."""
        right = self._right(question)
        return max(float(normalised(text) == normalised(one)) for one in right)

    def f1(self, question: int, text: str) -> float:
        """How many words an answer shares with the right one that is most like it, as F1."""
        return max(word_f1(text, one, self.no_answer) for one in self._right(question))

    def _right(self, question: int) -> Sequence[str]:
        given = self.answers[question]
        if self.no_answer:
            # As the script of version 2 does, which leaves out what is nothing but articles.
            given = [one for one in given if normalised(one)]
        return given or [""]


def normalised(text: str) -> str:
    """In small letters, without punctuation, articles and more than one space."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def word_f1(text: str, right: str, no_answer: bool = False) -> float:
    """F1 of the words of two answers, from 0 to 1.

    Rajpurkar et al., *SQuAD: 100,000+ Questions for Machine Comprehension of Text*, 2016,
    https://arxiv.org/abs/1606.05250; with `no_answer` that of version 2 (Rajpurkar et al., 2018,
    https://arxiv.org/abs/1806.03822), in which two empty answers are equal.
    """
    ours, theirs = normalised(text).split(), normalised(right).split()
    if no_answer and not (ours and theirs):
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


__all__ = ["References", "normalised", "word_f1"]
