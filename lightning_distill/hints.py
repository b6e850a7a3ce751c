"""What to type in the place of an override that Hydra cannot take."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .overrides import key_of, quoted, unreadable

BRACKETS = {"[": "]", "{": "}", "(": ")"}
PACKAGED = "lightning_distill.conf"


def hint(said: str, typed: Sequence[str]) -> str | None:
    """What is wrong with what was typed, in our words; `None` if nobody knows better than Hydra.

    Args:
        said: what Hydra says, on one line.
        typed: the words of the command.
    """
    overrides = [word for word in typed if not word.startswith("-")]
    for word in overrides:
        reason = unreadable(word)
        if reason is not None:
            return _unreadable(word, reason)
    found = re.search(r"Could not override '([^']*)'", said)
    if found:
        return _unknown(found[1], overrides)
    found = re.search(r"An item is already at '([^']*)'", said)
    if found:
        return f"The configuration has {found[1]} already: type it without the +."
    found = re.search(r"Could not delete from config\. '([^']*)' does not exist", said)
    if found:
        return _unknown(found[1], overrides)
    return None


def _unreadable(word: str, reason: str) -> str:
    key, equals, value = word.partition("=")
    if not equals:
        return f"{word!r} is no setting: write KEY=VALUE, as in seed=1, or a flag, as in --help."
    if not key:
        return f"{word!r} names no key: write KEY=VALUE, as in seed=1."
    for opened, closed in BRACKETS.items():
        if value.count(opened) != value.count(closed):
            return f"{word} has {value.count(opened)} {opened} and {value.count(closed)} {closed}."
    short = reason.partition(" expecting ")[0]
    return (
        f"{word} cannot be read: {short}. If the value is text, as the name of a file, type "
        f"{quoted(key, value)}."
    )


def _unknown(name: str, overrides: Sequence[str]) -> str:
    for word in overrides:
        if word.startswith("~") and f"{name}.".startswith(f"{key_of(word[1:])}."):
            return f"{word} leaves out what {name} is a setting of: type only one of the two."
    chosen = {key_of(word): word.partition("=")[2] for word in overrides if "." not in key_of(word)}
    group, _, rest = name.partition(".")
    if not rest:
        return _unknown_at_the_top(name)
    parent, _, last = name.rpartition(".")
    known = _composed(chosen)
    node: Any = None if known is None else OmegaConf.select(known, parent)
    keys: list[str] = [str(key) for key in node] if OmegaConf.is_dict(node) else []
    near = get_close_matches(last, keys, n=3)
    others = _choices_with(group, rest)
    listed = " or ".join(others)
    if near:
        here, also = (" here", f" It is a setting of {group}={listed}.") if others else ("", "")
        nearest = ", ".join(f"{parent}.{key}" for key in near)
        return f"There is no {name}{here}. Nearest: {nearest}.{also}"
    target = node.get("_target_") if OmegaConf.is_dict(node) else None
    if target is not None and target in [_target_of(group, other, parent) for other in others]:
        # What takes it there takes it here, too.
        return f"{name} is not among the settings here, and can be added: type +{name}=VALUE."
    if others:
        first = f"{group}={others[0]}" if _is_single(group) else f"{group}=[{others[0]}]"
        return (
            f"{name} is a setting of {group}={listed}, which is not chosen here: type {first} too."
        )
    if node is not None and "_target_" in keys:
        settings = ", ".join(key for key in keys if not key.startswith("_"))
        return (
            f"{name} is no setting of {node['_target_']}, which has {settings or 'none'}. If its "
            f"constructor takes {last}, type +{name}=VALUE."
        )
    if keys:
        return f"There is no {name}: {parent} has {', '.join(keys)}."
    above, _, own = parent.rpartition(".")
    holder = OmegaConf.select(known, above) if known is not None and above else None
    if isinstance(holder, DictConfig) and own in [*holder]:
        return (
            f"{parent} is a single value here, and so there is no {name}. If it takes settings by "
            f"name, type them together, as in '{parent}={{{last}:VALUE}}'."
        )
    if known is not None and group in known:
        return f"There is no {parent} here, and so no {name}."
    return _unknown_at_the_top(group)


def _unknown_at_the_top(name: str) -> str:
    keys = packaged_keys()
    near = get_close_matches(name, keys, n=3)
    listed = f"Nearest: {', '.join(near)}." if near else f"There are {', '.join(keys)}."
    return f"There is no key or group {name!r}. {listed}"


def packaged_keys() -> list[str]:
    """The keys and groups of the command."""
    found = _main()
    groups = [str(key) for node in found.pop("defaults") if node != "_self_" for key in node]
    return sorted({*groups, *map(str, found)} - {"hydra"})


def _main() -> Any:
    text = (files(PACKAGED) / "main.yaml").read_text(encoding="utf-8")
    return OmegaConf.create(text)


def _is_single(group: str) -> bool:
    """Whether one of a group is chosen, and not a list."""
    chosen = {str(k): v for node in _main().defaults if node != "_self_" for k, v in node.items()}
    return not OmegaConf.is_list(chosen.get(group))


def _choices_with(group: str, rest: str) -> list[str]:
    """Those of a group that have a setting."""
    folder = files(PACKAGED) / group
    if not folder.is_dir():
        return []
    found = []
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            node = OmegaConf.create(file.read_text(encoding="utf-8"))
            parent, _, last = rest.rpartition(".")
            inner = OmegaConf.select(node, parent) if parent else node
            if OmegaConf.is_dict(inner) and last in [*inner]:
                found.append(file.name.removesuffix(".yaml"))
    # What is meant most often first.
    return sorted(found, key=lambda name: name not in ("pretrained", "text_files"))


def _target_of(group: str, choice: str, parent: str) -> Any:
    """What one of a group makes at a key, which begins with the group."""
    text = (files(PACKAGED) / group / f"{choice}.yaml").read_text(encoding="utf-8")
    return OmegaConf.select(OmegaConf.create({group: OmegaConf.create(text)}), f"{parent}._target_")


def _composed(chosen: Mapping[str, str]) -> Any:
    """The configuration with the groups that were chosen, and nothing else of what was typed."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    groups = {key: value for key, value in chosen.items() if (files(PACKAGED) / key).is_dir()}
    for given in ([f"{key}={value}" for key, value in groups.items()], []):
        GlobalHydra.instance().clear()
        try:
            with initialize_config_module(PACKAGED, version_base="1.3"):
                return compose("main", given)
        except Exception:
            # What was typed is wrong in more than one place; the defaults are known at least.
            continue
    return None
