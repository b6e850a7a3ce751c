"""On-policy distillation: the student learns on texts that it, or its teacher, generates."""

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torchmetrics import Metric
from transformers import GenerationConfig

from ..models.batch import entry, with_entries
from ..models.configuration import longest_input
from ..models.embeddings import vocabulary_size
from ..models.generation import (
    batch_of,
    check_batch,
    generate,
    generation_config,
    prompts,
    seeded,
    special_token,
    Text,
    UNLABELLED,
)
from ..objective.objective import Objective
from ..schedules import Schedule
from ..tasks import GeneratedTexts
from .module import DistillationModule
from .on_policy_checks import check_ends, check_writers
from .on_policy_options import check_options, largest, Share
from .ranks import rank, ranks
from .replay_buffer import ReplayBuffer
from .scheduling import Scheduling

log = logging.getLogger("lightning_distill")


class OnPolicyDistillationModule(DistillationModule):
    """Distils language models on texts that are generated while they are trained.

    Each training batch is, as chance decides, one of

    - the student's own: it continues the batch's prompts, and what it generated replaces the
      batch, with probability `student_fraction` (GKD, Agarwal et al., 2024). Of these, a share
      `replay_fraction` comes from what it generated before (after Ko et al., 2024);
    - the teacher's: it continues the prompts, with probability `teacher_fraction`
      (sequence-level KD, Kim and Rush, 2016);
    - the data as they are.

    A batch has `input_ids` and `labels` of shape `(rows, tokens)`; a label is the token that
    follows its position, and -100 where nothing is to be predicted. What a row's first label is
    predicted from is its prompt; of a row without labels that is all of it.

    What replaces a batch has the entries `input_ids` and `attention_mask`, padded on the right,
    `loss_mask`, true for positions that are followed by a generated token (its end of text
    included), and `labels`. Tokens that the teacher wrote are labels. Tokens that the student
    wrote are none: all labels are -100 there, so that `HardLabel` and `label_weight` learn from
    data and teacher only. Other batches get a `loss_mask` from their labels. Terms on logits or
    heads whose criterion takes a `mask` count by it, unless they name a mask themselves.

    All processes take the same decision for a batch, each generates other texts, and a resumed run
    goes on as an uncut one.

    Args:
        student: a causal language model of transformers; trained.
        teacher: as for [`DistillationModule`][], live and with the same vocabulary, of which one
            may have some ids more at its end.
        objective: what is minimised.
        metrics: as for [`DistillationModule`][].
        optimizer: as for [`DistillationModule`][].
        scheduler: as for [`DistillationModule`][].
        student_fraction: share of batches that the student generates, from 0 to 1; a number or a
            schedule. Known as lambda.
        teacher_fraction: share of batches that the teacher generates; a number or a schedule.
        max_new_tokens: the longest completion, its end of text included.
        temperature: of the student's sampling; at 1 texts are drawn from what is trained, at 0 the
            likeliest token is taken.
        teacher_temperature: of the teacher's; 0 by default.
        beams: the teacher's beam search, as in the paper, where more than 1.
        top_k: sample from so many of the likeliest tokens only; `None` from all.
        top_p: sample from the likeliest tokens of this mass only; `None` from all.
        prompt_tokens: how many first tokens are the prompt of a row whose labels count from its
            first token on, as those of plain text do.
        replay_size: how many generated texts each process keeps; 0 for none.
        replay_fraction: share of the student's batches that are taken from these, once there are
            any.
        eos_token_id: what ends a text, one id or several; `None` asks the data module's tokenizer,
            then the student's configuration.
        pad_token_id: what fills rows up, and is read by no one; found in the same way, and the end
            of text if there is none.
        seed: of decisions and texts.

    Raises:
        ValueError: at construction for shares that do not fit, and models, teachers or terms that
            nothing can be generated with or learnt by; before the first step for batches without
            prompts.

    References:
        Agarwal et al., *On-Policy Distillation of Language Models: Learning from Self-Generated
        Mistakes*, 2024, https://arxiv.org/abs/2306.13649, algorithm 1; Kim and Rush,
        *Sequence-Level Knowledge Distillation*, 2016, https://arxiv.org/abs/1606.07947; Ko et al.,
        *DistiLLM: Towards Streamlined Distillation for Large Language Models*, 2024,
        https://arxiv.org/abs/2402.03898.
    """

    needs_live_teacher: ClassVar[bool] = True

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        objective: Objective,
        metrics: Mapping[str, Metric] | Metric | None = None,
        optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | Scheduling | None = None,
        *,
        student_fraction: Share = 1.0,
        teacher_fraction: Share = 0.0,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        teacher_temperature: float = 0.0,
        beams: int = 1,
        top_k: int | None = None,
        top_p: float | None = None,
        prompt_tokens: int | None = None,
        replay_size: int = 0,
        replay_fraction: float = 0.0,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        seed: int = 0,
    ):
        check_options(
            student_fraction=student_fraction,
            teacher_fraction=teacher_fraction,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            teacher_temperature=teacher_temperature,
            beams=beams,
            top_k=top_k,
            top_p=top_p,
            prompt_tokens=prompt_tokens,
            replay_size=replay_size,
            replay_fraction=replay_fraction,
        )
        super().__init__(
            student, teacher, objective, metrics, optimizer, scheduler, task=GeneratedTexts()
        )
        self.student_fraction, self.teacher_fraction = student_fraction, teacher_fraction
        self.max_new_tokens, self.prompt_tokens = max_new_tokens, prompt_tokens
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.beams, self.top_k, self.top_p = beams, top_k, top_p
        self.replay_fraction, self.replay = replay_fraction, ReplayBuffer(replay_size)
        self.eos_token_id, self.pad_token_id = eos_token_id, pad_token_id
        self.seed = seed
        # Training batches so far: what decisions and texts are drawn from, beside the seed.
        self._batches = 0
        self.writers = [
            name
            for name, share in (("student", student_fraction), ("teacher", teacher_fraction))
            if largest(share) > 0
        ]
        check_writers(self)

    def training_batch(self, batch: Any) -> Any:
        """The batch itself, or what student or teacher generate, or generated, in its place."""
        number, self._batches = self._batches, self._batches + 1
        origin = self._origin(number)
        if self.writers:
            self._log({"on_policy": float(origin in ("student", "replay"))})
            if "teacher" in self.writers:
                self._log({"from_teacher": float(origin == "teacher")})
            if self.replay_fraction > 0:
                self._log({"replayed": float(origin == "replay")})
        if origin == "data":
            return _with_mask(batch)
        if origin == "replay":
            numbers = random.Random(f"replay {self.seed} {number} {rank()}")
            texts = self.replay.draw(len(entry(batch, "input_ids")), numbers)
        else:
            texts = self._write(origin, batch, number)
        if origin == "student":
            self.replay.add(texts)
        lengths = [len(text.tokens) - text.prompt for text in texts]
        ended = [text.ended for text in texts]
        self._log(
            {
                "generated_tokens": sum(lengths) / len(texts),
                "ended": sum(ended) / len(texts),
            },
            len(texts),
            on_epoch=False,
        )
        return batch_of(texts, self.pad(), entry(batch, "input_ids").device, origin == "teacher")

    def prepare(self, batch: Any, check: bool = True) -> None:
        """As for any module, and see that the batch has prompts and that they can be continued.

        Args:
            batch: one batch as the data loader gives it.
            check: also demand that each term is finite and gives the student a gradient.
        """
        check_batch(batch)
        # Nothing is generated in validation and tests.
        if check and self.writers:
            check_ends(self)
            prompts(batch, self.prompt_tokens)
            if self._longest_prompt() < 1:
                raise ValueError(
                    f"max_new_tokens is {self.max_new_tokens}, which leaves no token for a prompt: "
                    f"the models read {self._longest_prompt() + self.max_new_tokens}. Lower "
                    "max_new_tokens."
                )
        super().prepare(batch, check)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also write how many batches there were, and the replay buffers of all processes."""
        super().on_save_checkpoint(checkpoint)
        states = [self.replay.state()]
        if self.replay.size and ranks() > 1:
            states = [{} for _ in range(ranks())]
            torch.distributed.all_gather_object(states, self.replay.state())
        checkpoint["on_policy"] = {"batches": self._batches, "replay": states}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also go on with the decisions and the replay buffer where they stopped."""
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint.get("on_policy")
        if saved is not None:
            self._batches = saved["batches"]
            self.replay.load(saved["replay"], rank(), ranks())

    # What is decided.

    def _origin(self, number: int) -> str:
        """Whose the batch of this number is: `student`, `replay`, `teacher` or `data`."""
        progress = min(self.global_step / max(self._total_steps - 1, 1), 1.0)
        shares = []
        for share in (self.student_fraction, self.teacher_fraction):
            if isinstance(share, Schedule):
                share.progress = progress
            shares.append(float(share() if isinstance(share, Schedule) else share))
        # Of the seed and the number alone: equal on every rank, and after a restart.
        numbers = random.Random(f"origin {self.seed} {number}")
        drawn, replayed = numbers.random(), numbers.random() < self.replay_fraction
        if drawn < shares[0]:
            return "replay" if replayed and len(self.replay) else "student"
        return "teacher" if drawn < sum(shares) else "data"

    # How texts are written.

    def _write(self, writer: str, batch: Any, number: int) -> list[Text]:
        model = self.model_of(writer)
        longest = self._longest_prompt()
        begun = [prompt[-longest:] for prompt in prompts(batch, self.prompt_tokens)]
        device = entry(batch, "input_ids").device
        # Other random numbers on each rank, and none taken from the stream of the training.
        seed = random.Random(f"text {self.seed} {number} {rank()}").getrandbits(63)
        with self.section("generation"), seeded(seed, device):
            return generate(
                model, begun, self._generation_config(writer), self.shared_vocabulary(), device
            )

    def model_of(self, role: str) -> Any:
        """The student, or the live teacher."""
        if role == "student":
            return self.student
        return None if self.taught_by is None else self.taught_by.model

    def _generation_config(self, writer: str) -> GenerationConfig:
        student = writer == "student"
        return generation_config(
            self.max_new_tokens,
            self.temperature if student else self.teacher_temperature,
            1 if student else self.beams,
            self.top_k,
            self.top_p,
            self.ends(),
            self.pad(),
        )

    def _longest_prompt(self) -> int:
        models = [m for m in map(self.model_of, ("student", "teacher")) if m is not None]
        limits = [n for n in map(longest_input, models) if n is not None]
        return min(limits, default=10**9) - self.max_new_tokens

    def shared_vocabulary(self) -> int:
        """How many ids both models know."""
        models = map(self.model_of, ("student", "teacher"))
        return min(vocabulary_size(m) or 2**31 for m in models if m is not None)

    def _token(self, name: str) -> Any:
        """An id as the user names it, or the data's tokenizer, or the student's configuration."""
        own = {"eos_token_id": self.eos_token_id, "pad_token_id": self.pad_token_id}[name]
        if own is not None:
            return own
        data = self.trainer.datamodule if self.is_attached else self.tried_data  # type: ignore[attr-defined]
        return special_token(name, data, self.student)

    def ends(self) -> list[int]:
        """Ids that end a text."""
        found = self._token("eos_token_id")
        if found is None:
            return []
        return [found] if isinstance(found, int) else list(found)

    def pad(self) -> int:
        """The id that fills rows up."""
        found = self._token("pad_token_id")
        return self.ends()[0] if found is None or found < 0 else int(found)

    def read_sources(self, batch: Any, **options: Any) -> Any:
        """As for any module, by the mask that counts in training: in validation and tests too."""
        return super().read_sources(_with_mask(batch), **options)

    def trial_batch(self, batch: Any) -> Any:
        """The batch itself: nothing is generated for a trial."""
        return _with_mask(batch)

    def _log(self, values: Mapping[str, float], rows: int = 1, on_epoch: bool = True) -> None:
        if not self.is_attached:
            return
        # Shares of batches are the epoch's; the others are there in some steps only.
        self.log_dict(
            {f"train/{name}": value for name, value in values.items()},
            on_step=not on_epoch,
            on_epoch=on_epoch,
            sync_dist=on_epoch,
            batch_size=rows,
        )


def _with_mask(batch: Any) -> Any:
    labels = entry(batch, "labels")
    if labels is None or entry(batch, "loss_mask") is not None:
        return batch
    return with_entries(batch, {"loss_mask": labels != UNLABELLED})


__all__ = ["OnPolicyDistillationModule"]
