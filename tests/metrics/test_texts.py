"""Metrics of written texts against plain definitions in float64."""

import copy
import math
from collections import Counter

import pytest
import torch
from encoder_decoders import batch, model
from tiny import loader, trainer

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel
from lightning_distill.metrics import Bleu, ExactMatch, Rouge, WordErrorRate
from lightning_distill.models.inputs import model_inputs
from lightning_distill.models.written_texts import write_texts, Writing
from lightning_distill.tasks import SequenceToSequence

PAIRS = [
    ("the cat sat on the mat today", "the cat sat on a mat today"),
    ("a dog runs over the red hill", "the dog runs over the hill"),
    ("rain", "blue rain falls"),
    ("the very same words here", "the very same words here"),
]
WORDS = sorted({word for pair in PAIRS for text in pair for word in text.split()})


class Tokenizer:
    def batch_decode(self, rows, skip_special_tokens):
        assert skip_special_tokens
        return [" ".join(WORDS[i - 3] for i in row if i > 2) for row in rows]


def ids(texts) -> torch.Tensor:
    rows = [[WORDS.index(word) + 3 for word in text.split()] + [2] for text in texts]
    width = max(map(len, rows))
    return torch.tensor([row + [-100] * (width - len(row)) for row in rows])


def fed(metric):
    written, own = zip(*PAIRS, strict=True)
    metric.update(ids(written[:2]), ids(own[:2]))
    metric.update(ids(written[2:]), ids(own[2:]))
    return float(metric.compute())


def common(a, b):
    """The length of the longest common sequence."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            longer = max(table[i - 1][j], table[i][j - 1])
            table[i][j] = table[i - 1][j - 1] + 1 if x == y else longer
    return table[-1][-1]


def edits(a, b):
    table = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, table[0] = table[0], i
        for j, y in enumerate(b, 1):
            before, table[j] = table[j], min(table[j] + 1, table[j - 1] + 1, before + (x != y))
    return table[-1]


def f1(right, found, there):
    return 2 * right / (found + there) if right else 0.0


def test_rouge_is_the_mean_f1_of_the_longest_common_sequence():
    words = [(a.split(), b.split()) for a, b in PAIRS]
    expected = [f1(common(a, b), len(a), len(b)) for a, b in words]
    assert fed(Rouge(Tokenizer())) == pytest.approx(sum(expected) / len(expected), abs=1e-6)
    ones = [f1((Counter(a) & Counter(b)).total(), len(a), len(b)) for a, b in words]
    assert fed(Rouge(Tokenizer(), key="rouge1")) == pytest.approx(sum(ones) / 4, abs=1e-6)


def test_bleu_is_of_all_rows_together():
    right, found = [0] * 4, [0] * 4
    for a, b in PAIRS:
        for n in range(4):
            grams = [Counter(tuple(t.split()[i : i + n + 1]) for i in range(len(t.split()) - n))
                     for t in (a, b)]  # fmt: skip
            right[n] += (grams[0] & grams[1]).total()
            found[n] += grams[0].total()
    lengths = [sum(len(pair[i].split()) for pair in PAIRS) for i in (0, 1)]
    brevity = min(0.0, 1 - lengths[1] / lengths[0])
    expected = math.exp(
        brevity + sum(math.log(r / f) for r, f in zip(right, found, strict=True)) / 4
    )
    assert fed(Bleu(Tokenizer())) == pytest.approx(expected, abs=1e-6)


def test_errors_and_exact_matches_are_counted_over_all_rows():
    wrong = sum(edits(a.split(), b.split()) for a, b in PAIRS)
    there = sum(len(b.split()) for _, b in PAIRS)
    assert fed(WordErrorRate(Tokenizer())) == pytest.approx(wrong / there, abs=1e-6)
    assert WordErrorRate.higher_is_better is False
    assert fed(ExactMatch(Tokenizer())) == 0.25


def test_options_are_checked_and_a_copy_shares_the_tokenizer():
    with pytest.raises(ValueError, match="`rows` must be a whole number of 1 at least, got 0"):
        ExactMatch(rows=0)
    with pytest.raises(ValueError, match="`key` must be rouge1, rouge2 or rougeL, got 'rougeLsum'"):
        Rouge(key="rougeLsum")
    with pytest.raises(ValueError, match="ExactMatch needs a tokenizer to make texts of ids"):
        fed(ExactMatch())
    metric = Rouge(Tokenizer())
    assert copy.deepcopy(metric)._tokenizer is metric._tokenizer


def module_of(metrics, own=None):
    inputs = {"student": "student.logits", "labels": "batch.labels"}
    objective = Objective({"label": Term(HardLabel(), inputs)})
    own = model("t5") if own is None else own
    return DistillationModule(own, model("t5", 2), objective, metrics, task=SequenceToSequence())


class Ids:
    def batch_decode(self, rows, skip_special_tokens):
        return [" ".join(map(str, row)) for row in rows]


def test_texts_are_written_once_for_all_metrics_and_of_the_first_rows_alone(tmp_path):
    batches = [batch("t5"), batch("t5", rows=2)]
    batches[1]["row"] = torch.tensor([3, -1])
    metrics = {name: kind(Ids(), max_new_tokens=6, rows=4)
               for name, kind in (("exact", ExactMatch), ("errors", WordErrorRate))}  # fmt: skip
    module = module_of(metrics)
    asked = []
    generate = module.student.generate

    def counted(*args, **more):
        asked.append(len(more["input_ids"]))
        return generate(*args, **more)

    module.student.generate = counted
    run = trainer(tmp_path)
    run.test(module, loader(batches), verbose=False)
    assert asked == [3, 1]
    wrong = there = 0
    of_teacher = [0, 0]
    for given, rows in zip(batches, (3, 1), strict=True):
        for role, own in enumerate((module.student, module.teacher)):
            written = write_texts(own, model_inputs(given, own), Writing(6))
            for i in range(rows):
                texts = [[int(t) for t in r[i] if t != -100] for r in (written, given["labels"])]
                if role == 0:
                    wrong, there = wrong + edits(*texts), there + len(texts[1])
                else:
                    of_teacher[0] += edits(*texts)
                    of_teacher[1] += len(texts[1])
    assert float(run.callback_metrics["test/errors"]) == pytest.approx(wrong / there, abs=1e-6)
    expected = of_teacher[0] / of_teacher[1]
    assert float(run.callback_metrics["test/teacher_errors"]) == pytest.approx(expected, abs=1e-6)


def test_a_model_that_writes_no_texts_is_refused(tmp_path):
    from tiny import gpt2, token_batch

    own = gpt2(1, 16)
    inputs = {"student": "student.logits", "labels": "batch.labels"}
    objective = Objective({"label": Term(HardLabel(), inputs)})
    module = DistillationModule(own, None, objective, {"exact": ExactMatch(Ids())})
    with pytest.raises(ValueError, match="ExactMatch reads texts .* GPT2LMHeadModel is no encoder"):
        trainer(tmp_path).validate(module, loader([token_batch([5, 4], [1, 1], 0)]), verbose=False)
