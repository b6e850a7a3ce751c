"""What a configuration may name by `_target_`: nothing here may leave a mark."""

import functools
import importlib.util
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_distill.run import targets
from lightning_distill.run.targets import (
    check_targets,
    find_job,
    find_target,
    instantiate,
    trusting,
)

MARK = "import pathlib\npathlib.Path('mark').write_text('run')\n\n\ndef f(*_, **__):\n    pass\n"
REFUSED = [
    # What Hydra does not refuse.
    "builtins.open",
    "pathlib.Path.write_text",
    "urllib.request.urlopen",
    "torch.hub.download_url_to_file",
    "torch.ops.load_library",
    "torch.load",
    "torch.package.PackageImporter",
    "transformers.AutoModel.from_pretrained",
    # Processes, expressions, imports.
    "os.system",
    "posix.system",
    "logging.os.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "builtins.__import__",
    "importlib.import_module",
    "runpy.run_path",
    "code.InteractiveInterpreter",
    "timeit.timeit",
    "multiprocessing.Process",
    "ctypes.CDLL",
    "webbrowser.open",
    "functools.partial",
    "hydra.utils.instantiate",
    "hydra.utils.get_method",
    "omegaconf.OmegaConf.load",
    # Pickles and files.
    "pickle.loads",
    "numpy.load",
    "joblib.load",
    "pandas.read_pickle",
    "shutil.copy",
    "shutil.rmtree",
    "os.remove",
    "yaml.unsafe_load",
    # Through packages that may be named.
    "torch.nn.functional.torch.load",
    "torch.nn.modules.module.torch.serialization.load",
    "torch.optim.optimizer.functools.partial",
    "torch.nn.parallel.data_parallel",
    "torch.nn.utils.clip_grad_norm_",
    "torch.jit.load",
    "torch.serialization.load",
    "torchmetrics.functional.accuracy",
    "torchmetrics.utilities.imports.sys.exit",
    "lightning.pytorch.cli.LightningCLI",
    "lightning.pytorch.Trainer.fit",
    "lightning.pytorch.LightningModule.load_from_checkpoint",
    "lightning.pytorch.callbacks.model_checkpoint.os.system",
    "lightning.fabric.utilities.cloud_io._load",
    "transformers.pipeline",
    "transformers.Trainer",
    "transformers.BertModel.from_pretrained",
    "transformers.AutoTokenizer.from_pretrained",
    "transformers.BertTokenizer.from_pretrained",
    "transformers.dynamic_module_utils.get_class_from_dynamic_module",
    "transformers.utils.cached_file",
    "peft.PeftConfig.from_pretrained",
    "peft.PeftModel.from_pretrained",
    "datasets.load_dataset",
    "huggingface_hub.snapshot_download",
    "safetensors.torch.save_file",
    # Of our own package.
    "lightning_distill.jobs.export",
    "lightning_distill.jobs.run",
    "lightning_distill.jobs.OmegaConf.load",
    "lightning_distill.run.save.save_student",
    "lightning_distill.run.save.Path.write_text",
    "lightning_distill.run.targets.trusting",
    "lightning_distill.run.targets.importlib.import_module",
    "lightning_distill.models.remote_code.trusting_remote_code",
    "lightning_distill.sealed.write_whole",
    "lightning_distill.data.load_tokenizer.load_tokenizer",
    "lightning_distill.main.main",
    "lightning_distill.criteria.Criterion.load_state_dict",
    "lightning_distill.distill",
    "lightning_distill.criteria.SoftTarget.__init__",
]
OFFERED = [
    "lightning_distill.Term",
    "lightning_distill.data.text.token_masking.TokenMasking",
    "lightning_distill.schedules.Linear",
    "lightning_distill.students.from_teacher",
    "lightning_distill.run.trained_teacher",
    "torch.nn.HuberLoss",
    "torch.optim.AdamW",
    "torch.optim.lr_scheduler.ReduceLROnPlateau",
    "torch.optim.lr_scheduler.OneCycleLR",
    "torchmetrics.classification.MulticlassAccuracy",
    "torchmetrics.MetricCollection",
    "lightning.Trainer",
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.loggers.WandbLogger",
    "lightning.pytorch.loggers.MLFlowLogger",
    "lightning.pytorch.strategies.DDPStrategy",
    "lightning.pytorch.profilers.SimpleProfiler",
    "transformers.BertForSequenceClassification",
    "transformers.BertConfig",
    "transformers.PreTrainedTokenizerFast",
    "transformers.get_linear_schedule_with_warmup",
    "peft.LoraConfig",
]


@pytest.fixture(autouse=True)
def typed(tmp_path, monkeypatch):
    """A folder of a user's own, where nothing was added."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(targets, "_trust", targets.Trust())
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) is None or str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


@pytest.mark.parametrize("target", REFUSED)
def test_what_a_run_is_not_made_of_is_refused(target):
    with pytest.raises(ValueError, match=r"may not be named|must be a name") as error:
        check_targets({"callbacks": {"x": [{"_target_": target}]}})
    assert f"callbacks.x.0._target_={target}" in str(error.value) or "__" in target
    with pytest.raises(ValueError, match="no job|may not be named|must be a name"):
        if target == "lightning_distill.jobs.export":
            raise ValueError("no job: but it is one")
        find_job(target)


@pytest.mark.parametrize("target", OFFERED)
def test_what_a_run_is_made_of_can_be_named(target):
    assert callable(find_target(target))
    with pytest.raises(ValueError, match="is no job. Choose one of cache, check, compare, distill"):
        find_job(target)


def test_a_job_is_one_of_ours_or_the_users():
    assert find_job("lightning_distill.jobs.export").__name__ == "export"
    Path("my_jobs.py").write_text("def mine(cfg):\n    return 3\n")
    assert find_job("my_jobs.mine")(None) == 3
    check_targets({"job": {"_target_": "lightning_distill.jobs.cache"}})


@pytest.mark.parametrize(
    "place",
    [
        "{data: {_target_: T}}",
        "{a: [[{b: {_target_: T}}]]}",
        "{job: {_target_: lightning_distill.jobs.distill, more: {_target_: T}}}",
        "{a: {_target_: torch.nn.Linear, _args_: [{_target_: T}], _recursive_: false}}",
        "{a: {_target_: torch.nn.Identity, _partial_: true, x: {_target_: '${b}'}}, b: T}",
        "{a: '${b}', b: {_target_: T}}",
    ],
)
def test_every_place_is_looked_at_before_anything_is_made(place):
    cfg = OmegaConf.create(
        place.replace("T}", "pathlib.Path.touch}").replace("b: T", "b: os.mkdir")
    )
    for look in (check_targets, instantiate):
        with pytest.raises(ValueError, match="may not be named by a configuration"):
            look(cfg)


@pytest.mark.parametrize("target", [7, ["os", "system"], "os", "a..b", "", "a b.c"])
def test_what_is_no_name_is_refused(target):
    with pytest.raises(ValueError, match="must be a name such as module.Class"):
        check_targets({"x": {"_target_": target}})


def test_to_find_out_imports_nothing_else(tmp_path, monkeypatch):
    elsewhere = tmp_path / "installed"
    elsewhere.mkdir()
    (elsewhere / "evil_package.py").write_text(MARK)
    monkeypatch.syspath_prepend(elsewhere)
    with pytest.raises(ValueError, match=r"x\._target_=evil_package\.f may not be named"):
        check_targets({"x": {"_target_": "evil_package.f"}})
    assert "evil_package" not in sys.modules and not Path("mark").exists()
    with trusting(["evil_package"]):
        check_targets({"x": {"_target_": "evil_package.f"}})
    assert Path("mark").exists()


def test_files_in_the_folder_are_the_users_own_and_what_they_import_is_not():
    Path("my_classes.py").write_text(
        "import functools, os, torch\nfrom os import system\nfrom torch import nn\n"
        "from transformers import BertModel\n\n\nclass Mine(BertModel):\n    pass\n\n\n"
        "def make():\n    return 3\n\n\nmaking = functools.partial(make)\n"
    )
    Path("my_folder/inner").mkdir(parents=True)
    Path("my_folder/inner/deep.py").write_text("class Deep:\n    pass\n")
    for name in ("Mine", "make", "making", "nn.Linear"):
        assert find_target(f"my_classes.{name}") is not None
    assert find_target("my_folder.inner.deep.Deep").__name__ == "Deep"
    for name in ("system", "os.system", "torch.load", "Mine.from_pretrained", "functools.partial"):
        with pytest.raises(ValueError, match="may not be named"):
            find_target(f"my_classes.{name}")
    assert isinstance(find_target("my_classes.making"), functools.partial)
    with pytest.raises(ValueError, match=r"my_classes\.Missing cannot be found: .*Missing"):
        find_target("my_classes.Missing")


@pytest.mark.parametrize("run", ["runs/sent", "received/run", "."])
def test_a_file_that_came_with_a_run_is_not_the_users_own(run):
    Path(run).mkdir(parents=True, exist_ok=True)
    top = Path(run).parts[0] if run != "." else None
    files = [Path(run) / "came.py"] + ([Path(top) / "beside.py"] if top else [])
    for file in files:
        file.write_text("class Thing:\n    pass\n")
    Path("own.py").write_text("class Thing:\n    pass\n")
    names = [f"{'.'.join(file.with_suffix('').parts)}.Thing" for file in files]
    for name in names:
        find_target(name)
    with trusting((), Path(run)):
        for name in names:
            with pytest.raises(ValueError, match="may not be named"):
                find_target(name)
        if top:
            find_target("own.Thing")
    for name in names:
        find_target(name)


@pytest.mark.parametrize("name", ["datasets", "statistics", "profile", "tokenizers", "torchao"])
def test_a_file_that_has_a_librarys_name_is_told_so(name):
    # Where it is not installed, such a file is the user's to name.
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    Path(f"{name}.py").write_text(MARK)
    with pytest.raises(ValueError, match=rf"the name '{name}' is taken by .*another name"):
        find_target(f"{name}.f")
    assert not Path("mark").exists()


@pytest.mark.parametrize("added", [[7], ["a b"], [".a"]])
def test_what_is_added_is_a_list_of_names(added):
    with pytest.raises(ValueError, match=r"`allow_targets` must be a list.*\[my_package\]"):
        trusting(added).__enter__()


def test_a_part_of_a_package_can_be_added():
    with trusting("json.decoder"):
        assert find_target("json.decoder.JSONDecoder").__name__ == "JSONDecoder"
        for other in ("json.dumps", "json.encoder.JSONEncoder", "json.decoder.re.compile"):
            with pytest.raises(ValueError, match="may not be named"):
                find_target(other)
    with pytest.raises(ValueError, match="may not be named"):
        find_target("json.decoder.JSONDecoder")
