"""Recipes of papers: each stage's loss is the paper's sum, written out; each runs from one word."""

import csv
import json
import sys
from functools import cache
from importlib.resources import files

import causal
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf, open_dict
from tiny import bert, text_batches
from torch import nn
from torch.testing import assert_close

from lightning_distill import DistillationModule
from lightning_distill.check_values import drop_settings_of_others
from lightning_distill.experiment_choices import settings_of
from lightning_distill.main import main
from lightning_distill.run.objective import build_objective
from lightning_distill.run.stages import stages_of
from lightning_distill.students import from_config
from lightning_distill.tasks import MaskedLanguageModelling

KL = nn.KLDivLoss(reduction="none", log_target=True)


@cache
def composed(name):
    with initialize_config_module("lightning_distill.conf", version_base="1.3"):
        return compose("main", [f"experiment={name}", "optimizer.lr=0.1", "output_dir=x"])


def seen(model, batch):
    """What a model of transformers gives of a batch, in double precision."""
    model.set_attn_implementation("eager")
    parts = {}
    for i, layer in enumerate(model.base_model.encoder.layer):
        for name in ("query", "key", "value"):
            part = getattr(layer.attention.self, name)
            part.register_forward_hook(lambda m, _, out, k=(name, i): parts.update({k: out}))
    inputs = {n: batch[n] for n in ("input_ids", "attention_mask")}
    with torch.no_grad():
        out = model.double().eval()(**inputs, output_hidden_states=True, output_attentions=True)
    model.float()
    return {"logits": out.logits, "hidden": out.hidden_states, "attention": out.attentions} | parts


def mean(values, mask):
    return (values * mask).sum() / mask.expand_as(values).sum()


def squared(student, teacher, mask):
    """Of hidden states, mean over tokens that count and numbers."""
    return mean((student - teacher).square().mean(-1), mask)


def kl(student, teacher, temperature=1.0):
    logs = [(x / temperature).log_softmax(-1) for x in (student, teacher)]
    return temperature**2 * KL(*logs).sum(-1)


def relations(x, heads):
    split = x.unflatten(-1, (heads, -1)).transpose(1, 2)
    return split @ split.mT / split.shape[-1] ** 0.5


def relation_kl(student, teacher, heads, mask):
    hidden = (mask == 0)[:, None, None, :]
    scores = [relations(x, heads).masked_fill(hidden, -1e9) for x in (student, teacher)]
    return mean(kl(*scores).mean(1), mask)


def attention_kl(student, teacher, mask):
    values = (teacher * (teacher.clamp(min=1e-12).log() - student.clamp(min=1e-12).log())).sum(-1)
    return mean(values.mean(1), mask)


def scores(parts, layer, heads):
    query, key = (
        parts[name, layer].unflatten(-1, (heads, -1)).transpose(1, 2) for name in ("query", "key")
    )
    return query @ key.mT / query.shape[-1] ** 0.5


def cross_entropy(logits, labels):
    return nn.functional.cross_entropy(logits, labels)


# Of a student of two layers and a teacher of four: what each stage of a recipe is the sum of.
def pkd(s, t, mask, labels):
    unit = [nn.functional.normalize(x["hidden"][i][:, 0], dim=-1) for x, i in ((s, 1), (t, 2))]
    patient = (unit[0] - unit[1]).square().sum(-1).mean()
    soft = kl(s["logits"], t["logits"], 10.0).mean()
    return [0.5 * cross_entropy(s["logits"], labels) + 0.5 * soft + 100 * patient]


def tinybert(s, t, mask, labels):
    pairs = ((1, 2), (2, 4))
    hidden = sum(squared(s["hidden"][i], t["hidden"][j], mask) for i, j in pairs) / 2
    embeddings = squared(s["hidden"][0], t["hidden"][0], mask)
    both = mask[:, None, :] * mask[:, :, None]
    attention = 0
    for i, j in pairs:
        found = (scores(s, i - 1, 2) - scores(t, j - 1, 2)).square().mean(1)
        attention = attention + mean(found, both) / 2
    return [embeddings + hidden + attention, kl(s["logits"], t["logits"]).mean()]


def minilm(s, t, mask, labels):
    attention = attention_kl(s["attention"][1], t["attention"][3], mask)
    values = relation_kl(s["value", 1], t["value", 3], 2, mask)
    return [attention + values, cross_entropy(s["logits"], labels)]


def minilmv2(s, t, mask, labels):
    found = [relation_kl(s[n, 1], t[n, 3], 4, mask) for n in ("query", "key", "value")]
    return [sum(found), cross_entropy(s["logits"], labels)]


def flash(s, t, mask, labels):
    blocks = [squared(s["hidden"][i], t["hidden"][j], mask) for i, j in ((1, 2), (2, 4))]
    labels = cross_entropy(s["logits"], labels)
    return [*blocks, 0.1 * labels + 0.9 * kl(s["logits"], t["logits"], 4.0).mean()]


def theseus(s, t, mask, labels):
    return [cross_entropy(s["logits"], labels)] * 2


def distilbert(s, t, mask, labels):
    cosine = 1 - nn.functional.cosine_similarity(s["hidden"][-1], t["hidden"][-1], dim=-1)
    soft = mean(kl(s["logits"], t["logits"], 2.0), mask)
    return [5 * soft + 2 * cross_entropy(s["logits"].mT, labels) + mean(cosine, mask)]


def mobilebert(s, t, mask, labels):
    blocks = [
        100 * squared(s["hidden"][i + 1], t["hidden"][j + 1], mask)
        + attention_kl(s["attention"][i], t["attention"][j], mask)
        for i, j in ((0, 1), (1, 3))
    ]
    # Soft targets, too, of the hidden tokens alone.
    soft = mean(kl(s["logits"], t["logits"]), (labels != -100).double())
    return [*blocks, 0.5 * cross_entropy(s["logits"].mT, labels) + 0.5 * soft]


OF_ROWS = [pkd, tinybert, minilm, minilmv2, flash, theseus]
# What is other than the recipe where the models are this small.
SMALLER = {
    "tinybert": ("criteria.attention_scores.criterion.heads", 2),
    "minilm": ("criteria.mini_lm_relation.criterion.relation_heads", 2),
    "minilmv2": ("relation_heads", 4),
}


def stages_and_models(recipe, of_tokens):
    name = recipe.__name__
    cfg = composed(name).copy()
    task = "masked_language_modelling" if of_tokens else "classification"
    with open_dict(cfg):
        cfg.task, cfg.monitor, cfg.mode = task, "val/x", "max"
    if name in SMALLER:
        key, value = SMALLER[name]
        parent, _, last = key.rpartition(".")
        (cfg if not parent else _at(cfg, parent))[last] = value
    if not of_tokens:
        student, teacher = bert(2, 16, seed=1), bert(4, 16, seed=2)
        return stages_of(cfg, student), student, teacher
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    mobile = {"model_type": "mobilebert", "embedding_size": 16, "intra_bottleneck_size": 8}
    student, teacher = (
        from_config(
            num_hidden_layers=layers,
            auto_class="AutoModelForMaskedLM",
            vocab_size=60,
            seed=layers,
            task=MaskedLanguageModelling(),
            **({"model_type": "bert"} | sizes | more),
        )
        for layers, more in ((2, mobile if name == "mobilebert" else {}), (4, {}))
    )
    return stages_of(cfg, student), student, teacher


def _at(cfg, path):
    for part in path.split("."):
        cfg = cfg[part]
    return cfg


@pytest.mark.parametrize("recipe", [*OF_ROWS, distilbert, mobilebert], ids=lambda r: r.__name__)
def test_each_stage_minimises_what_the_paper_says(recipe):
    of_tokens = recipe in (distilbert, mobilebert)
    stages, student, teacher = stages_and_models(recipe, of_tokens)
    (batch,) = text_batches(1)
    if of_tokens:
        labels = batch["input_ids"].clone()
        labels[:, 1::2] = -100
        batch["labels"] = labels.masked_fill(batch["attention_mask"] == 0, -100)
    mask, labels = batch["attention_mask"].double(), batch["labels"]
    expected = recipe(seen(student, batch), seen(teacher, batch), mask, labels)
    assert len(expected) == len(stages)
    for stage, value in zip(stages, expected, strict=True):
        student.eval()
        task = str(stage.cfg.task)
        module = DistillationModule(student, teacher, build_objective(stage.cfg), task=task)
        assert_close(module.losses(batch)["loss"].double(), value, atol=1e-5, rtol=1e-5)


def test_a_patient_teacher_is_asked_at_temperature_one_and_sees_the_same_mix():
    cfg = composed("patient_consistent")
    assert [*cfg.criteria] == ["soft_target"] and cfg.data.mixup == 1.0
    assert cfg.criteria.soft_target.criterion.temperature == 1.0
    assert cfg.criteria.soft_target.weight == 1.0 and "labels" not in str(cfg.criteria)
    student, teacher = bert(2, 16, seed=1), bert(4, 16, seed=2)
    (batch,) = text_batches(1)
    expected = kl(seen(student, batch)["logits"], seen(teacher, batch)["logits"]).mean()
    found = loss_of(cfg, student, teacher, batch, "classification")
    assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_minitron_learns_the_next_token_of_the_teacher_and_no_label():
    student, teacher = causal.model("llama", seed=1), causal.model("llama", layers=2, seed=2)
    batch = causal.batch()
    # As `data=standard_library` gives them: what follows each token.
    batch["labels"] = nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    found = loss_of(composed("minitron"), student, teacher, batch, "language_modelling")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = [model.double()(**inputs).logits[:, :-1] for model in (student, teacher)]
    expected = mean(kl(*logits), batch["attention_mask"][:, 1:].double())
    assert_close(found, expected, atol=1e-5, rtol=1e-5)


def loss_of(cfg, student, teacher, batch, task):
    """What a recipe of one stage makes of a batch."""
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.task = task
    student.eval()
    module = DistillationModule(student.float(), teacher.float(), build_objective(cfg), task=task)
    return module.losses(batch)["loss"].double()


SMALL = [
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "trainer.max_steps=2",
    "callbacks=[last_checkpoint,finite_loss]",
    "teacher.max_epochs=1",
    "+trainer.limit_val_batches=1",
    "+trainer.limit_test_batches=1",
]
BERT = ["hidden_size=16", "intermediate_size=16", "num_attention_heads=2"]


def of_files(folder, recipe):
    """Data of one's own in the place of the recipe's, which take longer to make."""
    texts = [f"a {('good', 'bad')[i % 2]} film {i}" for i in range(24)]
    if recipe == "patient_consistent":
        # Digits are pictures at once.
        pytest.importorskip("sklearn", reason="pip install 'lightning-distill[digits]'")
        return []
    if recipe in ("mobilebert", "distilbert", "minitron"):
        (folder / "rows.txt").write_text("\n".join(texts * 4))
        lines = ["data=masked_corpus", "data.document=line"]
        more = {
            "mobilebert": [*lines, "teacher.model.num_attention_heads=4"],
            "distilbert": lines,
            "minitron": ["data=text_corpus", "teacher.model.num_key_value_heads=2",
                         "student.parameters=80%"],
        }[recipe]  # fmt: skip
        more = [*more, "data.vocab_size=300", "data.max_length=16"]
        return [*more, *(f"data.{s}=rows.txt" for s in ("train", "validation", "test"))]
    lines = ["text\tlabel", *(f"{text}\t{i % 2}" for i, text in enumerate(texts))]
    (folder / "rows.tsv").write_text("\n".join(lines) + "\n")
    return ["data=text_files", *(f"data.{s}=rows.tsv" for s in ("train", "validation", "test"))]


def as_typed(value):
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{as_typed(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_typed, value)) + "]"
    return f"'{value}'" if isinstance(value, str) else str(value).lower()


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    ["pkd", "tinybert", "minilm", "minilmv2", "flash", "theseus", "mobilebert", "distilbert",
     "minitron", "patient_consistent"],
)  # fmt: skip
def test_one_word_runs_a_recipe(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    cfg = composed(recipe)
    words = [*SMALL, *(f"teacher.model.{size}" for size in BERT)]
    if "num_hidden_layers" in cfg.student and recipe != "mobilebert":
        words += [f"student.{size}" for size in BERT]
    if recipe in SMALLER:
        words.append("{}={}".format(*SMALLER[recipe]))
    words += of_files(tmp_path, recipe)
    if cfg.get("stages"):
        stages = OmegaConf.to_container(cfg.stages, resolve=False)
        for stage in stages:
            stage["trainer"] = {"max_steps": 2}
        words.append(f"stages={as_typed(stages)}")
    run = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["x", f"experiment={recipe}", *words, f"hydra.run.dir={run}"])
    main()
    report = json.loads((run / "report.json").read_text())
    assert report["baseline"]["name"] == "student alone" and report["teacher"] is not None
    stages = len(cfg.get("stages") or [0]) + (1 if recipe == "flash" else 0)
    stages += 2 if recipe == "mobilebert" else 0
    assert len([*run.glob("stages/*/result.json")]) == stages - 1
    steps = json.loads((run / "baseline" / "result.json").read_text())["steps"]
    assert steps == 2 * stages
    with (run / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    assert len(losses) == 2


OWN_DATA = ["data=text_files", "data.train=a.tsv", "data.validation=a.tsv", "data.test=a.tsv"]


@pytest.mark.parametrize(
    ("recipe", "words", "left_out", "kept"),
    [
        ("pkd", ["teacher=pretrained", "teacher.path=x"], "teacher.model", "student.keep"),
        ("tinybert", ["student=from_teacher"], "student.hidden_size", "student.layers"),
        ("mobilebert", ["data=masked_corpus"], "data.megabytes", "data.max_length"),
        ("distilbert", OWN_DATA, "data.megabytes", "data.vocab_size"),
        # Chosen once more, it is the recipe's own.
        ("mobilebert", ["student=from_config"], None, "student.intra_bottleneck_size"),
        ("tinybert", ["student=from_teacher", "+student.a=3"], "student.hidden_size", "student.a"),
    ],
)  # fmt: skip
def test_what_a_recipe_sets_of_its_models_is_left_out_where_others_are_chosen(
    recipe, words, left_out, kept, tmp_path, monkeypatch
):
    cfg = given([f"experiment={recipe}", *words], tmp_path, monkeypatch)
    assert left_out is None or OmegaConf.select(cfg, left_out) is None
    assert OmegaConf.select(cfg, kept) is not None


EXPERIMENTS = sorted(
    path.name.removesuffix(".yaml")
    for path in (files("lightning_distill.conf") / "experiment").iterdir()
    if path.name.endswith(".yaml")
)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_experiment_leaves_settings_behind_where_others_are_chosen(name, tmp_path, monkeypatch):
    others = {"teacher": "pretrained", "student": "from_teacher", "data": "token_files"}
    others |= {"optimizer": "adamw", "scheduler": "constant", "module": "distillation"}
    others |= {"sparsity": "kept", "balance": "pcgrad"}
    lists = {"criteria": "hard_label", "metrics": "accuracy", "callbacks": "finite_loss"}
    words = [f"{group}={choice}" for group, choice in others.items()]
    words += [f"{group}=[{choice}]" for group, choice in lists.items()]
    cfg = given([f"experiment={name}", "teacher.path=x", *words], tmp_path, monkeypatch)
    for group, choice in others.items():
        assert set(cfg[group]) <= settings_of(group, choice), group
    for group, choice in lists.items():
        # A recipe may have terms of its own beside those that are chosen.
        assert choice in cfg[group] and all("_target_" in one for one in cfg[group].values())


@pytest.mark.parametrize("name", ["prune_distil_quantise", "token_classification", "cifar10"])
def test_no_experiment_leaves_settings_behind_of_what_is_left_out(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_DISTILL_DATA", "data")
    words = ["~sparsity", "~teacher", "~scheduler"]
    cfg = given([f"experiment={name}", *words], tmp_path, monkeypatch)
    assert [cfg.get(word[1:]) for word in words] == [None] * 3


def given(words, folder, monkeypatch):
    """The configuration of a command once what belongs to other choices is left out."""
    seen = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr("lightning_distill.jobs.run", lambda cfg: seen.append(cfg.copy()))
    monkeypatch.setattr("lightning_distill.main.check_before_loading", drop_settings_of_others)
    monkeypatch.setattr(sys, "argv", ["x", *words, "hydra.run.dir=run"])
    main()
    return seen[0]


def test_what_is_typed_of_a_metric_that_is_not_chosen_is_refused(tmp_path, monkeypatch, capsys):
    words = ["experiment=seq2seq", "metrics=[perplexity]", "metrics.rouge.rows=5"]
    with pytest.raises(SystemExit):
        given(words, tmp_path, monkeypatch)
    said = "metrics.rouge is set, but rouge is not among the metrics: choose it, as in "
    assert f"{said}metrics=[perplexity,rouge], or leave that out." in capsys.readouterr().err


def test_a_metric_of_one_s_own_is_not_left_out_for_it_lacks_its_class(tmp_path, monkeypatch):
    cfg = given(["experiment=seq2seq", "+metrics.mine.rows=5"], tmp_path, monkeypatch)
    assert cfg.metrics.mine == {"rows": 5}


def test_every_recipe_names_its_paper():
    folder = files("lightning_distill.conf") / "experiment"
    names = [r.__name__ for r in (*OF_ROWS, distilbert, mobilebert)] + [
        "patient_consistent",
        "minitron",
        "quantised",
    ]
    for name in names:
        text = (folder / f"{name}.yaml").read_text()
        assert "https://arxiv.org/abs/" in text or name == "flash", name
