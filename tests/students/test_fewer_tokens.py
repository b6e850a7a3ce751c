"""A student that knows fewer tokens says of these what its teacher says."""

import copy

import numpy as np
import pytest
import torch
import transformers as hf
from families import FAMILIES, VOCABULARY
from tiny import bert
from torch import nn

from lightning_distill.models.embeddings import input_embeddings, output_embeddings
from lightning_distill.students import from_teacher
from lightning_distill.students.fewer_tokens import fewer_tokens
from lightning_distill.students.pruned import smaller_shape
from lightning_distill.students.units import Anatomy
from lightning_distill.students.vocabulary_cut import VocabularyCut

IDS = np.array([0, 1, 2, *range(5, VOCABULARY, 2)])
CUT = VocabularyCut(None, range(VOCABULARY), IDS)
READS_TEXT = [f for f in FAMILIES if f.batch in ("rows", "tokens", "pairs")]
WIDTHS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDTHS |= {"intermediate_size": 24, "vocab_size": VOCABULARY, "pad_token_id": 0}
SMALL = {"cls_token_id": 1, "sep_token_id": 2, "local_attention": 4}
MASKED = {
    "bert": (hf.BertForMaskedLM, hf.BertConfig, WIDTHS),
    "roberta": (hf.RobertaForMaskedLM, hf.RobertaConfig, WIDTHS),
    "distilbert": (hf.DistilBertForMaskedLM, hf.DistilBertConfig,
                   {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24,
                    "vocab_size": VOCABULARY}),
    "modernbert": (hf.ModernBertForMaskedLM, hf.ModernBertConfig, WIDTHS | SMALL),
    "llama, untied": (hf.LlamaForCausalLM, hf.LlamaConfig, WIDTHS | {"tie_word_embeddings": False}),
    "llama, tied": (hf.LlamaForCausalLM, hf.LlamaConfig, WIDTHS | {"tie_word_embeddings": True}),
}  # fmt: skip


def randomised(model):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.2)
    model.tie_weights()
    return model.eval()


def both(model, student, answer="logits"):
    """What both say of the same tokens; of the teacher's vocabulary what is left of it."""
    generator = torch.Generator().manual_seed(0)
    new = torch.randint(3, len(IDS), (2, 6), generator=generator)
    old, target = torch.from_numpy(IDS)[new], new[:, :4].contiguous()
    theirs, ours = {"input_ids": old}, {"input_ids": new}
    if model.config.is_encoder_decoder:
        theirs["labels"], ours["labels"] = torch.from_numpy(IDS)[target], target
    with torch.no_grad():
        expected, found = model(**theirs)[answer], student.eval()(**ours)[answer]
    if expected.shape[-1] == VOCABULARY:
        expected = expected[..., torch.from_numpy(IDS)]
    return found, expected


@pytest.mark.parametrize("family", READS_TEXT, ids=lambda f: f.name)
def test_tokens_that_stay_are_answered_as_by_the_teacher(family):
    model = family.build()
    before = copy.deepcopy(model.state_dict())
    student = fewer_tokens(model, CUT)
    found, expected = both(model, student, family.answer)
    # A head with fewer rows may be multiplied in another order.
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    assert found.std() > 0
    assert student.config.vocab_size == len(IDS) == input_embeddings(student).num_embeddings
    tied = [[n for n, _ in m.named_parameters()] for m in (model, student)]
    assert tied[0] == tied[1]
    assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())


@pytest.mark.parametrize("name", MASKED)
def test_heads_over_the_vocabulary_and_their_biases(name, tmp_path):
    kind, config, fields = MASKED[name]
    model = randomised(kind(config(**fields)))
    student = fewer_tokens(model, CUT)
    found, expected = both(model, student)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    assert found.shape[-1] == len(IDS)
    weights = [input_embeddings(student).weight, output_embeddings(student).weight]
    assert (weights[0] is weights[1]) == (name != "llama, untied")
    with torch.no_grad():
        # What is learnt of a tied weight is learnt of both.
        weights[0].add_(1.0)
    student.save_pretrained(tmp_path)
    again = kind.from_pretrained(tmp_path)
    assert torch.equal(both(model, again)[0], both(model, student)[0])


def test_what_is_called_by_number_has_its_new_number():
    model = FAMILIES_BY_NAME["T5"].build()
    model.config.eos_token_id, model.config.decoder_start_token_id = [7, 5], 2
    model.config.sep_token_id = 3
    model.generation_config.update(
        eos_token_id=[7, 5], decoder_start_token_id=2, suppress_tokens=[9, 10],
        bad_words_ids=[[11, 13], [4]], forced_bos_token_id=59, max_length=17,
    )  # fmt: skip
    student = fewer_tokens(model, CUT)
    place = {old: new for new, old in enumerate(IDS.tolist())}
    assert student.config.eos_token_id == [place[7], place[5]] == [4, 3]
    assert (student.config.pad_token_id, student.config.decoder_start_token_id) == (0, 2)
    assert student.config.sep_token_id is None
    own = student.generation_config
    assert (own.eos_token_id, own.suppress_tokens) == ([4, 3], [place[9]])
    assert own.bad_words_ids == [[place[11], place[13]]]
    assert (own.forced_bos_token_id, own.max_length) == (place[59], 17)
    assert model.config.eos_token_id == [7, 5] and model.generation_config.max_length == 17


FAMILIES_BY_NAME = {family.name: family for family in FAMILIES}


def test_whole_layers_are_cut_too():
    model = FAMILIES_BY_NAME["BERT"].build()
    model.config.name_or_path = "somewhere"
    student = from_teacher(model, 2, vocabulary=CUT)
    assert student.config.num_hidden_layers == 2 and student.training
    found = student.bert.embeddings.word_embeddings.weight
    assert torch.equal(found, model.bert.embeddings.word_embeddings.weight[IDS])
    # It is not what lies there any more, nor are its tokens.
    assert student.config.name_or_path == ""


def test_a_share_is_one_of_the_whole_teacher():
    model = bert(4, 32, vocab_size=400)
    size = sum(p.numel() for p in model.parameters())
    cut = VocabularyCut(None, range(400), np.arange(100))
    anatomy = Anatomy(fewer_tokens(model, cut))
    shape = smaller_shape(anatomy, "30%", of=size)
    assert abs(anatomy.count(shape) / size - 0.3) <= 0.02 * 0.3
    words = "With vocabulary as named, the smallest .* Ask for another size, or name fewer parts"
    with pytest.raises(ValueError, match=words):
        smaller_shape(anatomy, "95%", of=size)
    assert smaller_shape(anatomy, of=size) == anatomy.shape


# Errors.


def test_models_without_such_a_vocabulary_are_refused():
    with pytest.raises(ValueError, match="that read text and say their vocab_size, got a Linear"):
        fewer_tokens(nn.Linear(2, 2), CUT)
    pictures = next(f for f in FAMILIES if f.batch == "pictures").build()
    with pytest.raises(ValueError, match="that read text and say their vocab_size"):
        fewer_tokens(pictures, CUT)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused():
    with pytest.raises(ValueError, match="knows 60 token ids, and its tokenizer has 61"):
        fewer_tokens(FAMILIES_BY_NAME["BERT"].build(), VocabularyCut(None, range(61), IDS))
