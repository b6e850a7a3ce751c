"""Tokens of conversations, written by a tokenizer's template, and which of them are learnt."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import TemplateError

from .token_bytes import sizes_by_offsets, special_ids

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
TAGS = (
    "Put {% generation %} and {% endgeneration %} around what the assistant says in a copy of the "
    "template, and name it: data.chat_template=FILE"
)


class ChatEncoder:
    """Makes tokens of some conversations; the turns of the assistant are learnt.

    Where the template says by `{% generation %}` what the assistant writes, that is learnt. Else
    it is what a turn of the assistant adds to all before it and the invitation to answer
    (`add_generation_prompt`), with the end of the turn; a token that begins before that and
    reaches into it is learnt too. The template says what ends a turn: no end token is added.

    Args:
        tokenizer: a fast one of transformers, with a chat template.

    Raises:
        ValueError: if it has none.
    """

    def __init__(self, tokenizer: Any):
        if not isinstance(tokenizer.chat_template, str):
            raise ValueError(
                f"The tokenizer ({type(tokenizer).__name__}) has no chat template, so nothing says "
                "how a conversation is written. Name a file that has one, as Hugging Face writes "
                "them in Jinja: data.chat_template=FILE."
            )
        self.tokenizer = tokenizer
        self.tagged = GENERATION.search(tokenizer.chat_template) is not None
        self.special = special_ids(tokenizer)
        self.about = f"conversations by {tokenizer.chat_template}"

    def __call__(self, batch: Mapping[str, Sequence[str]]) -> dict[str, list[np.ndarray]]:
        """`input_ids`, `bytes` and `learnt` of each conversation.

        Args:
            batch: a list `messages` of conversations in JSON, each a list of {role, content}, and
                a list `number` of what they are called in errors.

        Raises:
            ValueError: for a conversation that the template cannot write, or whose beginning it
                writes differently when more follows.
        """
        ids, bytes_, learnt = [], [], []
        for number, told in zip(batch["number"], batch["messages"], strict=True):
            messages = json.loads(told)
            text = self._written(messages, number)
            found = self.tokenizer(
                text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )
            own = np.asarray(found["input_ids"], dtype=np.int32)
            offsets = np.asarray(found["offset_mapping"], dtype=np.int64).reshape(-1, 2)
            mask = self._by_tags(messages) if self.tagged else None
            if mask is None:
                mask = np.zeros(len(own), dtype=bool)
                for begin, end in self._by_prefixes(messages, text, number):
                    mask |= (offsets[:, 1] > begin) & (offsets[:, 0] < end)
            sizes = sizes_by_offsets(text, offsets)
            # They stand for no text, however they are written.
            sizes[np.isin(own, self.special)] = 0
            ids.append(own)
            bytes_.append(sizes.astype(np.int32))
            learnt.append(mask.astype(np.int8))
        return {"input_ids": ids, "bytes": bytes_, "learnt": learnt}

    def _written(self, messages: list[dict[str, Any]], number: Any, invite: bool = False) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=invite
            )
        except (TemplateError, TypeError, KeyError, ValueError) as error:
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise ValueError(
                f"The chat template cannot write {number} ({roles}): {error}. Correct the "
                f"conversation; or, if the template only refuses a part of it: {TAGS}."
            ) from error

    def _by_tags(self, messages: list[dict[str, Any]]) -> np.ndarray:
        found = self.tokenizer.apply_chat_template(
            messages,
            return_dict=True,
            return_assistant_tokens_mask=True,
            tokenizer_kwargs={"verbose": False},
        )
        return np.asarray(found["assistant_masks"], dtype=bool)

    def _by_prefixes(
        self, messages: list[dict[str, Any]], text: str, number: Any
    ) -> list[tuple[int, int]]:
        """Where what the assistant writes begins and ends, in characters."""
        found = []
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            if turn == 0:
                raise ValueError(
                    f"{number} begins with a turn of the assistant, which answers nothing: what of "
                    f"it is learnt cannot be told. Leave it out, or: {TAGS}."
                )
            before = self._written(messages[:turn], number, invite=True)
            with_it = self._written(messages[: turn + 1], number)
            if not (with_it.startswith(before) and text.startswith(with_it)):
                raise ValueError(
                    f"The chat template writes the beginning of {number} differently when more "
                    "follows, so what of it the assistant says cannot be told from its length. "
                    f"{TAGS}."
                )
            found.append((len(before), len(with_it)))
        return found
