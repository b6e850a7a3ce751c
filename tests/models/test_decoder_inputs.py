import pytest
import torch
from encoder_decoders import batch, FAMILIES, model
from torch import nn

from lightning_distill.models.decoder_inputs import first_token, mask_of_labels, moved_by_one
from lightning_distill.models.inputs import model_inputs
from lightning_distill.models.written_texts import (
    check_writes,
    log_probabilities,
    write_texts,
    Writing,
)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoder_reads_what_transformers_makes_of_labels(family):
    own, given = model(family), batch(family)
    inputs = model_inputs(given, own)
    assert "labels" not in inputs and "row" not in inputs
    assert first_token(own) == {"start": 1, "pad": 1}
    with torch.no_grad():
        sources = {n: v for n, v in given.items() if n != "row"}
        expected, found = own(**sources).logits, own(**inputs).logits
    there = given["labels"] != -100
    torch.testing.assert_close(found[there], expected[there], atol=1e-5, rtol=1e-5)


def test_labels_are_moved_by_one_and_the_mask_ends_with_the_last():
    labels = torch.tensor([[5, 6, -100, -100], [7, -100, 8, 9], [-100, -100, -100, -100]])
    moved = moved_by_one(labels, start=2, pad=1)
    assert moved.tolist() == [[2, 5, 6, 1], [2, 7, 1, 8], [2, 1, 1, 1]]
    assert mask_of_labels(labels).tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]


def test_a_model_that_begins_otherwise_is_not_known_by_its_first_token():
    own = model("bart")
    own.prepare_decoder_input_ids_from_labels = lambda labels: labels.flip(1)
    assert first_token(own) is None
    assert first_token(nn.Linear(2, 2)) is None and first_token(None) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_is_the_likeliest_token_each_time(family):
    own, given = model(family), batch(family)
    own.train()
    inputs = model_inputs(given, own)
    written = write_texts(own, inputs, Writing(max_new_tokens=8))
    assert own.training
    own.eval()
    sources = {n: v for n, v in inputs.items() if not n.startswith("decoder_")}
    for row in range(3):
        one = {n: v[row : row + 1] for n, v in sources.items()}
        if "attention_mask" in one:
            one = {n: v[:, one["attention_mask"][0].bool()] for n, v in one.items()}
        ids, ended, sure = torch.tensor([[1]]), False, []
        with torch.no_grad():
            while ids.shape[1] < 9 and not ended:
                scores = own(**one, decoder_input_ids=ids).logits[0, -1].double().log_softmax(0)
                ids = torch.cat([ids, scores.argmax().view(1, 1)], 1)
                sure.append(scores.max())
                ended = int(ids[0, -1]) == 2
        kept = written[row][written[row] != -100]
        assert kept.tolist() == ids[0, 1:].tolist()
        found = log_probabilities(own, inputs, written)[row]
        assert float(found) == pytest.approx(float(torch.stack(sure).mean()), abs=1e-4)


def test_what_writes_no_text_from_a_source_is_refused():
    with pytest.raises(ValueError, match="metrics.rouge reads texts.*a Linear is no encoder-dec"):
        check_writes(nn.Linear(2, 2), "metrics.rouge")
    with pytest.raises(ValueError, match="`beams` must be a whole number of 1 at least, got 0"):
        Writing(beams=0)
