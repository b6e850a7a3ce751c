"""What is typed on the command line as `key=value`, before Hydra reads it, and how to print it.

Hydra reads values by a grammar of its own, in which `=`, `,`, `~`, quotes, brackets and letters
outside ASCII have to be quoted.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

# Hydra takes these as text; a number or one of three words would be taken for a value of that kind.
PLAIN = re.compile(r"[A-Za-z0-9_/.:\-]+")
VALUES = re.compile(r"null|true|false|[-+.\d_]*(?:e[-+]?\d+)?|[-+]?(?:inf|nan)", re.IGNORECASE)
# Flags of Hydra that the next word belongs to.
WITH_VALUE = {
    *("--package", "-p", "--config-path", "-cp", "--config-name", "-cn"),
    *("--config-dir", "-cd", "--cfg", "-c", "--experimental-rerun"),
}
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
# By the name of a job that may be given a run: the groups of which it takes any settings.
MODELS = ("data", "teacher", "student", "criteria", "metrics")
TAKEN = {"evaluate": ("data", "metrics"), "cache": MODELS, "inspect": MODELS}
# What follows a name, as in `student.hidden_states[-1]`; a list has nothing before its bracket.
INDEX = re.compile(r"(?<=[\w\]])\[[^\[\]{}(),\"']*\]")
# `~` where a value begins, and what may follow it in a path.
HOME = re.compile(r"(?<=[=\[,])~(?=/|,|\]|$)(/[^,\[\]{}()'\"]*)?")


def quoted(key: str, value: object) -> str:
    """`key=value` as a shell and Hydra read it back, quoted where either needs it."""
    return shlex.quote(f"{key}={_quoted(str(value))}")


def _quoted(value: str) -> str:
    if PLAIN.fullmatch(value) and not VALUES.fullmatch(value):
        return value
    # Backslashes stand for themselves, but for those right before a quote.
    quote = '"' if "'" in value and '"' not in value else "'"
    inner = re.sub(rf"(\\*)({quote}|$)", lambda m: m[1] * 2 + (m[2] and f"\\{m[2]}"), value)
    return f"{quote}{inner}{quote}"


def as_override(key: str, value: object) -> str:
    """`key=value` as a shell and Hydra read it back, of a plain value, a list or a dictionary."""
    return quoted(key, value) if isinstance(value, str) else shlex.quote(f"{key}={_text(value)}")


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, str):
        return _quoted(value)
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def home(value: str) -> str:
    """A path with the user's home in the place of a first `~`; other text is left as it is."""
    return str(Path(value).expanduser()) if value == "~" or value.startswith("~/") else value


def readable_by_hydra(arguments: Sequence[str]) -> list[str]:
    """The words of a command, flags first, with the user's home in the place of `~`.

    Hydra finds no flag that comes after an override, and its grammar knows no `~` in a value.
    """
    flags: list[str] = []
    overrides: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            overrides += words
        elif word.startswith("-"):
            flags.append(word)
            if word in WITH_VALUE:
                flags += [value for value in [next(words, None)] if value is not None]
        elif flags and flags[-1] in ("--info", "-i") and word in INFO:
            flags.append(word)
        else:
            overrides.append(word)
    readable = [_as_text(_at_home(word)) for word in overrides]
    return [*flags, *_of_a_run(_of_many_runs(readable))]


def _of_many_runs(overrides: list[str]) -> list[str]:
    """Settings of jobs of many runs that Hydra cannot know yet.

    Those are the options that are searched, which are added to an empty space, and more trials or
    seeds of a job that goes on.
    """
    resumed = any(key_of(word) == "resume" for word in overrides)
    added = ("job.space.", *(["job.trials=", "job.seeds="] if resumed else []))
    return [f"++{word}" if word.startswith(added) else word for word in overrides]


def _of_a_run(overrides: list[str]) -> list[str]:
    """Settings of the groups that a job takes of a run, which Hydra cannot know yet.

    They are added to the groups by default; whoever reads the run refuses those that it lacks.
    """
    typed = dict(word.lstrip("+").partition("=")[::2] for word in overrides)
    taken = TAKEN.get(typed.get("job", ""), ())
    if "experiment" in typed or not (typed.get("job") == "evaluate" or "job.run" in typed):
        return overrides
    groups = [group for group in taken if group not in typed]
    return [
        f"++{word}" if word.partition(".")[0] in groups and "." in word.partition("=")[0] else word
        for word in overrides
    ]


def _at_home(override: str) -> str:
    return HOME.sub(lambda found: _quoted(home(found[0])), override)


def key_of(override: str) -> str:
    """The key that an override sets."""
    return override.lstrip("+").partition("=")[0]


def unreadable(override: str) -> str | None:
    """Why Hydra's grammar cannot read an override; `None` if it can."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except HydraException as error:
        return str(error).splitlines()[0]
    return "it has no key" if override.startswith("=") else None


def _as_text(override: str) -> str:
    """With its value quoted, where Hydra cannot read it and it can only be text."""
    key, equals, value = override.partition("=")
    if not (key and equals and value) or set(INDEX.sub("", value)) & set("[]{}(),\"'"):
        return override
    return f"{key}={_quoted(value)}" if unreadable(override) else override
