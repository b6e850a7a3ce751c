import json
from types import SimpleNamespace

import pytest
import torch
from tokenizers import models, pre_tokenizers, Tokenizer
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast

from lightning_distill.report import write_samples

WORDS = ["<pad>", "<end>", "```", "#", "\n", "````", "|", *(f"w{i}" for i in range(43))]


def tokenizer(words=WORDS):
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<end>", unk_token="<pad>"
    )


def gpt2(seed: int, positions: int = 32, vocabulary: int = 50):
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=positions, n_embd=16, n_layer=2, n_head=2
    )
    model = AutoModelForCausalLM.from_config(config)
    model.transformer.wte.weight.data.mul_(30)
    return model


class Cannot(nn.Module):
    pass


class Fails(nn.Linear):
    def generate(self, **_):
        raise RuntimeError("out of memory")


def batch(**changes):
    ids = torch.arange(7, 27).view(2, 10)
    labels = ids.roll(-1, 1)
    labels[:, -1] = -100
    mask = torch.ones_like(ids)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels} | changes


def data(*batches, **more):
    return SimpleNamespace(test_dataloader=lambda: list(batches), tokenizer=tokenizer(), **more)


def words(*ids) -> str:
    return " ".join(WORDS[i] for i in ids)


def greedy(model, ids: list[int], steps: int) -> list[int]:
    """A loop of one's own, without keys and values that are kept."""
    ids, start = list(ids), len(ids)
    for _ in range(steps):
        with torch.no_grad():
            following = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if following == WORDS.index("<end>"):
            break
        ids.append(following)
    return ids[start:]


def test_each_model_goes_on_with_its_likeliest_tokens(tmp_path):
    teacher, student = gpt2(1), gpt2(2).train()
    # What a model's own settings say of sampling does not count.
    student.generation_config.do_sample = True
    student.generation_config.repetition_penalty = 5.0
    found = write_samples(
        tmp_path,
        data(batch()),
        {"student alone": student},
        teacher,
        count=2,
        prompt_tokens=4,
        max_new_tokens=6,
    )
    assert student.training
    student.eval()
    for i, sample in enumerate(found):
        first = 7 + 10 * i
        prompt = list(range(first, first + 4))
        assert sample.prompt == words(*prompt)
        assert sample.text == words(*range(first + 4, first + 10))
        assert list(sample.continuations) == ["teacher", "student alone"]
        for name, model in (("teacher", teacher), ("student alone", student)):
            expected = words(*greedy(model, prompt, 6))
            assert sample.continuations[name] == expected
    assert len(found) == 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # Padding is no text, and of a short row a half is the prompt.
        ({"attention_mask": torch.tensor([[1] * 6 + [0] * 4] * 2)}, (range(7, 10), range(10, 13))),
        # The first of the documents that were packed into a row.
        (
            {
                "attention_mask": None,
                "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1, 2]] * 2),
            },
            (range(7, 9), range(9, 11)),
        ),
        # What precedes an answer: the label at place 6 is the token at place 7.
        (
            {"labels": torch.tensor([[-100] * 6 + [14, 15, 16, -100]] * 2)},
            (range(7, 14), range(14, 17)),
        ),
        # A repeat that only evens out the ranks.
        ({"row": torch.tensor([-1, 4])}, (range(17, 22), range(22, 27))),
    ],
    ids=["padded", "packed", "chat", "repeat"],
)
def test_the_prompt_is_the_beginning_of_a_document(tmp_path, changes, expected):
    rows = {k: v for k, v in batch(**changes).items() if v is not None}
    (sample,) = write_samples(tmp_path, data(rows), {"student": gpt2(2)}, count=1)
    assert (sample.prompt, sample.text) == tuple(words(*ids) for ids in expected)


def test_nothing_in_a_text_ends_its_block(tmp_path):
    ids = torch.tensor([[7, 4, 2, 4, 3, 8, 5, 6, 4, 5]])
    (tmp_path / "report.md").write_text("# Report\n")
    (tmp_path / "report.json").write_text(json.dumps({"metric": "perplexity"}))
    row = {"input_ids": ids, "labels": ids.roll(-1, 1)}
    (sample,) = write_samples(tmp_path, data(row), {"student": gpt2(2)})
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert lines[:3] == ["# Report", "", "## Samples"]
    blocks, fence, title = {}, None, ""
    for line in lines:
        if fence is None and line.startswith("```"):
            fence = line.removesuffix("text")
            blocks[title] = []
        elif fence is not None and set(line.strip()) == {"`"} and len(line.strip()) >= len(fence):
            # As CommonMark ends a block: by as many backticks or more, and spaces around them.
            fence = None
        elif fence is not None:
            blocks[title].append(line)
        elif line:
            title = line.removesuffix(":")
    assert fence is None
    assert {name: "\n".join(text) for name, text in blocks.items()} == {
        "prompt": sample.prompt,
        "the row itself": sample.text,
        "student": sample.continuations["student"],
    }
    assert "```" in sample.prompt and "````" in sample.text
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["metric"] == "perplexity"
    assert found["samples"][0]["continuations"] == sample.continuations


def test_a_model_that_cannot_generate_fails_no_run(tmp_path, caplog):
    (tmp_path / "report.md").write_text("# Report\n")
    students = {"alone": Fails(1, 1), "distilled": gpt2(2), "short": gpt2(3, positions=5)}
    with caplog.at_level("INFO", logger="lightning_distill"):
        found = write_samples(tmp_path, data(batch()), students, Cannot(), count=2)
    assert [list(sample.continuations) for sample in found] == [["distilled"]] * 2
    assert "No samples of teacher: a Cannot does not generate." in caplog.text
    assert "No samples of alone: RuntimeError: out of memory" in caplog.text
    assert "No samples of short: ValueError: it reads at most 5 tokens" in caplog.text
    assert write_samples(tmp_path, data(batch()), {}, Cannot()) == []
    assert (tmp_path / "report.md").read_text().count("## Samples") == 1


def test_a_model_writes_no_further_than_it_reads(tmp_path):
    student = gpt2(2, positions=8)
    student.generation_config.eos_token_id = None
    (sample,) = write_samples(tmp_path, data(batch()), {"student": student}, count=1)
    assert sample.continuations["student"] == words(*greedy(student.eval(), range(7, 12), 3))


def test_a_teacher_with_a_tokenizer_of_its_own_reads_the_same_text(tmp_path):
    own = tokenizer([*WORDS[:7], *reversed(WORDS[7:])])
    teacher = gpt2(1)
    rows = data(batch(), teacher_tokenizer=own)
    (sample,) = write_samples(tmp_path, rows, {}, teacher, count=1, max_new_tokens=4)
    ids = own(sample.prompt)["input_ids"]
    assert sample.prompt == words(*range(7, 12)) and ids == [49, 48, 47, 46, 45]
    assert sample.continuations["teacher"] == own.decode(greedy(teacher.eval(), ids, 4))
