"""What is written of a student, and that the advice for loading it works when it is followed."""

import re
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from speech import extractor, tokenizer
from tiny import bert
from torch import nn
from torch.testing import assert_close

from lightning_distill.data import ImageProcessor
from lightning_distill.run.save import (
    check_hugging_face,
    processors_in,
    save_student,
    save_teacher_tokenizer,
    TEACHER_TOKENIZER,
)


class Tied(nn.Module):
    """Two layers of one weight, and a buffer that shares memory with it."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.words.weight
        self.register_buffer("part", torch.zeros(3))

    def forward(self, ids):
        return self.head(self.words(ids))


@pytest.mark.parametrize("wrap", [None, nn.DataParallel, torch.compile], ids=["-", "DP", "compile"])
@pytest.mark.parametrize("make", [Tied, lambda: nn.Linear(2, 3)], ids=["tied", "plain"])
def test_the_advice_for_a_class_of_ones_own_works(tmp_path, make, wrap):
    made = make()
    save_student(made if wrap is None else wrap(made), None, tmp_path)
    with pytest.raises(ValueError) as info:
        check_hugging_face(tmp_path)
    model = make()
    # As it stands in the message.
    advice = re.search(r"safetensors\.torch\.load_model\(.*?\)", str(info.value))[0]
    eval(advice, {"safetensors": safetensors, "model": model})
    assert_close(model.state_dict(), made.state_dict())
    if isinstance(model, Tied):
        assert model.head.weight is model.words.weight


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_student_of_transformers_is_saved_as_itself(tmp_path, wrap):
    model = bert(1, 8)
    save_student(wrap(model), None, tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert_close(loaded.state_dict(), model.state_dict())


def test_a_preprocessor_is_of_sound_or_of_pictures_as_its_file_says(tmp_path):
    extractor().save_pretrained(tmp_path / "sound")
    tokenizer().save_pretrained(tmp_path / "sound")
    ImageProcessor(8, 8).save_pretrained(tmp_path / "picture")
    assert processors_in(tmp_path / "sound") == ["AutoTokenizer", "AutoFeatureExtractor"]
    assert processors_in(tmp_path / "picture") == ["AutoImageProcessor"]


def test_a_teachers_tokenizer_stays_no_longer_than_its_run(tmp_path):
    own = SimpleNamespace(teacher_tokenizer=tokenizer())
    save_teacher_tokenizer(own, tmp_path)
    assert (tmp_path / TEACHER_TOKENIZER / "tokenizer_config.json").is_file()
    # Another run in the same directory, whose models read the same tokens.
    for _ in range(2):
        save_teacher_tokenizer(SimpleNamespace(teacher_tokenizer=None), tmp_path)
        assert not (tmp_path / TEACHER_TOKENIZER).exists()
