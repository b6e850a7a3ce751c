"""A run of the real command that is small enough to be tried many hundred times."""

import atexit
import functools
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
from lightning.pytorch.utilities import rank_zero_only
from processes import forked, free_port
from tiny import bert, gpt2

from lightning_distill.data.language.byte_pairs import train_byte_pairs
from lightning_distill.data.text.word_pieces import train_word_pieces

WORDS = {"bad": ["poor", "awful", "sad", "dull"], "good": ["fine", "great", "happy", "bright"]}
DATA = ["data=text_files", "data.train=train.tsv", "data.validation=dev.tsv", "data.test=test.tsv"]
STUDENT = ["student.hidden_size=16", "student.num_attention_heads=2"]
STUDENT += ["student.intermediate_size=16"]
TRAINER = ["trainer.max_epochs=2", "trainer.log_every_n_steps=1", "trainer.accelerator=cpu"]
TRAINER += ["data.batch_size=8", "callbacks=[best_checkpoint,last_checkpoint,finite_loss]"]
TEACHER = ["teacher=pretrained", "teacher.path=teacher"]
TINY = [*DATA, *STUDENT, *TRAINER]
JOB = [*TINY, *TEACHER]
STEPS = 4  # of an epoch
LANGUAGE = ["experiment=lm", "teacher.path=writer", "student=causal_lm", "student.hidden_size=16"]
LANGUAGE += ["student.head_dim=4", "student.num_hidden_layers=1", "student.intermediate_size=16"]
LANGUAGE += ["data.train=texts.txt", "data.validation=dev.txt", "data.document=line"]
LANGUAGE += ["data.max_length=24", "metrics=[perplexity,agreement]", *TRAINER]


@dataclass(frozen=True)
class Ended:
    """How a command has ended; the code is that of the rank that failed worst."""

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        return self.out + self.err


def rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts and their labels."""
    draw, found = random.Random(seed), []
    for number in range(count):
        label = draw.choice(sorted(WORDS))
        told = " ".join(draw.choices(WORDS[label], k=draw.randint(1, 6)))
        found.append((f"a {told} film {number}", label))
    return found


def write_rows(path: Path, found: Sequence[tuple[str, str]]) -> None:
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in found))


def fresh_folder() -> Path:
    """A folder that goes when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def workplace() -> Path:
    """A folder with rows and a teacher, in which commands are typed."""
    folder = fresh_folder()
    for seed, (name, count) in enumerate((("train", 8 * STEPS), ("dev", 8), ("test", 8))):
        write_rows(folder / f"{name}.tsv", rows(count, seed))
    tokenizer = train_word_pieces([text for text, _ in rows(8 * STEPS, 0)], 200, 32)
    save_teacher(folder / "teacher", tokenizer)
    _save_writer(folder)
    return folder


def _save_writer(folder: Path) -> None:
    """A causal language model that is a teacher, and texts."""
    for seed, (name, count) in enumerate((("texts", 40), ("dev", 12))):
        told = [f"{text} was {label}" for text, label in rows(count, 10 + seed)]
        (folder / f"{name}.txt").write_text("\n".join(told))
    tokenizer = train_byte_pairs((folder / "texts.txt").read_text().splitlines(), 280, 32)
    model = gpt2(2, 16, len(tokenizer))
    model.config.bos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder / "writer")
    tokenizer.save_pretrained(folder / "writer")


def save_teacher(folder: Path, tokenizer, **changes):
    """A model of transformers that knows the labels of the rows."""
    options = {"num_labels": 2, "vocab_size": len(tokenizer)} | changes
    model = bert(2, 16, **options)
    if options["num_labels"] == 2 and "id2label" not in changes:
        model.config.id2label = {0: "bad", 1: "good"}
        model.config.label2id = {"bad": 0, "good": 1}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def command(
    arguments: Sequence[str],
    fault: Callable[[], None] | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    seconds: float = 120,
) -> Ended:
    """Type `lightning-distill` with these arguments, in a process that is forked.

    Args:
        arguments: of the command.
        fault: called in that process before anything else.
        folder: where it is typed.
        environment: variables besides those of this process.
        seconds: after so many it is killed, and the code is `None`.
    """
    return commands([(arguments, fault)], folder, environment, seconds)


def on_two_ranks(
    arguments: Sequence[str],
    faults: Mapping[int, Callable[[], None]],
    seconds: float = 120,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """The same as two processes that were started as torchrun does.

    Args:
        arguments: of the command.
        faults: by rank.
        seconds: after so many both are killed.
        environment: variables besides those of this process.
    """
    apart = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "NODE_RANK": "0"}
    apart |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    apart |= {"TORCHELASTIC_RUN_ID": f"faults-{apart['MASTER_PORT']}"} | dict(environment or {})
    more = ["trainer=ddp", "trainer.devices=2"] if not arguments[0].startswith("resume=") else []
    typed = [*arguments[:1], *more, *arguments[1:]]
    return commands([(typed, faults.get(rank)) for rank in (0, 1)], None, apart, seconds)


def commands(jobs, folder, environment, seconds) -> Ended:
    """Several of them at once; each is told its rank if there are more than one."""
    with tempfile.TemporaryDirectory() as scratch:
        processes, readers = [], []
        for rank, (arguments, fault) in enumerate(jobs):
            own = dict(environment or {})
            if len(jobs) > 1:
                own |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            files = [os.path.join(scratch, f"{name}{rank}") for name in ("out", "err")]
            at = str(folder or workplace())
            processes.append(forked(_type, list(arguments), fault, at, own, files))
            readers += [_Reader(file) for file in files]
        begun = time.monotonic()
        for process in processes:
            process.start()
        for process in processes:
            process.join(max(0.0, begun + seconds - time.monotonic()))
        took = time.monotonic() - begun
        codes = [process.exitcode for process in processes]
        for process in processes:
            if process.exitcode is None:
                process.kill()
                process.join()
        told = [reader.read() for reader in readers]
    out, err = "".join(told[::2]), "".join(told[1::2])
    worst = None if None in codes else max(codes, key=abs)
    return Ended(worst, out, err, took)


class _Reader(threading.Thread):
    """Reads what a process writes into a pipe, which no full disk disturbs."""

    def __init__(self, path: str):
        super().__init__(daemon=True)
        os.mkfifo(path)
        self.path, self.told = path, b""
        self.start()

    def run(self) -> None:
        with open(self.path, "rb") as pipe:
            while part := pipe.read1():
                self.told += part

    def read(self) -> str:
        # If nobody ever wrote, it waits for one.
        os.close(os.open(self.path, os.O_RDWR | os.O_NONBLOCK))
        self.join(5)
        return self.told.decode(errors="replace")


def _undrawn(self, path, *_, **__) -> None:
    Path(path).touch()


def _type(arguments, fault, folder, environment, files):
    for descriptor, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY), descriptor)
    os.chdir(folder)
    os.environ.pop("HYDRA_FULL_ERROR", None)
    os.environ.setdefault("LIGHTNING_DISTILL_CACHE", os.path.join(folder, "cache"))
    os.environ |= {"OMP_NUM_THREADS": "1", **environment}
    # Lightning reads it when it is imported, which was before.
    rank_zero_only.rank = int(os.environ.get("RANK", 0))
    sys.argv = ["lightning-distill", *arguments]
    # Nobody looks at the curves, which take longer than all the rest.
    matplotlib.figure.Figure.savefig = _undrawn
    # As a command that a shell starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if fault is not None:
            fault()
        from lightning_distill.main import main

        main()
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
