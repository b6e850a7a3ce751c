import pytest

from lightning_distill.tasks import task_named


@pytest.mark.parametrize(
    ("task", "architecture", "tag"),
    [
        ("classification", "BertForSequenceClassification", "text-classification"),
        ("classification", "ViTForImageClassification", "image-classification"),
        ("token_classification", "BertForTokenClassification", "token-classification"),
        ("masked_language_modelling", "BertForMaskedLM", "fill-mask"),
        ("language_modelling", "GPT2LMHeadModel", "text-generation"),
        ("sequence_to_sequence", "WhisperForConditionalGeneration", "automatic-speech-recognition"),
        # Whether it translates or sums up, nobody knows.
        ("sequence_to_sequence", "T5ForConditionalGeneration", None),
        ("embedding", "BertModel", "sentence-similarity"),
        ("ranking", "BertForSequenceClassification", "text-ranking"),
    ],
)
def test_the_task_says_what_the_hub_calls_it(task, architecture, tag):
    assert task_named(task).pipeline_tag(architecture) == tag
