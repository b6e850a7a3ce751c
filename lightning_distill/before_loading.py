"""What can be found wrong in a configuration before anything is loaded: data, models, libraries.

Lightning and transformers take seconds to import. What needs neither is looked at here, so that a
mistyped value is refused at once; who makes the objects checks them again.
"""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from .allowed_names import check_names, check_packages, OURS
from .check_terms import check_terms
from .check_values import check_number, check_values, drop_settings_of_others
from .data_of_files import Kind, kind_of_files
from .export_options import check_formats, check_quantization, FORMATS
from .extras import check_extra
from .find_files import find_files
from .hints import packaged_keys
from .newest_run import check_is_run
from .overrides import key_of
from .quantization_schemes import quantization_of, scheme_named
from .read_config import check_expansion
from .search_plan import read_plan

# As Lightning names them; tests compare.
PRECISIONS = (
    *("transformer-engine", "transformer-engine-float16", "16-true", "16-mixed", "bf16-true"),
    *("bf16-mixed", "32-true", "64-true", "64", "32", "16", "bf16"),
)
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
STRATEGIES = (
    *("auto", "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook", "fsdp", "fsdp_cpu_offload"),
    *(
        f"{name}_find_unused_parameters_{value}"
        for name in ("ddp", "ddp_spawn", "ddp_fork", "ddp_notebook")
        for value in ("false", "true")
    ),
    *("deepspeed", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_2_offload"),
    *("deepspeed_stage_3", "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme"),
    *("single_device", "single_xla", "xla_debug", "xla", "single_tpu"),
)
# Data modules whose splits are files.
OF_FILES = (
    *("TextFiles", "TokenFiles", "QuestionFiles", "PairFiles", "EmbeddingFiles", "PictureArrays"),
    *("TextCorpus", "MaskedCorpus", "ChatFiles", "SpeechFiles"),
)
# Those that read tables, and which setting names the column without which they read nothing.
NAMED_COLUMNS = {
    "text_files": "text",
    "token_files": "words",
    "question_files": "question",
    "pair_files": "source",
    "speech_files": "source",
}
# Whole numbers of all of them, and the least that any takes.
LEAST = {
    **{"batch_size": 1, "eval_batch_size": 1, "max_length": 2, "vocab_size": 1, "views": 1},
    **{"tokens_per_batch": 1, "labelled_rows": 0, "num_workers": 0, "packages": 1},
}
# By the name of a class or function: the package that it needs, and the extra that brings it.
EXTRAS = {
    "TensorBoardLogger": ("tensorboard", "tensorboard"),
    "WandbLogger": ("wandb", "wandb"),
    "MLFlowLogger": ("mlflow", "mlflow"),
    "lora_student": ("peft", "lora"),
    "timm": ("timm", "vision"),
}
# What MLflow needs besides to write into a file.
SQL = ("sqlalchemy", "alembic")


def check_before_loading(cfg: DictConfig) -> None:
    """Refuse what is wrong with a new run and needs no library but torch to be found out.

    Args:
        cfg: the configuration as it was composed; it stays as it is.

    Raises:
        FileNotFoundError: for a file or folder that is not there.
        ValueError: naming the key, what it must be and what it is.
    """
    check_expansion(cfg)
    check_keys_are_read(cfg)
    _check_debug(cfg)
    cfg = cfg.copy()
    if _is_of_a_run(cfg):
        # The configuration of that run counts.
        return
    if not check_names(cfg.get("allow_targets")):
        check_packages(OmegaConf.to_container(cfg))
    drop_settings_of_others(cfg)
    # What they refer to, as the kind of labels, is known when torch and the task are.
    criteria = cfg.get("criteria")
    OmegaConf.update(cfg, "criteria", None, force_add=True)
    check_values(cfg)
    _check_trainer(cfg)
    _check_data(cfg)
    _check_models(cfg)
    _check_extras(cfg)
    _check_files(cfg)
    job = str(cfg.job.get("_target_"))
    if job in (f"{OURS}.jobs.distill", f"{OURS}.jobs.check") and not any((criteria or {}).values()):
        raise ValueError("`criteria` is empty; choose some, as in criteria=[hard_label].")
    check_terms(criteria)
    if job == f"{OURS}.jobs.search":
        _check_search(cfg, criteria)


def _check_debug(cfg: DictConfig) -> None:
    """Refuse to try what is no training, or is not a new one."""
    if not OmegaConf.select(cfg, "debug"):
        return
    job = str(OmegaConf.select(cfg, "job._target_", default=""))
    if job.startswith(f"{OURS}.jobs.") and not job.endswith((".distill", ".finetune")):
        raise ValueError(
            "debug=true tries a training on one batch, so it is for job=distill and job=finetune, "
            f"got job={job.rpartition('.')[2]}. Leave out debug=true."
        )
    if OmegaConf.select(cfg, "resume") is not None:
        raise ValueError(
            f"debug=true tries a new run, and resume={cfg.resume} goes on with one: leave out one "
            "of them."
        )


def _check_search(cfg: DictConfig, criteria: Any) -> None:
    """Refuse a search of options that there are not, or that cannot be searched."""
    options: Any = OmegaConf.to_container(cfg.job, resolve=True)
    whole = cfg.copy()
    OmegaConf.update(whole, "criteria", criteria, force_add=True)
    read_plan(whole, **{k: v for k, v in options.items() if not str(k).startswith("_")})


def check_keys_are_read(cfg: DictConfig) -> None:
    """Refuse a key at the top that was added with `+` and that nothing reads.

    Raises:
        ValueError: naming the nearest keys.
    """
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    added = [key_of(override) for override in typed if override.startswith("+")]
    for name in added:
        if not re.fullmatch(r"\w+", name) or OmegaConf.is_dict(OmegaConf.select(cfg, name)):
            continue
        others = [str(key) for key in cfg if key != name]
        # Others may refer to it.
        text = OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, others))
        packaged = packaged_keys()
        if name not in packaged and not re.search(rf"\$\{{\s*{name}\b", text):
            near = get_close_matches(name, packaged, n=3)
            listed = f"Nearest: {', '.join(near)}." if near else f"Keys: {', '.join(packaged)}."
            raise ValueError(f"Nothing reads the key {name!r}. {listed}")


def _is_of_a_run(cfg: DictConfig) -> bool:
    """Whether a run is gone on with or a job is given one; whether that is there is looked at."""
    job = str(OmegaConf.select(cfg, "job._target_", default=""))
    resume, run = OmegaConf.select(cfg, "resume"), OmegaConf.select(cfg, "job.run")
    model = OmegaConf.select(cfg, "job.path")
    if resume not in (None, "auto"):
        check_is_run("resume", Path(str(resume)))
    elif job.endswith(".export"):
        if run is not None and not Path(str(run)).is_dir():
            check_is_run("job.run", Path(str(run)))
        formats = check_formats(OmegaConf.select(cfg, "job.formats", default=FORMATS[:1]))
        check_quantization(OmegaConf.select(cfg, "job.quantization"), formats)
    elif run is not None and job.startswith(OURS):
        check_is_run("job.run", Path(str(run)))
    elif job.endswith(".evaluate") and model is not None:
        check_model_path("job.path", str(model))
    return resume is not None or run is not None or job.endswith((".evaluate", ".export"))


def _check_trainer(cfg: DictConfig) -> None:
    trainer = cfg.trainer
    if not str(trainer.get("_target_", "")).startswith("lightning."):
        return
    _check_choice("trainer.precision", trainer.get("precision"), PRECISIONS)
    _check_choice("trainer.accelerator", trainer.get("accelerator"), ACCELERATORS)
    _check_choice("trainer.strategy", trainer.get("strategy"), STRATEGIES)
    devices = trainer.get("devices")
    for device in devices if OmegaConf.is_list(devices) else [devices]:
        text = str(device)
        if device is None or re.fullmatch(r"auto|-1|[0-9]+(,[0-9]*)*", text):
            continue
        raise ValueError(
            f"trainer.devices must be a number of devices, their indices as in [0,1], -1 for all, "
            f"or auto, got {text}."
        )
    if not OmegaConf.is_list(devices) and str(devices) == "0":
        raise ValueError("trainer.devices must be at least 1, or -1 for all, got 0.")
    check_number("trainer.num_nodes", trainer.get("num_nodes"), whole=True, least=1)


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value is None or OmegaConf.is_config(value) or str(value) in choices:
        return
    near = get_close_matches(str(value), choices, n=3)
    listed = f"Nearest: {', '.join(near)}." if near else f"Choose one of {', '.join(choices)}."
    raise ValueError(f"{name} must be one that Lightning knows, got {value!r}. {listed}")


def _check_data(cfg: DictConfig) -> None:
    if not str(cfg.data.get("_target_")).startswith("lightning_distill.data."):
        return
    for name, least in LEAST.items():
        check_number(f"data.{name}", cfg.data.get(name), whole=True, least=least)
    fraction = cfg.data.get("validation_fraction")
    check_number("data.validation_fraction", fraction, above=0, most=1)


def _check_models(cfg: DictConfig) -> None:
    for role in ("teacher", "student"):
        node = cfg.get(role)
        target = "" if node is None else str(node.get("_target_"))
        if not target.startswith("lightning_distill."):
            continue
        if node.get("path") is not None and target.endswith(
            (".pretrained", ".lora_student", ".projected_student")
        ):
            check_model_path(f"{role}.path", str(node.path))
        if target.endswith(".from_config"):
            _check_sizes(role, node)
        quantization = _container(node.get("quantization"))
        if role == "student":
            quantization_of(quantization)
            if target.endswith((".pretrained", ".from_teacher", ".pruned_student")):
                _check_dropout(node.get("dropout"))
        elif quantization is not None:
            scheme_named(quantization, "teacher.quantization")


def _check_dropout(value: Any) -> None:
    if value is not None and not isinstance(value, bool):
        raise ValueError(
            f"student.dropout must be true, false or null, got {value!r}: false trains without "
            "dropout. How much of it there is otherwise says the model's own config.json."
        )


def _check_sizes(role: str, node: DictConfig) -> None:
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    for name in (*sizes, "vocab_size", "max_position_embeddings"):
        # Models with stages, as SegFormer, have a list with a number for each.
        if not OmegaConf.is_list(node.get(name)):
            check_number(f"{role}.{name}", node.get(name), whole=True, least=1)
    width, heads = node.get("hidden_size"), node.get("num_attention_heads")
    plain = isinstance(width, int) and isinstance(heads, int)
    if plain and width and heads and node.get("head_dim") is None and width % heads:
        raise ValueError(
            f"{role}.hidden_size={width} must be a multiple of {role}.num_attention_heads={heads}."
        )


def check_model_path(name: str, path: str) -> None:
    """Refuse a path that is no model's folder and cannot be a name on the Hugging Face hub.

    Raises:
        FileNotFoundError: naming the key.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return
    if folder.exists():
        raise FileNotFoundError(
            f"{name}={path} is a file; name the folder that save_pretrained wrote."
        )
    local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if local or (folder.parent.is_dir() and path.count("/") == 1):
        raise FileNotFoundError(f"There is no folder {path} ({name}).{_near(folder)}")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            found = try_to_load_from_cache(path, "config.json")
        except HFValidationError:
            found = None
        if not isinstance(found, str):
            raise FileNotFoundError(
                f"{name}={path} is neither a folder here nor a model in the cache of the Hugging "
                f"Face hub, and HF_HUB_OFFLINE forbids to download it.{_near(folder)}"
            )


def _near(folder: Path) -> str:
    if not folder.parent.is_dir():
        return ""
    known = [p.name for p in folder.parent.iterdir() if p.is_dir()]
    near = get_close_matches(folder.name, known, n=3, cutoff=0.4)
    return f" Nearest: {', '.join(str(folder.parent / name) for name in near)}." if near else ""


def _check_extras(cfg: DictConfig) -> None:
    """Refuse what needs a package that comes with an extra of this one, and is not installed."""
    nodes = {f"logger.{name}": node for name, node in (cfg.get("logger") or {}).items()}
    nodes |= {role: cfg.get(role) for role in ("student", "teacher")}
    needed = {
        where: EXTRAS.get(str(node.get("_target_")).rpartition(".")[2])
        for where, node in nodes.items()
        if OmegaConf.is_dict(node)
    }
    for role in ("student", "teacher"):
        if OmegaConf.select(cfg, f"{role}.quantization") is not None:
            needed[f"{role}.quantization"] = ("torchao", "quantization")
    for where, found in needed.items():
        if found is not None:
            package, extra = found
            store = str(OmegaConf.select(cfg, f"{where}.tracking_uri"))
            check_extra(where, extra, package, *(SQL if store.startswith("sqlite:") else ()))


def _check_files(cfg: DictConfig) -> None:
    target = str(cfg.data.get("_target_"))
    if not target.startswith("lightning_distill.data.") or not target.endswith(OF_FILES):
        return
    for split in ("train", "validation", "test"):
        given = cfg.data.get(split)
        if isinstance(given, str) or OmegaConf.is_list(given):
            # Where a class takes no folder it says so itself.
            find_files(split, given, folders=True)
    kind = kind_of_files(_container(cfg.data.get("train")))
    here = HydraConfig.get().runtime.choices.get("data") if HydraConfig.initialized() else None
    if kind is not None and here in NAMED_COLUMNS and kind.data != here and not _reads(cfg, kind):
        raise ValueError(f"{kind.shows}, and data={here} reads other files: type {kind.words}.")


def _container(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _reads(cfg: DictConfig, kind: Kind) -> bool:
    """Whether the column that is named as the text is one of the file's."""
    column = cfg.data.get(NAMED_COLUMNS[str(HydraConfig.get().runtime.choices.get("data"))])
    return str(column) in kind.columns
