"""Classes of pixels, against a naive writing in float64."""

import copy

import numpy as np
import pytest
import torch
from objective.test_maps import draw, naive_stretched
from tiny import loader, trainer
from torch import nn
from torch.testing import assert_close
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from lightning_distill import Agreement, distill, Term
from lightning_distill.criteria import DKD, HardLabel, KnowledgeDistillation, SoftTarget
from lightning_distill.metrics import Samples
from lightning_distill.models.source import Source
from lightning_distill.tasks import Segmentation
from lightning_distill.teachers import CachedTeacher, CachingTeacher

TASK = Segmentation()
IO = {"student": "student.logits", "teacher": "teacher.logits"}
LABELS = {"student": "student.logits", "labels": "batch.labels"}


def masks(rows=2, height=6, width=4, classes=3, seed=0):
    """Some pixels have no class, in both ways of saying it."""
    random = np.random.default_rng(seed)
    found = torch.from_numpy(random.integers(0, classes, (rows, height, width)))
    found[0, :2], found[-1, -1, :3] = 255, -100
    return found


def value(term, student, teacher, labels):
    (made,) = (t for _, t in TASK.terms({"a": term})["a"].expanded().values())
    tensors = {"student": student, "teacher": teacher, "batch": labels}
    values = {source: tensors[source.role] for source in made.sources()}
    return made(values), made


def naive_logits(maps, labels):
    """(pixels that count, classes), row by row."""
    maps = naive_stretched(maps.numpy(), labels.shape[1:])
    return np.array(
        [
            maps[r, :, i, j]
            for r, i, j in np.ndindex(*labels.shape)
            if labels[r, i, j] not in (255, -100)
        ]
    )


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_every_pixel_that_counts_is_a_sample_in_the_size_of_the_labels():
    student, teacher, labels = draw(2, 3, 3, 2), draw(2, 3, 6, 4), masks()
    ours, theirs = naive_logits(student, labels), naive_logits(teacher, labels)
    q, p = softmax(ours / 2), softmax(theirs / 2)
    found, term = value(Term(SoftTarget(2.0), IO), student, teacher, labels)
    assert_close(found.item(), 4 * (p * np.log(p / q)).sum(1).mean())
    found, of_labels = value(Term(HardLabel(), LABELS), student, teacher, labels)
    known = labels[(labels != 255) & (labels != -100)].numpy()
    assert_close(found.item(), -np.log(softmax(ours))[np.arange(len(known)), known].mean())
    # So many count, which is known before the models run.
    for one in (term, of_labels):
        assert one.criterion.counted(pixels=labels, labels=labels).sum() == len(known) < 48


def test_a_criterion_without_a_mask_and_one_of_several_means():
    student, teacher, labels = draw(2, 3, 6, 4), draw(2, 3, 3, 2), masks()
    flat = [torch.from_numpy(naive_logits(t, labels)) for t in (student, teacher)]
    known = labels[(labels != 255) & (labels != -100)]
    found, _ = value(Term(DKD(), {**IO, "labels": "batch.labels"}), student, teacher, labels)
    assert_close(found, DKD()(*flat, known))
    several = Term(KnowledgeDistillation(), {**IO, "labels": "batch.labels"})
    terms = TASK.terms({"a": several})["a"].expanded()
    plain = several.expanded()
    assert len(terms) == len(plain) > 1
    for name, (ratio, term) in terms.items():
        tensors = {"student": student, "teacher": teacher, "batch": labels}
        own = {"student": flat[0], "teacher": flat[1], "batch": known}
        assert ratio == plain[name][0]
        expected = plain[name][1]({s: own[s.role] for s in plain[name][1].sources()})
        assert_close(term({s: tensors[s.role] for s in term.sources()}), expected)


def test_without_labels_all_pixels_of_the_largest_map_count():
    student, teacher = draw(2, 3, 3, 2), draw(2, 3, 6, 4)
    found, term = value(Term(SoftTarget(1.0), IO), student, teacher, None)
    everywhere, _ = value(Term(SoftTarget(1.0), IO), student, teacher, torch.zeros(2, 6, 4).long())
    assert_close(found, everywhere)
    assert term.criterion.counted(pixels=None) is None
    # A mean over nothing would be NaN.
    mse = Term(nn.MSELoss(), {"input": "student.logits", "target": "teacher.logits"})
    nothing, _ = value(mse, student, teacher, torch.full((2, 6, 4), 255))
    assert nothing == 0


def test_metrics_are_of_the_pixels_that_count():
    student, teacher, labels = draw(2, 3, 3, 2), draw(2, 3, 2, 2), masks()
    metrics = [
        MulticlassAccuracy(3, average="micro"),
        MulticlassJaccardIndex(3),
        Agreement(task=TASK),
    ]
    predicted = (TASK.predictions({"logits": logits}) for logits in (student, teacher))
    for samples in Samples.of({"labels": labels}, *predicted, None, metrics, TASK):
        for metric in metrics:
            samples.feed(metric)
    ours, theirs = (naive_logits(t, labels).argmax(1) for t in (student, teacher))
    known = labels[(labels != 255) & (labels != -100)].numpy()
    shares = [
        ((ours == c) & (known == c)).sum() / ((ours == c) | (known == c)).sum() for c in range(3)
    ]
    expected = [(ours == known).mean(), np.mean(shares), (ours == theirs).mean()]
    assert_close([float(m.compute()) for m in metrics], [float(e) for e in expected])


def segformer(width, seed, **more):
    sizes = {"hidden_sizes": [width] * 2, "depths": [1, 1], "num_attention_heads": [1, 1]}
    sizes |= {"num_encoder_blocks": 2, "sr_ratios": [1, 1], "patch_sizes": [3, 3]}
    sizes |= {"strides": [2, 2], "mlp_ratios": [1, 1], "decoder_hidden_size": 8, "num_labels": 3}
    rates = ("hidden_dropout_prob", "classifier_dropout_prob", "drop_path_rate")
    config = SegformerConfig(**sizes, **dict.fromkeys(rates, 0.0), **more)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SegformerForSemanticSegmentation(config)


def batches(count=3):
    return [
        {
            "pixel_values": draw(2, 3, 16, 16).float() + i,
            "labels": masks(2, 16, 16, seed=i).masked_fill(torch.arange(16) < 4 * i, 255),
            "row": torch.arange(2) + 2 * i,
        }
        for i in range(count)
    ]


def trained(teacher, tmp_path):
    terms = {"hard": Term(HardLabel(), LABELS), "soft": Term(SoftTarget(2.0), IO)}
    student, data = segformer(4, seed=1), loader(batches())
    return distill(student, teacher, data, terms, trainer(tmp_path), task=TASK)


def test_live_caching_and_cached_teachers_teach_the_same(tmp_path):
    teacher = segformer(8, seed=2).eval()
    live = trained(teacher, tmp_path).state_dict()
    keeping = CachingTeacher(copy.deepcopy(teacher), tmp_path / "kept")
    assert_close(trained(keeping, tmp_path).state_dict(), live, atol=1e-6, rtol=0)
    cached = trained(CachedTeacher(tmp_path / "kept"), tmp_path).state_dict()
    assert_close(cached, live, atol=1e-6, rtol=0)
    other = trained(segformer(8, seed=3).eval(), tmp_path).state_dict()
    assert any(not torch.allclose(other[n], live[n], atol=1e-5) for n in live)


def test_accumulated_batches_with_unequally_many_pixels_are_one_batch(tmp_path):
    teacher = segformer(8, seed=2).eval()
    parts = batches()
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    found = {}
    for name, data, steps in (("parts", parts, 3), ("whole", [whole], 1)):
        student = segformer(4, seed=1)
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Its statistics would be those of a batch.
                module.forward = lambda x: x
        terms = {"hard": Term(HardLabel(), LABELS), "soft": Term(SoftTarget(2.0), IO)}
        loop = trainer(tmp_path, accumulate_grad_batches=steps)
        distill(student, teacher, loader(data), terms, loop, task=TASK)
        found[name] = [p.detach() for p in student.parameters()]
    assert_close(found["parts"], found["whole"], atol=1e-6, rtol=0)


def test_what_is_no_map_is_refused():
    with pytest.raises(ValueError, match=r"\(rows, classes, height, width\), got \(2, 3\)"):
        value(Term(SoftTarget(), IO), draw(2, 3), draw(2, 3), masks())
    with pytest.raises(ValueError, match=r"\(rows, height, width\), got \(2,\) beside"):
        value(Term(SoftTarget(), IO), draw(2, 3, 4, 4), draw(2, 3, 4, 4), torch.zeros(2).long())
    with pytest.raises(ValueError, match=r"models that return maps of logits .* got \(2, 3\)"):
        TASK.predictions({"logits": draw(2, 3)})
    with pytest.raises(ValueError, match=r"a class for each pixel.*data module of your own"):
        TASK.read_labels([], [], "train")
    sparse = Term(SoftTarget(), {**IO, "teacher": Source("teacher", "sparse", "logits")})
    with pytest.raises(ValueError, match="maps of logits are kept whole"):
        TASK.terms({"a": sparse})["a"].expanded()
