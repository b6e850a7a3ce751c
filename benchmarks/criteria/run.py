"""Speed and memory of each criterion against the plainest PyTorch expression of its formula.

    python benchmarks/criteria/run.py              # every criterion
    python benchmarks/criteria/run.py RKD NST      # some of them

One thread, process CPU time, forward and backward; every round runs both arms, in turns, and the
minimum over rounds counts. Memory is the most that forward and backward hold at once above what
was there before. Both arms must give the same value and gradient, or nothing is printed. Of a
criterion with trained parts or a memory each arm has its own copy, and only what is around the
parts differs.
"""

import argparse
import copy
import ctypes
import inspect
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import profile, ProfilerActivity
from torch.testing import assert_close

from lightning_distill import criteria
from lightning_distill.weights import Focal

LIMIT = 1.2
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
KEPT = list(range(0, 1000, 2))


def draw(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=GENERATOR)


GENERATOR = torch.Generator().manual_seed(0)
STAGES = ((64, 32), (128, 16), (256, 8), (512, 4))  # channels, height and width
INPUTS: dict[str, tuple[Any, ...]] = {
    "logits": (draw(256, 1000, scale=2), draw(256, 1000, scale=2)),
    "maps": (draw(64, 256, 14, 14), draw(64, 256, 14, 14)),
    "few maps": (draw(8, 256, 14, 14), draw(8, 256, 14, 14)),
    "stages": tuple([draw(16, c, n, n) for c, n in STAGES] for _ in range(2)),
    "hidden": (draw(32, 64, 384), draw(32, 64, 384)),
    "attention": (draw(32, 12, 64, 64).softmax(-1), draw(32, 12, 64, 64).softmax(-1)),
    "rows": (draw(256, 512), draw(256, 512)),
}
labels = torch.randint(0, 1000, (256,), generator=GENERATOR)
INPUTS["logits, labels"] = (*INPUTS["logits"], labels)
INPUTS["student, labels"] = (INPUTS["logits"][0], labels)
numbers = torch.randperm(50_000, generator=GENERATOR)[:64]
INPUTS["hidden, heads"] = (
    draw(256, 64),
    draw(256, 128),
    *(torch.nn.Linear(width, 8000, bias=False).requires_grad_(False) for width in (64, 128)),
)
INPUTS["rows, numbers"] = (draw(64, 512), draw(64, 512), numbers)


# As short as a researcher would write them; student and teacher as s and t, and before them, where
# it has trained parts or a memory, the criterion c.


def kl(p, q):
    return (p * (p / q).log()).sum(-1).mean()


def soft_target(s, t, tau=4.0):
    return tau**2 * F.kl_div(
        (s / tau).log_softmax(-1), (t / tau).softmax(-1), reduction="batchmean"
    )


def fused_linear_divergence(s, t, student_head, teacher_head):
    return soft_target(student_head(s), teacher_head(t), 1.0)


def soft_cross_entropy(s, t):
    return F.cross_entropy(s, t.softmax(-1))


def reverse_kl(s, t):
    return F.kl_div(t.log_softmax(-1), s.log_softmax(-1), log_target=True, reduction="batchmean")


def jsd(s, t):
    q, p = s.softmax(-1), t.softmax(-1)
    m = (p + q) / 2
    return (kl(p, m) + kl(q, m)) / 2


def skew_kl(s, t):
    q, p = s.softmax(-1), t.softmax(-1)
    return kl(p, 0.1 * p + 0.9 * q)


def skew_reverse_kl(s, t):
    q, p = s.softmax(-1), t.softmax(-1)
    return kl(q, 0.9 * p + 0.1 * q)


def total_variation(s, t):
    return (s.softmax(-1) - t.softmax(-1)).abs().sum(-1).mean() / 2


def taid(s, t):
    middle = 0.6 * s.detach() + 0.4 * t
    return F.kl_div(s.log_softmax(-1), middle.softmax(-1), reduction="batchmean")


def margin_mse(s, t):
    return F.mse_loss(s[:, :1] - s[:, 1:], t[:, :1] - t[:, 1:])


def logit_standardization(s, t):
    s, t = ((x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-7) for x in (s, t))
    return soft_target(s, t, 2.0)


def dkd(s, t, y):
    """The authors' program."""
    label = F.one_hot(y, s.shape[-1]).bool()

    def two(x):
        p = (x / 4).softmax(-1)
        return torch.stack([(p * label).sum(-1), (p * ~label).sum(-1)], -1)

    target = F.kl_div(two(s).log(), two(t), reduction="batchmean")
    log_q, p = (s / 4 - 1000 * label).log_softmax(-1), (t / 4 - 1000 * label).softmax(-1)
    return 16 * (target + 8 * F.kl_div(log_q, p, reduction="batchmean"))


def nkd(s, t, y):
    """The authors' program."""
    rows = y[:, None]
    target = -(t.softmax(-1).gather(-1, rows) * s.log_softmax(-1).gather(-1, rows)).mean()
    rest = torch.ones_like(s).scatter_(-1, rows, 0).bool()
    s, t = (x[rest].reshape(len(x), -1) for x in (s, t))
    return target - 1.5 * (t.softmax(-1) * s.log_softmax(-1)).sum(-1).mean()


def wsld(s, t, y):
    with torch.no_grad():
        loss_s, loss_t = (F.cross_entropy(x, y, reduction="none") for x in (s, t))
        weight = 1 - (-loss_s / loss_t).exp()
    return -4 * (weight * ((t / 2).softmax(-1) * (s / 2).log_softmax(-1)).sum(-1)).mean()


def ofa(s, t, y):
    label = F.one_hot(y, s.shape[-1])
    return -(((t.softmax(-1) + label) ** 1.5 - label) * s.log_softmax(-1)).sum(-1).mean()


def tf_kd(s, y):
    p = torch.full_like(s, 0.01 / (s.shape[-1] - 1)).scatter_(-1, y[:, None], 0.99)
    return soft_target(s, p.log(), 20.0)


def pearson(a, b, dim):
    a, b = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
    return F.cosine_similarity(a, b, dim).mean()


def dist(s, t):
    q, p = s.softmax(-1), t.softmax(-1)
    return 2 * (1 - pearson(q, p, 1)) + 2 * (1 - pearson(q, p, 0))


def mlkd(s, t):
    total = 0.0
    for tau in (2.0, 3.0, 4.0, 5.0, 6.0):
        q, p = (s / tau).softmax(-1), (t / tau).softmax(-1)
        total = total + soft_target(s, t, tau)
        total = total + (p @ p.T - q @ q.T).square().sum() / len(p)
        total = total + (p.T @ p - q.T @ q).square().sum() / p.shape[1]
    return total / 5


def knowledge_distillation(s, t, y):
    return (F.cross_entropy(s, y) + F.cross_entropy(s, t.softmax(-1))) / 2


def attention_transfer(s, t):
    s, t = (F.normalize(x.square().sum(1).flatten(1)) for x in (s, t))
    return (s - t).norm(dim=1).mean()


def nst(s, t):
    """By the kernel between the channels, as the paper writes it."""
    s, t = (F.normalize(x.flatten(2), dim=2) for x in (s, t))
    values = [(a @ b.mT).square().mean((1, 2)) for a, b in ((t, t), (s, s), (s, t))]
    return (values[0] + values[1] - 2 * values[2]).mean()


def cwd(s, t):
    s, t = (x.flatten(2) / 4 for x in (s, t))
    values = F.kl_div(s.log_softmax(-1), t.softmax(-1), reduction="sum")
    return 16 * values / s.shape[0] / s.shape[1]


def patient_hidden(s, t):
    return (F.normalize(s, dim=-1) - F.normalize(t, dim=-1)).square().sum(-1).mean()


def cosine_hidden(s, t):
    return 1 - F.cosine_similarity(s, t, dim=-1).mean()


def attention_kl(s, t):
    return kl(t, s)


def mini_lm_relation(s, t):
    s, t = (x.unflatten(-1, (12, -1)).transpose(1, 2) for x in (s, t))
    s, t = (x @ x.mT / x.shape[-1] ** 0.5 for x in (s, t))
    values = F.kl_div(s.log_softmax(-1), t.softmax(-1), reduction="none")
    return values.sum(-1).mean()


def cka(s, t):
    s, t = s - s.mean(0), t - t.mean(0)
    return 1 - (s.T @ t).square().sum() / ((s.T @ s).norm() * (t.T @ t).norm())


def rkd(s, t):
    """The authors' program, with distances by torch.cdist."""

    def distances(x):
        d = torch.cdist(x, x)
        return d / d[d > 0].mean()

    def angles(x):
        unit = F.normalize(x[None] - x[:, None], dim=2)
        return unit @ unit.mT

    return 25 * F.smooth_l1_loss(distances(s), distances(t)) + 50 * F.smooth_l1_loss(
        angles(s), angles(t)
    )


def similarity_preserving(s, t):
    return F.mse_loss(*(F.normalize(x @ x.T) for x in (s, t)))


def pkt(s, t):
    def neighbours(x):
        x = F.normalize(x)
        alike = ((x @ x.T + 1) / 2).fill_diagonal_(0)
        return alike / alike.sum(1, keepdim=True)

    q, p = neighbours(s), neighbours(t)
    return (p * ((p + 1e-7) / (q + 1e-7)).log()).sum(1).mean()


def correlation_congruence(s, t):
    def kernel(x):
        x = F.normalize(x)
        cosine = x @ x.T
        return sum(math.exp(-0.8) * 0.8**p / math.factorial(p) * cosine**p for p in range(3))

    return F.mse_loss(kernel(s), kernel(t))


def one_versus_all(s, t):
    q, p = s.sigmoid(), t.sigmoid()
    return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()


def class_subset(s, t):
    return soft_target(s[:, KEPT], t[:, KEPT])


def sample_weighted(s, t):
    weight = (1 - F.cosine_similarity(s.detach(), t, dim=-1)) ** 2
    values = 16 * F.kl_div((s / 4).log_softmax(-1), (t / 4).softmax(-1), reduction="none").sum(-1)
    return (weight * values).sum() / weight.sum()


def pearson_feature(s, t):
    places = (0, 2, 3)
    s, t = (
        (x - x.mean(places, keepdim=True)) / x.std(places, correction=0, keepdim=True)
        for x in (s, t)
    )
    return F.mse_loss(s, t) / 2


def ickd(c, s, t):
    s, t = (F.normalize(x.flatten(2) @ x.flatten(2).mT, dim=2) for x in (s, t))
    return (s - t).square().sum((1, 2)).mean() / s.shape[1]


def ab(c, s, t):
    """The authors' program."""
    wrong_high, wrong_low = (s > -1) & (t <= 0), (s <= 1) & (t > 0)
    return ((s + 1) ** 2 * wrong_high + (s - 1) ** 2 * wrong_low).sum() / len(s)


def ofd(c, s, t):
    """The authors' program, with a running mean for the margin."""
    with torch.no_grad():
        count = (t < 0).sum((0, 2, 3))
        c.seen += count
        c.floor += (t.clamp(max=0).sum((0, 2, 3)) - count * c.floor) / c.seen
    s, t = c.connector(s), t.max(c.floor[:, None, None])
    return ((s - t) ** 2 * ((s > t) | (t > 0))).sum() / len(s)


def vid(c, s, t):
    variance = (F.softplus(c.raw_variance) + 1e-5)[:, None, None]
    return 0.5 * ((c.mean(s) - t) ** 2 / variance + variance.log()).mean()


def ft(c, s, t):
    factor = c.paraphraser(t)
    a, b = (F.normalize(x.flatten(1)) for x in (c.translator(s), factor.detach()))
    return (a - b).abs().sum(1).mean() + F.mse_loss(c.restorer(factor), t)


def mgd(c, s, t):
    kept = torch.rand(len(s), 1, *s.shape[2:]) >= c.ratio
    return c.alpha * F.mse_loss(c.generator(s * kept), t, reduction="sum") / len(s)


def srd(c, s, t):
    s, t = c.student_norm(c.projector(s)), c.teacher_norm(t)
    return ((s - t).abs() ** 4).sum().log()


def fsp(s, t):
    def flows(maps):
        for a, b in pairwise(maps):
            a = F.adaptive_max_pool2d(a, b.shape[2:])
            yield a.flatten(2) @ b.flatten(2).mT / b[0, 0].numel()

    return sum((a - b).square().sum() for a, b in zip(flows(s), flows(t), strict=True)) / len(s[0])


def kdsvd(s, t):
    """With the gradient of torch.linalg.svd."""
    vectors = []
    for a, b in zip(s, t, strict=True):
        a, b = (torch.linalg.svd(x.flatten(2).mT, full_matrices=False) for x in (a, b))
        a, b = a.Vh[:, :2].mT, b.Vh[:, :1].mT
        b = b * b.sum(1, keepdim=True).sign()
        cosine = a.mT @ b
        nearest = cosine.abs().argmax(1, keepdim=True)
        a = a.gather(2, nearest.expand(-1, a.shape[1], -1)) * cosine.gather(1, nearest).sign()
        vectors.append((a, b))

    def kernel(a, b):
        return (-((a[:, :, None] - b[:, None]) ** 2) / 8).exp()

    total = 0.0
    for (s_1, t_1), (s_2, t_2) in pairwise(vectors):
        total = total + (kernel(s_1, s_2) - kernel(t_1, t_2)).square().sum()
    return total / len(s[0])


def review_kd(c, s, t):
    """The authors' program."""
    total, deeper = 0.0, None
    for i in reversed(range(len(s))):
        found, deeper = c.fusions[i](s[i], deeper, t[i].shape[2:])
        loss, weight, weights = F.mse_loss(found, t[i]), 1.0, 1.0
        for size in (4, 2, 1):
            if size < found.shape[2]:
                weight /= 2
                weights += weight
                pooled = (F.adaptive_avg_pool2d(x, size) for x in (found, t[i]))
                loss = loss + weight * F.mse_loss(*pooled)
        total = total + loss / weights
    return total


def crd(c, s, t, rows):
    """The authors' program, which gathers the others of each sample; here all have the same."""
    s, t = F.normalize(c.student_embedding(s)), F.normalize(c.teacher_embedding(t))
    others = torch.randint(c.samples, (c.negatives,)).expand(len(s), -1)
    itself = others == rows[:, None]
    times = ~itself * (c.negatives / (~itself).sum(1, keepdim=True))
    chosen = torch.cat([rows[:, None], others], 1)
    total = 0.0
    for x, bank, level in ((s, c.teacher_bank, c.levels[0]), (t, c.student_bank, c.levels[1])):
        weight = bank[chosen.flatten()].view(*chosen.shape, -1)
        h = (torch.bmm(weight, x[:, :, None]).squeeze(2) / c.temperature).exp()
        h, noise = h / level.exp(), 1.0
        total = total - (h[:, 0] / (h[:, 0] + noise)).log().sum()
        total = total - (times * (noise / (h[:, 1:] + noise)).log()).sum()
    with torch.no_grad():
        for x, bank in ((s, c.student_bank), (t, c.teacher_bank)):
            bank[rows] = F.normalize(c.momentum * bank[rows] + (1 - c.momentum) * x)
    return total / len(s)


def settled_crd():
    """After the batch that settles the constant."""
    c = criteria.CRD(samples=50_000)
    c.prepare(*INPUTS["rows, numbers"])
    c(*INPUTS["rows, numbers"])
    return c


def queue_similarity(c, s, t):
    """The authors' program, with KL for cross-entropy."""
    s, t = F.normalize(c.projector(s)), F.normalize(t)
    queue = c.queue.clone()
    scores_s, scores_t = (
        torch.cat([(x * t).sum(1, keepdim=True), x @ queue.T], 1) / tau
        for x, tau in ((s, c.student_temperature), (t, c.teacher_temperature))
    )
    place = int(c.seen) % c.size
    c.queue[place : place + len(t)] = t
    c.seen += len(t)
    return F.kl_div(scores_s.log_softmax(1), scores_t.softmax(1), reduction="batchmean")


def full_queue():
    c = criteria.QueueSimilarity(16384)
    c.prepare(*INPUTS["rows"])
    c.queue.copy_(F.normalize(draw(16384, 512)))
    c.seen.fill_(16384)
    return c


@dataclass
class Row:
    """One criterion, the name of its inputs, and the plain expression of the same."""

    inputs: str
    plain: Callable[..., Tensor]
    build: Callable[[], torch.nn.Module] | None = None


TABLE = {
    "SoftTarget": Row("logits", soft_target),
    "SoftCrossEntropy": Row("logits", soft_cross_entropy),
    "LogitMSE": Row("logits", F.mse_loss),
    "ReverseKL": Row("logits", reverse_kl),
    "JSD": Row("logits", jsd),
    "SkewKL": Row("logits", skew_kl),
    "SkewReverseKL": Row("logits", skew_reverse_kl),
    "TotalVariation": Row("logits", total_variation),
    "TAID": Row("logits", taid, lambda: criteria.TAID(step=0.0)),
    "FusedLinearDivergence": Row("hidden, heads", fused_linear_divergence),
    "MarginMSE": Row("logits", margin_mse),
    "ListwiseKL": Row("logits", lambda s, t: soft_target(s, t, 1.0)),
    "LogitStandardization": Row("logits", logit_standardization),
    "DKD": Row("logits, labels", dkd),
    "NKD": Row("logits, labels", nkd),
    "WSLD": Row("logits, labels", wsld),
    "OFA": Row("logits, labels", ofa),
    "TfKD": Row("student, labels", tf_kd),
    "DIST": Row("logits", dist),
    "MLKD": Row("logits", mlkd),
    "HardLabel": Row("student, labels", F.cross_entropy),
    "KnowledgeDistillation": Row("logits, labels", knowledge_distillation),
    "Hint": Row("maps", F.mse_loss, lambda: criteria.Hint(dim=1)),
    "AttentionTransfer": Row("maps", attention_transfer),
    "NST": Row("maps", nst),
    "CWD": Row("maps", cwd),
    "PatientHidden": Row("hidden", patient_hidden),
    "CosineHidden": Row("hidden", cosine_hidden),
    "AttentionMSE": Row("attention", F.mse_loss),
    "AttentionKL": Row("attention", attention_kl),
    "MiniLMRelation": Row("hidden", mini_lm_relation, lambda: criteria.MiniLMRelation(12)),
    "CKA": Row("rows", cka),
    "RKD": Row("rows", rkd),
    "SimilarityPreserving": Row("rows", similarity_preserving),
    "PKT": Row("rows", pkt),
    "CorrelationCongruence": Row("rows", correlation_congruence),
    "OneVersusAll": Row("logits", one_versus_all),
    "ClassSubset": Row("logits", class_subset, lambda: criteria.ClassSubset(classes=KEPT)),
    "SampleWeighted": Row(
        "logits", sample_weighted, lambda: criteria.SampleWeighted(weight=Focal())
    ),
    "PearsonFeature": Row("maps", pearson_feature),
    "ICKD": Row("maps", ickd),
    "AB": Row("maps", ab),
    "OFD": Row("maps", ofd),
    "VID": Row("maps", vid),
    "FT": Row("few maps", ft),
    "MGD": Row("few maps", mgd),
    "SRD": Row("rows", srd),
    "FSP": Row("stages", fsp),
    "KDSVD": Row("stages", kdsvd),
    "ReviewKD": Row("stages", review_kd),
    "CRD": Row("rows, numbers", crd, settled_crd),
    "QueueSimilarity": Row("rows", queue_similarity, full_queue),
}


def exported() -> list[str]:
    return [name for name in criteria.__all__ if inspect.isclass(getattr(criteria, name))]


@dataclass
class Arm:
    """A loss, what it is given, and what learns from it."""

    loss: Callable[..., Tensor]
    inputs: tuple[Any, ...]
    learned: list[Tensor]

    def step(self) -> Tensor:
        for x in self.learned:
            x.grad = None
        loss = self.loss(*self.inputs)
        loss.backward()
        return loss.detach()

    def gradients(self) -> Tensor:
        return torch.cat([x.grad.flatten() for x in self.learned if x.grad is not None])


def both(name: str) -> dict[str, Arm]:
    """Ours and the plain one, each with parts and a memory of its own in the same state."""
    row = TABLE[name]
    torch.manual_seed(0)
    criterion = row.build() if row.build else getattr(criteria, name)()
    own = hasattr(criterion, "prepare")
    if own:
        criterion.prepare(*INPUTS[row.inputs])
    other = copy.deepcopy(criterion)
    arms = {}
    for key, loss, module in (
        ("ours", criterion, criterion),
        ("plain", partial(row.plain, other) if own else row.plain, other),
    ):
        student, *others = INPUTS[row.inputs]
        many = isinstance(student, list)
        learned = [x.clone().requires_grad_() for x in (student if many else [student])]
        inputs = (learned if many else learned[0], *others)
        arms[key] = Arm(loss, inputs, [*learned, *module.parameters()])
    return arms


def seconds(arm: Arm, times: int) -> float:
    start = time.process_time()
    for _ in range(times):
        arm.step()
    return (time.process_time() - start) / times


def peak(arm: Arm) -> int:
    """Most bytes held at once by forward and backward, the gradient among them."""
    for x in arm.learned:
        x.grad = None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        arm.loss(*arm.inputs).backward()
    held = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def measure(name: str, rounds: int, least: float) -> dict[str, float]:
    arms = both(name)
    values, gradients = [], []
    for arm in arms.values():
        torch.manual_seed(1)
        values.append(arm.step())
        gradients.append(arm.gradients())
    message = "ours and the plain expression disagree in "
    assert_close(*values, rtol=1e-3, atol=1e-6, msg=lambda m: f"{name}: {message}value. {m}")
    size = float(gradients[1].abs().max())
    assert_close(*gradients, rtol=1e-3, atol=1e-3 * size, msg=lambda m: f"{name}: {message}{m}")
    memory = {key: peak(arm) for key, arm in arms.items()}
    times = {key: max(1, round(least / seconds(arm, 1))) for key, arm in arms.items()}
    found: dict[str, list[float]] = {key: [] for key in arms}
    for round_ in range(rounds + 1):
        keys = list(arms)
        for key in keys if round_ % 2 else keys[::-1]:
            measured = seconds(arms[key], times[key])
            if round_:  # the first round warms up
                found[key].append(measured)
    ours, plain = (1000 * min(found[key]) for key in arms)
    return {
        "ours_ms": ours,
        "plain_ms": plain,
        "time_ratio": ours / plain,
        "ours_mb": memory["ours"] / 1e6,
        "plain_mb": memory["plain"] / 1e6,
        "memory_ratio": memory["ours"] / memory["plain"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="criteria; all of them by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--least", type=float, default=0.02, help="seconds per arm and round")
    options = parser.parse_args()
    missing = sorted(set(exported()) - set(TABLE))
    if missing:
        sys.exit(
            f"{', '.join(missing)}: exported by lightning_distill.criteria, but without a plain "
            "expression to compare with. Add a line to TABLE in benchmarks/criteria/run.py."
        )
    unknown = sorted(set(options.names) - set(TABLE))
    if unknown:
        sys.exit(f"{', '.join(unknown)}: no such criterion; there are {', '.join(TABLE)}.")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if sys.platform == "linux":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        # Memory that is freed stays with the process, as it does in a long run; or else most of
        # what is measured would be the system handing out pages.
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)):
            ctypes.CDLL(None).mallopt(option, value)
    names = options.names or list(TABLE)
    results = {}
    print(
        f"{'criterion':24}{'inputs':18}{'ours ms':>9}{'plain ms':>9}{'ratio':>7}"
        f"{'ours MB':>9}{'plain MB':>9}{'ratio':>7}"
    )
    for name in names:
        found = results[name] = measure(name, options.rounds, options.least)
        print(
            f"{name:24}{TABLE[name].inputs:18}{found['ours_ms']:9.2f}{found['plain_ms']:9.2f}"
            f"{found['time_ratio']:7.2f}{found['ours_mb']:9.1f}{found['plain_mb']:9.1f}"
            f"{found['memory_ratio']:7.2f}",
            flush=True,
        )
    slow = [name for name, found in results.items() if found["time_ratio"] > LIMIT]
    print(f"Slower than {LIMIT} times the plain expression: {', '.join(slow) or 'none'}.")
    if not options.names:
        rounded = {n: {k: round(v, 3) for k, v in found.items()} for n, found in results.items()}
        path = Path(__file__).with_name("results.json")
        path.write_text(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()
