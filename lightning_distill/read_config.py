"""Reading the configuration of a run, which may have come from elsewhere."""

import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

# A run writes some ten kilobytes.
LONGEST_FILE = 2**20
DEEPEST = 50
LONGEST_EXPANDED = 2**22
# What is read of others: up to the next bracket, or an inner ${.
REFERENCE = re.compile(r"\$\{\s*([^{}$:,\s]*)")


def read_config(path: Path) -> DictConfig:
    """The configuration in a file, which cannot be larger than it looks.

    Raises:
        ValueError: for a file that is too long or too deep, has aliases, which no run writes, or
            is no configuration.
    """
    if path.stat().st_size > LONGEST_FILE:
        raise ValueError(
            f"{path} has {path.stat().st_size:,} bytes, and a run's configuration at most "
            f"{LONGEST_FILE:,}: this is none."
        )
    text = path.read_text(encoding="utf-8")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(
                    f"{path} repeats a part of itself by an alias (*{event.anchor}), which no run "
                    "writes and which may expand without end. Write that part out."
                )
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > DEEPEST:
                    raise ValueError(f"{path} is nested deeper than {DEEPEST}: this is none.")
            depth -= isinstance(event, yaml.CollectionEndEvent)
        cfg = OmegaConf.create(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no configuration of a run: {error}") from error
    if not isinstance(cfg, DictConfig):
        raise ValueError(f"{path} is no configuration of a run: it has no keys.")
    return cfg


def check_expansion(cfg: Any) -> None:
    """Refuse interpolations that would take too much memory, before any is followed.

    Raises:
        ValueError: if the values would become too long, or refer to themselves.
    """
    plain = _with_text_keys(OmegaConf.to_container(cfg))
    sizes: dict[tuple[str, ...], int] = {}

    def size(path: tuple[str, ...]) -> int:
        """An upper bound of the characters under a key when it is resolved."""
        if path not in sizes:
            # While it is looked at; whoever refers to itself is refused by OmegaConf.
            sizes[path] = 0
            sizes[path] = measured(path, _at(plain, path))
            if sizes[path] > LONGEST_EXPANDED:
                raise ValueError(
                    f"{'.'.join(path)} refers to others that refer to others, and would have more "
                    f"than {LONGEST_EXPANDED:,} characters. Write its value out."
                )
        return sizes[path]

    def measured(path: tuple[str, ...], value: Any) -> int:
        if isinstance(value, dict | list):
            keys = value if isinstance(value, dict) else map(str, range(len(value)))
            return 1 + sum(size((*path, key)) for key in keys)
        text = str(value)
        names = REFERENCE.findall(text)
        if "" in names:
            raise ValueError(
                f"{'.'.join(path)}: {text[:80]} takes a name from elsewhere. Write the name out."
            )
        return len(text) + sum(size(_referred(plain, path, name)) for name in names)

    try:
        for key in plain:
            size((key,))
    except RecursionError:
        raise ValueError(
            "The configuration has values that refer to others that refer to others, too often to "
            "follow. Write them out."
        ) from None


def _with_text_keys(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _with_text_keys(value) for key, value in node.items()}
    return [_with_text_keys(value) for value in node] if isinstance(node, list) else node


def _at(node: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if isinstance(node, dict):
            node = node.get(key)
        elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node


def _referred(plain: Any, path: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The key that `${name}` at `path` reads, or the nearest one above that has a value."""
    dots = len(name) - len(name.lstrip("."))
    start = path[: len(path) - dots] if dots else ()
    target = start
    for key in re.findall(r"[^.\[\]]+", name[dots:]):
        if isinstance(_at(plain, target), str):
            # What it refers to in turn has the rest.
            break
        target = (*target, key)
    return target
