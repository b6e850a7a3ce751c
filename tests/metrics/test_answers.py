import collections
import random
import re
import string

import pytest
import torch

from lightning_distill.metrics import AnswerExactMatch, AnswerF1
from lightning_distill.tasks import Questions


def plain(text: str) -> str:
    """As the script of SQuAD: small letters, no punctuation, no articles, single blanks."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact(ours: str, right: list[str]) -> float:
    return max(float(plain(ours) == plain(one)) for one in right or [""])


def f1(ours: str, right: list[str]) -> float:
    best = 0.0
    for one in right or [""]:
        a, b = plain(ours).split(), plain(one).split()
        if not a or not b:
            best = max(best, float(a == b))
            continue
        same = sum((collections.Counter(a) & collections.Counter(b)).values())
        if same:
            precision, recall = same / len(a), same / len(b)
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


CONTEXT = "The cat, an old one, sat on the mat."
WORDS = [(m.start(), m.end()) for m in re.finditer(r"\w+", CONTEXT)]


def window(question: int, first: int, last: int, start, end, room: int = 3):
    """Logits of `room` tokens of the question, and of words of the context."""
    words = WORDS[first:last]
    begins = [0] * room + [b + 1 for b, _ in words]
    ends = [0] * room + [e for _, e in words]
    predicted = torch.tensor([start, end], dtype=torch.float32)[None]
    return {
        "predicted": predicted,
        "labels": torch.zeros(1, 2, dtype=torch.long),
        "question": torch.tensor([question]),
        "begins": torch.tensor([begins]),
        "ends": torch.tensor([ends]),
    }


def naive(windows, answers, longest: int, none_allowed: bool, threshold: float = 0.0):
    """The best stretch over all windows, in loops."""
    texts = {}
    for number in {int(w["question"][0]) for w in windows}:
        best, null = (-1e30, ""), 1e30
        for w in windows:
            if int(w["question"][0]) != number:
                continue
            start, end = w["predicted"][0].tolist()
            null = min(null, start[0] + end[0])
            for i in range(len(start)):
                for j in range(i, min(i + longest, len(end))):
                    if w["begins"][0, i] and w["begins"][0, j] and start[i] + end[j] > best[0]:
                        text = CONTEXT[int(w["begins"][0, i]) - 1 : int(w["ends"][0, j])]
                        best = start[i] + end[j], text
        texts[number] = "" if none_allowed and null - best[0] > threshold else best[1]
    return texts


@pytest.mark.parametrize("none_allowed", [False, True])
@pytest.mark.parametrize("longest", [1, 2, 30])
def test_answers_of_windows_are_those_of_loops_over_all_of_them(none_allowed, longest):
    draw = random.Random(longest)
    answers = [[draw.choice(["the cat", "Old one", "mat.", "sat on the mat"])] for _ in range(6)]
    if none_allowed:
        answers[0] = answers[3] = []
    windows = []
    for number in range(6):
        for first in range(0, len(WORDS), 3):
            last = min(first + 5, len(WORDS))
            logits = [[draw.gauss(0, 3) for _ in range(3 + last - first)] for _ in range(2)]
            logits[0][0] += 20 if number in (3, 4) else 0
            windows.append(window(number, first, last, *logits))
    draw.shuffle(windows)
    questions = Questions([CONTEXT] * 6, answers)
    expected = naive(windows, answers, longest, none_allowed)
    for metric, of in (
        (AnswerF1(questions, longest), f1),
        (AnswerExactMatch(questions, longest), exact),
    ):
        for one in windows:
            metric.update(**one)
        assert metric.answers() == expected
        mean = sum(of(text, answers[n]) for n, text in expected.items()) / 6
        assert float(metric.compute()) == pytest.approx(mean, abs=1e-6)
    if none_allowed:
        assert "" in expected.values()


@pytest.mark.parametrize(
    ("ours", "right"),
    [
        ("The  Cat!", ["cat"]),
        ("cat", ["dog", "a cat"]),
        ("old cat sat", ["the old one", "sat"]),
        ("", []),
        ("cat", []),
        ("", ["cat"]),
        ("the", [""]),
    ],
)
def test_single_answers_are_scored_as_the_script_of_squad_does(ours, right):
    context = f"{ours} more"
    found = {}
    for cls in (AnswerF1, AnswerExactMatch):
        metric = cls(Questions([context], [right]))
        metric.answers = lambda: {0: ours}
        metric._update_count = 1
        found[cls] = float(metric.compute())
    assert found[AnswerF1] == pytest.approx(f1(ours, right), abs=1e-6)
    assert found[AnswerExactMatch] == exact(ours, right)


def test_questions_without_a_label_are_not_measured_and_copies_share_what_is_asked():
    import copy

    questions = Questions([CONTEXT, CONTEXT], [None, ["cat"]])
    metric = AnswerF1(questions)
    assert copy.deepcopy(metric).questions is questions
    for number in (0, 1):
        metric.update(**window(number, 1, 2, [0, 0, 0, 9.0], [0, 0, 0, 9.0]))
    assert float(metric.compute()) == 1
    with pytest.raises(ValueError, match="`max_answer_length` must be at least 1, got 0"):
        AnswerF1(questions, max_answer_length=0)
