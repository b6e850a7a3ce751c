"""How often the word is right where the truth is known, with students that are really trained."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from lightning_distill.criteria import HardLabel, SoftTarget
from lightning_distill.report.paired import DOES_NOT, HELPS, NOT_SHOWN, Paired

COMPARISONS, SEEDS = 100, 5
CLASSES, WIDTH, HIDDEN, ROWS, TESTED = 4, 12, 16, 400, 1000
STEPS, BATCH = 150, 32


@dataclass(frozen=True)
class World:
    """Data of its own for each comparison, whose best answers are known.

    Classes are normal distributions around a centre each, so that the logits of the best teacher
    there can be are linear. Rows are of shape (comparisons, rows, width).
    """

    rows: torch.Tensor
    labels: torch.Tensor
    best: torch.Tensor
    tested: torch.Tensor
    of_tested: torch.Tensor


def world() -> World:
    generator = torch.Generator().manual_seed(0)
    centres = 0.8 * torch.randn(COMPARISONS, CLASSES, WIDTH, generator=generator)

    def draw(count):
        labels = torch.randint(CLASSES, (COMPARISONS, count), generator=generator)
        own = centres.gather(1, labels[..., None].expand(-1, -1, WIDTH))
        return own + torch.randn(own.shape, generator=generator), labels

    rows, labels = draw(ROWS)
    best = rows @ centres.mT - 0.5 * centres.square().sum(-1)[:, None]
    return World(rows, labels, best, *draw(TESTED))


def accuracy(data: World, teacher: torch.Tensor | None, labelled: int, key: int) -> torch.Tensor:
    """Of trained students on the rows for testing, shape (comparisons, seeds)."""
    answers = trained(data, teacher, labelled, key)(data.tested).argmax(-1)
    return (answers == data.of_tested[:, None]).double().mean(-1)


def trained(
    data: World, teacher: torch.Tensor | None, labelled: int, key: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The logits of students that are trained all at once, (comparisons, seeds, rows, classes).

    Each has its own first weights, rows with labels and order of rows. The student alone sees only
    rows with labels, for as many steps as the other.

    Args:
        teacher: logits on the rows, of shape (comparisons, seeds or 1, rows, classes); `None` for
            the student alone.
        labelled: how many rows have a label.
        key: of all that is left to chance.
    """
    generator = torch.Generator().manual_seed(key)
    of = (COMPARISONS, SEEDS)
    into = torch.randn(*of, WIDTH, HIDDEN, generator=generator) / WIDTH**0.5
    out = torch.randn(*of, HIDDEN, CLASSES, generator=generator) / HIDDEN**0.5
    weights = [into.requires_grad_(), out.requires_grad_()]
    optimizer = torch.optim.Adam(weights, lr=1e-2)
    order = torch.rand(*of, ROWS, generator=generator).argsort(-1)
    has_label = torch.zeros(*of, ROWS, dtype=torch.bool).scatter(-1, order[..., :labelled], True)
    seen = ROWS if teacher is not None else labelled
    hard, soft = HardLabel(), SoftTarget(2.0)
    comparison = torch.arange(COMPARISONS)[:, None, None]
    seed = torch.arange(SEEDS)[:, None]
    for _ in range(STEPS):
        chosen = order.gather(-1, torch.randint(seen, (*of, BATCH), generator=generator))
        logits = (data.rows[comparison, chosen] @ into).relu() @ out
        labels = data.labels[comparison, chosen]
        labels = labels.where(has_label.gather(-1, chosen), -100)
        loss = hard(logits.flatten(0, -2), labels.flatten())
        if teacher is not None:
            given = teacher.expand(-1, SEEDS, -1, -1)[comparison, seed, chosen]
            loss = loss + soft(logits.flatten(0, -2), given.flatten(0, -2))
        optimizer.zero_grad()
        # All students are in one mean, and Adam divides by the size of the gradient.
        loss.backward()
        optimizer.step()
    return lambda rows: ((rows[:, None] @ into).relu() @ out).detach()


def said(first: torch.Tensor, second: torch.Tensor) -> dict[str, int]:
    """How often each word is said of the difference."""
    paired = [Paired(tuple(row)) for row in (first - second).tolist()]
    words = [one.word(one.p) for one in paired]
    found = {word: words.count(word) for word in (HELPS, DOES_NOT, NOT_SHOWN)}
    gain = (first - second).mean()
    print(f"mean gain {gain:+.4f}, of {len(words)} comparisons over {SEEDS} seeds: {found}")
    return found


def test_with_few_labels_and_the_best_teacher_the_word_is_helps():
    data = world()
    distilled = accuracy(data, data.best[:, None], labelled=20, key=1)
    assert said(distilled, accuracy(data, None, labelled=20, key=2))[HELPS] >= 95


@pytest.mark.parametrize("key", [1, 3, 5])
def test_a_teacher_that_knows_the_labels_and_no_more_rarely_helps(key):
    """Both students learn the same; what differs between them is chance alone."""
    data = world()
    # Sure of each label: the soft target is the label.
    labels = 40.0 * torch.nn.functional.one_hot(data.labels, CLASSES)
    first = accuracy(data, labels[:, None], labelled=ROWS, key=key)
    found = said(first, accuracy(data, labels[:, None], labelled=ROWS, key=key + 1))
    assert found[HELPS] <= 5 and found[DOES_NOT] <= 5


def test_answers_to_other_rows_never_help():
    data = world()
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(7))
    other = accuracy(data, data.best[:, None, order], labelled=ROWS, key=1)
    assert said(other, accuracy(data, None, labelled=ROWS, key=2))[HELPS] <= 5


def test_a_gain_too_small_for_five_seeds_is_never_called_harm():
    """A teacher as large as the student, trained on the same labels, adds a little to it."""
    data = world()
    alone = trained(data, None, ROWS, key=2)
    first = accuracy(data, alone(data.rows), labelled=ROWS, key=4)
    second = accuracy(data, None, labelled=ROWS, key=3)
    lowest, highest = Paired(tuple((first - second).flatten().tolist())).interval()
    # So says the interval of all 500 pairs.
    assert 0 < lowest < highest < 0.005
    found = said(first, second)
    assert found[DOES_NOT] <= 5 and found[NOT_SHOWN] > 80
