"""Means and squared deviations of two variables as sums, so that rows can be added up.

Pearson's correlation of torchmetrics keeps them as Chan, Golub and LeVeque do, *Updating formulae
and a pairwise algorithm for computing sample variances*, 1979: they are combined, and not added.
"""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

MOMENTS = ("mean_x", "mean_y", "var_x", "var_y", "corr_xy", "n_total")
# By which the others are divided, lest they overflow; they do not change the correlation.
SCALES = ("max_abs_dev_x", "max_abs_dev_y")

States = Mapping[str, Float[np.ndarray, "rows outputs"]]


def are_moments(names: Collection[str]) -> bool:
    """Whether these are the names of the states of a metric that keeps moments."""
    return set(names) == {*MOMENTS, *SCALES}


def combined(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The states of a metric that has seen the rows of two, in the order of the first."""
    n, m = one["n_total"], other["n_total"]
    both = n + m
    share = torch.where(both > 0, m / both.clamp(min=1), 0)
    x, y = (other[name] - one[name] for name in MOMENTS[:2])
    found = {
        "mean_x": one["mean_x"] + share * x,
        "mean_y": one["mean_y"] + share * y,
        "var_x": one["var_x"] + other["var_x"] + n * share * x * x,
        "var_y": one["var_y"] + other["var_y"] + n * share * y * y,
        "corr_xy": one["corr_xy"] + other["corr_xy"] + n * share * x * y,
        "n_total": both,
    }
    found |= {name: torch.maximum(one[name], other[name]) for name in SCALES}
    return {name: found[name] for name in one}


def sums_of(states: States) -> dict[str, Float[np.ndarray, "rows outputs"]]:
    """What each row adds to the count, to the sums and to the sums of products.

    Args:
        states: of each row by itself, float64.
    """
    x, y, vx, vy, xy, n = (states[name] for name in MOMENTS)
    # Around the middle of all rows: squares of what is far from 0 would lose digits.
    x, y = (one - (n * one).sum(0) / np.maximum(n.sum(0), 1) for one in (x, y))
    products = (vx + n * x * x, vy + n * y * y, xy + n * x * y)
    return dict(zip(MOMENTS, (n * x, n * y, *products, n), strict=True))


def states_of(sums: States) -> dict[str, Float[np.ndarray, "rows outputs"]]:
    """The states of a metric that has seen rows which add up to some sums.

    Args:
        sums: of each draw.
    """
    x, y, xx, yy, xy, n = (sums[name] for name in MOMENTS)
    count = np.maximum(n, 1)
    vx, vy = xx - x * x / count, yy - y * y / count
    values = (x / count, y / count, vx, vy, xy - x * y / count, n)
    scales = (np.sqrt(np.maximum(v, 0) / count) for v in (vx, vy))
    return {**dict(zip(MOMENTS, values, strict=True)), **dict(zip(SCALES, scales, strict=True))}
