"""A teacher's hidden states with its head, kept once, are its logits: exact and a fraction."""

import json
from functools import partial

import lightning as L
import pytest
import torch
import transformers as hf
from tiny import loader, trainer
from torchmetrics import MeanMetric

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.cache import AnswerStore, DamagedCacheError
from lightning_distill.criteria import FusedLinearDivergence, SoftTarget
from lightning_distill.run.recording import plan_recording, Recording, shards_of
from lightning_distill.run.verifying import verify
from lightning_distill.teachers import CachedTeacher, CachingTeacher

VOCABULARY = 90
FUSED = {
    "student": "student.layer_input:lm_head",
    "teacher": "teacher.layer_input:lm_head",
    "student_head": "student.head:lm_head",
    "teacher_head": "teacher.head:lm_head",
    "labels": "batch.labels",
}
BATCHES = [("train", [0, 1, 2], 0), ("train", [3, 4], 0), ("train", [5, 6, 7], 0)]


def model(width=16, layers=2, seed=1, kind="gpt2"):
    torch.manual_seed(seed)
    if kind == "gemma2":
        sizes = {"hidden_size": width, "num_attention_heads": 2, "num_key_value_heads": 2}
        sizes |= {"head_dim": 8, "intermediate_size": 24, "pad_token_id": 0}
        sizes |= {"final_logit_softcapping": 0.05, "query_pre_attn_scalar": 8}
        config = hf.Gemma2Config(vocab_size=VOCABULARY, num_hidden_layers=layers, **sizes)
        return hf.Gemma2ForCausalLM(config).eval()
    sizes = {"n_embd": width, "n_layer": layers, "n_head": 2, "n_positions": 16}
    drops = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
    found = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=VOCABULARY, **sizes, **drops)).eval()
    with torch.no_grad():
        # It shall have something to say.
        found.lm_head.weight.mul_(20)
    return found


def rows(packed=False):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, VOCABULARY, (8, 12), generator=generator)
    labels = ids.roll(-1, 1)
    labels[:, -1] = -100
    if packed:
        positions = torch.cat([torch.arange(5), torch.arange(7)]).expand(8, -1)
        labels = labels.masked_fill(positions.roll(-1, 1) == 0, -100)
        return {"input_ids": ids, "position_ids": positions, "labels": labels}
    mask = (torch.arange(12) < torch.arange(5, 13)[:, None]).long()
    labels = labels.masked_fill(mask.roll(-1, 1) == 0, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class Data(L.LightningDataModule):
    """Enough of a data module for job=cache."""

    def __init__(self, packed=False):
        super().__init__()
        self.rows = rows(packed)

    def rows_dataloader(self, plan):
        return loader([{k: v[own] for k, v in self.rows.items()} for _, own, _ in plan])

    def train_dataloader(self):
        return self.rows_dataloader([("train", [7, 2, 0, 5], 0), ("train", [1, 3, 4, 6], 0)])

    def row_lengths(self):
        mask = self.rows.get("attention_mask", torch.ones(8, 12))
        return {"train": mask.sum(1).int().tolist()}

    def preprocessing(self):
        return {}

    def fingerprint(self):
        return "rows"


def module_of(teacher, criterion=None, inputs=None, metrics=None, kind="gpt2"):
    terms = {"divergence": Term(criterion or FusedLinearDivergence(), inputs or FUSED)}
    student = model(8, 1, seed=2, kind=kind)
    optimizer = lambda groups: torch.optim.AdamW(groups, lr=5e-3)  # noqa: E731
    return DistillationModule(student, teacher, Objective(terms), metrics, optimizer)


class Ran:
    """How many logits a teacher's head made."""

    def __init__(self, teacher):
        self.logits = 0
        teacher.register_forward_hook(self)

    def __call__(self, teacher, args, outputs):
        self.logits += outputs.logits.numel()


def written(folder, teacher, packed=False, hidden_dtype="float32", **more):
    """What job=cache does between the configuration and the console."""
    data, module = Data(packed), module_of(teacher, **more)
    sources = module.objective.sources("teacher")
    keeping = CachingTeacher(teacher, folder, hidden_dtype=hidden_dtype)
    plan = plan_recording(keeping, module, data, sources, BATCHES, "32-true", shard_mb=0.001)
    recording = Recording(keeping, module, data, sources, plan, BATCHES)
    trainer(folder.parent, inference_mode=False).predict(recording)
    assert plan.data["shards"] == len(list(shards_of(BATCHES, plan.data["rows_per_shard"])))
    return CachedTeacher(folder)


class Losses(L.Callback):
    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.found.append(outputs["loss"].item())


def trained(folder, teacher, packed=False, **more):
    module, losses = module_of(teacher, **more), Losses()
    loop = trainer(folder, max_epochs=2, callbacks=[losses])
    loop.fit(module, datamodule=Data(packed))
    return losses.found, module.student.lm_head.weight.detach()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
def test_hidden_states_and_head_teach_what_the_live_teacher_teaches(tmp_path, kind, packed):
    teacher = model(kind=kind)
    ran = Ran(teacher)
    kept = written(tmp_path / "kept", teacher, packed, kind=kind)
    assert ran.logits == 0
    assert list(kept.store.answers) == ["layer_input:lm_head"]
    assert kept.store.answers["layer_input:lm_head"].per_token
    assert kept.store.answers["layer_input:lm_head"].shape == (16,)
    assert kept.store.head_names == ["lm_head"]
    live = trained(tmp_path, model(kind=kind), packed, kind=kind)
    found = trained(tmp_path, kept, packed, kind=kind)
    assert found[0] == pytest.approx(live[0], abs=1e-6)
    torch.testing.assert_close(found[1], live[1], atol=1e-5, rtol=0)
    other = trained(tmp_path, model(seed=9, kind=kind), packed, kind=kind)
    assert abs(other[0][-1] - live[0][-1]) > 1e-5


@pytest.mark.parametrize("packed", [False, True])
def test_a_teacher_that_keeps_its_answers_keeps_them_so_too(tmp_path, packed):
    live = trained(tmp_path, model(), packed)
    teacher = model()
    ran = Ran(teacher)
    keeping = CachingTeacher(teacher, tmp_path / "kept", hidden_dtype="float32")
    assert trained(tmp_path, keeping, packed)[0] == pytest.approx(live[0], abs=1e-6)
    # The first batch is tried with the logits of the last position, to see that they follow.
    assert ran.logits <= 2 * 4 * VOCABULARY
    cached = CachedTeacher(tmp_path / "kept")
    assert list(cached.store.answers) == ["layer_input:lm_head"]
    assert trained(tmp_path, cached, packed)[0] == pytest.approx(live[0], abs=1e-6)


class Sum(MeanMetric):
    def update(self, logits, labels):
        super().update(logits.double().abs().mean())


def test_metrics_of_the_teacher_are_made_of_hidden_states_and_head(tmp_path):
    written(tmp_path / "kept", model())
    found = []
    for build in (
        model,
        lambda: CachedTeacher(tmp_path / "kept"),
        lambda: CachingTeacher(model(), tmp_path / "own", hidden_dtype="float32"),
    ):
        module = module_of(build(), metrics=Sum())
        # Without padding, of which a live teacher has logits too.
        data = {k: v[7:] for k, v in rows().items()}
        found.append(trainer(tmp_path).test(module, loader([data]), verbose=False)[0])
    assert found[0]["test/teacher_sum"] != found[0]["test/sum"]
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert found[2] == pytest.approx(found[0], rel=1e-5)


def loss_and_gradients(teacher):
    module = module_of(teacher)
    batch = rows()
    module.prepare(batch)
    values, _, _ = module.read_sources(batch, heads="skipped")
    loss = module.objective(values)["loss"]
    parameters = [p for p in module.student.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters)
    return loss.item(), torch.cat([g.flatten() for g in found])


# bfloat16 has 8 significant bits and float8 (e4m3) 4: half a unit in the last of them is 2^-9 and
# 2^-5 of a hidden state at most, in either direction, of which a loss is a mean.
@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 2**-9), ("float8", 2**-5)])
def test_fewer_bits_are_near(tmp_path, dtype, bound):
    loss, gradient = loss_and_gradients(model())
    exact = written(tmp_path / "float32", model())
    assert loss_and_gradients(exact)[0] == pytest.approx(loss, rel=1e-6)
    kept = written(tmp_path / dtype, model(), hidden_dtype=dtype)
    found, own = loss_and_gradients(kept)
    off = float((own - gradient).norm() / gradient.norm())
    print(f"{dtype}: loss off by {abs(found / loss - 1):.2e}, gradient by {off:.2e}")
    assert 0 < off < bound and abs(found / loss - 1) < bound
    sizes = [sum(f["bytes"] for f in c.store.shards) for c in (exact, kept)]
    assert sizes[1] < sizes[0]


def test_verify_compares_hidden_states_and_notices_a_damaged_head(tmp_path):
    folder = tmp_path / "kept"
    written(folder, model(), hidden_dtype="bfloat16")
    loop = partial(trainer, tmp_path, inference_mode=False)
    data, ran = Data(), Ran(teacher := model())
    off = verify(loop(), module_of(teacher), data, folder, 8, 0.01)
    # Against the live teacher, rounded alike; its logits are not made.
    assert off < 1e-2 and ran.logits == 0
    content = bytearray((folder / "heads.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "heads.safetensors").write_bytes(bytes(content))
    assert AnswerStore(folder).check_files() == ["heads.safetensors"]
    with pytest.raises(ValueError, match=r"heads.safetensors in .* is not what was written"):
        verify(loop(), module_of(model()), data, folder, 8, 0.01)
    with pytest.raises(DamagedCacheError, match=r"heads.safetensors is damaged.*again"):
        loss_and_gradients(CachedTeacher(folder))


def test_what_is_not_kept_is_refused_with_words(tmp_path):
    kept = written(tmp_path / "kept", model())
    logits = {"student": "student.logits", "teacher": "teacher.logits"}
    module = module_of(kept, SoftTarget(), logits)
    with pytest.raises(ValueError, match=r"teacher.logits is not in the cache .*head:lm_head"):
        module.prepare(rows())
    # Logits, and no head.
    mask = {"mask": "batch.attention_mask"}
    kept = written(tmp_path / "logits", model(), criterion=PerToken(), inputs=logits | mask)
    assert list(kept.store.answers) == ["logits"] and not kept.store.head_names
    manifest = json.loads((tmp_path / "logits" / "manifest.json").read_text())
    assert "heads" not in manifest
    with pytest.raises(ValueError, match=r"teacher.\w+:lm_head is not in the cache"):
        module_of(kept).prepare(rows())


class PerToken(SoftTarget):
    def forward(self, student, teacher, mask):
        return super().forward(student, teacher, mask)


def test_logits_are_kept_as_well_where_a_term_reads_them(tmp_path):
    module = module_of(model())
    logits = {"student": "student.logits", "teacher": "teacher.logits"}
    logits["mask"] = "batch.attention_mask"
    terms = {"fused": Term(FusedLinearDivergence(), FUSED), "plain": Term(PerToken(), logits)}
    module = DistillationModule(model(8, 1), model(), Objective(terms))
    sources = module.objective.sources("teacher")
    keeping = CachingTeacher(module.teacher, tmp_path)
    plan = plan_recording(keeping, module, Data(), sources, BATCHES, "32-true", 64)
    assert {answer.name for answer in plan.answers} == {"layer_input:lm_head", "logits"}
    assert plan.heads == ["lm_head"]
