"""What the user has typed, which no file can say in his place."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ..overrides import key_of

# Keys that say whose code is run. They count where they are typed, beside `resume` too.
ALLOW, REMOTE_CODE = TRUSTS = ("allow_targets", "trust_remote_code")


def typed(cfg: DictConfig, key: str) -> Any:
    """The value of a key if it was typed, or if the configuration was made in Python; else null."""
    keys = _typed_keys()
    return cfg.get(key) if keys is None or key in keys else None


def check_remote_code(cfg: DictConfig, trusted: bool, of_file: bool = False) -> None:
    """Refuse a configuration that asks to run code that comes with a model, if only a file does.

    Args:
        cfg: the run's configuration.
        trusted: whether the user has typed `trust_remote_code=true`.
        of_file: whether some of it was read from the file of a run.

    Raises:
        ValueError: naming the key, and what to type.
    """
    keys = _typed_keys()
    if trusted or (keys is None and not cfg.resume and not of_file):
        return
    known = () if cfg.resume else keys or ()
    for name in _asking(OmegaConf.to_container(cfg, resolve=True), ""):
        if name not in known:
            raise ValueError(
                f"{name}=true in a file asks to run code that comes with a model. If you trust "
                f"that code, type {REMOTE_CODE}=true; what a file says there does not count."
            )


def typed_words(but: Sequence[str] = ()) -> list[str]:
    """The words of the command; none where no command was.

    Args:
        but: keys and groups that are left out.
    """
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get()
    sources = [s for s in hydra.runtime.config_sources if s.provider == "command-line"]
    folders = [f"--config-dir={source.path}" for source in sources]
    given = [o for o in hydra.overrides.task if key_of(o).partition(".")[0] not in but]
    return [*folders, *given]


def typed_command() -> str:
    """The command as a shell reads it; empty where no command was."""
    if not HydraConfig.initialized():
        return ""
    return " ".join(["lightning-distill", *map(shlex.quote, typed_words())])


def _typed_keys() -> list[str] | None:
    """The keys that were typed; `None` where no command was."""
    if not HydraConfig.initialized():
        return None
    return [key_of(override) for override in HydraConfig.get().overrides.task]


def _asking(node: Any, path: str) -> Iterator[str]:
    """The keys that ask to run such code, wherever they stand."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if isinstance(node, dict):
        for key, value in node.items():
            here = f"{path}.{key}" if path else str(key)
            if key == REMOTE_CODE and value:
                yield here
            yield from _asking(value, here)
