"""Terms on both sides of an encoder-decoder, and between them, against plain definitions."""

import pytest
import torch
from encoder_decoders import batch, FAMILIES, model, wider
from tiny import loader, trainer

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import (
    AttentionKL,
    AttentionMSE,
    FusedLinearDivergence,
    HardLabel,
    Hint,
    SoftTarget,
)
from lightning_distill.models.source import Source
from lightning_distill.tasks import infer_task, SequenceToSequence, task_of_architecture
from lightning_distill.teachers import CachedTeacher, CachingTeacher


def between(name: str) -> dict[str, str]:
    return {"student": f"student.{name}", "teacher": f"teacher.{name}"}


def terms(family: str) -> dict[str, Term]:
    labels = {"student": "student.logits", "labels": "batch.labels"}
    return {
        "label": Term(HardLabel(), labels),
        "soft": Term(SoftTarget(temperature=1.0), between("logits")),
        "encoder": Term(Hint(), between("encoder_hidden_states[-1]")),
        "decoder": Term(Hint(), between("decoder_hidden_states[-1]")),
        "cross": Term(AttentionMSE(), between("cross_attentions[-1]")),
        "cross_kl": Term(AttentionKL(), between("cross_attentions[-1]")),
        "own": Term(AttentionMSE(), between("encoder_attentions[-1]")),
    }


def expected(family: str, given: dict) -> dict[str, float]:
    """The same by plain loops over what counts, in float64."""
    outputs = []
    for layers, seed in ((1, 1), (2, 2)):
        own = model(family, layers, seed, "eager").double()
        inputs = {n: v.double() if v.is_floating_point() else v for n, v in given.items()}
        del inputs["row"]
        with torch.no_grad():
            outputs.append(
                own(**inputs, output_hidden_states=True, output_attentions=True, use_cache=False)
            )
    student, teacher = outputs
    labels = given["labels"]
    sources = given.get("attention_mask")
    if sources is None:
        sources = torch.ones(len(labels), student.encoder_last_hidden_state.shape[1])
    found: dict[str, list] = {name: [] for name in terms(family)}
    for i in range(len(labels)):
        read = [s for s in range(sources.shape[1]) if sources[i, s]]
        for t in range(labels.shape[1]):
            if labels[i, t] == -100:
                continue
            p, q = (o.logits[i, t].log_softmax(0) for o in (teacher, student))
            found["label"].append(-q[labels[i, t]])
            found["soft"].append((p.exp() * (p - q)).sum())
            states = [o.decoder_hidden_states[-1][i, t] for o in outputs]
            found["decoder"].append((states[0] - states[1]).square().mean())
            maps = [o.cross_attentions[-1][i, :, t] for o in outputs]
            keys = read if "attention_mask" in given else range(maps[0].shape[-1])
            found["cross"] += [(maps[0] - maps[1])[:, s].square().mean() for s in keys]
            own, taught = (m.clamp(min=1e-12) for m in maps)
            found["cross_kl"].append((taught * (taught / own).log()).sum(-1).mean())
        for s in read:
            states = [o.encoder_hidden_states[-1][i, s] for o in outputs]
            found["encoder"].append((states[0] - states[1]).square().mean())
            maps = [o.encoder_attentions[-1][i, :, s] for o in outputs]
            found["own"] += [(maps[0] - maps[1])[:, k].square().mean() for k in read]
    return {name: float(torch.stack(values).mean()) for name, values in found.items()}


def module_of(family: str, teacher=None, which=None, **options) -> DistillationModule:
    objective = terms(family) if which is None else which
    own = model(family, 1, 1)
    taught = model(family, 2, 2) if teacher is None else teacher
    return DistillationModule(own, taught, Objective(objective), task=SequenceToSequence())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_term_is_the_mean_over_what_counts_on_its_side(family):
    given = batch(family)
    module = module_of(family)
    module.prepare(given)
    module.eval()
    with torch.no_grad():
        found = module.losses(given)
    for name, value in expected(family, given).items():
        assert float(found[name]) == pytest.approx(value, rel=2e-4, abs=1e-7), name
    if family != "whisper":
        with torch.no_grad():
            again = module.losses(wider(given))
        for name, value in found.items():
            torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_steps_are_made_and_the_teacher_stays(family, tmp_path):
    module = module_of(family)
    before = {n: p.clone() for n, p in module.teacher.named_parameters()}
    mine = {n: p.clone() for n, p in module.student.named_parameters()}
    run = trainer(tmp_path, max_steps=2)
    run.fit(module, loader([batch(family), batch(family, rows=2)]))
    assert run.global_step == 2
    assert all(torch.equal(p, before[n]) for n, p in module.teacher.named_parameters())
    moved = [n for n, p in module.student.named_parameters() if not torch.equal(p, mine[n])]
    parts = {part for n in moved for part in n.split(".")}
    assert {"encoder", "decoder"} <= parts


def fused_and_plain(family: str) -> tuple[Term, dict[str, Term]]:
    head = "proj_out" if family == "whisper" else "lm_head"
    sides = {role: f"{role}.layer_input:{head}" for role in ("student", "teacher")}
    heads = {f"{role}_head": f"{role}.head:{head}" for role in ("student", "teacher")}
    fused = Term(
        FusedLinearDivergence(label_weight=0.5), {**sides, **heads, "labels": "batch.labels"}
    )
    labels = {"student": "student.logits", "labels": "batch.labels"}
    plain = {
        "soft": Term(SoftTarget(temperature=1.0), between("logits")),
        "label": Term(HardLabel(), labels, weight=0.5),
    }
    return fused, plain


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fused_loss_is_that_of_logits(family):
    given, (fused, plain) = batch(family), fused_and_plain(family)
    own, other = (module_of(family, which=w) for w in ({"fused": fused}, plain))
    found = []
    for module in (own, other):
        module.prepare(given)
        loss = module.losses(given)["loss"]
        weights = [p for p in module.student.parameters() if p.requires_grad]
        gradient = torch.autograd.grad(loss, weights, allow_unused=True)
        found.append((loss.detach(), gradient))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fused", [False, True])
def test_a_cached_and_a_caching_teacher_give_the_loss_of_a_live_one(family, fused, tmp_path):
    def objective():
        one, plain = fused_and_plain(family)
        return {"fused": one} if fused else plain

    batches = [batch(family), batch(family, rows=5, targets=8, sources=8)]
    batches[1]["row"] = batches[1]["row"] + 3
    reference = module_of(family, which=objective())
    expected = []
    for given in batches:
        reference.prepare(given, check=False)
        expected.append(float(reference.eval().losses(given)["loss"].detach()))
    keeping = CachingTeacher(model(family, 2, 2), tmp_path / "kept", hidden_dtype="float32")
    module = module_of(family, keeping, objective())
    run = trainer(tmp_path, max_epochs=2, limit_val_batches=0)
    asked = []
    keeping.model.register_forward_hook(lambda *_: asked.append(1))

    class Still(torch.optim.SGD):
        def step(self, closure=None):
            return closure()

    module.optimizer = lambda groups: Still(groups, lr=0.0)
    run.fit(module, loader(batches))
    before = len(asked)
    # More padding, and other neighbours: the rows are found all the same.
    last = batches[1] if family == "whisper" else wider(batches[1])
    for teacher in (keeping, CachedTeacher(tmp_path / "kept")):
        other = module_of(family, teacher, objective())
        for given, value in zip([batches[0], last], expected, strict=True):
            other.prepare(given, check=False)
            found = float(other.eval().losses(given)["loss"].detach())
            assert found == pytest.approx(value, abs=1e-6 * max(1, abs(value)))
    assert len(asked) == before


def test_a_cache_refuses_what_is_of_the_sources_tokens(tmp_path):
    keeping = CachingTeacher(model("t5", 2, 2), tmp_path / "kept")
    hint = {"hint": Term(Hint(), between("encoder_hidden_states[-1]"))}
    module = module_of("t5", keeping, hint)
    run = trainer(tmp_path, limit_val_batches=0)
    words = "encoder_hidden_states.*no tensor of the target's 6 tokens.*use a live teacher"
    with pytest.raises(ValueError, match=words):
        run.fit(module, loader([batch("t5")]))


def test_the_task_is_inferred_and_its_mask_is_that_of_the_side():
    own, given = model("t5"), batch("t5")
    logits = torch.zeros(3, 6, 50)
    assert infer_task(own, given, logits) == SequenceToSequence()
    task = task_of_architecture("MarianMTModel")
    assert task == SequenceToSequence()
    assert task.auto_class("WhisperForConditionalGeneration") == "AutoModelForSpeechSeq2Seq"
    assert task.auto_class("BartForConditionalGeneration") == "AutoModelForSeq2SeqLM"
    expected = {
        "encoder_hidden_states[0]": "batch.attention_mask",
        "encoder_attentions[0]": "batch.attention_mask",
        "layer:model.encoder.layers.0": "batch.attention_mask",
        "decoder_hidden_states[0]": "batch.labels",
        "layer:model.decoder.layers.0.encoder_attn": "batch.labels",
        "cross_attentions[0]": "batch.",
    }
    for name, mask in expected.items():
        assert str(task.layer_mask(given, Source.parse(f"student.{name}"))) == mask, name
    speech = {"input_features": torch.zeros(3, 6, 18), "labels": given["labels"]}
    assert task.layer_mask(speech, Source.parse("student.encoder_hidden_states[0]")) is None
