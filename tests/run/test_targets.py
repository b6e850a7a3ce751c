"""A configuration names parts of a run, and nothing that reads, writes, loads or starts."""

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_distill.run import targets
from lightning_distill.run.targets import allow, check_targets, find, instantiate

ALLOWED = [
    "lightning_distill.Term",
    "lightning_distill.criteria.SoftTarget",
    "lightning_distill.criteria.soft_target",
    "lightning_distill.schedules.Linear",
    "lightning_distill.students.from_config",
    "lightning_distill.teachers.pretrained",
    "lightning_distill.run.trained_teacher",
    "lightning_distill.jobs.distill",
    "lightning_distill.data.TextFiles",
    "torch.nn.Linear",
    "torch.nn.functional.mse_loss",
    "torch.optim.AdamW",
    "torch.optim.lr_scheduler.OneCycleLR",
    "torch.optim.swa_utils.get_ema_multi_avg_fn",
    "torchmetrics.classification.MulticlassAccuracy",
    "torchmetrics.MetricCollection",
    "lightning.Trainer",
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.loggers.CSVLogger",
    "lightning.pytorch.strategies.DDPStrategy",
    "lightning.pytorch.profilers.SimpleProfiler",
    "transformers.BertForSequenceClassification",
    "transformers.BertConfig",
    "transformers.BertTokenizerFast",
    "transformers.get_linear_schedule_with_warmup",
    "transformers.AutoModelForSequenceClassification.from_config",
]
REFUSED = [
    "os.system",
    "posix.system",
    "subprocess.run",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "builtins.__import__",
    "pathlib.Path.write_text",
    "pathlib.Path",
    "shutil.rmtree",
    "shutil.copy",
    "urllib.request.urlopen",
    "urllib.request.urlretrieve",
    "importlib.import_module",
    "runpy.run_path",
    "pickle.loads",
    "pickle.Unpickler",
    "timeit.timeit",
    "logging.os.system",
    "socket.create_connection",
    "functools.partial",
    "torch.load",
    "torch.save",
    "torch.hub.load",
    "torch.hub.download_url_to_file",
    "torch.ops.load_library",
    "torch.package.PackageImporter",
    "torch.jit.load",
    "torch.distributed.run.main",
    "torch.multiprocessing.spawn",
    "torch.nn.modules.module.os.system",
    "torch.nn.Module.load_state_dict",
    "torch.optim.Optimizer.step",
    "numpy.load",
    "numpy.save",
    "safetensors.torch.save_file",
    "datasets.load_dataset",
    "transformers.pipeline",
    "transformers.AutoModel.from_pretrained",
    "transformers.BertModel.from_pretrained",
    "transformers.AutoTokenizer.from_pretrained",
    "transformers.utils.hub.cached_file",
    "transformers.dynamic_module_utils.get_class_from_dynamic_module",
    "transformers.Trainer",
    "lightning.pytorch.utilities.migration.migrate_checkpoint",
    "lightning.fabric.utilities.cloud_io._load",
    "lightning.LightningModule.load_from_checkpoint",
    "huggingface_hub.snapshot_download",
    "yaml.unsafe_load",
    "hydra.utils.call",
    "hydra.utils.instantiate",
    "omegaconf.OmegaConf.load",
    "lightning_distill.run.save.save_student",
    "lightning_distill.run.stage.train",
    "lightning_distill.run.report.report",
    "lightning_distill.jobs.export.subprocess.run",
    "lightning_distill.main.main",
    "lightning_distill.run.targets.hydra.utils.call",
    "lightning_distill.run.trained_teacher.shutil.rmtree",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder where the command is typed, with a module of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_parts.py").write_text(
        "import os, torch\nfrom os import system\nfrom torch.hub import download_url_to_file\n"
        "class Student(torch.nn.Module):\n    pass\n"
        "def made():\n    return Student()\n"
    )
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "inner.py").write_text("class Thing:\n    pass\n")
    allow([])
    yield tmp_path
    allow([])
    for name in [n for n in sys.modules if n.startswith("own_")]:
        del sys.modules[name]


@pytest.mark.parametrize("target", ALLOWED)
def test_parts_of_a_run_may_be_named(target):
    assert callable(find(target))


@pytest.mark.parametrize("target", REFUSED)
def test_all_else_is_refused_wherever_it_stands(target, folder):
    before = set(sys.modules)
    places = [
        {"data": {"_target_": target}},
        {"callbacks": {"a": {"parts": [{"_target_": target, "_partial_": True}]}}},
        {"name": target, "scheduler": {"_target_": "${name}"}},
        {"job": {"_target_": target}},
    ]
    for place in places:
        with pytest.raises(ValueError, match=r"may not be named|cannot be found|names no class"):
            check_targets(OmegaConf.create(place))
    top = target.partition(".")[0]
    if top not in targets.CLASSES and top != targets.OURS:
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        assert top not in new, "it was imported to find out"
    with pytest.raises(ValueError):
        instantiate(OmegaConf.create({"_target_": target}))
    assert sorted(p.name for p in folder.iterdir() if p.name != "__pycache__") == [
        "own_package",
        "own_parts.py",
    ]


def test_the_users_own_modules_may_be_named_and_not_what_they_import(folder):
    assert find("own_parts.Student").__name__ == "Student"
    assert find("own_parts.made")().__class__ is find("own_parts.Student")
    assert find("own_package.inner.Thing")
    for gadget in ("own_parts.system", "own_parts.os.system", "own_parts.download_url_to_file"):
        with pytest.raises(ValueError, match="may not be named by a configuration"):
            find(gadget)


def test_modules_that_came_with_a_run_are_not_the_users(folder):
    allow([], foreign=folder)
    with pytest.raises(ValueError, match="Student is in the folder of the run that goes on"):
        find("own_parts.Student")
    allow(["own_parts"], foreign=folder)
    assert find("own_parts.Student")


def test_modules_elsewhere_on_the_path_are_added_by_a_key(folder, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    allow([])
    with pytest.raises(ValueError, match=r"add it: allow_targets=\[own_parts\]"):
        find("own_parts.Student")
    assert "own_parts" not in sys.modules
    allow(["own_parts"])
    assert find("own_parts.Student")
    allow(["own_parts.made"])
    with pytest.raises(ValueError, match="may not be named"):
        find("own_parts.Student")


@pytest.mark.parametrize("names", ["timm", ["a b"], [1], [""], {"a": 1}])
def test_what_is_added_are_names(names):
    with pytest.raises(ValueError, match=r"`allow_targets` must be a list of names"):
        allow(names)


def test_only_job_names_a_job():
    check_targets({"job": {"_target_": "lightning_distill.jobs.export"}})
    with pytest.raises(ValueError, match="data._target_: .*only `job` may name one"):
        check_targets({"data": {"_target_": "lightning_distill.jobs.export"}})
    with pytest.raises(ValueError, match="job._target_: .*SoftTarget is no job"):
        check_targets({"job": {"_target_": "lightning_distill.criteria.SoftTarget"}})


def test_a_file_with_the_name_of_a_package_is_named(folder):
    Path("timeit.py").write_text("class Mine: pass")
    with pytest.raises(ValueError, match="has the name of timeit.py in this folder: rename yours"):
        find("timeit.Mine")


def test_a_name_that_is_nowhere_says_where_it_was_looked_for(folder):
    with pytest.raises(ValueError, match=r"there is no my_fil.py in .*, nor a package my_fil"):
        find("my_fil.MyClass")
    with pytest.raises(ValueError, match="own_parts.Studnt cannot be found"):
        find("own_parts.Studnt")


@pytest.mark.parametrize("target", [3, None, ["a"], "", "a b", "os;system", "a.b()", ".a"])
def test_what_is_no_name(target):
    with pytest.raises(ValueError, match=r"name of a class or function|names no class or function"):
        find(target)
