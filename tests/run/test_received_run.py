"""A run's folder that someone else made: nothing in it decides whose code is run."""

import builtins
import json
import os

import pytest
import transformers
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import lightning_distill.main  # noqa: F401 - the resolvers of a configuration
from lightning_distill.data.load_tokenizer import load_tokenizer
from lightning_distill.jobs import run
from lightning_distill.models import remote_code
from lightning_distill.models.hugging_face import load
from lightning_distill.run import targets
from lightning_distill.run.directory import open_run
from lightning_distill.run.rows_of_run import first_test_batch
from lightning_distill.students import pretrained
from lightning_distill.teachers import pretrained as teacher


def prepare_run(cfg):
    """The configuration that a job is given."""
    with open_run(cfg) as made:
        return made


MARKING = "import pathlib\npathlib.Path({!r}).touch()\n"


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    """What is typed here holds for one test, and nobody is asked."""
    monkeypatch.setattr(targets, "_trust", targets.Trust())
    monkeypatch.setattr(remote_code, "_trusted", False)
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("a terminal was asked"))


@pytest.fixture
def received(tmp_path, monkeypatch):
    """Makes the folder of a run of which the configuration says more."""
    monkeypatch.chdir(tmp_path)

    def make(**more):
        with initialize_config_module("lightning_distill.conf", version_base="1.3"):
            cfg = compose("main", ["optimizer.lr=0.1"])
        plain = OmegaConf.to_container(cfg) | {"output_dir": "x"}
        folder = tmp_path / "received"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml({**plain, **more}))
        return str(folder)

    return make


HOSTILE = {"_target_": "pathlib.Path.mkdir", "self": "mark"}


@pytest.mark.parametrize(
    "key",
    ["job", "data", "teacher", "student", "balance", "metrics", "callbacks", "logger", "task", "z"],
)
def test_a_configuration_that_names_more_is_refused_whatever_it_allows(received, tmp_path, key):
    node = {"x": HOSTILE} if key in ("metrics", "callbacks", "logger") else HOSTILE
    folder = received(**{key: node}, allow_targets=["pathlib"], trust_remote_code=True)
    with pytest.raises(ValueError, match=r"may not be named.*|is no job"):
        run(OmegaConf.create({"resume": folder}))
    assert not (tmp_path / "mark").exists()


def job_of(job, option, folder, *more):
    with initialize_config_module("lightning_distill.conf", version_base="1.3"):
        return compose("main", [f"job={job}", f"job.{option}={folder}", "output_dir=out", *more])


@pytest.mark.parametrize(
    ("job", "option", "key"),
    [
        ("evaluate", "path", "data"),
        ("evaluate", "path", "task"),
        ("cache", "run", "teacher"),
        ("inspect", "run", "z"),
    ],
)
def test_a_job_that_is_given_a_run_makes_no_more_of_it(received, tmp_path, job, option, key):
    folder = received(**{key: HOSTILE}, allow_targets=["pathlib"], trust_remote_code=True)
    with pytest.raises(ValueError, match="may not be named"):
        run(job_of(job, option, folder))
    asks = received(data={"x": {"trust_remote_code": True}})
    with pytest.raises(ValueError, match="trust_remote_code=true; what a file says"):
        run(job_of(job, option, asks))
    bomb = {f"v{i}": f"${{.v{i - 1}}}" * 9 for i in range(1, 12)}
    with pytest.raises(ValueError, match="refers to others"):
        run(job_of(job, option, received(data={"v0": "x" * 9, **bomb})))
    assert not (tmp_path / "mark").exists()


def test_what_an_export_reads_of_a_run_makes_no_more_of_it(received, tmp_path):
    folder = received(data=HOSTILE, allow_targets=["pathlib"])
    with pytest.raises(ValueError, match="may not be named"):
        first_test_batch(job_of("export", "run", folder), tmp_path / "received")
    assert not (tmp_path / "mark").exists() and os.getcwd() == str(tmp_path)


def test_what_is_typed_counts(received):
    node = {"x": {"_target_": "json.decoder.JSONDecoder"}}
    folder = received(extra=node)
    with open_run(OmegaConf.create({"resume": folder, "allow_targets": ["json"]})) as cfg:
        assert cfg.allow_targets == ["json"]


def test_a_resolver_makes_no_more_than_a_target_does(received, tmp_path):
    folder = received(z="${label_kind:${y}}", y=HOSTILE)
    with pytest.raises(ValueError, match="may not be named"):
        prepare_run(OmegaConf.create({"resume": folder}))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "asks", [{"teacher": {"trust_remote_code": True}}, {"z": [{"y": {"trust_remote_code": 1}}]}]
)
def test_code_of_models_is_run_only_where_that_is_typed(received, asks):
    cfg = {"resume": received(**asks)}
    with pytest.raises(ValueError, match="trust_remote_code=true; what a file says"):
        prepare_run(OmegaConf.create(cfg))
    assert not remote_code.remote_code_is_trusted()
    with open_run(OmegaConf.create({**cfg, "trust_remote_code": True})):
        assert remote_code.remote_code_is_trusted()
    assert not remote_code.remote_code_is_trusted()


def test_a_configuration_that_would_expand_is_refused(received, tmp_path):
    bomb = {f"v{i}": f"${{v{i - 1}}}" * 9 for i in range(1, 12)}
    with pytest.raises(ValueError, match="refers to others"):
        prepare_run(OmegaConf.create({"resume": received(v0="x" * 9, **bomb)}))
    (tmp_path / "received/config.yaml").write_text("a: &a [1]\nb: [*a, *a]\n")
    with pytest.raises(ValueError, match="alias"):
        prepare_run(OmegaConf.create({"resume": str(tmp_path / "received")}))


@pytest.fixture
def with_code(tmp_path):
    """The folder of a model and a tokenizer that come with code, and the mark that it leaves."""
    folder, mark = tmp_path / "model", tmp_path / "mark"
    folder.mkdir()
    marking = MARKING.format(str(mark))
    (folder / "own.py").write_text(
        f"{marking}import transformers\n"
        "class C(transformers.BertConfig):\n    model_type = 'strange'\n"
        "class M(transformers.BertForSequenceClassification):\n    config_class = C\n"
        "class T(transformers.PreTrainedTokenizerFast):\n    pass\n"
    )
    sizes = {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "vocab_size": 9}
    names = {"AutoConfig": "own.C", "AutoModelForSequenceClassification": "own.M"}
    config = {"model_type": "strange", "auto_map": names, "architectures": ["M"], **sizes}
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 8}))
    said = {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": [None, "own.T"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return str(folder), mark


@pytest.mark.parametrize(
    "loading",
    [
        lambda path: load(path, None),
        load_tokenizer,
        teacher,
        pretrained,
        lambda path: transformers.AutoTokenizer.from_pretrained(path),
    ],
    ids=["evaluate", "tokenizer", "teacher", "student", "unsaid"],
)
def test_code_beside_a_model_is_neither_run_nor_asked_about(with_code, loading):
    path, mark = with_code
    # Before a run, what is unsaid is asked about by transformers.
    with (
        remote_code.trusting_remote_code(False),
        pytest.raises(ValueError, match=r"trust_remote_code="),
    ):
        loading(path)
    assert not mark.exists()


def test_code_beside_a_model_is_run_where_that_is_said(with_code):
    path, mark = with_code
    # It has no weights.
    with remote_code.trusting_remote_code(True), pytest.raises((ValueError, OSError)):
        load(path, None)
    assert mark.exists() and os.path.isdir(path)
