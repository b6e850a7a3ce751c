"""Conversations for language models, from files of messages; the answers are learnt."""

import copy
import json
import logging
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets

from ...find_files import Files, find_files
from ..read_table import rows_of, suffix
from .chat_tokens import ChatEncoder
from .language_model import LanguageModelData

log = logging.getLogger("lightning_distill")

KINDS = (".jsonl", ".json", ".parquet")


class ChatFiles(LanguageModelData):
    """Conversations, written by the tokenizer's chat template; the assistant's turns are learnt.

    A row of a file has `messages`, a list of {role, content}, or a `prompt` and a `completion`,
    each a text or such a list. What of a conversation is learnt is said by `ChatEncoder`.

    A conversation is never continued in another row: with `packing` several whole ones share a
    row, and one of more than `max_length` tokens is cut. One of which no answer is left is left
    out, as is one without a turn of the assistant; a warning counts them.

    Args:
        train: a file (.jsonl, .json, .parquet, also with .gz), a folder, a pattern with `*`, or a
            list of them.
        validation: the same; by default conversations are cut from the training data.
        test: the same; by default the validation data.
        messages: column of the messages.
        prompt: column of what is asked, where there are no messages.
        completion: column of the answer to it.
        chat_template: a file with a template in Jinja; by default the tokenizer's own. The
            student's tokenizer is saved with it.
        options: those of [`LanguageModelData`][].

    Raises:
        FileNotFoundError: for files that are not there.
        ValueError: for rows that are no conversations, for a tokenizer without a template, and for
            a template that does not say what the assistant writes.
    """

    divisible = False

    def __init__(
        self,
        train: Files,
        validation: Files | None = None,
        test: Files | None = None,
        messages: str = "messages",
        prompt: str = "prompt",
        completion: str = "completion",
        chat_template: str | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.files = {"train": train, "validation": validation, "test": test}
        self.messages, self.prompt, self.completion = messages, prompt, completion
        self.chat_template = chat_template

    def documents(self, split: str, epoch: int | None = None) -> Iterator[dict[str, Any]]:
        """The conversations of a split in JSON, and what each is called in errors."""
        given = self.files[split]
        if given is None:
            return
        silent = count = 0
        files = find_files(split, given, folders=True)
        for file in files:
            if suffix(file) not in KINDS:
                raise ValueError(
                    f"{file} (data.{split}) must end in {', '.join(KINDS)}, also with .gz."
                )
        bad_rows = self.bad_rows_of(epoch)
        for file in self.in_order_of(files, epoch):
            for number, row in enumerate(rows_of([file], streaming=epoch is not None), 1):
                name = f"row {number} of {file}"
                try:
                    messages = self._conversation(row, name)
                except ValueError as error:
                    bad_rows.add(split, str(error))
                    continue
                count += 1
                if any(message["role"] == "assistant" for message in messages):
                    yield {"messages": json.dumps(messages), "number": name}
                else:
                    silent += 1
        if silent:
            log.warning(
                "%d of %d conversations of the %s data have no turn of the assistant, so nothing "
                "is to be learnt, and are left out",
                silent,
                count,
                split,
            )

    def load(self) -> dict[str, datasets.Dataset]:
        """Read every file that was named."""
        return self.held_splits(self.files, ("messages", "number"))

    def texts(self, documents: Iterable[dict[str, Any]]) -> Iterator[str]:
        """What everyone says."""
        for row in documents:
            for message in json.loads(row["messages"]):
                if isinstance(message.get("content"), str):
                    yield message["content"]

    def encoder(self, tokenizer: Any) -> ChatEncoder:
        """By the tokenizer's template."""
        return ChatEncoder(tokenizer)

    def prepare_tokenizers(self, train: Iterable[dict[str, Any]]) -> None:
        """Those of the documents, with the template that was named."""
        template = None
        if self.chat_template is not None:
            path = Path(self.chat_template).expanduser()
            if not path.is_file():
                raise FileNotFoundError(
                    f"There is no file {self.chat_template} (data.chat_template): name one that "
                    "holds a template in Jinja."
                )
            template = path.read_text(encoding="utf-8")
        super().prepare_tokenizers(train)
        if template is not None:
            self.tokenizer = _with_template(self.tokenizer, template)
            teacher: Any = self.teacher_tokenizer
            if teacher is not None and teacher.chat_template is None:
                self.teacher_tokenizer = _with_template(teacher, template)

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        tokenizers: list[Any] = [self.tokenizer, self.teacher_tokenizer]
        templates = [None if t is None else t.chat_template for t in tokenizers]
        return {**super().preprocessing(), "chat_templates": templates}

    def _conversation(self, row: dict[str, Any], name: str) -> list[dict[str, Any]]:
        if self.messages in row:
            return _messages(row[self.messages], name, self.messages)
        missing = [column for column in (self.prompt, self.completion) if column not in row]
        if missing:
            near = get_close_matches(self.messages, row, n=1) or [
                column for column in row if column in ("conversations", "conversation")
            ]
            hint = f" Did you mean data.messages={near[0]}?" if near else ""
            raise ValueError(
                f"{name} has no column {self.messages!r} (data.messages), nor "
                f"{' and '.join(map(repr, missing))}; it has {', '.join(row)}.{hint}"
            )
        conversation = []
        for column, role in ((self.prompt, "user"), (self.completion, "assistant")):
            said = row[column]
            if isinstance(said, str):
                conversation.append({"role": role, "content": said})
            else:
                conversation += _messages(said, name, column)
        return conversation


def _with_template(tokenizer: Any, template: str) -> Any:
    # The caller's own object stays as it is.
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


def _messages(value: Any, name: str, column: str) -> list[dict[str, Any]]:
    wanted = "a list of {role: ..., content: ...}"
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name} must hold {wanted} in {column!r}, got {_short(value)}.")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            hint = ""
            if isinstance(message, dict) and {"from", "value"} <= message.keys():
                hint = " Rename `from` to `role` and `value` to `content`."
            raise ValueError(
                f"{name} must hold {wanted} in {column!r}, got {_short(message)}.{hint}"
            )
    # Parquet and json fill in the keys that other messages have.
    return [{k: v for k, v in message.items() if v is not None} for message in value]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
