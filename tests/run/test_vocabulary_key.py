"""The key `vocabulary` of a student: whose it is, and where it cannot stand."""

import pytest
from omegaconf import OmegaConf

from lightning_distill.run.student_quantization import inner_student
from lightning_distill.run.student_vocabulary import asks_for_fewer_tokens, without_vocabulary

OURS = "lightning_distill.students.from_teacher"


def student(**fields):
    return OmegaConf.create({"_target_": OURS, "layers": 2, **fields})


def test_the_key_is_ours_alone():
    assert not asks_for_fewer_tokens(OmegaConf.create({"student": student(vocabulary=None)}))
    assert not asks_for_fewer_tokens(OmegaConf.create({"student": None}))
    assert asks_for_fewer_tokens(OmegaConf.create({"student": student(vocabulary=300)}))
    of_user = OmegaConf.create({"_target_": "mine.Student", "vocabulary": 300})
    assert not asks_for_fewer_tokens(OmegaConf.create({"student": of_user}))
    assert without_vocabulary(of_user) == of_user
    assert without_vocabulary(student(vocabulary=300)) == student()


@pytest.mark.parametrize("asked", [0, "all", True])
def test_what_is_no_size_is_found_before_anything_is_loaded(asked):
    with pytest.raises(ValueError, match="as in student.vocabulary=8000, or `seen`"):
        asks_for_fewer_tokens(OmegaConf.create({"student": student(vocabulary=asked)}))


def test_a_student_within_another_keeps_its_tokens():
    words = "student.of.vocabulary is 300, and the vocabulary is cut of student=pruned and"
    with pytest.raises(ValueError, match=words):
        inner_student(student(vocabulary=300), "student.of")
    assert inner_student(student(vocabulary=None), "student.of") == student()
