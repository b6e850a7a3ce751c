"""Which arguments a criterion takes, and which a term must give it."""

from ..criteria.criterion import Criterion
from ..models.source import nearest


def check_arguments(criterion: Criterion, names: list[str]) -> None:
    """Refuse names that are no arguments of a criterion, and too few of them.

    Args:
        criterion: what is called with the sources of a term.
        names: the arguments that have a source.
    """
    signature, name = criterion.signature, criterion.class_name
    if not names:
        raise ValueError(f"`inputs` of {name}{signature} is empty; name a source per argument.")
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        return
    for argument in names:
        if argument not in signature.parameters:
            raise ValueError(
                f"{name} takes no argument {argument!r}. {nearest(argument, signature.parameters)}"
            )
    missing = [
        p.name
        for p in signature.parameters.values()
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and p.name not in names
    ]
    if missing:
        raise ValueError(
            f"`inputs` of {name} lacks {', '.join(missing)}; it has {', '.join(names)}."
        )
