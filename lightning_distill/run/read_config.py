"""The configuration that lies in a run's folder, which may come from elsewhere."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

# More than any run writes, and far less than memory.
BYTES, CHARACTERS, DEPTH = 2**20, 10**6, 50
# The only key by which code runs that comes with a model; a saved one does not count.
TRUST = "teacher.trust_remote_code"
REFERENCE = re.compile(r"\$\{([^${}]*)\}")


def read_config(path: Path, trusted: bool = False) -> DictConfig:
    """Read a run's configuration without letting it grow or run anything.

    Args:
        path: of a `config.yaml`.
        trusted: whether the user has typed that code of a model may run.

    Raises:
        ValueError: for a file that no run has written, that would expand without end, or that asks
            to run code of a model.
    """
    size = path.stat().st_size
    if size > BYTES:
        raise ValueError(
            f"{path} has {size:,} bytes, and the configuration of a run has a few thousand: it "
            "was not written by a run."
        )
    try:
        text = path.read_text(encoding="utf-8")
        _check_shape(text, path)
        cfg = OmegaConf.create(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read as YAML: {' '.join(str(error).split()) or 'too deep'}"
        ) from error
    if not OmegaConf.is_dict(cfg) or "job" not in cfg:
        raise ValueError(f"{path} is not the configuration of a run: it names no `job`.")
    told: Any = OmegaConf.to_container(cfg)
    _check_growth(told, path)
    asks = [
        where for where, key, value in _leaves(told) if key == TRUST.rpartition(".")[2] and value
    ]
    if asks and not trusted:
        raise ValueError(
            f"{path} sets {asks[0]}, which runs code that comes with a model. If you know that "
            f"code, say so again: +{TRUST}=true."
        )
    return cfg


def _leaves(node: Any, where: str = "", key: str = "") -> Iterator[tuple[str, str, Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, f"{where}.{name}" if where else str(name), str(name))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _leaves(value, f"{where}[{number}]", key)
    else:
        yield where, key, node


def _check_shape(text: str, path: Path) -> None:
    """Refuse, before anything is made of it, what a run does not write and what grows."""
    depth = 0
    for event in yaml.parse(text):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(
                f"{path} has an alias (*) in line {line}, which a run does not write, and which "
                "can grow without end: write its content there."
            )
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise ValueError(
                f"{path} is more than {DEPTH} levels deep in line {line}: it was not written by a "
                "run."
            )


def _meant(name: str, names: list[str]) -> list[str]:
    inner = name.lstrip(".")
    if inner == name:
        return [name]
    return [n for n in names if n == inner or n.endswith(f".{inner}")]


def _check_growth(told: Any, path: Path) -> None:
    """Refuse values that refer to others which refer to others, until they fill the memory."""
    sizes: dict[str, int] = {}
    names = [where for where, _, _ in _leaves(told)]

    def size_of(name: str) -> int:
        """Characters of what a name stands for, at most; 0 while it is being found out."""
        if name not in sizes:
            sizes[name] = 0
            found = told
            for part in name.replace("[", ".").replace("]", "").split("."):
                if isinstance(found, Mapping):
                    found = found.get(part)
                elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
                    found = found[int(part)]
                else:
                    found = None
            sizes[name] = _size(found)
        return sizes[name]

    def _size(value: Any) -> int:
        if isinstance(value, Mapping | list):
            inner = value.values() if isinstance(value, Mapping) else value
            return sum(map(_size, inner)) + len(value)
        text = str(value)
        size, rest = len(text), text
        # From the inside, so that names within names count too.
        while found := REFERENCE.search(rest):
            name = found[1].rpartition(":")[2]
            # Relative names are rare: the largest that any place could mean by it.
            size += max((size_of(n) for n in _meant(name, names)), default=0)
            rest = rest[: found.start()] + rest[found.end() :]
            if size > CHARACTERS:
                break
        return size

    if (size := _size(told)) > CHARACTERS:
        raise ValueError(
            f"The values of {path} refer to each other until they would have {size:,} characters: "
            "it was not written by a run."
        )
