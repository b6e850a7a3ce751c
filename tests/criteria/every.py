"""Every criterion that is exported, as a term of one student, and the batches of a step."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lightning_distill import criteria as c, Term
from lightning_distill.criteria._relevance import Relevance
from lightning_distill.weights import Focal

TOKENS, WIDTH, CLASSES = 6, 8, 5
TEACHER_FIRST = {"student": "student.{}", "teacher": "teacher.{}"}
LABELS = {"labels": "batch.labels"}
ROWS = {"mask": "batch.kept"}
PADDED = {"mask": "batch.mask"}
FUSED = {"student": "student.layer_input:heads.{}", "student_head": "student.head:heads.{}"}
FUSED_LABELS = {"labels": "batch.token_labels", "mask": "batch.mask"}
SPANS = {"student_spans": "batch.spans", "teacher_spans": "batch.spans"}


@dataclass
class Case:
    """A criterion, and what it is given.

    Attributes:
        build: makes it.
        kind: of the tensors that it compares.
        inputs: besides student and teacher.
        both: student and teacher, if they are not outputs of that name.
        together: whether it is given lists of layers.
        in_turn: the value of a step is not that of one batch of all its rows: samples are compared
            with each other, or the criterion moves. Then how much counts in a batch.
    """

    build: Any
    kind: str
    inputs: dict[str, str] = field(default_factory=dict)
    both: dict[str, str] = field(default_factory=lambda: TEACHER_FIRST)
    together: bool = False
    in_turn: Any = None

    def term(self, name: str) -> Term:
        many = "[*]" if self.together else ""
        both = {n: s.format(name) + many for n, s in self.both.items()}
        mapping = "together" if self.together else "uniform"
        return Term(self.build(), {**both, **self.inputs}, mapping=mapping)


def kept(batch):
    return batch["kept"].sum()


def tokens(batch):
    return batch["mask"].sum()


def rows(batch):
    return torch.tensor(len(batch["kept"]))


def named_rows(batch):
    return (batch["kept"] & (batch["row"] >= 0)).sum()


def squared(student, teacher):
    return (student - teacher).square().mean(-1)


ONE_LABEL = {"student": "student.{}"}
WEIGHTED = {**ROWS, "weight": "batch.weight"}
TORCH = {"input": "student.{}", "target": "batch.labels"}
CASES = {
    "AB": Case(c.AB, "maps", ROWS),
    "ALM": Case(
        lambda: c.ALM(2.0),
        "tokens",
        {**SPANS, "student_labels": "batch.token_labels", "teacher_labels": "batch.token_labels"},
    ),
    "AttentionKL": Case(c.AttentionKL, "attention", PADDED),
    "AttentionMSE": Case(c.AttentionMSE, "attention", PADDED),
    "AttentionScores": Case(
        lambda: c.AttentionScores(2),
        "tokens",
        {
            **PADDED,
            "student_key": "student.AttentionScores",
            "teacher_key": "teacher.AttentionScores",
        },
    ),
    "AttentionTransfer": Case(c.AttentionTransfer, "maps", ROWS),
    "CKA": Case(lambda: c.CKA(gather=True), "logits", ROWS, in_turn=kept),
    "CRD": Case(
        lambda: c.CRD(40, 4, 64), "logits", {**ROWS, **LABELS, "rows": "batch.row"}, in_turn=kept
    ),
    "CWD": Case(c.CWD, "maps", ROWS),
    "ClassSubset": Case(lambda: c.ClassSubset(c.DKD(), [0, 2, 3]), "logits", {**LABELS, **ROWS}),
    "CorrelationCongruence": Case(
        lambda: c.CorrelationCongruence(gather=True), "logits", ROWS, in_turn=kept
    ),
    "CosineHidden": Case(c.CosineHidden, "tokens", PADDED),
    "DIST": Case(lambda: c.DIST(gather=True), "tokens", PADDED, in_turn=tokens),
    "DKD": Case(c.DKD, "logits", {**LABELS, **ROWS}),
    "FSP": Case(c.FSP, "list", ROWS, together=True),
    "FT": Case(c.FT, "maps", ROWS),
    "FusedLinearCrossEntropy": Case(
        c.FusedLinearCrossEntropy, "tokens", {"labels": "batch.token_labels"}, FUSED
    ),
    "FusedLinearDivergence": Case(
        lambda: c.FusedLinearDivergence(c.TAID(0.4, step=0.0), 0.5),
        "tokens",
        {**FUSED_LABELS, "teacher_head": "teacher.head:heads.FusedLinearDivergence"},
        {**FUSED, "teacher": "teacher.layer_input:heads.{}"},
    ),
    "FusedLinearSampled": Case(
        lambda: c.FusedLinearSampled(3, label_weight=0.5),
        "tokens",
        FUSED_LABELS,
        {**FUSED, "teacher": "teacher.sparse:sure"},
    ),
    "FusedLinearTopK": Case(
        lambda: c.FusedLinearTopK(3, label_weight=0.5),
        "tokens",
        FUSED_LABELS,
        {**FUSED, "teacher": "teacher.sparse:{}"},
    ),
    "HardLabel": Case(c.HardLabel, "logits", LABELS, ONE_LABEL),
    "Hint": Case(c.Hint, "tokens", PADDED),
    "ICKD": Case(c.ICKD, "maps", ROWS),
    "JSD": Case(c.JSD, "tokens", PADDED),
    "KDSVD": Case(c.KDSVD, "list", ROWS, together=True),
    "KnowledgeDistillation": Case(
        lambda: c.KnowledgeDistillation(2.0, ["CE", "KL"], [0.3, 0.7]), "logits", {**LABELS, **ROWS}
    ),
    "ListwiseKL": Case(c.ListwiseKL, "logits", ROWS),
    "LogitMSE": Case(c.LogitMSE, "logits"),
    "LogitStandardization": Case(c.LogitStandardization, "logits", ROWS),
    "MGD": Case(lambda: c.MGD(0.01, ratio=0.0), "maps", ROWS),
    "MLKD": Case(lambda: c.MLKD(gather=True), "logits", ROWS, in_turn=kept),
    "MarginMSE": Case(c.MarginMSE, "logits", ROWS),
    "MiniLMRelation": Case(lambda: c.MiniLMRelation(2), "tokens", PADDED),
    "NKD": Case(c.NKD, "logits", {**LABELS, **ROWS}),
    "NST": Case(c.NST, "maps", ROWS),
    "OFA": Case(c.OFA, "logits", LABELS),
    "OFD": Case(c.OFD, "maps", ROWS, in_turn=kept),
    "OfCandidates": Case(
        lambda: c.OfCandidates(c.ListwiseKL(0.2)), "logits", {"place": "batch.third"}
    ),
    "OneVersusAll": Case(
        lambda: c.OneVersusAll(c.DKD()), "logits", {"labels": "batch.many_labels", **ROWS}
    ),
    "PKT": Case(lambda: c.PKT(gather=True), "logits", ROWS, in_turn=kept),
    "PairScore": Case(
        c.PairScore, "logits", {"labels": "batch.scores", "place": "batch.second"}, ONE_LABEL
    ),
    "PatientHidden": Case(c.PatientHidden, "tokens", PADDED),
    "PearsonFeature": Case(lambda: c.PearsonFeature(gather=True), "maps", ROWS, in_turn=kept),
    "QueueSimilarity": Case(lambda: c.QueueSimilarity(16), "logits", ROWS, in_turn=kept),
    "RKD": Case(lambda: c.RKD(gather=True), "logits", ROWS, in_turn=kept),
    "ReverseKL": Case(c.ReverseKL, "tokens", PADDED),
    "ReviewKD": Case(lambda: c.ReviewKD(4), "list", ROWS, together=True),
    "SRD": Case(lambda: c.SRD(gather=True), "logits", ROWS, in_turn=kept),
    "SampleWeighted": Case(c.SampleWeighted, "logits", WEIGHTED),
    "SimilarityPreserving": Case(
        lambda: c.SimilarityPreserving(gather=True), "logits", ROWS, in_turn=kept
    ),
    "SkewKL": Case(c.SkewKL, "logits", ROWS),
    "SkewReverseKL": Case(c.SkewReverseKL, "logits", ROWS),
    "SoftCrossEntropy": Case(c.SoftCrossEntropy, "logits", ROWS),
    "SoftTarget": Case(c.SoftTarget, "tokens", PADDED),
    "TAID": Case(lambda: c.TAID(0.4, step=0.1), "tokens", PADDED, in_turn=tokens),
    "TfKD": Case(c.TfKD, "logits", {**LABELS, **ROWS}, ONE_LABEL),
    "TotalVariation": Case(c.TotalVariation, "tokens", PADDED),
    "ULD": Case(c.ULD, "tokens", SPANS),
    "VID": Case(c.VID, "maps", ROWS),
    "WSLD": Case(c.WSLD, "logits", LABELS),
    # Others of the same kinds.
    "relevance": Case(
        Relevance, "score", {"labels": "batch.relevance", "place": "batch.pair"}, ONE_LABEL
    ),
    "margins_of_pairs": Case(
        lambda: c.OfCandidates(c.MarginMSE()), "score", {"place": "batch.pair"}
    ),
    "numbers": Case(lambda: c.HardLabel("mse"), "logits", {"labels": "batch.numbers"}, ONE_LABEL),
    "several_labels": Case(
        lambda: c.HardLabel("binary_cross_entropy"),
        "logits",
        {"labels": "batch.shares"},
        ONE_LABEL,
    ),
    "class_subset_of_labels": Case(
        lambda: c.ClassSubset(c.KnowledgeDistillation(), [0, 2, 3]), "logits", {**LABELS, **ROWS}
    ),
    "weighted_distillation": Case(
        lambda: c.SampleWeighted(c.KnowledgeDistillation()), "logits", {**WEIGHTED, **LABELS}
    ),
    "weighted_by_a_module": Case(
        lambda: c.SampleWeighted(weight=Focal()), "logits", ROWS, in_turn=kept
    ),
    "not_normalized": Case(
        lambda: c.SampleWeighted(weight=Focal(), normalize=False), "logits", ROWS
    ),
    "weighted_labels": Case(
        lambda: c.SampleWeighted(c.HardLabel()),
        "logits",
        {**LABELS, "weight": "batch.weight"},
        ONE_LABEL,
    ),
    "weighted_pairs": Case(
        lambda: c.SampleWeighted(c.AttentionMSE()),
        "attention",
        {**PADDED, "weight": "batch.weight"},
    ),
    "torch_cross_entropy": Case(nn.CrossEntropyLoss, "logits", both=TORCH),
    "torch_class_weights": Case(
        lambda: nn.CrossEntropyLoss(torch.tensor([0.1, 1.0, 2.0, 0.5, 3.0]).double()),
        "logits",
        both=TORCH,
    ),
    "torch_mse": Case(nn.MSELoss, "logits", both={"input": "student.{}", "target": "teacher.{}"}),
    "torch_function": Case(lambda: F.cross_entropy, "logits", both=TORCH),
    "function": Case(lambda: squared, "logits"),
}


class Model(nn.Module):
    """A tensor for each case, made of what the batch has and of weights of its own."""

    def __init__(self, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape):
            return nn.Parameter(0.5 + torch.rand(*shape, generator=generator))

        self.weights = nn.ParameterDict({name: drawn(WIDTH) for name in CASES})
        fused = [name for name in CASES if "head" in "".join(CASES[name].both)]
        self.heads = nn.ModuleDict({n: nn.Linear(WIDTH, 11, bias=False) for n in fused})
        for head in self.heads.values():
            head.weight = drawn(11, WIDTH)

    def made(self, features):
        found = {}
        for name, case in CASES.items():
            x = features * self.weights[name]
            found[name] = self.heads[name](x) if name in self.heads else shaped(case.kind, x)
        return found


class Student(Model):
    def forward(self, features):
        return self.made(features)


class Teacher(Model):
    def forward(self, wanted):
        found = self.made(wanted)
        # So sure of one class that no other is ever drawn.
        return {**found, "sure": 1e8 * found["FusedLinearSampled"]}


def shaped(kind, x):
    if kind == "logits":
        return x[:, 0, :CLASSES]
    if kind == "score":
        return x[:, 0, :1]
    if kind == "attention":
        return x[:, :, :TOKENS].softmax(-1).unsqueeze(1)
    if kind in ("maps", "list"):
        maps = x.reshape(-1, 3, 4, 4)
        return maps if kind == "maps" else (maps, maps.flip(-1).square())
    return x


def batch(rows: int, seed: int, **changes) -> dict:
    """Rows of which some are masked, unlabelled, padded, or of little weight."""
    g = torch.Generator().manual_seed(seed)

    def numbers(*shape):
        return torch.randn(rows, *shape, generator=g, dtype=torch.float64)

    def choices(n, *shape):
        return torch.randint(0, n, (rows, *shape), generator=g)

    def some(*shape):
        return torch.rand(rows, *shape, generator=g) < 0.7

    lengths = choices(TOKENS, 1) + 1
    mask = torch.arange(TOKENS) < lengths
    labelled = some()
    spans = torch.arange(TOKENS).expand(rows, -1) // 2
    found = {
        "features": numbers(TOKENS, WIDTH),
        "wanted": numbers(TOKENS, WIDTH),
        "kept": some(),
        "mask": mask,
        "labels": choices(CLASSES).masked_fill(~labelled, -100),
        "token_labels": choices(WIDTH, TOKENS).masked_fill(~mask, -100),
        "many_labels": choices(2, CLASSES).masked_fill(~some(CLASSES), -100),
        "numbers": numbers(CLASSES).masked_fill(~some(CLASSES), torch.nan),
        "shares": choices(2, CLASSES).double().masked_fill(~labelled[:, None], -100.0),
        "spans": spans.masked_fill(~mask, -1),
        "weight": torch.rand(rows, generator=g, dtype=torch.float64),
        # Places of texts in pairs, and in lists of two candidates; the last may have fewer.
        "second": torch.arange(rows) % 2,
        "third": torch.arange(rows) % 3,
        "row": torch.arange(rows) + 6 * seed,
    }
    # Drawn last, so that the others are what they were.
    found["scores"] = numbers().clamp(-1, 1).masked_fill(~some(), torch.nan)
    # Of pairs, in lists of three candidates; the last may have fewer.
    found["pair"] = torch.arange(rows) % 3 + 1
    found["relevance"] = numbers().abs().masked_fill(torch.arange(rows) == 5, torch.nan)
    return found | changes


def whole(batches: list[dict]) -> dict:
    """All rows of several batches as one."""
    return {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
