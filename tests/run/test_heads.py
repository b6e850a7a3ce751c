import json

import pytest
from omegaconf import OmegaConf
from transformers import BertConfig, BertForTokenClassification

from lightning_distill.run.heads import check_heads, task_of_heads
from lightning_distill.students import pretrained
from lightning_distill.tasks import TASKS


def saved(path, architecture, **fields) -> str:
    path.mkdir(exist_ok=True)
    said = {"architectures": [architecture], **fields}
    (path / "config.json").write_text(json.dumps(said))
    return str(path)


def config(path, task, role="teacher"):
    return OmegaConf.create({"task": task, role: {"path": path}})


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_heads_of_other_tasks_are_refused_and_those_of_the_task_are_not(task, tmp_path):
    for other in TASKS:
        for ending in other.heads:
            path = saved(tmp_path / "model", f"Bert{ending}")
            if task.serves(f"Bert{ending}") or not (task.needs_head and other.needs_head):
                check_heads(config(path, task.name))
                continue
            words = f"holds a Bert{ending}, whose head is for .*{task.name}.*job=finetune"
            with pytest.raises(ValueError, match=words):
                check_heads(config(path, task.name))


def test_a_body_or_a_name_on_the_hub_is_left_to_who_loads_it(tmp_path):
    check_heads(config(saved(tmp_path / "model", "BertModel"), "classification"))
    check_heads(config("bert-base-uncased", "classification"))
    check_heads(config(None, "classification"))
    with pytest.raises(ValueError, match=r"holds a BertForNothing, and the data has task=regr"):
        check_heads(config(saved(tmp_path / "model", "BertForNothing"), "regression"))


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_model_says_its_task_by_its_problem_type(role, tmp_path):
    kinds = {
        "regression": "regression",
        "multi_label_classification": "multi_label",
        "single_label_classification": "classification",
        None: None,
    }
    for said, task in kinds.items():
        path = saved(tmp_path / "model", "BertForSequenceClassification", problem_type=said)
        assert task_of_heads(config(path, None, role)) == task
    assert task_of_heads(config(str(tmp_path / "none"), None, role)) is None


def test_a_student_does_not_keep_a_head_of_another_task(tmp_path):
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    made = BertForTokenClassification(BertConfig(vocab_size=30, num_labels=2, **small))
    made.save_pretrained(tmp_path)
    tagger = pretrained(str(tmp_path), num_labels=2, task="token_classification")
    classifier = pretrained(str(tmp_path), num_labels=2)
    assert tagger.classifier.weight.equal(made.classifier.weight)
    assert not classifier.classifier.weight.equal(made.classifier.weight)
    embeddings = classifier.bert.embeddings.word_embeddings.weight
    assert embeddings.equal(made.bert.embeddings.word_embeddings.weight)
