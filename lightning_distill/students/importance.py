"""How much each channel, head, neuron and layer of a model matters."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import nn, Tensor

from ..models.batch import entry, labels_of
from ..models.configuration import is_encoder_decoder
from ..models.modes import in_eval_mode
from .units import Anatomy, CHANNELS, GROUPS, HEADS, Place

KINDS = ("activations", "gradient", "magnitude", "random")


@dataclass
class Scores:
    """A number for each unit; larger ones matter more.

    Attributes:
        channels: of the hidden states.
        heads: of each attention, by the path of the linear layer that reads them.
        groups: what the heads of keys and values add to those of the queries that read them.
        neurons: of each feed-forward part, by the path of the linear layer that reads them.
        layers: of each list of layers, by its path.
    """

    channels: Tensor
    heads: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, Tensor] = field(default_factory=dict)
    neurons: dict[str, Tensor] = field(default_factory=dict)
    layers: dict[str, Tensor] = field(default_factory=dict)

    def finished(self, change: Callable[[Tensor], Tensor]) -> "Scores":
        """With every number changed."""
        changed = Scores(change(self.channels))
        for name in ("heads", "groups", "neurons", "layers"):
            setattr(changed, name, {k: change(v) for k, v in getattr(self, name).items()})
        return changed


def no_scores(anatomy: Anatomy) -> Scores:
    """Zero for every unit."""
    shape = anatomy.shape

    def zeros(count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.float64)

    scores = Scores(zeros(shape.width))
    for of in anatomy.attentions:
        scores.heads[of], scores.groups[of] = zeros(shape.heads), zeros(shape.key_values)
    for of in anatomy.feed_forwards:
        scores.neurons[of] = zeros(shape.intermediate)
    for stack in anatomy.stacks:
        scores.layers |= {path: zeros(stack.counts[0]) for path in stack.paths[0]}
    return scores


def at_random(anatomy: Anatomy, seed: int) -> Scores:
    """Numbers that say nothing: what the other kinds are measured against."""
    generator = torch.Generator().manual_seed(seed)
    return no_scores(anatomy).finished(
        lambda zeros: torch.rand(zeros.shape, generator=generator, dtype=torch.float64)
    )


def by_magnitude(anatomy: Anatomy) -> Scores:
    """The Euclidean norm of all weights that a unit has."""
    scores = no_scores(anatomy)
    for name, weight in anatomy.model.named_parameters():
        _add(scores, anatomy, name, weight.detach().double() ** 2)
    return scores.finished(torch.sqrt)


def by_gradient(anatomy: Anatomy, batches: Iterable[Any], loss: Callable[[Any], Tensor]) -> Scores:
    r"""The mean over batches of $\sum_w |w \, \partial L / \partial w|$ over a unit's weights $w$.

    Args:
        anatomy: of the model.
        batches: as `loss` takes them.
        loss: what the model loses on a batch, a scalar with its graph.

    References:
        Molchanov et al., *Importance Estimation for Neural Network Pruning*, 2019,
        https://arxiv.org/abs/1906.10771, equation 8, with the absolute value for the square.
    """
    scores, count = no_scores(anatomy), 0
    names, weights = zip(*anatomy.model.named_parameters(), strict=True)
    with _trainable(weights), torch.enable_grad(), in_eval_mode(anatomy.model):
        for batch in batches:
            found = torch.autograd.grad(loss(batch), weights, allow_unused=True)
            for name, weight, gradient in zip(names, weights, found, strict=True):
                if gradient is not None:
                    _add(scores, anatomy, name, (weight.detach() * gradient).abs().double())
            count += 1
    return scores.finished(lambda total: total / max(count, 1))


def by_activations(anatomy: Anatomy, batches: Iterable[Any], run: Callable[[Any], Any]) -> Scores:
    r"""What flows through a unit on a few batches, a mean over all tokens that are no padding.

    Of a channel the absolute value that attention and feed-forward parts read, summed over the
    layers; of a head the Euclidean norm of what it gives; of a neuron its absolute value; of a
    layer one minus the cosine of what it is given and what it returns.

    Args:
        anatomy: of the model.
        batches: as `run` takes them.
        run: runs the model on a batch.

    References:
        Muralidharan et al., *Compact Language Models via Pruning and Knowledge Distillation*
        (Minitron), 2024, https://arxiv.org/abs/2407.14679, section 2.2. Men et al., *ShortGPT*,
        2024, https://arxiv.org/abs/2403.03853, equation 1, for layers.
    """
    seen = _Seen(anatomy)
    with torch.no_grad(), in_eval_mode(anatomy.model), seen.looking():
        for batch in batches:
            seen.batch = batch
            run(batch)
    return seen.scores()


class _Seen:
    """Sums over tokens of what linear layers and layers of a model are given."""

    def __init__(self, anatomy: Anatomy):
        self.anatomy, self.batch = anatomy, None
        self.sums: dict[tuple[str, str], Tensor] = {}
        self.tokens: dict[tuple[str, str], int] = {}

    @contextmanager
    def looking(self) -> Iterator[None]:
        anatomy, handles = self.anatomy, []

        def watch(kind: str, path: str, measure: Callable[[Tensor], Tensor]) -> None:
            part, place = anatomy.model.get_submodule(path), anatomy.place(path)
            hook = partial(self._linear, kind, path, place, measure)
            handles.append(part.register_forward_pre_hook(hook))

        def norms(given: Tensor) -> Tensor:
            return given.unflatten(-1, (-1, anatomy.shape.head_size)).norm(dim=-1)

        for of, attention in anatomy.attentions.items():
            watch("heads", of, norms)
            watch(CHANNELS, of.removesuffix(attention.out) + attention.queries, torch.abs)
        for of, part in anatomy.feed_forwards.items():
            watch("neurons", of, torch.abs)
            base = of.removesuffix(part.out)
            there = [base + into for into in part.into if f"{base}{into}.weight" in anatomy.dims]
            watch(CHANNELS, there[0], torch.abs)
        for place, layer in anatomy.layers():
            hook = partial(self._layer, place)
            handles.append(layer.register_forward_hook(hook, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _linear(
        self,
        kind: str,
        path: str,
        place: Place | None,
        measure: Any,
        part: nn.Module,
        args: Any,
    ) -> None:
        self._add((kind, path), measure(self._counted(place, args[0]).double()))

    def _layer(self, place: Place, layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = args[0] if args else kwargs["hidden_states"]
        given = self._counted(place, given).double()
        returned = output if isinstance(output, Tensor) else output[0]
        returned = self._counted(place, returned).double()
        changed = 1 - torch.cosine_similarity(given, returned, dim=-1)
        self._add(("layers", f"{place.path}.{place.number}"), changed[:, None])

    def _counted(self, place: Place | None, values: Tensor) -> Float[Tensor, "tokens width"]:
        """What is at tokens that are no padding."""
        both = is_encoder_decoder(self.anatomy.model)
        decoder = both and place is not None and "decoder" in place.path
        mask = entry(self.batch, "decoder_attention_mask" if decoder else "attention_mask")
        if decoder and mask is None and labels_of(self.batch) is not None:
            mask = labels_of(self.batch) != -100
        if isinstance(mask, Tensor) and mask.shape == values.shape[:-1]:
            return values[mask.bool()]
        return values.flatten(0, -2)

    def _add(self, key: tuple[str, str], values: Tensor) -> None:
        self.sums[key] = self.sums.get(key, 0.0) + values.sum(0).cpu()
        self.tokens[key] = self.tokens.get(key, 0) + len(values)

    def scores(self) -> Scores:
        scores = no_scores(self.anatomy)
        for (kind, path), total in self.sums.items():
            mean = total / max(self.tokens[kind, path], 1)
            if kind == CHANNELS:
                scores.channels += mean
            elif kind == "layers":
                of, _, number = path.rpartition(".")
                scores.layers[of][int(number)] = mean[0]
            else:
                getattr(scores, kind)[path] = mean
        return scores


def _add(scores: Scores, anatomy: Anatomy, name: str, values: Tensor) -> None:
    """Add the values of the elements of a weight to the units that they are of."""
    values = values.cpu()
    place = anatomy.place(name)
    if place is not None:
        scores.layers[place.path][place.number] += values.sum()
    for dim, units in enumerate(anatomy.dims[name]):
        if units is None:
            continue
        rows = values.movedim(dim, 0).reshape(values.shape[dim], -1)
        of_units = units.summed(rows.sum(1))
        if units.kind == CHANNELS:
            scores.channels += of_units
        else:
            name_of = {HEADS: scores.heads, GROUPS: scores.groups}.get(units.kind, scores.neurons)
            name_of[units.of] += of_units


@contextmanager
def _trainable(weights: Iterable[Tensor]) -> Iterator[None]:
    before = [(weight, weight.requires_grad) for weight in weights]
    for weight, _ in before:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight, was in before:
            weight.requires_grad_(was)


def check_kind(kind: Any) -> None:
    """Refuse a kind of importance that there is not.

    Raises:
        ValueError: naming all.
    """
    if kind not in KINDS:
        raise ValueError(f"`importance` must be one of {', '.join(KINDS)}, got {kind!r}.")


__all__ = ["KINDS", "Scores", "at_random", "by_activations", "by_gradient", "by_magnitude"]
