"""What the models of a run write, given the beginnings of test rows."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn, Tensor

from ..data.data import DataFacts
from ..models.configuration import is_encoder_decoder, longest_input
from ..models.embeddings import generates
from ..models.modes import in_eval_mode
from ..models.written_texts import write_texts, Writing
from ..teachers.teacher import Teacher

log = logging.getLogger("lightning_distill")

UNLABELLED = -100


@dataclass
class Sample:
    """A test row, and how models go on with it.

    Attributes:
        prompt: its beginning.
        text: how it goes on itself.
        continuations: how each model goes on, by the name of the model.
    """

    prompt: str
    text: str
    continuations: dict[str, str]


def write_samples(
    directory: Path,
    data: Any,
    students: Mapping[str, nn.Module],
    teacher: nn.Module | None = None,
    count: int = 3,
    prompt_tokens: int = 32,
    max_new_tokens: int = 48,
    from_source: bool = False,
) -> list[Sample]:
    """Let models go on with the beginnings of test rows, and add that to the report.

    Each takes the likeliest token every time. A model that cannot generate is left out, with a line
    in the log; so is one that fails.

    Args:
        directory: of the run; `report.md` and `report.json` in it get a section each, if they are
            there.
        data: with `test_dataloader()`, batches of which are as those of a language model are,
            `tokenizer`, and `teacher_tokenizer` if the teacher has one of its own.
        students: models by the name that they get in the report.
        teacher: called `teacher` there.
        count: how many rows.
        prompt_tokens: how many tokens of a row are the prompt; in a row of which the beginning is
            not learned, such as a chat, it is that beginning.
        max_new_tokens: how many tokens a model writes at most.
        from_source: whether texts are written from a row, which then is the prompt as a whole, and
            do not go on with it.

    Returns:
        The samples; none where no model writes any.
    """
    own = DataFacts(data).teacher_tokenizer
    model = None if teacher is None else Teacher.of(teacher).model
    models = {} if model is None else {"teacher": (model, own)}
    models |= {name: (student, None) for name, student in students.items()}
    models = {name: pair for name, pair in models.items() if _can_generate(name, pair[0])}
    if not models or DataFacts(data).tokenizer is None:
        return []
    samples = []
    rows = data.test_dataloader()
    found = _sources(rows, count) if from_source else _prompts(rows, count, prompt_tokens)
    for prompt, rest in found:
        text = data.tokenizer.decode(prompt)
        sample = Sample(text, data.tokenizer.decode(rest[:max_new_tokens]), {})
        for name, (model, tokenizer) in list(models.items()):
            ids = prompt
            if tokenizer is not None:
                # Signs between the parts of a chat are another's in another tokenizer.
                plain = data.tokenizer.decode(prompt, skip_special_tokens=True)
                ids = torch.tensor(tokenizer(plain)["input_ids"])
            try:
                written = _continued(model, ids, tokenizer or data.tokenizer, max_new_tokens)
            except Exception as error:
                # The run is over, and what it has learnt shall not be lost for a sample.
                log.warning(f"No samples of {name}: {type(error).__name__}: {error}")
                del models[name]
                continue
            sample.continuations[name] = written
        samples.append(sample)
    samples = [sample for sample in samples if sample.continuations]
    if samples:
        _add(samples, directory)
    return samples


def _can_generate(name: str, model: nn.Module) -> bool:
    able = generates(model)
    if not able:
        log.info(f"No samples of {name}: a {type(model).__name__} does not generate.")
    return able


def _prompts(batches: Any, count: int, prompt_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Prompts and how their rows go on, in ids."""
    found = 0
    for batch in batches:
        for i in range(len(batch["input_ids"])):
            if found == count:
                return
            row = {k: v[i] for k, v in batch.items() if isinstance(v, Tensor) and v.dim()}
            ids = _document(row)
            if int(row.get("row", 0)) < 0 or len(ids) < 2:
                continue
            length = _prompt_length(row, len(ids), prompt_tokens)
            yield ids[:length], ids[length:]
            found += 1


def _sources(batches: Any, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Sources and what is to be written from them, in ids; none of what is no text, as speech."""
    found = 0
    for batch in batches:
        for i in range(len(batch.get("input_ids", ()))):
            if found == count:
                return
            row = {k: v[i] for k, v in batch.items() if isinstance(v, Tensor) and v.dim()}
            if int(row.get("row", 0)) < 0:
                continue
            yield _document(row), row["labels"][row["labels"] != UNLABELLED]
            found += 1


def _document(row: Mapping[str, Tensor]) -> Tensor:
    """The tokens of a row, of its first document where several are packed into it."""
    ids, mask, positions = row["input_ids"], row.get("attention_mask"), row.get("position_ids")
    if mask is not None:
        return ids[mask.bool()]
    starts = [] if positions is None else (positions == 0).nonzero().flatten().tolist()[1:]
    return ids[: starts[0]] if starts else ids


def _prompt_length(row: Mapping[str, Tensor], tokens: int, prompt_tokens: int) -> int:
    labels = row.get("labels")
    if labels is not None and int(labels[0]) == UNLABELLED:
        learned = (labels[:tokens] != UNLABELLED).nonzero().flatten().tolist()
        if learned:
            # The label is the token that follows.
            return int(learned[0]) + 1
    # Of a short row a half, so that there is something to go on with.
    return min(prompt_tokens, max(tokens // 2, 1))


@torch.no_grad()
def _continued(model: nn.Module, prompt: Tensor, tokenizer: Any, max_new_tokens: int) -> str:
    longest = longest_input(model)
    if is_encoder_decoder(model):
        return _written(model, prompt, tokenizer, max_new_tokens)
    if longest is not None:
        max_new_tokens = min(max_new_tokens, longest - len(prompt))
    if max_new_tokens < 1:
        raise ValueError(f"it reads at most {longest} tokens, and the prompt has {len(prompt)}.")
    device = next(model.parameters()).device
    ids = prompt.unsqueeze(0).to(device)
    end = tokenizer.eos_token_id
    with in_eval_mode(model):
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            use_cache=True,
            pad_token_id=next(i for i in (tokenizer.pad_token_id, end, 0) if i is not None),
            **({} if end is None else {"eos_token_id": end}),
        )
    return str(tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True))


def _written(model: nn.Module, source: Tensor, tokenizer: Any, max_new_tokens: int) -> str:
    ids = source.unsqueeze(0).to(next(model.parameters()).device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    (row,) = write_texts(model, inputs, Writing(max_new_tokens))
    return str(tokenizer.decode(row[row != UNLABELLED], skip_special_tokens=True))


def _add(samples: list[Sample], directory: Path) -> None:
    report, facts = directory / "report.md", directory / "report.json"
    if report.is_file():
        lines = ["", "## Samples", "", "Test rows, and what each model writes; greedy."]
        for i, sample in enumerate(samples, 1):
            parts = {"prompt": sample.prompt, "the row itself": sample.text}
            lines += ["", f"### {i}"]
            for title, text in {**parts, **sample.continuations}.items():
                lines += ["", f"{title}:", "", *_fenced(text)]
        with report.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    if facts.is_file():
        found = {
            **json.loads(facts.read_text(encoding="utf-8")),
            "samples": [asdict(s) for s in samples],
        }
        facts.write_text(json.dumps(found, indent=2), encoding="utf-8")


def _fenced(text: str) -> list[str]:
    """A block of Markdown that nothing in the text ends."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)
    return [f"{fence}text", text, fence]
