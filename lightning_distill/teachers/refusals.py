"""Terms that ask for what a cache does not have are refused before the first step."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ..cache import AnswerStore, EncodedRows
from ..cache.answer import Encoding
from ..models.forward import kept_heads
from ..models.source import Source
from .answers import names_of
from .encodings import encoding_of


class NotKeptError(ValueError):
    """A cache does not hold what is asked of it, and a live teacher could say it.

    Args:
        what: is missing, a sentence.
        advice: what to do where the cache was typed.
    """

    def __init__(self, what: str, advice: str):
        super().__init__(f"{what} {advice}")
        self.what = what


def check_source(store: AnswerStore, source: Source, name: str, term: Any) -> None:
    """Refuse a source that is not in the cache, or that needs a mask and has none."""
    if source.kind == "head":
        if source.name not in store.head_names:
            raise not_kept(store, source, name)
        return
    of_teacher = store.about["teacher"]
    names = names_of(source, of_teacher)
    kept = [store.answers[n] for n in names if n in store.answers]
    if not kept or (len(kept) < len(names) and not source.is_many):
        raise not_kept(store, source, name)
    if any(answer.per_token for answer in kept) and not store.about.get("one_length"):
        check_mask(source, name, term)


def check_encodings(
    terms: Mapping[str, Any], encoding: Callable[[str], Encoding], where: str, advice: str
) -> None:
    """Refuse terms that read the largest logits or drawn classes where others are kept.

    Args:
        terms: those of an objective.
        encoding: from the name of an answer to how it is written.
        where: what keeps them, for an error.
        advice: what stands before the name of a setting.
    """
    for name, term in terms.items():
        for source in (s for s in term.sources() if s.kind == "sparse"):
            kept, criterion = encoding(source.name).settings(), term.criterion
            found, own = kept["kind"], kept.get("temperature", 1.0)
            wanted = criterion.encoding or (found if found != "full" else "top_k")
            at = criterion.encoding_temperature
            at = own if at is None else at
            if found != wanted or own != at:
                raise NotKeptError(
                    f"Term {name!r} reads teacher.{source.name} as {wanted} at temperature "
                    f"{at:.4g}, and {where} keeps {found}"
                    + (f" at {own:.4g}." if found != "full" else "."),
                    f"Keep what it reads, with {advice}logits={wanted} "
                    f"{advice}temperature={at:.4g}, or choose a criterion for what is there.",
                )


def check_effects(
    sources: Sequence[Source], given: Mapping[str, Any], where: str, advice: str
) -> None:
    """Refuse settings by which fewer logits are kept where none are.

    Args:
        sources: of the teacher, all that are kept.
        given: arguments of [`encoding_of`][]; defaults pass.
        where: what keeps them, for an error.
        advice: what stands before the name of a setting.
    """
    if not kept_heads(sources):
        return
    read = [str(source) for source in sources if source.kind != "head"]
    defaults = inspect.signature(encoding_of).parameters
    for name in ("logits", "k", "draws", "temperature"):
        if given.get(name, defaults[name].default) != defaults[name].default:
            raise ValueError(
                f"{advice}{name}={given[name]} changes nothing: the criteria read "
                f"{', '.join(read)}, of which logits follow, so {where} keeps no logits. Leave it "
                "out, or choose a criterion that reads fewer logits, as in "
                f"criteria=[fused_linear_top_k] with {advice}logits=top_k."
            )


def check_mask(source: Source, name: str, term: Any) -> None:
    """Refuse a term that reads answers per token and is not told which are padding."""
    by_labels = term.criterion.masked_by_labels and "labels" in term.inputs
    # Where the classes are positions, those that count are named in another way.
    if not by_labels and not {"mask", "positions"} & {*term.inputs}:
        raise NotKeptError(
            f"Term {name!r} reads {source}, which a cache keeps without padding, and has no mask: "
            "padding would be compared with zeros.",
            f"Give the term a mask, as in criteria.{name}.inputs.mask=batch.attention_mask.",
        )


def not_kept(
    store: AnswerStore | EncodedRows, source: Source, term: str | None = None
) -> NotKeptError:
    """The refusal of a source that is not in a cache.

    Args:
        store: the cache.
        source: of the teacher.
        term: that reads it, if one does.
    """
    near = get_close_matches(str(source).partition(".")[2], store.answers, n=1)
    hint = f"Nearest: {near[0]}. " if near else ""
    kept = [*store.answers, *(f"head:{path}" for path in store.head_names)]
    return NotKeptError(
        ("" if term is None else f"Term {term!r}: ")
        + f"{source} is not in the cache {store.folder}, which has {', '.join(kept)}.",
        f"{hint}Make one with the same criteria: lightning-distill job=cache criteria=[...].",
    )
