"""Whether what a model returns can be the predictions of a task."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def check_outputs(outputs: Mapping[str, Any], classes: int | None = None) -> None:
    """Refuse a tuple whose first entry is taken for the logits, where it cannot be them.

    Args:
        outputs: what each model returned, by its role.
        classes: how many there are; by default as many as another model predicts.

    Raises:
        ValueError: naming the entry that may be the logits, and what to do.
    """
    for role, returned in outputs.items():
        if not isinstance(returned, tuple | list) or len(returned) < 2:
            continue
        wanted = (
            {classes}
            if classes is not None
            else {
                logits.shape[-1]
                for other, found in outputs.items()
                if other != role and isinstance(logits := _first(found), Tensor) and logits.dim()
            }
        )
        first = returned[0]
        if isinstance(first, Tensor) and first.dim() and first.shape[-1] in wanted:
            continue
        fitting = [
            i
            for i, entry in enumerate(returned)
            if isinstance(entry, Tensor) and entry.dim() and entry.shape[-1] in wanted
        ]
        shown = f"shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        entry = f" Entry {fitting[0]} has as many classes." if fitting else ""
        raise ValueError(
            f"The {role} returns a {type(returned).__name__} of {len(returned)}, of which the "
            f"first ({shown}) is taken for its logits, and these have {wanted} classes.{entry} "
            f"Return a dict, as in {{'logits': logits, 'features': features}}, or override "
            f"{role}_forward."
        )


def _first(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        return outputs.get("logits")
    return outputs[0] if isinstance(outputs, tuple | list) and outputs else None
