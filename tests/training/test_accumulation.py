"""Batches that share a step, and ranks, give the gradient of one batch of all their rows."""

import copy
import os
from functools import partial

import pytest
import tiny
import torch
from processes import free_port, in_two_processes
from torch.utils.data import DataLoader, IterableDataset

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import (
    FusedLinearDivergence,
    HardLabel,
    SampleWeighted,
    SoftTarget,
    ULD,
)
from lightning_distill.criteria._label_share import label_share, sharing_labels
from lightning_distill.training.lookahead import Lookahead

# Rows of 2 to 12 tokens, of which prompts do not count: 1 to 20 counted tokens in a batch.
BATCHES = [
    tiny.token_batch([9, 12], [1, 3], 1),
    tiny.token_batch([4], [3], 2),
    tiny.token_batch([2, 3, 8], [1, 2, 7], 3),
    tiny.token_batch([11, 5], [2, 1], 4),
    tiny.token_batch([3], [1], 5),
    tiny.token_batch([12, 7, 6, 12], [6, 1, 1, 4], 6),
    tiny.token_batch([10], [4], 7),
    tiny.token_batch([5, 6], [4, 2], 8),
]
# Factors are float32.
ROUNDED = 2e-9
LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}
FUSED = {
    "student": "student.layer_input:lm_head",
    "teacher": "teacher.layer_input:lm_head",
    "student_head": "student.head:lm_head",
    "teacher_head": "teacher.head:lm_head",
    "labels": "batch.labels",
}


def objective(fused: bool = True) -> Objective:
    labels = {"student": "student.logits", "labels": "batch.labels"}
    terms = {
        "labels": Term(HardLabel(), labels, weight=0.3),
        # Counts other tokens than the labels do: all but the padding.
        "tokens": Term(SoftTarget(temperature=2.0), {**LOGITS, "mask": "batch.attention_mask"}),
    }
    if fused:
        terms["fused"] = Term(FusedLinearDivergence(label_weight=0.5), FUSED, weight=0.7)
    return Objective(terms)


def models():
    return tiny.gpt2(1, 8, seed=1).double(), tiny.gpt2(1, 12, seed=2).double()


def naive(student, teacher, batches, fused=True) -> torch.Tensor:
    """The loss of all rows of all batches as one, token by token."""
    sums = {"labels": [], "tokens": []}
    for batch in batches:
        for row in range(len(batch["labels"])):
            length = int(batch["attention_mask"][row].sum())
            ids = batch["input_ids"][row : row + 1, :length]
            s = student(input_ids=ids).logits[0]
            with torch.no_grad():
                t = teacher(input_ids=ids).logits[0]
            for place in range(length):
                p, q = (t[place] / 2).softmax(-1), (s[place] / 2).log_softmax(-1)
                at_one = (t[place].softmax(-1), s[place].log_softmax(-1))
                sums["tokens"].append(4 * (p * (p.log() - q)).sum())
                label = int(batch["labels"][row, place])
                if label != -100:
                    kl = (at_one[0] * (at_one[0].log() - at_one[1])).sum()
                    sums["labels"].append(
                        (0.3 + 0.35 * fused) * -at_one[1][label] + 0.7 * fused * kl
                    )
    return sum(torch.stack(values).mean() for values in sums.values())


def stepped(student, teacher, windows, fused=True):
    """Parameters after a plain step of size 0.1 for each window."""
    student = copy.deepcopy(student)
    for window in windows:
        student.zero_grad()
        naive(student, teacher, window, fused).backward()
        with torch.no_grad():
            for p in student.parameters():
                p -= 0.1 * p.grad
    return student


def off(ours, theirs) -> float:
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def fitted(tmp_path, loader, accumulate=3, objective=objective, **options):
    student, teacher = models()
    module = DistillationModule(
        student, teacher, objective(), optimizer=partial(torch.optim.SGD, lr=0.1)
    )
    trainer = tiny.trainer(
        tmp_path, accumulate_grad_batches=accumulate, precision="64-true", **options
    )
    trainer.fit(module, loader)
    return module.student


class Stream(IterableDataset):
    def __iter__(self):
        return iter(BATCHES)


@pytest.mark.parametrize(
    "loader",
    [tiny.loader(BATCHES), DataLoader(Stream(), batch_size=None)],
    ids=["known length", "stream"],
)
def test_accumulated_batches_are_one_batch(tmp_path, loader):
    windows = [BATCHES[:3], BATCHES[3:6], BATCHES[6:]]
    expected = stepped(*models(), windows)
    assert off(fitted(tmp_path, loader), expected) < ROUNDED


def test_the_mean_of_means_would_be_another_step(tmp_path):
    # The sizes differ enough for the tests of this file to see it.
    student, teacher = models()
    means = torch.stack([naive(student, teacher, [b]) for b in BATCHES[:3]]).mean()
    exact = naive(student, teacher, BATCHES[:3])
    both = [torch.autograd.grad(x, student.lm_head.weight)[0] for x in (means, exact)]
    assert (both[0] - both[1]).abs().max() > 1e-3 * both[1].abs().max()


def test_limits_of_batches_end_a_window(tmp_path):
    expected = stepped(*models(), [BATCHES[:3], BATCHES[3:5]])
    found = fitted(tmp_path, tiny.loader(BATCHES), limit_train_batches=5)
    assert off(found, expected) < ROUNDED


def test_every_epoch_opens_new_windows(tmp_path):
    windows = [BATCHES[:3], BATCHES[3:6], BATCHES[6:]] * 2
    expected = stepped(*models(), windows)
    assert off(fitted(tmp_path, tiny.loader(BATCHES), max_epochs=2), expected) < ROUNDED


def test_batches_that_are_replaced_count_as_they_then_are(tmp_path):
    class Later(DistillationModule):
        """Trains on the batch that comes two later."""

        def training_batch(self, batch):
            seen.append(batch)
            at = next(i for i, b in enumerate(BATCHES) if b["labels"].equal(batch["labels"]))
            return BATCHES[at + 2]

    seen = []
    student, teacher = models()
    module = Later(student, teacher, objective(), optimizer=partial(torch.optim.SGD, lr=0.1))
    trainer = tiny.trainer(tmp_path, accumulate_grad_batches=3, precision="64-true")
    trainer.fit(module, tiny.loader(BATCHES[:6]))
    # And once for the trial.
    assert len(seen) == 6 + 1
    assert off(module.student, stepped(*models(), [BATCHES[2:5], BATCHES[5:8]])) < ROUNDED


def test_labels_that_are_the_tokens_themselves_are_counted_as_the_criterion_shifts_them(tmp_path):
    def plain(batch):
        # Hugging Face's convention: the label of a position is the token that stands there.
        labels = torch.nn.functional.pad(batch["labels"][:, :-1], (1, 0), value=-100)
        return {**batch, "labels": labels}

    def shifting():
        criterion = FusedLinearDivergence(label_weight=1.0, shift_labels=True)
        return Objective({"fused": Term(criterion, FUSED)})

    def shifted():
        return Objective({"fused": Term(FusedLinearDivergence(label_weight=1.0), FUSED)})

    before = [plain(b) for b in BATCHES]
    found = [
        fitted(tmp_path, tiny.loader(batches), objective=kind)
        for batches, kind in ((before, shifting), (BATCHES, shifted))
    ]
    assert off(*found) < 1e-12


def naive_of_two_counts(student, teacher, batches):
    """KL over all real tokens and half the cross-entropy over those with a label."""
    divergences, entropies = [], []
    for batch in batches:
        for row, mask in enumerate(batch["attention_mask"].bool()):
            ids = batch["input_ids"][row : row + 1, mask]
            q = student(input_ids=ids).logits[0].log_softmax(-1)
            with torch.no_grad():
                p = teacher(input_ids=ids).logits[0].log_softmax(-1)
            for place, label in enumerate(batch["labels"][row, mask].tolist()):
                divergences.append((p[place].exp() * (p[place] - q[place])).sum())
                if label != -100:
                    entropies.append(-q[place, label])
    return torch.stack(divergences).mean() + 0.5 * torch.stack(entropies).mean()


@pytest.mark.parametrize("fused", [True, False])
def test_a_cross_entropy_within_a_term_has_a_count_of_its_own(tmp_path, fused):
    def both():
        criterion = FusedLinearDivergence(label_weight=0.5, fused=fused)
        return Objective({"fused": Term(criterion, {**FUSED, "mask": "batch.attention_mask"})})

    # As on texts of the student's own: tokens that are compared, and none of them a label.
    without = {**BATCHES[5], "labels": torch.full_like(BATCHES[5]["labels"], -100)}
    batches = [BATCHES[0], without, BATCHES[2]]
    student, teacher = models()
    naive_of_two_counts(student, teacher, batches).backward()
    with torch.no_grad():
        for p in student.parameters():
            p -= 0.1 * p.grad
    found = fitted(tmp_path, tiny.loader(batches), objective=both)
    assert off(found, student) < ROUNDED


def test_a_share_of_labels_is_for_one_call():
    with sharing_labels(3.0) as label:
        assert label_share() is label and label.share == 3.0 and label.mean is None
    assert label_share().share == 1.0


def test_weights_count_by_their_sum(tmp_path):
    def weighted():
        inputs = {**LOGITS, "mask": "batch.attention_mask", "weight": "batch.weight"}
        return Objective({"weighted": Term(SampleWeighted(SoftTarget(temperature=1.0)), inputs)})

    generator = torch.Generator().manual_seed(0)
    batches = [
        {**b, "weight": torch.rand(len(b["labels"]), generator=generator)} for b in BATCHES[:3]
    ]
    student, teacher = models()
    total = divisor = torch.zeros(())
    for batch in batches:
        with torch.no_grad():
            t = teacher(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        s = student(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        kl = (t.softmax(-1) * (t.log_softmax(-1) - s.log_softmax(-1))).sum(-1)
        weights = batch["weight"][:, None] * batch["attention_mask"]
        total, divisor = total + (weights * kl).sum(), divisor + weights.sum()
    (total / divisor).backward()
    with torch.no_grad():
        for p in student.parameters():
            p -= 0.1 * p.grad
    assert off(fitted(tmp_path, tiny.loader(batches), objective=weighted), student) < 1e-7


def test_a_lightning_that_hides_its_batches_is_said_once(tmp_path, caplog, monkeypatch):
    from lightning_distill.training import lookahead

    monkeypatch.setattr(lookahead, "_warned", set())
    monkeypatch.setattr(lookahead, "Lookahead", _Hidden)
    student = fitted(tmp_path, tiny.loader(BATCHES[:6]))
    assert caplog.text.count("each batch counts alike") == 1
    assert off(student, models()[0]) > 0


class _Hidden:
    def __init__(self, items):
        raise AttributeError


def test_what_was_seen_is_given_afterwards():
    items = Lookahead(iter(range(5)))
    assert items.see(2) == [0, 1]
    assert items.see(3) == [0, 1, 2]
    assert [next(items), next(items)] == [0, 1]
    assert items.see(9) == [2, 3, 4]
    assert list(items) == [2, 3, 4]


def _worker(rank, folder, port):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    # No sampler of Lightning's: which rank gets which batch is what is tested.
    own = tiny.loader(BATCHES[rank::2])
    student = fitted(
        folder,
        own,
        accumulate=3,
        strategy="ddp",
        devices=2,
        use_distributed_sampler=False,
    )
    torch.save(student.state_dict(), f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_two_ranks_with_uneven_tokens_and_accumulation_are_one_batch(tmp_path):
    # Rank 0 has batches 0, 2, 4 and then 6, rank 1 has 1, 3, 5 and then 7.
    in_two_processes(_worker, (str(tmp_path), free_port()))
    expected = stepped(*models(), [BATCHES[:6], BATCHES[6:]])
    for rank in range(2):
        student = models()[0]
        student.load_state_dict(torch.load(tmp_path / f"{rank}.pt"))
        assert off(student, expected) < 1e-6


def test_spans_are_counted_where_models_have_different_tokenizers():
    spans = torch.tensor([[0, 1, -1, 2], [0, 0, -1, -1]])
    others = torch.tensor([[0, 1, 2], [-1, 0, -1]])
    inputs = {
        **LOGITS,
        "student_spans": "batch.spans",
        "teacher_spans": "batch.teacher[spans]",
    }
    found = Objective({"uld": Term(ULD(), inputs)}).count_batch(
        {"input_ids": torch.zeros(2, 4), "spans": spans, "teacher": {"spans": others}}
    )
    assert found.tolist() == [[4.0], [0.0]]
