"""Whether two tokenizers number the same tokens alike, so that their logits can be compared.

Rows of a head are compared by number, and equal numbers of rows say nothing about what they stand
for: a mapping that differs makes every divergence finite, and wrong.
"""

from dataclasses import dataclass
from typing import Any

from .tokenizer import tokenizer_steps

REMEDY = (
    "Compare what both say about the same text (criteria=[alm] or criteria=[uld], with "
    "data.teacher_tokenizer), or choose a teacher and a student of one tokenizer."
)


@dataclass(frozen=True)
class VocabularyComparison:
    """What two tokenizers have in common.

    Attributes:
        student_size: one more than the student's largest token id.
        teacher_size: the same of the teacher.
        shared: how many ids from 0 on mean the same token in both.
        first_difference: the first id that does not, with what the student and the teacher call it
            (`None` where it is no token); `None` if no id differs.
        beyond: of the ids from `shared` on, the first that is an ordinary token of either side, and
            no added one such as a special token; `None` if there is none.
        steps: parts of the tokenizers that differ although the tokens do not, such as
            `pre_tokenizer`: the same text may become other ids.
    """

    student_size: int
    teacher_size: int
    shared: int
    first_difference: tuple[int, str | None, str | None] | None
    beyond: int | None
    steps: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        """Whether logits may be compared id by id, up to `shared`."""
        return self.shared > 0 and self.beyond is None

    def __str__(self) -> str:
        sizes = f"{self.student_size} token ids (student) and {self.teacher_size} (teacher)"
        if self.first_difference is None:
            told = f"All {self.shared} token ids mean the same to student and teacher"
        else:
            told = f"Of {sizes}, the first {self.shared} mean the same; {_told(self)}"
        return f"{told}.{_steps(self.steps)}"


def compare_vocabularies(student_tokenizer: Any, teacher_tokenizer: Any) -> VocabularyComparison:
    """Look at every id of both tokenizers; refuses nothing.

    Args:
        student_tokenizer: one of transformers.
        teacher_tokenizer: one of transformers.
    """
    student, teacher = (_tokens(t) for t in (student_tokenizer, teacher_tokenizer))
    sizes = [max(tokens, default=-1) + 1 for tokens in (student, teacher)]
    every = range(max(sizes))
    first = next((i for i in every if student.get(i) != teacher.get(i)), None)
    shared = max(sizes) if first is None else first
    added = [set(t.get_added_vocab().values()) for t in (student_tokenizer, teacher_tokenizer)]
    beyond = next(
        (
            i
            for i in every[shared:]
            if any(i in t and i not in a for t, a in zip((student, teacher), added, strict=True))
        ),
        None,
    )
    return VocabularyComparison(
        student_size=sizes[0],
        teacher_size=sizes[1],
        shared=shared,
        first_difference=None if first is None else (first, student.get(first), teacher.get(first)),
        beyond=beyond,
        steps=_different_steps(student_tokenizer, teacher_tokenizer, shared),
    )


def shared_vocabulary(student_tokenizer: Any, teacher_tokenizer: Any) -> VocabularyComparison:
    """As [`compare_vocabularies`][], refused if logits must not be compared id by id.

    Tokens that were added at the end of one vocabulary are fine, and rows that a head has beyond
    its tokenizer are of no interest here: `shared` ids are compared (`shared_vocab` of
    [`FusedLinearDivergence`][lightning_distill.criteria.FusedLinearDivergence]).

    A vocabulary that goes on with ordinary tokens is refused although all shared ids are alike: a
    larger vocabulary of the same kind joins what the smaller one keeps apart, so its model expects
    joined tokens where the student's text has none.

    Equal ids with another normaliser or pre-tokenizer are not refused. Where both models read the
    same ids, every position still asks both for the next token of the same sequence, which is what
    is compared; the teacher only reads a text cut in a way that it seldom saw. The comparison says
    so, for a log to warn of.

    Raises:
        ValueError: with the first id that differs and its tokens.
    """
    found = compare_vocabularies(student_tokenizer, teacher_tokenizer)
    if not found.comparable:
        raise ValueError(
            "The tokenizers of student and teacher must give the same tokens the same ids for "
            f"logits to be compared, and do not: {_told(found)} ({found.student_size} token ids "
            f"against {found.teacher_size}). {REMEDY}"
        )
    return found


def _tokens(tokenizer: Any) -> dict[int, str]:
    return {i: token for token, i in tokenizer.get_vocab().items()}


def _told(found: VocabularyComparison) -> str:
    if found.first_difference is None:
        return "there is no token at all"
    i, student, teacher = found.first_difference
    named = ["no token" if token is None else repr(token) for token in (student, teacher)]
    return f"id {i} is {named[0]} to the student and {named[1]} to the teacher"


def _steps(steps: tuple[str, ...]) -> str:
    if not steps:
        return ""
    return (
        f" They differ in {', '.join(steps)}: text that each splits by itself may become other "
        "ids, so give both models the student's."
    )


def _different_steps(
    student_tokenizer: Any, teacher_tokenizer: Any, shared: int
) -> tuple[str, ...]:
    both = (student_tokenizer, teacher_tokenizer)
    told = [steps for t in both if (steps := tokenizer_steps(t)) is not None]
    if len(told) < 2:
        # Of one that is written in Python nothing more can be seen than its kind.
        kinds = [type(t).__qualname__ for t in both]
        return () if kinds[0] == kinds[1] else ("class",)
    for one in told:
        vocabulary = one["model"].pop("vocab", None)
        one["model"].pop("unk_id", None)
        if isinstance(vocabulary, list):
            # Of a unigram model: what a token costs decides where a text is split.
            one["model"]["costs"] = [cost for _, cost in vocabulary[:shared]]
    return tuple(n for n in ("normalizer", "pre_tokenizer", "model") if told[0][n] != told[1][n])
