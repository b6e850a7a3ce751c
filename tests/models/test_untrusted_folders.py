"""A model's folder from elsewhere runs no code, leaves its folder nowhere, and fits into memory."""

import json
from pathlib import Path

import pytest
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from lightning_distill.data.load_tokenizer import load_tokenizer
from lightning_distill.data.text.word_pieces import train_word_pieces
from lightning_distill.models.hugging_face import load
from lightning_distill.students import from_config, pretrained as pretrained_student
from lightning_distill.teachers import pretrained

CODE = """
from pathlib import Path
Path({mark!r}).write_text("run")
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
class Config(BertConfig):
    model_type = "of_a_stranger"
class Model(BertForSequenceClassification):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


def small(**more) -> BertConfig:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    return BertConfig(**{**sizes, "intermediate_size": 8, "vocab_size": 90, **more})


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "model"
    BertForSequenceClassification(small()).save_pretrained(path, max_shard_size="1kB")
    train_word_pieces(["a few words of text"], 60, 16).save_pretrained(path)
    return path


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("answer", ["y\n", "n\n"])
def test_code_that_comes_with_it_is_not_run_nor_asked_for(folder, tmp_path, monkeypatch, answer):
    mark = tmp_path / "mark"
    (folder / "strange.py").write_text(CODE.format(mark=str(mark)))
    auto = {"AutoConfig": "strange.Config", "AutoModelForSequenceClassification": "strange.Model"}
    edit(folder / "config.json", auto_map=auto, model_type="of_a_stranger")
    tokenizer = {"AutoTokenizer": ["strange.Tokenizer", "strange.Tokenizer"]}
    edit(folder / "tokenizer_config.json", auto_map=tokenizer, tokenizer_class="Strange")

    def asked(*_):
        raise AssertionError("the user was asked")

    monkeypatch.setattr("builtins.input", asked)
    for loading in (load_tokenizer, pretrained, pretrained_student):
        with pytest.raises((ValueError, FileNotFoundError), match="code|model type"):
            loading(str(folder))
    assert not mark.exists()
    assert type(pretrained(str(folder), trust_remote_code=True)).__name__ == "Model"
    assert mark.exists()


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/secret", "a/../../b", "..", 3])
def test_weights_are_read_from_their_folder_alone(folder, name):
    index = folder / "model.safetensors.index.json"
    weights = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map={**weights, next(iter(weights)): name})
    with pytest.raises(ValueError, match=r"names the file .* which is not in its folder"):
        load(str(folder), None)


@pytest.mark.parametrize("content", ["[]", "{", '{"weight_map": 3}', "{}"])
def test_an_index_that_lists_nothing(folder, content):
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match="lists no weight files"):
        load(str(folder), None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 10**9}, "1,000,000,000 layers is no model"),
        ({"hidden_size": 10**9}, "would have at least"),
        ({"vocab_size": 10**13}, "would have at least"),
        ({"intermediate_size": 10**14}, "would have at least"),
        ({"max_position_embeddings": 10**14}, "would have at least"),
    ],
)
def test_a_model_that_no_memory_holds_is_refused_before_it_is_made(folder, changes, words):
    edit(folder / "config.json", **changes)
    with pytest.raises(ValueError, match=words):
        load(str(folder), None)
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1} | changes
    vocab = sizes.pop("vocab_size", 90)
    with pytest.raises(ValueError, match=words):
        from_config("bert", num_labels=2, vocab_size=vocab, **sizes)


def test_a_model_of_many_layers_and_a_far_context_is_one(folder):
    edit(folder / "config.json", max_position_embeddings=512)
    assert load(str(folder), None)[0].config.hidden_size == 8
    made = from_config(
        "llama",
        vocab_size=90,
        task="language_modelling",
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=10_485_760,
    )
    assert made.config.max_position_embeddings == 10_485_760


def test_a_tilde_is_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert isinstance(load_tokenizer("~/model"), PreTrainedTokenizerFast)
    assert load("~/model", None)[0]
