"""What is wrong is told before a library is imported, data are read or a model is loaded."""

import importlib.util
import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry
from omegaconf import OmegaConf

import lightning_distill.main  # noqa: F401  registers the resolvers
from lightning_distill import data
from lightning_distill.before_loading import (
    ACCELERATORS,
    check_before_loading,
    LEAST,
    OF_FILES,
    PRECISIONS,
    STRATEGIES,
)
from lightning_distill.data import TextFiles

SOFT = "criteria.soft_target.criterion"
# From here, wherever the tests are started: of no file there would be no case.
CRITERIA = Path(__file__).parents[1] / "conf" / "criteria"


def check(*typed):
    with initialize_config_module("lightning_distill.conf", version_base="1.3"):
        cfg = compose("main", ["output_dir=x", *typed])
    before = OmegaConf.to_yaml(cfg)
    try:
        check_before_loading(cfg)
    finally:
        assert OmegaConf.to_yaml(cfg) == before


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").touch()
    (tmp_path / "mine.py").touch()
    (tmp_path / "train.csv").write_text("text,label\na,b\n")


FILES = ["data=text_files", "data.train=train.csv"]
WRONG = {
    "temperature": (
        [f"{SOFT}.temperature=0"],
        f"{SOFT}.temperature must be positive, got 0.",
    ),
    "no such argument": (
        [f"+{SOFT}.temprature=2"],
        "SoftTarget takes no 'temprature'. It takes temp",
    ),
    "smoothing": (
        ["criteria.hard_label.criterion.label_smoothing=2"],
        "`label_smoothing` must be at least 0 and below 1, got 2. (in criteria.hard_label.criteri",
    ),
    "a format": (["job=export", "job.formats=[onx]"], "got 'onx'. Did you mean onnx?"),
    "4 bits of ONNX": (
        ["job=export", "job.formats=[onnx]", "job.quantization=int4"],
        "onnx has int8 only. Leave onnx out of job.formats, or take job.quantization=int8",
    ),
    "dropout": (
        ["student=from_teacher", "student.dropout=0.1"],
        "student.dropout must be true, false or null, got 0.1: false trains without",
    ),
    "a scheme": (["student.quantization=int5"], "or null, got 'int5'. Did you mean int"),
    "names": (["allow_targets=[a b]"], "`allow_targets` must be a list of packages"),
    "a foreign class": (
        ["data._target_=subprocess.run"],
        "data._target_=subprocess.run may not",
    ),
    "a bomb": (
        ["+v0=" + "x" * 99, *(f"+v{i}=" + f"${{v{i - 1}}}" * 9 for i in range(1, 9))],
        "refers to others that refer to others",
    ),
    "no terms": (["criteria=[]"], "`criteria` is empty; choose some"),
    "a run": (["resume=model"], "`resume` must be the directory of a run, which holds config.yaml"),
    "another run": (["job=cache", "job.run=model"], "`job.run` must be the directory of a run"),
    "no model": (["job=evaluate", "job.path=./nowhere"], "no folder ./nowhere (job.path)"),
    "weight": (
        ["criteria.soft_target.weight=-1"],
        "criteria.soft_target.weight must not be negativ",
    ),
    "words": (["criteria.hard_label.weight=much"], "criteria.hard_label.weight must be a number"),
    "precision": (["trainer.precision=half"], "trainer.precision must be one that Lightning knows"),
    "strategy": (["trainer.strategy=dpp"], "got 'dpp'. Nearest: ddp"),
    "accelerator": (["trainer.accelerator=cpuu"], "got 'cpuu'. Nearest: cpu"),
    "devices": (["trainer.devices=two"], "trainer.devices must be a number of devices"),
    "no devices": (
        ["trainer.devices=0"],
        "trainer.devices must be at least 1, or -1 for all, got 0",
    ),
    "nodes": (["trainer.num_nodes=0"], "trainer.num_nodes must be at least 1, got 0"),
    "heads": (["student.num_attention_heads=5"], "student.hidden_size=96 must be a multiple of"),
    "width": (["student.hidden_size=-4"], "student.hidden_size must be at least 1, got -4"),
    "batch": ([*FILES, "data.batch_size=0"], "data.batch_size must be at least 1, got 0"),
    "share": ([*FILES, "data.validation_fraction=2"], "data.validation_fraction must be at most 1"),
    "no file": (["data=text_files", "data.train=trian.csv"], "no file trian.csv (data.train). The"),
    "one of a list": (["data=text_files", "data.train=[train.csv,b.csv]"], "no file b.csv"),
    "no match": (["data=text_corpus", "data.train=texts/*.txt"], "No file matches"),
    "no folder": (
        ["teacher=pretrained", "teacher.path=./modl"],
        "no folder ./modl (teacher.path). N",
    ),
    "near": (
        ["student=pretrained", "student.path=modle"],
        "neither a folder here nor a model in the",
    ),
    "a file": (["teacher=pretrained", "teacher.path=train.csv"], "is a file; name the folder that"),
    "mode": (["mode=up"], "`mode` must be min or max, got 'up'"),
    "drop": (["metric_drop=some"], "`metric_drop` must be relative or absolute"),
    "monitor": (["max_metric_drop=-1"], "max_metric_drop must not be negative"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name):
    typed, words = WRONG[name]
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        check(*typed)
    assert words in str(raised.value)


RIGHT = {
    "default": [],
    "files": FILES,
    "a folder of texts": ["data=text_corpus", "data.train=model"],
    "a split of the hub": ["data=hub", "data.path=x/y", "data.train=train"],
    "devices": ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"],
    "indices": ["trainer.devices=[0,1]"],
    "a strategy by its class": ["trainer.strategy={_target_: lightning.pytorch.strategies.X}"],
    "a schedule": ["criteria.soft_target.weight={_target_: lightning_distill.schedules.X}"],
    "lm": ["experiment=lm", "teacher.path=model", "data.train=train.csv"],
    "the mode of a cache": ["job=cache", "mode=verify"],
    "a run to go on with": ["resume=run", f"{SOFT}.temperature=0"],
    "an own class": ["student._target_=mine.Mine", "++student.hidden_size=x"],
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_may_be_right_passes(name):
    check(*RIGHT[name])


@pytest.mark.parametrize("name", sorted(p.stem for p in CRITERIA.glob("*.yaml")))
def test_every_criterion_passes_as_it_is_packaged(name):
    check(f"criteria=[{name}]")


def test_what_lightning_knows_is_known_here():
    named = {str(n) for kind in typing.get_args(_PRECISION_INPUT) for n in typing.get_args(kind)}
    assert named == {*PRECISIONS}
    assert {*StrategyRegistry.available_strategies()} | {"auto"} == {*STRATEGIES}
    assert {*AcceleratorRegistry.available_accelerators()} | {"auto", "gpu"} == {*ACCELERATORS}


@pytest.mark.parametrize(
    ("typed", "package", "extra"),
    [
        ("logger=[csv,tensorboard]", "tensorboard", "tensorboard"),
        ("logger=[wandb]", "wandb", "wandb"),
        ("logger=[csv,mlflow]", "mlflow", "mlflow"),
        ("logger=[mlflow]", "sqlalchemy", "mlflow"),
        ("student=lora", "peft", "lora"),
        ("student.quantization=int4", "torchao", "quantization"),
        ("teacher=timm teacher.name=resnet18 teacher.pretrained=true", "timm", "vision"),
        (
            "teacher.quantization=int8 teacher=pretrained teacher.path=model",
            "torchao",
            "quantization",
        ),
    ],
)
def test_an_extra_is_named_as_this_packages(typed, package, extra, monkeypatch):
    find = importlib.util.find_spec

    def found(name, *more):
        # Of the packages that are wanted, all but one are there.
        return None if name == package else find("json" if name == "mlflow" else name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    with pytest.raises(
        ValueError, match=rf"{package}.* pip install 'lightning-distill\[{extra}\]'"
    ):
        check(*typed.split())
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert any(n.startswith(package) for n in project["optional-dependencies"][extra])


def test_a_launcher_that_is_not_installed_is_named(tmp_path):
    command = [sys.executable, "-m", "lightning_distill.main", "-m", "seed=1,2"]
    given = "hydra/launcher=submitit_slurm"
    done = subprocess.run([*command, given], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'lightning-distill[slurm]'" in done.stderr


def test_classes_refuse_what_is_refused_before_them():
    for name, least in LEAST.items():
        if name != "packages":
            with pytest.raises(ValueError, match=f"`{name}` must be at least"):
                TextFiles("train.csv", **{name: least - 1})
    of_files = {n for n in data.__all__ if "find_files" in _source(n)}
    # These find theirs by the way of others.
    of_files |= {"MaskedCorpus", "PictureArrays"}
    assert of_files == {*OF_FILES}


def _source(name):
    module = sys.modules[getattr(data, name).__module__]
    return Path(module.__file__).read_text() if isinstance(getattr(data, name), type) else ""


@pytest.mark.parametrize("typed", ["trainer.max_epochs=x", "teacher=pretrained teacher.path=./x"])
def test_no_torch_is_imported_to_find_it_out(typed, tmp_path):
    code = (
        "import atexit, sys, lightning_distill.main as command\n"
        "atexit.register(lambda: print({'torch', 'lightning'} & set(sys.modules)))\n"
        f"sys.argv = ['x', *{typed.split()}]\ncommand.main()\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "set()\n", done.stderr
    assert done.stderr.count("error:") == 1
