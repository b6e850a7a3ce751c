"""A model of a user's own class is given the ids that it was trained on, or refused."""

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from tiny import bert
from torch import nn
from transformers import AutoModelForSequenceClassification

from lightning_distill.data.text.word_pieces import train_word_pieces
from lightning_distill.run.tokenizers import check_tokenizer, folder_of_arguments

OWN = train_word_pieces(["a fine film", "a dull film"], 60, 16)
OTHER = train_word_pieces(["quite another text", "of other words"], 60, 16)


def trained(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return model


@pytest.fixture
def folder(tmp_path):
    """A model with its tokenizer, as a user has it."""
    path = tmp_path / "model"
    trained(bert(1, 8)).save_pretrained(path)
    OWN.save_pretrained(path)
    return str(path)


def loaded(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder)


def config(target="mine.load", tokenizer=None, **arguments):
    node = {"_target_": target, **arguments}
    return OmegaConf.create({"teacher": node, "student": {}, "data": {"tokenizer": tokenizer}})


def data(tokenizer, teacher_tokenizer=None):
    return SimpleNamespace(tokenizer=tokenizer, teacher_tokenizer=teacher_tokenizer)


@pytest.mark.parametrize("name", ["folder", "path_of_mine"])
def test_a_folder_that_a_users_function_is_given_brings_its_tokenizer(folder, tmp_path, name):
    assert folder_of_arguments(config(**{name: folder}), "teacher") == folder
    assert folder_of_arguments(config(paths=["x", folder], n=3), "teacher") == folder
    assert folder_of_arguments(config(where=str(tmp_path)), "teacher") is None
    ours = config("lightning_distill.run.trained_teacher", where=folder)
    assert folder_of_arguments(ours, "teacher") is None


class Within(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.inner = model


@pytest.mark.parametrize("wrap", [lambda model: model, Within])
def test_foreign_ids_are_refused_and_the_way_out_is_named(folder, wrap):
    model = wrap(loaded(folder))
    words = f"teacher was loaded from {folder}, .* set data.tokenizer={folder}"
    with pytest.raises(ValueError, match=words):
        check_tokenizer(config(), data(OTHER), model, "teacher")
    check_tokenizer(config(), data(OWN), model, "teacher")
    check_tokenizer(config(), data(OTHER, teacher_tokenizer=OWN), model, "teacher")


def test_a_student_with_a_path_leaves_the_teacher_a_tokenizer_of_its_own(folder):
    cfg = config(tokenizer="DIR")
    cfg.student = {"path": "DIR"}
    with pytest.raises(ValueError, match="set data.teacher_tokenizer="):
        check_tokenizer(cfg, data(OTHER), loaded(folder), "teacher")


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(60, 8), nn.LayerNorm(8)


def test_trained_embeddings_without_a_known_tokenizer_get_no_ids_made_on_the_spot():
    words = r"teacher \(mine.load\) has trained weights .* as in data.tokenizer=DIR"
    for model in (trained(Own()), trained(bert(1, 8))):
        with pytest.raises(ValueError, match=words):
            check_tokenizer(config(), data(OWN), model, "teacher")
        # Who names one knows what the model reads.
        check_tokenizer(config(tokenizer="DIR"), data(OWN), model, "teacher")


def test_what_reads_no_ids_or_knows_none_yet_is_left_alone():
    check_tokenizer(config(), data(OWN), Own(), "teacher")
    check_tokenizer(config(), data(OWN), trained(nn.Linear(4, 2)), "teacher")
    check_tokenizer(config(), data(None), trained(Own()), "teacher")
