"""Paths of earlier versions: importing one raises an error that says the new one."""

import sys
from collections.abc import Iterable
from importlib.abc import MetaPathFinder
from types import ModuleType

NEW_PATHS = {
    "accumulation": "training.window",
    "adapter": "objective.adapter",
    "batches": "models.batch, and lightning_distill.models.inputs for what a model is given",
    "cache_folder": "data.cache_folder",
    "compilation": "models.compilation",
    "data.byte_pairs": "data.language.byte_pairs",
    "data.chat_files": "data.language.chat_files",
    "data.chat_tokens": "data.language.chat_tokens",
    "data.docstrings": "data.text.docstrings",
    "data.document_tokens": "data.language.document_tokens",
    "data.find_files": "find_files",
    "data.hub": "data.text.hub",
    "data.labels": "tasks.labels",
    "data.language_model": "data.language.language_model",
    "data.packed_rows": "data.language.packed_rows",
    "data.packing": "data.language.packing",
    "data.rows": "data.text.rows",
    "data.shared_cuts": "data.language.shared_cuts",
    "data.standard_library": "data.language.standard_library",
    "data.stdlib_docstrings": "data.text.stdlib_docstrings",
    "data.streamed_rows": "data.language.streamed_rows",
    "data.text_corpus": "data.language.text_corpus",
    "data.text_files": "data.text.text_files",
    "data.token_alignment": "data.language.token_alignment",
    "data.token_bytes": "data.language.token_bytes",
    "data.token_masking": "data.text.token_masking",
    "data.word_pieces": "data.text.word_pieces",
    "distillation": "training.distill",
    "features": "models.source, and lightning_distill.models.capture for `capture` and `read`",
    "generation": "models.generation",
    "gradient_checkpointing": "models.gradient_checkpointing",
    "head": "models.head",
    "intermediate_layers": "objective.intermediate_layers",
    "jobs.build": "run.call, and one module for each object in lightning_distill.run",
    "jobs.cached_teacher": "run.cached_teacher",
    "jobs.caching_teacher": "run.caching_teacher",
    "jobs.every_row": "run.every_row",
    "jobs.lora_student": "run.lora_student",
    "jobs.rehearse": "run.rehearse",
    "jobs.save": "run.save",
    "jobs.stage": "run.stage",
    "jobs.trained_teacher": "run.trained_teacher",
    "jobs.vocabularies": "run.vocabularies",
    "labels": "models.label_order",
    "mapping": "objective.layer_mapping",
    "module": "training.module",
    "on_policy": "training.on_policy",
    "preconditions": "training.preconditions",
    "replay_buffer": "training.replay_buffer",
    "run.check_values": "check_values",
    "run.newest_run": "newest_run",
    "submodules": "models.submodules",
    "teachers.fingerprint": "models.fingerprint",
    "teachers.quantization": "models.quantization",
    "vocabulary": "models.vocabulary",
}


class Signpost(MetaPathFinder):
    """Asked by Python for modules that nobody else has found."""

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> None:
        """Say where a module of this package has gone; find nothing else.

        Raises:
            ImportError: for a path of an earlier version.
        """
        package, _, name = fullname.partition(".")
        if package == __package__ and name in NEW_PATHS:
            raise ImportError(
                f"{fullname} has moved: it is now {package}.{NEW_PATHS[name]}.", name=fullname
            )


def put_up() -> None:
    """Let Python ask for old paths; once for each process."""
    if not any(isinstance(finder, Signpost) for finder in sys.meta_path):
        sys.meta_path.append(Signpost())
