import itertools
import random

import pytest
import torch

from lightning_distill.metrics import EntityF1, Samples
from lightning_distill.metrics.entity_f1 import entities
from lightning_distill.tasks import TokenClassification

TAGS = ["O", "B-a", "I-a", "B-b", "I-b"]


def begins(before: str, tag: str) -> bool:
    """conlleval's startOfChunk, case by case."""
    (p, t), (p0, t0) = (x.split("-") if "-" in x else (x, "") for x in (tag, before))
    if p == "B":
        return True
    if p == "I" and p0 == "O":
        return True
    return p != "O" and t != t0


def ends(tag: str, after: str) -> bool:
    """conlleval's endOfChunk."""
    (p, t), (p1, t1) = (x.split("-") if "-" in x else (x, "") for x in (tag, after))
    if p == "O":
        return False
    if p1 in ("B", "O"):
        return True
    return t != t1


def naive(tags: list[str]) -> set:
    around = ["O", *tags, "O"]
    found, start = set(), None
    for i in range(1, len(tags) + 1):
        if begins(around[i - 1], around[i]):
            start = i - 1
        if ends(around[i], around[i + 1]):
            found.add((around[i].split("-")[1], start, i))
    return found


def test_entities_are_those_of_conlleval_for_every_short_sentence():
    for length in (1, 2, 3, 4, 5):
        for tags in itertools.product(TAGS, repeat=length):
            assert entities(tags) == naive(list(tags)), tags


def test_f1_is_that_of_a_plain_count_over_all_batches():
    draw = random.Random(0)
    metric, right, found, there = EntityF1(TAGS), 0, 0, 0
    for _ in range(5):
        labels = torch.tensor([[draw.randrange(-1, 5) for _ in range(9)] for _ in range(4)])
        labels[labels == -1] = -100
        generator = torch.Generator().manual_seed(draw.randrange(99))
        predicted = torch.randn(4, 9, 5, generator=generator)
        metric.update(predicted, labels)
        for row, logits in zip(labels, predicted, strict=True):
            kept = [i for i in range(9) if row[i] != -100]
            theirs = naive([TAGS[row[i]] for i in kept])
            ours = naive([TAGS[int(logits[i].argmax())] for i in kept])
            right, found, there = right + len(ours & theirs), found + len(ours), there + len(theirs)
    precision, recall = right / found, right / there
    expected = 2 * precision * recall / (precision + recall)
    assert metric.compute().item() == pytest.approx(expected)


def test_other_schemes_are_the_same_spans():
    bio = ["B-a", "I-a", "I-a", "O", "B-b", "B-a"]
    iobes = ["B-a", "I-a", "E-a", "O", "S-b", "S-a"]
    bilou = ["B-a", "I-a", "L-a", "O", "U-b", "U-a"]
    iob1 = ["I-a", "I-a", "I-a", "O", "I-b", "I-a"]
    assert entities(bio) == entities(iobes) == entities(bilou) == entities(iob1)


def test_rows_are_given_as_a_whole_and_repeats_left_out():
    labels = torch.tensor([[1, 2, -100], [0, 1, 2], [1, 2, -100]])
    batch = {"input_ids": torch.ones(3, 3).long(), "labels": labels}
    predicted = torch.nn.functional.one_hot(labels.clamp(min=0), 5).float()
    # The middle row is found one word too late; the last is a repeat that would be right.
    predicted[1] = torch.nn.functional.one_hot(torch.tensor([0, 0, 1]), 5).float()
    metric, rows = EntityF1(TAGS), torch.tensor([True, True, False])
    for samples in Samples.of(batch, predicted, None, rows, [metric], TokenClassification()):
        samples.feed(metric)
    assert metric.compute() == 0.5 and metric.there.sum() == 2


def test_no_entity_is_zero_and_tags_without_kinds_are_refused(unchecked_types):
    assert EntityF1(TAGS).compute() == 0
    with pytest.raises(ValueError, match="spans of tags such as B-place.*noun, verb"):
        EntityF1(["noun", "verb"])
    with pytest.raises(ValueError, match="Each token needs one label"):
        EntityF1(TAGS).update(torch.zeros(1, 3, 5), torch.zeros(1, 2).long())


def test_the_kinds_are_counted_apart():
    labels = torch.tensor([[1, 2, 0, 3], [3, 0, 1, -100]])
    chosen = torch.tensor([[1, 2, 0, 1], [3, 0, 3, 0]])
    metric = EntityF1(TAGS)
    metric.update(torch.nn.functional.one_hot(chosen, 5).float(), labels)
    whole = metric.compute()
    # a: 1 right of 2 found and 2 there; b: 1 right of 2 found and 2 there.
    assert metric.parts == {"a": 0.5, "b": 0.5} and float(whole) == 0.5
    metric.reset()
    metric.update(torch.nn.functional.one_hot(labels.clamp(0)[:1], 5).float(), labels[:1])
    assert float(metric.compute()) == 1 and metric.parts == {"a": 1.0, "b": 1.0}


def test_a_sentence_in_windows_is_counted_as_one():
    draw = random.Random(0)
    sentences = [[draw.randrange(5) for _ in range(draw.randint(1, 12))] for _ in range(20)]
    chosen = [[draw.choice([tag, draw.randrange(5)]) for tag in row] for row in sentences]
    plain, windows = EntityF1(TAGS), EntityF1(TAGS)
    parts, number = [], 0
    for row, ours in zip(sentences, chosen, strict=True):
        logits = torch.nn.functional.one_hot(torch.tensor(ours), 5).float()[None]
        plain.update(logits, torch.tensor(row)[None])
        for start in range(0, len(row), 4):
            labels = torch.tensor(row[start : start + 4])[None]
            numbers = number + 1 + torch.arange(start, start + labels.shape[1])[None]
            parts.append((logits[:, start : start + 4], labels, numbers))
        number += len(row) + 1
    draw.shuffle(parts)
    for i, part in enumerate(parts):
        windows.update(*part)
        if i == len(parts) // 2:
            windows.compute()
            windows._computed = None
    assert float(windows.compute()) == float(plain.compute()) < 1
    assert windows.parts == plain.parts
