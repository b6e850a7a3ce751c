"""Whether both models are given the same, and what each was trained with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..data.data import DataFacts
from ..data.load_tokenizer import load_tokenizer
from ..data.pictures.image_processor import ImageProcessor, load_image_processor
from ..models.batch import entry, labels_of
from ..models.configuration import label_names
from ..models.label_order import are_named, label_order
from ..models.vocabulary import compare_vocabularies
from ..tasks import Task
from .finding import Finding, Level

CONVERSATION = [
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "It is 4."},
]
# A share of tokens that a tokenizer does not know.
UNKNOWN_TOKENS = 0.1


def check_labels(data: Any, student: Any, teacher: Any, task: Task) -> Iterator[Finding]:
    """Whether data, student and teacher know the same labels in the same order.

    Args:
        data: a data module that is set up.
        student: the model.
        teacher: a [`Teacher`][]; `None` without one.
        task: of the labels.
    """
    if not task.has_names or task.predicts_ids or not task.fixed_classes or teacher is None:
        return
    ours, theirs = DataFacts(data).label_names or label_names(student), teacher.label_names
    if not are_named(ours) or not are_named(theirs):
        who = "teacher" if are_named(ours) else "data"
        found = f"the {who} does not say what its classes are called: they are compared by number"
        yield Finding("labels.order", "labels", found, Level.UNKNOWN)
        return
    assert ours is not None
    order = label_order(ours, theirs)
    brief = f"Both models: the same {len(ours)} labels"
    if order is None:
        found = f"{len(ours)}, the same in the same order"
    else:
        found = f"{len(ours)}, the same in another order; the teacher's are put in the student's"
        brief += ", in another order"
    yield Finding("labels.order", "labels", found, brief=brief)


def check_tokenizers(data: Any, folders: Mapping[str, str | None], batch: Any) -> Iterator[Finding]:
    """Whether a conversation or a text is written to both models as each was trained with.

    Args:
        data: a data module that is set up.
        folders: where the tokenizers of `student` and `teacher` are; `None` if there is none.
        batch: of training rows.
    """
    facts = DataFacts(data)
    tokenizer = facts.tokenizer
    if tokenizer is None:
        return
    yield from _unknown_tokens(tokenizer, entry(batch, "input_ids"))
    used = {"student": tokenizer, "teacher": facts.teacher_tokenizer or tokenizer}
    written = facts.writes_conversations
    for role, folder in folders.items():
        own = None if folder is None else load_tokenizer(folder)
        if own is None:
            continue
        yield _ids(role, used[role], own)
        if written:
            yield _template(role, used[role], own)
    if written:
        yield _end(tokenizer, labels_of(batch))


def _unknown_tokens(tokenizer: Any, ids: Any) -> Iterator[Finding]:
    unknown = tokenizer.unk_token_id
    if not isinstance(ids, Tensor) or unknown is None or unknown == tokenizer.pad_token_id:
        return
    known = ids != tokenizer.pad_token_id
    share = float((ids == unknown).sum() / known.sum().clamp(min=1))
    found = f"{share:.1%} of the tokens of a batch are unknown to the tokenizer"
    if share <= UNKNOWN_TOKENS:
        yield Finding("tokens.unknown", "tokens", found)
        return
    do = "Take a tokenizer of this language, as in data.tokenizer=DIR, and a model that reads it."
    yield Finding("tokens.unknown", "tokens", found, Level.WARNING, do)


def _ids(role: str, used: Any, own: Any) -> Finding:
    compared = compare_vocabularies(used, own)
    about = f"ids of the {role}"
    if compared.first_difference is None and not compared.steps:
        brief = f"Both models: the {role}'s own tokens"
        return Finding("tokens.ids", about, "are those of its own tokenizer", brief=brief)
    do = f"Give it its own: data.{'teacher_' if role == 'teacher' else ''}tokenizer=DIR."
    found = str(compared).rstrip(".")
    if not compared.comparable:
        return Finding("tokens.ids", about, found, Level.WRONG, do)
    level = Level.WARNING if compared.steps else Level.RIGHT
    return Finding("tokens.ids", about, found, level, do if compared.steps else "")


def _template(role: str, used: Any, own: Any) -> Finding:
    about = f"prompt of the {role}"
    if not isinstance(own.chat_template, str):
        return Finding("prompt.template", about, "its own tokenizer has no template", Level.UNKNOWN)
    texts = [t.apply_chat_template(CONVERSATION, tokenize=False) for t in (used, own)]
    ids = [t(text, add_special_tokens=False)["input_ids"] for t, text in zip((used, own), texts)]  # noqa: B905
    if texts[0] == texts[1]:
        same = "the same text and ids" if ids[0] == ids[1] else "the same text, other ids"
        brief = f"Both models: {same} of a prompt as by the {role}'s template"
        return Finding("prompt.template", about, f"{same} as by its own template", brief=brief)
    at = next(
        (i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts))
    )
    return Finding(
        "prompt.template",
        about,
        f"is not what its own template writes: {texts[0][at : at + 24]!r} in the place of "
        f"{texts[1][at : at + 24]!r}, at character {at}",
        Level.WARNING,
        "Write conversations as it was trained with: put its template into a file and name it, "
        "data.chat_template=FILE.",
    )


def _end(tokenizer: Any, labels: Any) -> Finding:
    end = tokenizer.eos_token_id
    learnt = isinstance(labels, Tensor) and bool((labels == end).any())
    token = tokenizer.convert_ids_to_tokens(end)
    about = "end of an answer"
    if learnt:
        return Finding("prompt.end", about, f"is learnt ({token})")
    return Finding(
        "prompt.end",
        about,
        f"is not learnt: no label of a batch is {token}",
        Level.WARNING,
        "A student that never ends is the result: let the chat template write the end token "
        "behind each answer, or set tokenizer.eos_token to what it writes.",
    )


def check_pictures(data: Any, own: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether each model is given pictures as it was trained with.

    Args:
        data: a data module that is set up.
        own: by `student` and `teacher` what came with the model, as a folder or settings; `None`
            if nothing did.
    """
    used = DataFacts(data).image_processors
    if used is None:
        return
    for (role, came), given in zip(own.items(), used, strict=True):
        about, is_used = f"pictures of the {role}", load_image_processor(given)
        if came is None:
            found = f"as the data says ({_described(is_used)}); the model does not say"
            # A fresh student learns whatever it is given.
            level = Level.UNKNOWN if role == "teacher" else Level.RIGHT
            yield Finding("pictures.normalisation", about, found, level)
            continue
        wanted = load_image_processor(came)
        if _values(wanted) == _values(is_used):
            brief = f"Both models: the {role}'s own normalisation of pictures"
            found = f"{_described(is_used)}, its own"
            yield Finding("pictures.normalisation", about, found, brief=brief)
            continue
        option = "teacher_image_processor" if role == "teacher" else "image_processor"
        yield Finding(
            "pictures.normalisation",
            about,
            f"{_described(is_used)}, and the model was trained with {_described(wanted)}",
            Level.WARNING,
            f"Leave data.{option}, data.mean and data.std null, so that its own is taken.",
        )


def _values(processor: ImageProcessor) -> tuple[Any, ...]:
    return processor.mean, processor.std, processor.scale


def _described(processor: ImageProcessor) -> str:
    def short(values: Sequence[float]) -> str:
        return ",".join(f"{v:.3g}" for v in values)

    return f"mean {short(processor.mean)}, std {short(processor.std)}"
