"""A tokenizer with fewer tokens, which splits texts of these tokens as the whole one does."""

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from transformers import AutoTokenizer

from ..models.remote_code import remote_code_is_trusted
from ..models.tokenizer import tokenizer_steps
from .vocabulary_kinds import KINDS, WordPiece

SEEN = "seen"
FILE = "tokenizer.json"


@dataclass(frozen=True)
class VocabularyCut:
    """A tokenizer with fewer tokens, beside the one that it was made of.

    Attributes:
        tokenizer: the smaller one.
        whole: that of the teacher.
        ids: by the number of a token in the smaller one, its number in the whole one, shape
            (tokens,).
    """

    tokenizer: Any
    whole: Any
    ids: Int[np.ndarray, " tokens"]

    @property
    def places(self) -> dict[int, int]:
        """From the number of a token in the whole tokenizer to that in the smaller one."""
        return {old: new for new, old in enumerate(self.ids.tolist())}


def check_vocabulary(asked: Any) -> None:
    """Refuse what is no size of a vocabulary.

    Args:
        asked: the most tokens that a student shall have, or `seen`.

    Raises:
        ValueError: for anything else.
    """
    number = isinstance(asked, int) and not isinstance(asked, bool) and asked > 0
    if not number and asked != SEEN:
        raise ValueError(
            "`student.vocabulary` must be the most tokens that the student shall have, as in "
            "student.vocabulary=8000, or `seen` for all that the training texts use, got "
            f"{asked!r}."
        )


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse a tokenizer whose vocabulary cannot be cut.

    Raises:
        ValueError: for one that is written in Python, and for other kinds than there are.
    """
    steps = tokenizer_steps(tokenizer)
    name = type(tokenizer).__name__
    if steps is None:
        raise ValueError(
            f"student.vocabulary cuts fast tokenizers, with a file {FILE}, and {name} is written "
            "in Python. Convert it to a fast one, or leave student.vocabulary=null."
        )
    kind = steps["model"]["type"]
    if kind not in KINDS:
        raise ValueError(
            f"student.vocabulary cuts tokenizers of the kinds {', '.join(KINDS)}, and {name} is "
            f"of the kind {kind}. Leave student.vocabulary=null."
        )


def cut_vocabulary(
    tokenizer: Any, counts: Int[np.ndarray, " ids"], asked: int | str
) -> VocabularyCut:
    """The tokenizer with the tokens that are used most.

    These always stay: special and added tokens; single characters or bytes, and tokens that these
    cannot replace, so that no text becomes unknown; and what a byte-pair encoding joins to get a
    token that stays. A text all of whose tokens stay is split as before.

    Args:
        tokenizer: a fast one of transformers; it stays as it is.
        counts: how often the training texts use each token, by its number.
        asked: the most tokens that stay, or `seen` for all that are counted.

    Raises:
        ValueError: for another kind of tokenizer, and a number below what must stay.
    """
    check_vocabulary(asked)
    check_tokenizer(tokenizer)
    steps: Any = tokenizer_steps(tokenizer)
    kind = KINDS[steps["model"]["type"]](steps["model"])
    every = tokenizer.get_vocab()
    added = every.keys() - kind.ids.keys()
    # Special tokens are not found in a text by joining letters.
    kept = _special(tokenizer, steps) & kind.ids.keys() | _with_parts(kind, kind.always())
    if isinstance(asked, int) and len(kept) + len(added) > asked:
        raise ValueError(
            f"student.vocabulary={asked} is less than what must stay of the teacher's "
            f"{len(every):,} tokens: {len(kept) + len(added):,} special tokens and single "
            f"characters. Set student.vocabulary={len(kept) + len(added)} or more, or "
            "student.vocabulary=seen."
        )
    most = asked - len(added) if isinstance(asked, int) else len(every)
    names = {i: token for token, i in kind.ids.items()}
    # Of those that are as frequent, the first.
    for i in np.argsort(-counts, kind="stable").tolist():
        if counts[i] == 0 or len(kept) == most:
            break
        if i in names and names[i] not in kept:
            more = _with_parts(kind, [names[i]]) - kept
            if len(kept) + len(more) <= most:
                kept |= more
    order = sorted(kept, key=kind.ids.__getitem__) + sorted(added, key=every.__getitem__)
    smaller = _smaller(tokenizer, kind.cut(kept), {token: i for i, token in enumerate(order)})
    return VocabularyCut(smaller, tokenizer, np.array([every[t] for t in order], dtype=np.int64))


def _special(tokenizer: Any, steps: Mapping[str, Any]) -> set[str]:
    """Tokens that are looked for before a text is split, and those that have a name."""
    return {*tokenizer.all_special_tokens, *(entry["content"] for entry in steps["added_tokens"])}


def _with_parts(kind: WordPiece, tokens: Iterable[str]) -> set[str]:
    """Tokens and all that they need; parts of a part are made by its first merges."""
    found: set[str] = set()
    for token in tokens:
        found |= {token, *(part for part in kind.parts(token) if part in kind.ids)}
    return found


def _smaller(tokenizer: Any, model: Mapping[str, Any], ids: Mapping[str, int]) -> Any:
    """A tokenizer as another, with this part `model`, read as transformers reads it from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        tokenizer.save_pretrained(folder)
        steps = _renumbered(json.loads(path.read_text(encoding="utf-8")), ids)
        steps["model"] = model
        path.write_text(json.dumps(steps, ensure_ascii=False), encoding="utf-8")
        made = AutoTokenizer.from_pretrained(folder, trust_remote_code=remote_code_is_trusted())
    if made.get_vocab() != ids:
        raise ValueError(
            f"The vocabulary of {type(tokenizer).__name__} cannot be cut: transformers adds tokens "
            "of its own to it. Leave student.vocabulary=null."
        )
    made.name_or_path = ""
    return made


def _renumbered(steps: Any, ids: Mapping[str, int]) -> Any:
    """The steps of a tokenizer with the new numbers of tokens that they name."""
    for entry in steps["added_tokens"]:
        entry["id"] = ids[entry["content"]]
    if steps.get("padding"):
        steps["padding"]["pad_id"] = ids[steps["padding"]["pad_token"]]
    _renumber_processor(steps.get("post_processor"), ids)
    return steps


def _renumber_processor(step: Any, ids: Mapping[str, int]) -> None:
    """Write the new numbers into what puts special tokens around a text."""
    if not step:
        return
    for name in ("sep", "cls"):
        if name in step:
            step[name] = [step[name][0], ids[step[name][0]]]
    for entry in (step.get("special_tokens") or {}).values():
        entry["ids"] = [ids[token] for token in entry["tokens"]]
    for inner in step.get("processors") or ():
        _renumber_processor(inner, ids)
