"""Terms that ask for what a cache does not have are refused before the first step."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ..cache import AnswerStore
from ..cache.answer import Encoding
from ..models.forward import kept_heads
from ..models.source import Source
from .answers import names_of
from .encodings import encoding_of


def check_source(store: AnswerStore, source: Source, name: str, term: Any) -> None:
    """Refuse a source that is not in the cache, or that needs a mask and has none."""
    if source.kind == "head":
        if source.name not in store.head_names:
            raise ValueError(f"Term {name!r}: {not_kept(store, source)}")
        return
    of_teacher = store.about["teacher"]
    names = names_of(source, of_teacher)
    kept = [store.answers[n] for n in names if n in store.answers]
    if not kept or (len(kept) < len(names) and not source.is_many):
        raise ValueError(f"Term {name!r}: {not_kept(store, source)}")
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
                raise ValueError(
                    f"Term {name!r} reads teacher.{source.name} as {wanted} at temperature "
                    f"{at:.4g}, and {where} keeps {found}"
                    + (f" at {own:.4g}" if found != "full" else "")
                    + f". Keep what it reads, with {advice}logits={wanted} "
                    f"{advice}temperature={at:.4g}, or choose a criterion for what is there."
                )


def check_effects(
    sources: Sequence[Source], given: Mapping[str, Any], where: str, advice: str
) -> None:
    """Refuse settings of what is kept that change nothing, for nothing of that kind is kept.

    Args:
        sources: of the teacher, all that are kept.
        given: arguments of [`encoding_of`][]; defaults pass.
        where: what keeps them, for an error.
        advice: what stands before the name of a setting.
    """
    defaults = {n: p.default for n, p in inspect.signature(encoding_of).parameters.items()}
    changed = [n for n, default in defaults.items() if given.get(n, default) != default]
    logits = [s for s in sources if s.kind in ("output", "sparse") and s.name == "logits"]
    others = [s for s in sources if s.kind != "head" and s not in logits]
    heads = kept_heads(list(sources))
    kind = given.get("logits", "full")
    # What reads each setting of logits.
    readers = {"k": ("top_k",), "draws": ("sampled",), "temperature": ("top_k", "sampled")}
    readers["dtype"] = ("full", "top_k")
    for name in changed:
        setting = f"{advice}{name}={given[name]}"
        if name == "hidden_dtype":
            if not others:
                raise ValueError(
                    f"{setting} changes nothing: {where} keeps logits alone, whose type is "
                    f"{advice}dtype. Leave it out."
                )
        elif heads and not logits:
            raise ValueError(
                f"{setting} changes nothing: the criteria read {', '.join(map(str, others))}, of "
                f"which logits follow, so {where} keeps no logits. Leave it out, or choose a "
                "criterion that reads fewer logits, as in criteria=[fused_linear_top_k] with "
                f"{advice}logits=top_k."
            )
        elif kind not in readers.get(name, (kind,)):
            raise ValueError(
                f"{setting} changes nothing with {advice}logits={kind}: set {advice}logits="
                f"{' or '.join(readers[name])}, or leave it out."
            )


def check_mask(source: Source, name: str, term: Any) -> None:
    """Refuse a term that reads answers per token and is not told which are padding."""
    by_labels = term.criterion.masked_by_labels and "labels" in term.inputs
    if not by_labels and "mask" not in term.inputs:
        raise ValueError(
            f"Term {name!r} reads {source}, which a cache keeps without padding, and has no mask: "
            "padding would be compared with zeros. Give the term a mask, as in "
            f"criteria.{name}.inputs.mask=batch.attention_mask."
        )


def not_kept(store: AnswerStore, source: Source) -> str:
    """What is said of a source that is not in a cache."""
    near = get_close_matches(str(source).partition(".")[2], store.answers, n=1)
    hint = f" Nearest: {near[0]}." if near else ""
    kept = [*store.answers, *(f"head:{path}" for path in store.head_names)]
    return (
        f"{source} is not in the cache {store.folder}, which has {', '.join(kept)}.{hint} "
        "Make one with the same criteria: lightning-distill job=cache criteria=[...]."
    )
