"""Where the layers of a model are, and which field of its configuration counts them."""

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from ..models.configuration import configuration

# How fields that may count layers are called: num_hidden_layers, n_layer, depths, num_blocks, ...
# Convolutions before a model and adapters behind it change how long its rows are.
COUNTING = re.compile(r"^(?!.*(conv|adapter)).*(layer|depth|block)")


@dataclass(frozen=True)
class Stack:
    """Layers that run one after another, as one field of a configuration counts them.

    Attributes:
        name: among several stacks of a model, such as `encoder`; `""` for the only one.
        part: the part of the configuration that has the field, as `text_config`; `""` for itself.
        field: a number of layers, or a list with the number of each stage.
        counts: how many layers each stage has; one number where there are no stages.
        paths: for each stage, the lists of modules that its layers are in. Most models have one;
            none is there where all layers are the same one, run many times.
        staged: whether the field counts stage by stage.
    """

    name: str
    part: str
    field: str
    counts: tuple[int, ...]
    paths: tuple[tuple[str, ...], ...]
    staged: bool

    @property
    def shared(self) -> bool:
        """Whether one layer is run many times, as in ALBERT, so that only the number changes."""
        return self.paths == ((),)

    def describe(self) -> str:
        """How many layers there are, in words."""
        if self.staged:
            counts = ", ".join(map(str, self.counts))
            return f"{len(self.counts)} stages of {counts} layers"
        name = f"{self.name} " if self.name else ""
        return f"{name}{self.counts[0]} layer{'' if self.counts == (1,) else 's'}"

    def write(self, config: Any, kept: Sequence[Sequence[int]]) -> None:
        """Write into a configuration that these layers are left, which are numbered from 0.

        Args:
            config: of the whole model; changed in place.
            kept: the numbers of each stage, in the order they shall have.
        """
        part = _part(config, self.part)
        if self.staged:
            counts = [len(numbers) for numbers in kept]
            setattr(part, self.field, type(getattr(part, self.field))(counts))
            return
        (numbers,) = kept
        for name, value in part.to_dict().items():
            # Per-layer settings, such as layer_types, are cut with the layers; other lists can be
            # as long by chance.
            other = name == "architectures" or name.endswith(("_token_id", "_token_ids"))
            other = other or "conv" in name
            if isinstance(value, list | tuple) and len(value) == self.counts[0] and not other:
                setattr(part, name, [value[i] for i in numbers])
        setattr(part, self.field, len(numbers))


def layer_stacks(model: nn.Module) -> list[Stack]:
    """The stacks of a model of transformers, in the order of its configuration.

    Found by structure, whatever the model's class: a field counts those lists of modules that
    become longer by one where the field does, in a model that is built without memory.

    Args:
        model: with a `config`; an empty list for one without.
    """
    if not isinstance(configuration(model), PreTrainedConfig):
        return []
    lists, found = _lists(model), []
    for name, part in _parts(model.config):
        stages = [s for f in _fields(part, list) if (s := _stages(model, lists, name, f))]
        of_part = stages or [
            s for f in _fields(part, int) if (s := _counted(model, lists, name, f))
        ]
        found += _main(part, of_part) or _shared(name, part)
    # A field may have two names, or two configurations be the same one.
    found = [s for i, s in enumerate(found) if s.paths not in [t.paths for t in found[:i]]]
    names = _names([next(iter(s.paths[0]), s.part) for s in found]) if found[1:] else [""]
    return [replace(s, name=name) for s, name in zip(found, names, strict=False)]


def built_on_paper(cls: type[nn.Module], config: Any) -> nn.Module:
    """A model whose weights have shapes and take no memory."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return cls(copy.deepcopy(config))


def _parts(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """A configuration and those within it, by their paths."""
    yield path, config
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            yield from _parts(value, f"{path}.{name}" if path else name)


def _part(config: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        config = getattr(config, name)
    return config


def _fields(config: Any, kind: type) -> list[tuple[str, Any]]:
    """Fields that may count layers, with their values: numbers, or lists of them."""
    found = []
    for name, value in config.to_dict().items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if not COUNTING.search(name) or isinstance(value, list | tuple) is not (kind is list):
            continue
        if numbers and all(type(n) is int and n > 0 for n in numbers):
            found.append((name, value))
    return found


def _lists(model: nn.Module) -> dict[str, int]:
    """How long each list of modules is, by its path."""
    kinds = nn.ModuleList | nn.Sequential
    return {path: len(part) for path, part in model.named_modules() if isinstance(part, kinds)}


def _counted(
    model: nn.Module, lists: dict[str, int], part: str, field: tuple[str, int]
) -> Stack | None:
    name, count = field
    if count not in lists.values():
        return None
    stack = Stack("", part, name, (count,), ((),), staged=False)
    paths = _grown(model, lists, stack, [[*range(count), count - 1]])
    return replace(stack, paths=(paths,)) if paths else None


def _stages(
    model: nn.Module, lists: dict[str, int], part: str, field: tuple[str, Sequence[int]]
) -> Stack | None:
    name, counts = field
    if not {*counts} <= {*lists.values()}:
        return None
    stack = Stack("", part, name, tuple(counts), ((),) * len(counts), staged=True)
    paths = []
    for stage in range(len(counts)):
        longer = [[*range(n), *([0] if i == stage else [])] for i, n in enumerate(counts)]
        paths.append(_grown(model, lists, stack, longer))
    return replace(stack, paths=tuple(paths)) if all(paths) else None


def _main(part: Any, found: list[Stack]) -> list[Stack]:
    """Without a decoder, that which transformers calls the hidden layers of every model.

    Beside these, Wav2Vec2 counts the layers that read the sound.
    """
    field = part.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    main = [stack for stack in found if stack.field == field]
    return main if main and not part.is_encoder_decoder else found


def _shared(name: str, part: Any) -> list[Stack]:
    """A stack whose layers are one, run many times; so many groups of layers have own weights."""
    if not isinstance(getattr(part, "num_hidden_groups", None), int):
        return []
    return [Stack("", name, "num_hidden_layers", (part.num_hidden_layers,), ((),), staged=False)]


def _grown(
    model: nn.Module, lists: dict[str, int], stack: Stack, longer: Sequence[Sequence[int]]
) -> tuple[str, ...]:
    """The outermost lists that have a module more, if the configuration counts a layer more."""
    config = copy.deepcopy(model.config)
    try:
        stack.write(config, longer)
        after = _lists(built_on_paper(type(model), config))
    except Exception:
        # A field that counts something else may fit no other number; that it counts no layers is
        # all that was asked.
        return ()
    grown = [path for path, count in lists.items() if after.get(path) == count + 1]
    # Inner lists, such as experts, may count as well: the layers are the outermost.
    return tuple(p for p in grown if not any(p.startswith(f"{q}.") for q in grown))


def _names(paths: Sequence[str]) -> list[str]:
    """Names for stacks: what first differs in their paths, as `encoder`, or `text` of a tower."""
    split = [path.split(".") for path in paths]
    for parts in zip(*split, strict=False):
        if len({*parts}) == len(parts):
            return [part.removesuffix("_model") for part in parts]
    return list(paths)
