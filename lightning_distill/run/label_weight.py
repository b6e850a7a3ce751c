"""What the label loss weighs beside the other terms of a configuration."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

# A weight that a schedule gives is taken for that of the logits' terms.
SCHEDULED = 0.9
# Papers that mix labels and teacher in another ratio than weights that add up to 1.
BESIDE = {"lightning_distill.criteria.LogitStandardization": 0.1}


def label_weight(criteria: Any, of: str = "teacher.logits") -> float:
    """The weight of `hard_label`, or of another term of labels, where nobody has set one.

    Papers mix the loss of the labels with a loss of the teacher's logits, `(1 - a) * labels + a *
    logits`: the label loss gets what a term of the teacher's logits with a weight below 1 leaves of
    1, and of several what the largest leaves. By itself, and beside features, relations and all
    terms that are added in full, it weighs 1.

    Args:
        criteria: the terms of a configuration by name, `hard_label` among them or not.
        of: the source of the teacher's logits for these labels.
    """
    nodes = [node for node in (criteria or {}).values() if OmegaConf.is_dict(node)]
    taken = [weight for node in nodes if (weight := _share(node, of)) is not None]
    return round(1 - max(taken), 6) if taken else 1.0


def _share(node: DictConfig, of: str) -> float | None:
    """What a term takes of a sum of weights that is 1; `None` if it takes no part in one."""
    if OmegaConf.select(node, "inputs.teacher") != of:
        return None
    beside = BESIDE.get(str(OmegaConf.select(node, "criterion._target_")))
    if beside is not None:
        return 1 - beside
    weight = node.get("weight")
    if OmegaConf.is_dict(weight):
        return SCHEDULED
    is_share = isinstance(weight, int | float) and 0 < weight < 1
    return float(weight) if is_share else None
