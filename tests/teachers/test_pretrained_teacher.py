import json
import logging

import pytest
import torch
import transformers
from tiny import bert, text_batches
from torch.testing import assert_close
from transformers import BertModel, GPT2Config, GPT2LMHeadModel

from lightning_distill.models import fingerprint
from lightning_distill.teachers import pretrained

LM = "AutoModelForCausalLM"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "teacher"
    bert(2, 32, seed=3).save_pretrained(path)
    return path


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def run(model):
    batch = text_batches(1)[0]
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def test_a_saved_model_answers_as_before_and_is_in_eval_mode(folder):
    teacher = pretrained(str(folder))
    assert not any(module.training for module in teacher.modules())
    assert fingerprint(teacher) == fingerprint(bert(2, 32, seed=3))
    assert_close(run(teacher), run(bert(2, 32, seed=3).eval()))


def test_float32_is_the_default_whatever_the_file_holds(tmp_path):
    bert(1, 32).bfloat16().save_pretrained(tmp_path)
    assert {p.dtype for p in pretrained(str(tmp_path)).parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_the_type_can_be_chosen(folder, name):
    teacher = pretrained(str(folder), dtype=name)
    assert {p.dtype for p in teacher.parameters()} == {getattr(torch, name)}


def test_an_unknown_type_is_refused(folder):
    with pytest.raises(ValueError, match="one of float32, bfloat16, float16, got 'fp8'"):
        pretrained(str(folder), dtype="fp8")


def test_attention_maps_come_with_eager_attention(folder):
    teacher = pretrained(str(folder), attn_implementation="eager")
    out = teacher(input_ids=torch.ones(1, 4, dtype=torch.long), output_attentions=True)
    assert [a.shape for a in out.attentions] == [(1, 2, 4, 4)] * 2


def test_a_decoder_keeps_no_cache_and_its_tied_head_is_not_missing(tmp_path):
    config = GPT2Config(
        n_embd=32, n_layer=1, n_head=2, vocab_size=60, bos_token_id=1, eos_token_id=1
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    teacher = pretrained(str(tmp_path), auto_class=LM)
    assert teacher.lm_head.weight is teacher.transformer.wte.weight
    assert teacher(input_ids=torch.ones(1, 4, dtype=torch.long)).past_key_values is None


def test_a_head_that_was_never_trained_is_refused(tmp_path):
    BertModel(bert(1, 32).config).save_pretrained(tmp_path)
    words = r"lacks classifier.bias, classifier.weight: .* random numbers.*job=finetune"
    with pytest.raises(ValueError, match=words):
        pretrained(str(tmp_path))


def test_a_head_of_another_size_than_the_configuration_is_refused(folder):
    edit_config(folder, id2label={i: f"LABEL_{i}" for i in range(5)})
    words = r"classifier.bias is \(3,\), expected \(5,\), and 1 more.*save_pretrained"
    with pytest.raises(ValueError, match=words):
        pretrained(str(folder))


def test_a_misspelt_folder_is_answered_with_the_nearest(folder):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*/teachr\..* has: teacher"):
        pretrained(str(folder.parent / "teachr"))


def test_a_relative_path_is_not_taken_for_a_name_on_the_hub(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(FileNotFoundError, match=r"There is no folder \./teachr\. \. has: teacher"):
        pretrained("./teachr")
    (folder.parent / "runs" / "one").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"There is no folder runs/two\. runs has: one"):
        pretrained("runs/two")


def test_a_folder_above_the_model_names_the_one_inside(folder):
    words = f"holds no config.json. Did you mean {folder}"
    with pytest.raises(FileNotFoundError, match=words):
        pretrained(str(folder.parent))


def test_a_name_on_the_hub_without_a_network_gives_one_message():
    with pytest.raises(FileNotFoundError) as caught:
        pretrained("nobody-here/no-such-model")
    message = str(caught.value)
    assert "No model could be loaded from 'nobody-here/no-such-model'" in message
    assert "Name a folder that holds config.json and weights" in message
    assert "\n" not in message


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file named model\.safetensors"):
        pretrained(str(folder))


def test_a_torn_file_is_refused_by_name(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"teacher' cannot be loaded as AutoModelForSeq.*header"):
        pretrained(str(folder))


def test_an_unknown_class_is_answered_with_the_nearest(folder):
    words = "got 'AutoModelForSequenceClasification'. Nearest: AutoModelForSequenceClassification"
    with pytest.raises(ValueError, match=words):
        pretrained(str(folder), auto_class="AutoModelForSequenceClasification")
    with pytest.raises(ValueError, match="got 'pipeline'"):
        pretrained(str(folder), auto_class="pipeline")


def test_a_class_that_does_not_know_the_model_is_refused_in_one_line(folder):
    with pytest.raises(ValueError, match="cannot be loaded as AutoModelForImage") as caught:
        pretrained(str(folder), auto_class="AutoModelForImageClassification")
    assert "\n" not in str(caught.value)


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path):
    ran = tmp_path / "ran"
    (folder / "theirs.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    edit_config(folder, model_type="theirs", auto_map={"AutoConfig": "theirs.Config"})
    with pytest.raises(ValueError, match=r"custom code.*trust_remote_code=true"):
        pretrained(str(folder))
    assert not ran.exists()


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_printed_and_the_users_logging_is_as_it_was(tmp_path, fails, caplog, capfd):
    model = BertModel(bert(1, 32).config) if fails else bert(1, 32)
    model.save_pretrained(tmp_path)
    logger = logging.getLogger("transformers")
    level, bars = logger.level, transformers.utils.logging.is_progress_bar_enabled()
    logger.setLevel(logging.INFO)
    # Its records do not reach the root, where caplog listens.
    logger.addHandler(caplog.handler)
    transformers.utils.logging.enable_progress_bar()
    capfd.readouterr()
    try:
        if fails:
            with pytest.raises(ValueError, match="lacks"):
                pretrained(str(tmp_path))
        else:
            pretrained(str(tmp_path))
        assert caplog.messages == []
        printed = capfd.readouterr()
        assert printed.out + printed.err == ""
        assert logger.level == logging.INFO
        assert transformers.utils.logging.is_progress_bar_enabled()
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(level)
        if not bars:
            transformers.utils.logging.disable_progress_bar()
