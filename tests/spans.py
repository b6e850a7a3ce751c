"""Logits of two models of other vocabularies, with labels and spans, drawn at random."""

import torch


def ragged(generator, count, tokens):
    """Numbers of spans in order, some of several positions, some positions without."""
    spans, number = [], 0
    while len(spans) < tokens:
        there = torch.rand((), generator=generator) < 0.7 and number < count
        length = int(torch.randint(1, 4, (), generator=generator))
        spans += [number if there else -1] * (length if there else 1)
        number += there
    return torch.tensor(spans[:tokens])


def drawn(seed, rows=3, tokens=(9, 7), classes=(8, 11), dtype=torch.float64):
    """As the keywords of ALM: logits, labels and spans of both."""
    generator = torch.Generator().manual_seed(seed)
    given = {}
    for role, n, c in zip(("student", "teacher"), tokens, classes, strict=True):
        given[role] = 3 * torch.randn(rows, n, c, generator=generator, dtype=dtype)
        spans = torch.stack([ragged(generator, 5, n) for _ in range(rows)])
        labels = torch.randint(0, c, (rows, n), generator=generator)
        given[f"{role}_labels"] = labels.masked_fill(spans < 0, -100)
        given[f"{role}_spans"] = spans
    return given


def without_labels(given):
    """As the keywords of ULD."""
    return {name: value for name, value in given.items() if not name.endswith("labels")}


def in_both(given):
    """Of every span of both: its row, and its positions with student and teacher."""
    for row, (own, other) in enumerate(
        zip(given["student_spans"].tolist(), given["teacher_spans"].tolist(), strict=True)
    ):
        for number in sorted((set(own) & set(other)) - {-1}):
            yield row, *([i for i, n in enumerate(s) if n == number] for s in (own, other))
