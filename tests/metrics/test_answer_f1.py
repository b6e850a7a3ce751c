"""Answers are looked for in all windows of a context, and counted as SQuAD's scripts do."""

import collections
import random
import re
import string

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from processes import in_two_processes
from torchmetrics.functional.text import squad

from lightning_distill.metrics import AnswerExactMatch, AnswerF1
from lightning_distill.metrics._answers import best_spans
from lightning_distill.tasks import References
from lightning_distill.tasks.answers import word_f1

WORDS = ["The", "the", "a", "Rome", "rome,", "was", "an", "U.S.", "(1998)", "%", "river"]


def plain(text):
    """Step by step, as the scripts of SQuAD describe it."""
    letters = [c for c in text.lower() if c not in set(string.punctuation)]
    return re.sub(r"\b(a|an|the)\b", " ", "".join(letters)).split()


def naive_f1(text, right, second):
    ours, theirs = plain(text), plain(right)
    if second and (not ours or not theirs):
        return float(ours == theirs)
    count = collections.Counter(ours)
    same = 0
    for word in theirs:
        if count[word] > 0:
            count[word] -= 1
            same += 1
    if same == 0:
        return 0.0
    precision, recall = same / len(ours), same / len(theirs)
    return 2 * precision * recall / (precision + recall)


def test_words_are_compared_as_the_scripts_do():
    draw, words = random.Random(0), WORDS
    for _ in range(300):
        one, other = (" ".join(draw.choices(words, k=draw.randint(0, 5))) for _ in range(2))
        for second in (False, True):
            assert word_f1(one, other, second) == pytest.approx(naive_f1(one, other, second))
        known = References([""], [[other]], [0], [0], None, None)
        exact, f1 = known.exact_match(0, one), known.f1(0, one)
        assert exact == float(plain(one) == plain(other))
        if plain(one) and plain(other):
            theirs = squad(
                [{"prediction_text": one, "id": "0"}],
                [{"answers": {"answer_start": [0], "text": [other]}, "id": "0"}],
            )
            assert 100 * exact == pytest.approx(float(theirs["exact_match"]))
            assert 100 * f1 == pytest.approx(float(theirs["f1"]), abs=1e-4)


def test_the_best_span_is_that_of_all_pairs():
    generator = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 5, 9, generator=generator)
    inside = torch.rand(5, 9, generator=generator) > 0.3
    inside[4] = False
    scores, first, last = best_spans(start, end, inside, 3)
    for i in range(5):
        pairs = [(float(start[i, a] + end[i, b]), a, b) for a in range(9) for b in range(a, a + 3)
                 if b < 9 and inside[i, a] and inside[i, b]]  # fmt: skip
        if not pairs:
            assert scores[i] == -float("inf")
            continue
        expected = max(pairs)
        assert (float(scores[i]), int(first[i]), int(last[i])) == pytest.approx(expected)


# Four questions on texts of ten words, each read in two windows of seven words that share four.
CONTEXTS = [" ".join(f"{w}{i}" for i in range(10)) for w in ("red", "blue", "green", "grey")]


def asked(no_answer=False, threshold=0.0) -> References:
    answers = [["red2 red3", "red3"], ["blue7"], [] if no_answer else ["green4"], ["grey1 grey9"]]
    spans = [[(m.start(), m.end()) for m in re.finditer(r"\S+", text)] for text in CONTEXTS]
    starts, ends, questions = [], [], []
    for question, own in enumerate(spans):
        for begin in (0, 3):
            # The first token stands for no answer.
            starts.append(np.array([-1, *(a for a, _ in own[begin : begin + 7])]))
            ends.append(np.array([-1, *(b for _, b in own[begin : begin + 7])]))
            questions.append(question)
    options = {"no_answer": no_answer, "null_threshold": threshold, "max_answer_length": 3}
    return References(CONTEXTS, answers, questions, [0] * 8, starts, ends, **options)


def logits(seed=0) -> torch.Tensor:
    return torch.randn(8, 2, 8, generator=torch.Generator().manual_seed(seed))


def naive_mean(known: References, predicted: torch.Tensor, measure) -> float:
    """Every pair of tokens of every window of each question, one by one."""
    values = []
    for question, context in enumerate(CONTEXTS):
        found, nulls = [], []
        for window in (2 * question, 2 * question + 1):
            start, end = predicted[window].double()
            nulls.append(float(start[0] + end[0]))
            for a in range(1, 8):
                for b in range(a, min(a + 3, 8)):
                    text = context[known.starts[window][a] : known.ends[window][b]]
                    found.append((float(start[a] + end[b]), text))
        score, text = max(found)
        if known.no_answer and min(nulls) - score > known.null_threshold:
            text = ""
        values.append(measure(text, known.answers[question]))
    return sum(values) / len(values)


def of_naive(second):
    def f1(text, right):
        return max(naive_f1(text, one, second) for one in (right or [""]))

    def exact(text, right):
        return max(float(plain(text) == plain(one)) for one in (right or [""]))

    return {AnswerF1: f1, AnswerExactMatch: exact}


@pytest.mark.parametrize(("no_answer", "threshold"), [(False, 0.0), (True, 0.0), (True, -6.0)])
@pytest.mark.parametrize("kind", [AnswerF1, AnswerExactMatch])
def test_a_question_is_measured_over_all_its_windows(kind, no_answer, threshold):
    known = asked(no_answer, threshold)
    seen = set()
    for seed in range(12):
        metric, predicted = kind(known), 2 * logits(seed)
        # Windows of one question in different batches, some of them twice.
        for rows in ([7, 0, 2], [1, 5, 5, 6], [4, 3, 0]):
            metric.update(predicted[rows], torch.zeros(len(rows), 2).long(), torch.tensor(rows))
        expected = naive_mean(known, predicted, of_naive(no_answer)[kind])
        assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)
        seen.add(round(expected, 4))
    assert len(seen) > 1


def test_texts_must_be_known():
    with pytest.raises(ValueError, match="compares texts, which a batch does not hold"):
        AnswerF1().update(logits(), torch.zeros(8, 2).long(), torch.arange(8))


# Both ranks hold a window of questions 0 and 2; the second has nothing in its last batch.
RANKS = [[[0, 2, 3], [4, 6, 7]], [[1, 5]]]


def _worker(rank, store, results):
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    found = []
    for seed in range(4):
        metric = AnswerF1(asked(no_answer=True))
        for rows in RANKS[rank]:
            given = 2 * logits(seed)[rows]
            metric.update(given, torch.zeros(len(rows), 2).long(), torch.tensor(rows))
        found.append(float(metric.compute()))
    results[rank] = found
    torch.distributed.destroy_process_group()


def test_two_processes_measure_what_one_does(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        in_two_processes(_worker, (str(tmp_path / "store"), results))
        found = dict(results)
    known = asked(no_answer=True)
    expected = [naive_mean(known, 2 * logits(seed), of_naive(True)[AnswerF1]) for seed in range(4)]
    assert found[0] == found[1] == pytest.approx(expected, abs=1e-6)
