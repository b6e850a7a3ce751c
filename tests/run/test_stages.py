"""What a list of stages means, and what is refused before anything is loaded."""

from functools import cache

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf, open_dict
from tiny import bert
from torch import nn
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy

import lightning_distill.main  # noqa: F401  registers the resolvers
from lightning_distill.models.fake_quantization import fake_layers
from lightning_distill.run.sparsity import build_sparsity, facts_of_zeros
from lightning_distill.run.stage_monitor import settle_stages
from lightning_distill.run.stage_settings import check_stages
from lightning_distill.run.stages import sparsity_of, Stage, stages_of
from lightning_distill.students import lora, quantized

TERMS = "criteria=[hint,hard_label,soft_target]"
LAYERS = [
    "criteria.hint.inputs.student='student.hidden_states[1:]'",
    "criteria.hint.inputs.teacher='teacher.hidden_states[1:]'",
]


@cache
def composed():
    words = [TERMS, *LAYERS, "trainer.max_epochs=5", "optimizer.lr=0.1", "output_dir=x"]
    with initialize_config_module("lightning_distill.conf", version_base="1.3"):
        return compose("main", words)


def run_of(stages):
    cfg = composed().copy()
    with open_dict(cfg):
        cfg.task, cfg.monitor, cfg.mode = "classification", "val/accuracy", "max"
        cfg.stages = stages
    return cfg


def sparse(amount, *layers, **more):
    target = "lightning_distill.sparsity.MagnitudeSparsity"
    return {"_target_": target, "amount": amount, "layers": list(layers) or None, **more}


def test_without_a_list_the_run_is_the_only_stage(tmp_path):
    cfg = run_of(None)
    (stage,) = stages_of(cfg, bert(2, 8))
    assert stage == Stage(cfg) and stage.folder(tmp_path) == tmp_path


def test_a_stage_has_what_it_says_and_otherwise_what_the_run_has(tmp_path):
    first, second = stages_of(
        run_of(
            [
                {"name": "layers", "criteria": ["hint"], "optimizer": {"lr": 0.2}},
                {"criteria": {"soft_target": {"weight": 0.3}, "hard_label": None}},
            ]
        ),
        bert(2, 8),
    )
    assert [*first.cfg.criteria] == ["hint"] and first.cfg.optimizer.lr == 0.2
    assert [*second.cfg.criteria] == ["soft_target", "hard_label"]
    assert second.cfg.criteria.soft_target.weight == 0.3 and second.cfg.optimizer.lr == 0.1
    assert first.cfg.trainer.max_epochs == second.cfg.trainer.max_epochs == 5
    assert (first.name, second.name) == ("layers", "stage2")
    # The last one is where the result of every run is.
    assert first.folder(tmp_path) == tmp_path / "stages" / "layers"
    assert second.folder(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, (5, -1)),
        ({"max_steps": 7}, (-1, 7)),
        ({"max_epochs": 2}, (2, -1)),
        ({"max_epochs": 2, "max_steps": 7}, (2, 7)),
        ({"precision": "bf16-mixed"}, (5, -1)),
    ],
)
def test_steps_of_a_stage_are_not_ended_by_the_epochs_of_the_run(own, expected):
    (stage,) = stages_of(run_of([{"trainer": own}]), bert(2, 8))
    found = stage.cfg.trainer.max_epochs, stage.cfg.trainer.get("max_steps", -1)
    assert found == expected


def test_another_optimizer_takes_no_arguments_of_the_run_s():
    sgd = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5}
    (stage,) = stages_of(run_of([{"optimizer": sgd}]), bert(2, 8))
    assert OmegaConf.to_container(stage.cfg.optimizer) == sgd


def test_a_stage_that_learns_of_layers_alone_is_chosen_by_its_loss():
    layers, both, own = stages_of(
        run_of(
            [
                {"criteria": ["hint"]},
                {"criteria": ["hint", "soft_target"]},
                {"criteria": ["hint"], "monitor": "val/accuracy", "mode": "max"},
            ]
        ),
        bert(2, 8),
    )
    assert (layers.cfg.monitor, layers.cfg.mode) == ("val/loss", "min")
    assert (both.cfg.monitor, both.cfg.mode) == ("val/accuracy", "max")
    assert (own.cfg.monitor, own.cfg.mode) == ("val/accuracy", "max")


METRICS = {"accuracy": MulticlassAccuracy(2), "error": MeanSquaredError()}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"criteria": ["hint"], "monitor": "val/loss"}, ("val/loss", "min")),
        ({"monitor": "val/hint"}, ("val/hint", "min")),
        ({"monitor": "val/error"}, ("val/error", "min")),
        ({"monitor": "val/accuracy"}, ("val/accuracy", "max")),
        ({"monitor": None}, ("val/accuracy", "max")),
        ({"monitor": "val/error", "mode": "max"}, ("val/error", "max")),
        ({"mode": "min"}, ("val/accuracy", "min")),
    ],
)
def test_what_is_best_of_a_monitor_of_a_stage_is_no_setting_of_the_run(entry, expected):
    cfg = run_of([{}, entry])
    settle_stages(cfg, METRICS)
    first, stage = stages_of(cfg, bert(2, 8))
    assert (stage.cfg.monitor, stage.cfg.mode) == expected
    stopping = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "mode": "${mode}"}
    stage.cfg.callbacks.early_stopping = stopping
    assert stage.cfg.callbacks.best_checkpoint.mode == expected[1]
    assert stage.cfg.callbacks.early_stopping.mode == expected[1]
    assert (first.cfg.monitor, first.cfg.mode) == ("val/accuracy", "max")


def test_what_is_best_is_that_of_the_run_where_a_stage_names_the_same_monitor():
    cfg = run_of([{"monitor": "val/accuracy"}])
    cfg.mode = "min"
    settle_stages(cfg, METRICS)
    assert stages_of(cfg, bert(2, 8))[0].cfg.mode == "min"


@pytest.mark.parametrize(
    ("monitor", "entry", "words"),
    [
        (
            "val/accuracy",
            {"name": "b", "monitor": "val/f1"},
            "In stage 'b': `monitor` must be one of val/accuracy, val/error, val/loss, .*'val/f1'",
        ),
        (
            "val/accuracy",
            {"criteria": ["hard_label"], "monitor": "val/hint"},
            "In stage 'stage2': `monitor` must be .*'val/hint'.$",
        ),
        (
            "val/hint",
            {"criteria": ["hard_label"]},
            "In stage 'stage2': .*'val/hint'. Give the stage one of its own",
        ),
        ("val/accuracy", {"mode": "up"}, "In stage 'stage2': `mode` must be min or max, got 'up'"),
        (
            "val/accuracy",
            {"criteria": ["hint"], "mode": "max"},
            "`mode` is 'max' and there is no `monitor`. .*monitor:val/accuracy,mode:max",
        ),
    ],
)
def test_a_stage_that_does_not_measure_what_it_goes_by_is_refused(monitor, entry, words):
    cfg = run_of([{"criteria": ["hint"]}, entry])
    cfg.monitor = monitor
    with pytest.raises(ValueError, match=words):
        settle_stages(cfg, METRICS)


AVERAGE = {"weight_average": {"decay": 0.9}}
PLATEAU = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "_partial_": True}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"callbacks": {"early_stopping": {"monitor": "val/f1"}}},
            "callbacks.early_stopping.monitor must be one of val/accuracy, .*got 'val/f1'",
        ),
        (
            {"callbacks": {"early_stopping": {"monitor": "val_loss"}}},
            "callbacks.early_stopping.monitor must be one of .*got 'val_loss'",
        ),
        (
            {"criteria": ["hard_label"], "scheduler": {**PLATEAU, "monitor": "val/hint"}},
            "scheduler.monitor must be one of .*got 'val/hint'",
        ),
        ({"sparsity": sparse(0.5), "callbacks": AVERAGE}, "weight_average do not go together"),
        ({"callbacks": {"early_stopping": {"patienc": 1}}}, "unexpected keyword argument 'patien"),
    ],
)
def test_what_callbacks_of_a_stage_wait_for_in_vain_is_refused(entry, words):
    with pytest.raises(ValueError, match=f"In stage 'b': .*{words}"):
        settle_stages(run_of([{}, {"name": "b", **entry}]), METRICS)


@pytest.mark.parametrize(
    "entry",
    [
        {"callbacks": {"early_stopping": {"monitor": "val/hint"}}},
        {"callbacks": {"early_stopping": {"monitor": "train/loss"}}},
        {"callbacks": {"early_stopping": {"monitor": "val/f1", "strict": False}}},
        {"callbacks": {"early_stopping": {"monitor": "val/f1"}}, "module": {"_target_": "my.Own"}},
        {"scheduler": {**PLATEAU, "monitor": "val/loss"}},
        {"callbacks": AVERAGE},
    ],
)
def test_what_callbacks_of_a_stage_wait_for_is_there(entry):
    cfg = run_of([entry])
    settle_stages(cfg, METRICS)


def test_the_run_is_asked_as_its_stages_are():
    cfg = run_of(None)
    cfg.scheduler = {**PLATEAU, "monitor": "val/nothing"}
    with pytest.raises(ValueError, match="^scheduler.monitor must be one of .*got 'val/nothing'"):
        settle_stages(cfg, METRICS)


def test_a_stage_has_a_callback_that_the_run_has_not_with_its_usual_settings():
    cfg = run_of([{"callbacks": {"early_stopping": {"patience": 1}}}, {}])
    settle_stages(cfg, METRICS)
    first, second = stages_of(cfg, bert(2, 8))
    made = first.cfg.callbacks.early_stopping
    assert made._target_.endswith("EarlyStopping") and made.patience == 1
    assert (made.monitor, made.mode) == ("val/accuracy", "max")
    assert "early_stopping" not in second.cfg.callbacks


def test_blocks_are_a_stage_each_with_its_own_pair_of_layers():
    stages = stages_of(
        run_of(
            [
                {"name": "block", "blocks": "bert.encoder.layer.*", "criteria": ["hint"]},
                {"name": "all"},
            ]
        ),
        bert(3, 8),
    )
    assert [stage.name for stage in stages] == ["block_0", "block_1", "block_2", "all"]
    assert [stage.number for stage in stages] == [1, 2, 3, 4] and stages[0].of == 4
    assert [s.cfg.criteria.hint.get("pair") for s in stages] == [0, 1, 2, None]
    student = bert(3, 8)
    with stages[1].trains(student):
        trained = {n for n, p in student.named_parameters() if p.requires_grad}
    own = {n for n, _ in student.named_parameters() if n.startswith("bert.encoder.layer.1.")}
    assert trained == own


def test_what_a_stage_trains_is_trainable_again_afterwards_but_for_what_was_frozen():
    student = bert(2, 8)
    student.bert.embeddings.requires_grad_(False)
    before = {n: p.requires_grad for n, p in student.named_parameters()}
    with Stage(OmegaConf.create(), trainable=("*.layer.0.*", "*embeddings*")).trains(student):
        trained = {n for n, p in student.named_parameters() if p.requires_grad}
    assert trained == {n for n in before if ".layer.0." in n}
    assert {n: p.requires_grad for n, p in student.named_parameters()} == before


def names(student, *trainable):
    with Stage(OmegaConf.create(), "a", trainable=trainable).trains(student):
        return {name for name, p in student.named_parameters() if p.requires_grad}


def test_patterns_name_parameters_as_they_are_called_without_a_wrapper():
    plain = bert(2, 8)
    expected = names(plain, "bert.encoder.layer.1.*")
    assert {f"module.{n}" for n in expected} == names(
        nn.DataParallel(plain), "bert.encoder.layer.1.*"
    )
    compiled = torch.compile(plain)
    assert {f"_orig_mod.{n}" for n in expected} == names(compiled, "bert.encoder.layer.1.*")


def test_patterns_name_adapters_and_heads_of_a_student_with_adapters():
    pytest.importorskip("peft", reason="pip install 'lightning-distill[lora]'")
    student = lora(bert(2, 8), rank=2)
    begin = "base_model.model."
    found = names(student, "bert.encoder.layer.1.*")
    assert found and all(n.startswith(f"{begin}bert.encoder.layer.1.") for n in found)
    assert all(".lora_" in n for n in found)
    head = names(student, "classifier.*")
    assert head == {f"{begin}classifier.modules_to_save.default.{n}" for n in ("weight", "bias")}
    with pytest.raises(ValueError, match="student.freeze, or weights beside adapters"):
        names(student, "bert.embeddings.*")
    stages = stages_of(
        run_of([{"name": "b", "blocks": "*.encoder.layer.*", "criteria": ["hint"]}, {}]), student
    )
    with stages[1].trains(student):
        trained = {n for n, p in student.named_parameters() if p.requires_grad}
    assert trained == found


def test_a_parameter_of_several_parts_has_the_name_of_each():
    shared = nn.ModuleDict({"embeddings": nn.Linear(2, 2, bias=False), "head": nn.Linear(2, 2)})
    shared["head"].weight = shared["embeddings"].weight
    assert names(shared, "head.*") == {"embeddings.weight", "head.bias"}


def test_a_stage_that_trains_nothing_is_refused():
    student = bert(1, 8)
    student.bert.embeddings.requires_grad_(False)
    for pattern, words in (
        ("bert.embedings.*", "no parameter of the student has such a name. Nearest: bert.embed"),
        ("bert.embeddings.*", "stage 'a' trains nothing: all of bert.embeddings.* is frozen"),
    ):
        stage = Stage(OmegaConf.create(), "a", trainable=(pattern,))
        with pytest.raises(ValueError, match=words.replace("*", r"\*")), stage.trains(student):
            pass


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (3, r"must be a list, as in stages=\[\{criteria"),
        ([], "must be a list"),
        (["hint"], r"stages\[0\] must be settings by name, .*got 'hint'"),
        ([{"criterias": ["hint"]}], r"stages\[0\] has a 'criterias'; it can.*mean criteria\?"),
        ([{"criteria": ["hnt"]}], r"names 'hnt', and the run has hint, .*criteria=\[hint,.*,hnt\]"),
        ([{"criteria": []}], "criteria is empty; the run has hint, hard_label, soft_target"),
        ([{"name": "a b"}], "must be letters, digits"),
        ([{"name": "a"}, {"name": "a"}], r"stages\[1\].name .*none of a, previous, student"),
        ([{"name": "student"}], "none of previous, student"),
        ([{"name": "a"}, {"start": "b"}], r"name of a stage before it \(a\), got 'b'"),
        ([{"trainable": []}], "trainable must be a name or a list of names"),
        ([{"blocks": 3}], "blocks must be a name or a list of names"),
        ([{"blocks": "a", "trainable": "b"}], "leave out `trainable`"),
        ([{"optimizer": {"lrr": 1}}], "optimizer.lrr is no argument"),
        ([{"quantization": False}, {}], "is false, and the student is not quantised in any stage"),
        ([{"quantization": "int8"}], r"stages\[0\].quantization must be true or false, got 'int8'"),
        ([{"trainer": {"max_epoch": 1}}], "In stage 'stage1': trainer.max_epoch is no.*max_epochs"),
        ([{}, {"optimizer": "sgd"}], r"stages\[1\].optimizer must be settings by name, .*'sgd'"),
        ([{"optimizer": "sgd"}], r"optimizer:\{_target_:torch.optim.SGD,_partial_:true,lr:0.05,"),
        ([{"optimizer": None}], "optimizer must be settings by name, .*_target_:module.Class"),
        ([{"scheduler": "constant"}], "is scheduler:{_target_:torch.optim.lr_scheduler.Const"),
        ([{"sparsity": "magnitude"}], "sparsity must be settings .*sparsity.MagnitudeSparsity,am"),
        ([{"balance": "own"}], "balance must be settings by name, .*For another class write bala"),
        ([{"sparsity": {"amount": 0.5}}], "In stage 'stage1': sparsity must say by `_target_`"),
        ([{"callbacks": {"mine": {"a": 1}}}], "callbacks.mine must say by .*got {'a': 1}"),
        ([{"callbacks": {"mine": 3}}], "callbacks.mine must say by `_target_` what is made, got 3"),
        ([{"module": {"_partial_": False}}], "`module` .* must be a function of .* add _partial_"),
        ([{"name": "b", "sparsity": sparse(2)}], "In stage 'b': `sparsity.amount` is .*got 2"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_is_refused_before_anything_is_loaded(stages, words):
    with pytest.raises(ValueError, match=words):
        check_stages(run_of(stages))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("bert.encoder.layr.*", "hint"), "no such parts. Nearest: bert.enc"),
        (("bert.encoder.layer.*", "soft_target"), "every block would learn"),
    ],
)
def test_blocks_that_cannot_be_are_refused(given, words):
    blocks, term = given
    with pytest.raises(ValueError, match=words):
        stages_of(run_of([{"blocks": blocks, "criteria": [term]}]), bert(2, 8))


@pytest.mark.parametrize(
    ("quantization", "stages", "words"),
    [
        (
            "int8",
            [{}, {"quantization": False}],
            r"stages\[1\].quantization is false in the last st",
        ),
        (
            {"scheme": "int4", "train": "scales"},
            [{"quantization": False}, {}],
            "only scales are trained, which it does without then",
        ),
    ],
)
def test_a_stage_without_rounding_needs_one_with_it(quantization, stages, words):
    cfg = run_of(stages)
    cfg.student.quantization = quantization
    with pytest.raises(ValueError, match=words):
        check_stages(cfg)


def test_a_stage_says_whether_weights_are_rounded_in_it():
    pytest.importorskip("torchao", reason="pip install 'lightning-distill[quantization]'")
    cfg = run_of(
        [{"quantization": False, "blocks": "bert.encoder.layer.*", "criteria": ["hint"]}, {}]
    )
    cfg.student.quantization = "int4"
    student = quantized(bert(2, 8), "int4")
    found = []
    for stage in stages_of(cfg, student):
        with stage.trains(student):
            layers = fake_layers(student).values()
            found.append({layer.weight_fake_quantizer.enabled for layer in layers})
    assert found == [{False}, {False}, {True}]


def layers_of(stage, student):
    return [set(one.check(student).weights) for one in build_sparsity(stage.cfg)]


def test_a_stage_keeps_the_zeros_of_all_that_it_goes_on_from():
    student = bert(2, 8)
    queries, dense = ({f"bert.encoder.layer.{i}.{n}" for i in (0, 1)} for n in (
        "attention.self.query", "intermediate.dense",
    ))  # fmt: skip
    a, b, c, d, e = stages_of(
        run_of(
            [
                {"name": "a", "sparsity": sparse(0.8, "*.intermediate.dense")},
                {"name": "b", "sparsity": sparse(0.5, "*.query")},
                {"name": "c", "sparsity": None},
                {"name": "d", "sparsity": sparse(0.5, "*.query"), "start": "a"},
                {"name": "e", "sparsity": None, "start": "student"},
            ]
        ),
        student,
    )
    assert layers_of(a, student) == [dense]
    assert layers_of(b, student) == layers_of(d, student) == [queries, dense]
    assert layers_of(c, student) == [queries | dense]
    assert layers_of(e, student) == [] and facts_of_zeros(e.cfg, student) == {}
    for layer in student.bert.encoder.layer:
        layer.intermediate.dense.weight.data.zero_()
    # All of them count in what the report says.
    for stage in (b, c):
        said = facts_of_zeros(stage.cfg, student)["weights that are 0"]
        assert said.endswith(" weights in 4 layers") and not said.startswith("0.0%")


@pytest.mark.parametrize(
    ("stages", "amount"),
    [
        (None, None),
        ([{}, {}], None),
        ([{"sparsity": sparse(0.8)}, {"sparsity": None}], 0.8),
        ([{"sparsity": sparse(0.3)}, {"sparsity": sparse(0.6)}, {"sparsity": sparse(0.8)}], 0.8),
        # Zeros of stages that the student does not come from are none of its own.
        ([{"sparsity": sparse(0.8)}, {"sparsity": None, "start": "student"}], None),
        (
            [
                {"name": "a", "sparsity": sparse(0.3)},
                {"sparsity": sparse(0.8)},
                {"sparsity": None, "start": "a"},
            ],
            0.3,
        ),
    ],
)
def test_the_student_alone_becomes_as_sparse_as_the_last_stage_says(stages, amount):
    found = sparsity_of(stages_of(run_of(stages), bert(2, 8)))
    assert (found and found.amount) == amount


def test_the_student_alone_of_a_run_without_stages_becomes_sparse_as_that():
    cfg = run_of(None)
    with open_dict(cfg):
        cfg.sparsity = sparse(0.7)
    assert sparsity_of(stages_of(cfg, bert(2, 8))).amount == 0.7


def test_a_stage_that_trains_other_parts_has_no_zeros_to_keep():
    student = bert(1, 8)
    stages = stages_of(
        run_of([{"sparsity": sparse(0.8)}, {"sparsity": None, "trainable": ["classifier.*"]}]),
        student,
    )
    with stages[1].trains(student):
        assert layers_of(stages[1], student) == [set()]
    assert facts_of_zeros(stages[1].cfg, student)["weights that are 0"].endswith("in 6 layers")


def test_layers_that_shall_become_sparse_and_are_not_there_are_told_with_the_stage():
    with pytest.raises(ValueError, match="In stage 'stage2': `sparsity.layers` names 'deco"):
        stages_of(run_of([{}, {"sparsity": sparse(0.8, "decoder*")}]), bert(1, 8))
