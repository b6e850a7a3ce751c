"""Heads are compared row by row only where the rows mean the same."""

import json

import pytest
from tokenizers import pre_tokenizers, Tokenizer
from tokenizers_of_text import byte_level, texts, unigram, word_pieces
from transformers import PreTrainedTokenizerFast

from lightning_distill.models.vocabulary import compare_vocabularies, shared_vocabulary


def changed(tokenizer, change):
    """The tokenizer with its description changed in place."""
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    change(told)
    backend = Tokenizer.from_str(json.dumps(told))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=tokenizer.eos_token)


def test_a_tokenizer_shares_all_ids_with_itself():
    for make in (byte_level, unigram, word_pieces):
        tokenizer = make()
        found = shared_vocabulary(tokenizer, tokenizer)
        assert found.shared == found.student_size == found.teacher_size == len(tokenizer)
        assert found.first_difference is None and not found.steps
        assert str(found) == f"All {len(tokenizer)} token ids mean the same to student and teacher."


@pytest.mark.parametrize("who", ["student", "teacher", "both"])
def test_tokens_added_at_the_end_are_fine(who):
    student, teacher = byte_level(), byte_level()
    size = len(student)
    if who != "teacher":
        student.add_tokens(["<|user|>", "<|tool|>"])
    if who != "student":
        teacher.add_special_tokens({"pad_token": "<|pad|>"})
    found = shared_vocabulary(student, teacher)
    assert found.shared == size
    assert (found.student_size, found.teacher_size) == (len(student), len(teacher))
    named = ["'<|user|>'" if who != "teacher" else "no token"]
    named += ["'<|pad|>'" if who != "student" else "no token"]
    expected = (
        f"Of {len(student)} token ids (student) and {len(teacher)} (teacher), the first {size} "
        f"mean the same; id {size} is {named[0]} to the student and {named[1]} to the teacher."
    )
    assert str(found) == expected


def test_one_size_and_another_mapping_is_refused_with_the_first_token_that_differs():
    student = byte_level()

    def swap(told):
        vocabulary = told["model"]["vocab"]
        names = {i: token for token, i in vocabulary.items()}
        vocabulary[names[70]], vocabulary[names[80]] = 80, 70

    teacher = changed(student, swap)
    one, other = student.convert_ids_to_tokens([70, 80])
    assert len(student) == len(teacher)
    with pytest.raises(ValueError) as error:
        shared_vocabulary(student, teacher)
    assert str(error.value) == (
        "The tokenizers of student and teacher must give the same tokens the same ids for logits "
        f"to be compared, and do not: id 70 is {one!r} to the student and {other!r} to the teacher "
        f"({len(student)} token ids against {len(teacher)}). Compare what both say about the same "
        "text (criteria=[alm] or criteria=[uld], with data.teacher_tokenizer), or choose a teacher "
        "and a student of one tokenizer."
    )
    found = compare_vocabularies(student, teacher)
    assert found.shared == 70 and found.first_difference == (70, one, other)
    assert not found.comparable


@pytest.mark.parametrize("teacher", [unigram, word_pieces])
def test_tokenizers_of_another_kind_are_refused(teacher):
    with pytest.raises(
        ValueError, match=r"id 0 is '<\|endoftext\|>' to the student and '.*criteria="
    ):
        shared_vocabulary(byte_level(), teacher())


def test_a_vocabulary_that_goes_on_with_ordinary_tokens_is_refused():
    """The larger one joins what the smaller keeps apart: equal ids, other sequences."""
    small, large = byte_level(400), byte_level(500)
    assert compare_vocabularies(small, large).shared == 400
    text = texts()[1]
    assert len(small(text).input_ids) > len(large(text).input_ids)
    for pair in ((small, large), (large, small)):
        with pytest.raises(ValueError, match="id 400 is .*no token to the .*criteria="):
            shared_vocabulary(*pair)
    # Nor is it hidden behind tokens that were added to the smaller one.
    small.add_tokens([f"<{i}>" for i in range(100)])
    with pytest.raises(ValueError, match="id 400 is '<0>' to the student"):
        shared_vocabulary(small, large)


def test_equal_ids_that_split_text_in_another_way_are_told_and_not_refused():
    student = byte_level()

    def by_characters(told):
        told["pre_tokenizer"] = {
            "type": "Sequence",
            "pretokenizers": [
                json.loads(pre_tokenizers.Digits(individual_digits=True).__getstate__()),
                told["pre_tokenizer"],
            ],
        }
        told["normalizer"] = {"type": "Lowercase"}
        told["model"]["merges"] = told["model"]["merges"][:-1]

    found = shared_vocabulary(student, changed(student, by_characters))
    assert found.shared == len(student) and found.first_difference is None
    assert found.steps == ("normalizer", "pre_tokenizer", "model")
    assert str(found).endswith(
        " They differ in normalizer, pre_tokenizer, model: text that each splits by itself may "
        "become other ids, so give both models the student's."
    )


def test_what_unigram_tokens_cost_is_a_difference():
    student = unigram()

    def dearer(told):
        told["model"]["vocab"][50][1] -= 1.0

    assert shared_vocabulary(student, changed(student, dearer)).steps == ("model",)
    more = unigram()
    more.add_tokens(["<more>"])
    assert shared_vocabulary(student, more).steps == ()


def test_tokenizers_written_in_python_are_compared_by_their_vocabulary():
    class Letters:
        def __init__(self, letters):
            self.letters = letters

        def get_vocab(self):
            return {letter: i for i, letter in enumerate(self.letters)}

        def get_added_vocab(self):
            return {}

    class Others(Letters):
        pass

    assert shared_vocabulary(Letters("abc"), Letters("abc")).steps == ()
    assert shared_vocabulary(Letters("abc"), Others("abc")).steps == ("class",)
    with pytest.raises(ValueError, match="id 1 is 'b' to the student and 'x' to the teacher"):
        shared_vocabulary(Letters("abc"), Letters("axc"))
    with pytest.raises(ValueError, match="there is no token at all"):
        shared_vocabulary(Letters(""), Letters(""))
