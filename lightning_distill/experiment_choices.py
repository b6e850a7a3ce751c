"""What the experiments of this package choose, and the settings of what is chosen."""

from importlib.resources import files
from typing import Any

from omegaconf import DictConfig, OmegaConf


def choice_of_experiment(name: str | None, group: str) -> str | None:
    """Which member of a group a packaged experiment takes, if it takes one.

    Args:
        name: of the experiment; `None` takes none.
        group: as `teacher`.
    """
    recipe = packaged(f"experiment/{name}")
    return None if recipe is None else _choices(recipe).get(f"override /{group}")


def setting_of_experiment(name: str | None, key: str) -> Any:
    """What a packaged experiment sets a key to; `None` if it does not.

    Args:
        name: of the experiment; `None` sets nothing.
        key: with dots, as `student.layers`.
    """
    recipe = packaged(f"experiment/{name}")
    return None if recipe is None else OmegaConf.select(recipe, key)


def default_choice(group: str) -> str | None:
    """The member of a group that there is where nothing is typed; `None` if there is none."""
    main = packaged("main")
    return None if main is None else _choices(main).get(group)


def settings_of(group: str, name: str | None) -> set[str]:
    """The settings of a packaged member of a group; none of one that is not packaged."""
    node = packaged(f"{group}/{name}")
    if node is None:
        return set()
    # To `in` of OmegaConf a key whose value is missing is not there.
    keys = {str(key) for key in node} - {"defaults"}
    for one in node.get("defaults") or []:
        if OmegaConf.is_dict(one):
            # As in /student@of: from_config.
            keys |= {str(key).partition("@")[2] or str(key) for key in one}
        elif one != "_self_":
            keys |= settings_of(group, str(one))
    return keys


def packaged(name: str) -> DictConfig | None:
    """A file of the package's configuration, as `experiment/pkd`; `None` if there is none."""
    path = files("lightning_distill.conf") / f"{name}.yaml"
    found = OmegaConf.create(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found if isinstance(found, DictConfig) else None


def _choices(node: DictConfig) -> dict[str, str]:
    listed = [one for one in node.get("defaults") or [] if OmegaConf.is_dict(one)]
    return {str(key): value for one in listed for key, value in one.items()}
