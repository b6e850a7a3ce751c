"""Let the teacher write the training rows' texts once, for sequence-level distillation."""

import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from ..check_values import check_number
from ..data.data import check_cacheable
from ..data.pairs.pairs import PairDataModule
from ..models.written_texts import check_writes, Writing
from ..overrides import quoted
from ..run.data import build_data, check_lengths
from ..run.metrics import build_metrics, without_agreement
from ..run.models import build_teacher
from ..run.stage import say
from ..run.trainer import build_trainer
from ..run.writing import begun, planned, Writer
from ..teachers import Teacher


def generate(
    cfg: DictConfig,
    file: str | None = None,
    max_new_tokens: int | None = None,
    beams: int = 1,
    batch_size: int = 64,
) -> str:
    """Write what `cfg.teacher` writes from every training source into a file; returns its path.

    A line is an object with `source`, `target` (the row's own), `text` (the teacher's) and
    `log_probability` (the mean of its tokens, in nats). With `data.targets=FILE` the texts take the
    place of the training targets, as Kim and Rush do (2016, https://aclanthology.org/D16-1139), and
    `data.keep` filters them. Given again with the same file, the command goes on where it was
    killed.

    Args:
        cfg: the run's configuration.
        file: where; `texts.jsonl` in the run's directory by default.
        max_new_tokens: of a text at most; `data.max_target_length` by default.
        beams: how many texts a search follows; 1 takes the likeliest token each time.
        batch_size: rows that the teacher sees at once.

    Raises:
        ValueError: for a teacher that writes no texts, data without sources, and a file that was
            written otherwise.
    """
    check_number("job.batch_size", batch_size, whole=True, least=1, required=True)
    without_agreement(cfg)
    with open_dict(cfg):
        # Of the teacher's own texts nothing would be learnt.
        if cfg.data.get("targets") is not None:
            raise ValueError(
                "job=generate writes the texts that data.targets names: leave data.targets out."
            )
    data: Any = build_data(cfg)
    check_cacheable(data, "job=generate")
    if not isinstance(data, PairDataModule):
        raise ValueError(
            "job=generate writes texts from sources, for which it needs data of pairs, such as "
            f"data=pair_files, got a {type(data).__name__}."
        )
    how = Writing(max_new_tokens or data.max_target_length, beams)
    build_metrics(cfg, data)
    teacher = Teacher.of(build_teacher(cfg, data))
    if not teacher.is_live:
        raise ValueError(
            "job=generate asks a teacher that is there: one that is trained here, or "
            "teacher=pretrained teacher.path=DIR."
        )
    assert teacher.model is not None
    check_writes(teacher.model, "job=generate")
    check_lengths(data, teacher=teacher.model)
    path = Path(file or Path(str(cfg.output_dir)) / "texts.jsonl")
    about = {
        "teacher": teacher.fingerprint,
        "max_new_tokens": how.max_new_tokens,
        "beams": how.beams,
        "preprocessing": data.preprocessing(),
    }
    batches = planned(data, batch_size, begun(path, about))
    start, rows = time.perf_counter(), sum(len(rows) for _, rows, _ in batches)
    say("Teacher", f"writes {rows:,} texts into {path}")
    trainer = build_trainer(
        cfg,
        Path(str(cfg.output_dir)),
        callbacks=[],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        # One file, one writer.
        devices=1,
        num_nodes=1,
        strategy="auto",
        limit_predict_batches=1.0,
    )
    with path.open("a", encoding="utf-8") as opened:
        trainer.predict(Writer(teacher, data, batches, how, opened), return_predictions=False)
    seconds = time.perf_counter() - start
    say("Written", f"{rows:,} texts in {seconds:.0f} s. Train: {quoted('data.targets', path)}")
    return str(path)
