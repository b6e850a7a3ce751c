"""Every YAML can be chosen by name, and its keys are arguments that exist."""

import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

import lightning_distill.main  # noqa: F401  registers the resolvers
from lightning_distill.run.objective import build_objective

CONF = Path(__file__).parent.parent / "conf"
GROUPS = sorted(p.name for p in CONF.iterdir() if p.is_dir() and any(p.glob("*.yaml")))
LISTS = ("criteria", "metrics", "callbacks", "logger")
FILES = [(g, p.stem) for g in GROUPS for p in sorted((CONF / g).glob("*.yaml"))]
FIXED = ["output_dir=out", "optimizer.lr=0.001", "task=classification"]
FIXED += ["num_labels=3", "num_rows=10"]


def config(*overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("main", overrides=[*FIXED, *overrides])


def choose(group: str, name: str):
    return config(f"{group}=[{name}]" if group in LISTS else f"{group}={name}")


def check_targets(node, path=""):
    """Every key beside a `_target_` is an argument of it."""
    if OmegaConf.is_list(node):
        for i, item in enumerate(node):
            if OmegaConf.is_config(item):
                check_targets(item, f"{path}[{i}]")
        return
    if "_target_" in node:
        parameters = inspect.signature(get_object(node._target_)).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            keys = {str(k) for k in node if not str(k).startswith("_")}
            if path.endswith((".student", ".of")):
                # The run takes it out, and rounds the student that is made.
                keys -= {"quantization"}
            assert keys <= set(parameters), f"{path}: {sorted(keys - set(parameters))}"
    for key in node:
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if OmegaConf.is_config(node[key]):
            check_targets(node[key], f"{path}.{key}")


@pytest.mark.parametrize(("group", "name"), FILES)
def test_every_yaml_can_be_chosen_and_names_arguments_that_exist(group, name, monkeypatch):
    monkeypatch.setenv("LIGHTNING_DISTILL_DATA", "data")
    if (group, name) == ("logger", "wandb"):
        pytest.importorskip("wandb")
    check_targets(choose(group, name))


@pytest.mark.parametrize("path", sorted((CONF / "criteria").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_criterion_can_be_built_by_name(path):
    more = []
    if path.stem == "intermediate_layers":
        more = ["criteria.intermediate_layers.layer_mappings=[[a,b]]"]
    cfg = config(f"criteria=[{path.stem}]", *more)
    objective = build_objective(cfg)
    # Those that are several means are terms of their own, and logged as a sum too.
    assert list(objective.sums or objective.terms) == [path.stem]


def test_every_term_may_end_before_the_run_does():
    # It is typed without a +, so that it must be written in each file.
    for path in sorted((CONF / "criteria").glob("*.yaml")):
        (term,) = OmegaConf.load(path).values()
        own = {key for key in term if key == "until"}
        assert own == ({"until"} if term["_target_"] == "lightning_distill.Term" else set()), path
    objective = build_objective(config("criteria.soft_target.until=0.6"))
    for progress, counts in ((0.5, True), (0.7, False)):
        objective.advance(progress)
        assert bool(float(objective.weights()["soft_target"])) is counts


@pytest.mark.parametrize("path", sorted((CONF / "metrics").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_metric_can_be_built_by_name(path):
    more = []
    if path.stem == "entity_f1":
        more = ["metrics.entity_f1.label_names=[O,B-a,I-a]"]
    if path.stem == "top5":
        more = ["num_labels=10"]
    assert instantiate(config(f"metrics=[{path.stem}]", *more).metrics[path.stem]) is not None


@pytest.mark.parametrize("name", ["hard_label", "agreement"])
def test_the_task_decides_what_fits_it(name):
    group = "criteria" if name == "hard_label" else "metrics"
    for task, kind in (("multi_label", "binary_cross_entropy"), ("regression", "mse")):
        node = config(f"{group}=[{name}]", f"task={task}")[group][name]
        assert (node.criterion.kind if group == "criteria" else node.task) in (kind, task)


def test_a_callback_is_switched_off_by_null():
    from lightning_distill.run.trainer import build_trainer

    cfg = config("callbacks.progress_bar=null", "monitor=val/accuracy", "mode=max")
    names = [type(c).__name__ for c in build_trainer(cfg, Path("out")).callbacks]
    assert "ProgressBar" not in names and "FiniteLoss" in names
