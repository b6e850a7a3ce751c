"""Texts from a causal language model: prompts of a batch, what follows them, a batch of both."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import nn, Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from .batch import entry, teacher_entries
from .compilation import uncompiled
from .configuration import configured
from .modes import in_eval_mode
from .submodules import innermost


@dataclass(frozen=True)
class Text:
    """A prompt with what was generated after it.

    Attributes:
        tokens: of both, `(tokens,)`, on the CPU.
        prompt: how many of them are the prompt.
        ended: whether it ends with the end of text, and was not cut for its length.
    """

    tokens: Int[Tensor, " tokens"]
    prompt: int
    ended: bool


UNLABELLED = -100


def check_batch(batch: Any) -> None:
    """Refuse a batch without `input_ids` and `labels` of shape `(rows, tokens)`."""
    shapes = {}
    for name in ("input_ids", "labels"):
        value = entry(batch, name)
        shapes[name] = tuple(value.shape) if isinstance(value, Tensor) else None
    if shapes["labels"] is None or len(shapes["labels"]) != 2 or len(set(shapes.values())) > 1:
        raise ValueError(
            "On-policy distillation needs batches of language modelling: a dict with `input_ids` "
            "and `labels`, both (rows, tokens), where a label is the token that follows. Got "
            f"shapes {shapes['input_ids']} and {shapes['labels']}."
        )


def prompts(batch: Any, prompt_tokens: int | None = None) -> list[Int[Tensor, " _"]]:
    """The prompt of every row, without padding, on the CPU.

    Args:
        batch: with `input_ids`, `labels` and maybe `attention_mask`, each `(rows, tokens)`.
        prompt_tokens: how long it is where labels count from the first token on.

    Raises:
        ValueError: if the batch has none, as a packed one, or `prompt_tokens` is needed.
    """
    check_batch(batch)
    mask = entry(batch, "attention_mask")
    if mask is None and entry(batch, "position_ids") is not None:
        raise ValueError(
            "The batch is packed (it has position_ids and no attention_mask), so that its rows "
            "hold several texts and have no prompt to go on from. Set data.packing=false."
        )
    if teacher_entries(batch) is not None:
        raise ValueError(
            "The batch has tokens of the teacher's own, so its tokenizer is another one, and texts "
            "of one model are no tokens of the other. Use a teacher with the student's tokenizer."
        )
    ids, labels = entry(batch, "input_ids").cpu(), entry(batch, "labels").cpu()
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.cpu() != 0
    found = []
    for row, row_labels, row_real in zip(ids, labels, real, strict=True):
        counted = (row_labels[row_real] != UNLABELLED).nonzero()
        tokens = row[row_real]
        if not len(tokens):
            raise ValueError("A row of the batch has no token; a prompt needs one at least.")
        first = int(counted[0]) + 1 if len(counted) else len(tokens)
        if first == 1 and len(counted):
            if prompt_tokens is None:
                raise ValueError(
                    "A row's labels count from its first token on, as those of plain text do, so "
                    "that it is not known where its prompt ends. Set prompt_tokens to how many "
                    "first tokens are to be continued, such as 32."
                )
            first = min(prompt_tokens, len(tokens))
        found.append(tokens[:first])
    return found


def generate(
    model: Any,
    prompts: Sequence[Int[Tensor, " _"]],
    config: GenerationConfig,
    vocabulary: int,
    device: torch.device,
) -> list[Text]:
    """Continue prompts with a causal language model of transformers, as it is in evaluation.

    Args:
        model: left as it was.
        prompts: without padding.
        config: its `eos_token_id` a list, its `pad_token_id` a number.
        vocabulary: ids from this on are never generated.
        device: on which the model is.
    """
    ids = pad_sequence(
        list(prompts), batch_first=True, padding_value=config.pad_token_id, padding_side="left"
    )
    mask = pad_sequence(
        [torch.ones_like(p) for p in prompts], batch_first=True, padding_side="left"
    )
    with torch.no_grad(), evaluating(model), _without_defaults(model):
        whole = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=config,
            logits_processor=LogitsProcessorList([_Known(vocabulary)]),
        )
    # Autocast keeps the weights that it converted; in older versions of torch these would stay
    # without a gradient.
    torch.clear_autocast_cache()
    texts = []
    for prompt, completion in zip(prompts, whole[:, ids.shape[1] :].cpu(), strict=True):
        ends = torch.isin(completion, torch.tensor(config.eos_token_id)).nonzero()
        if len(ends):
            completion = completion[: int(ends[0]) + 1]
        texts.append(Text(torch.cat([prompt, completion]), len(prompt), len(ends) > 0))
    return texts


def batch_of(
    texts: Sequence[Text], pad: int, device: torch.device, labelled: bool
) -> dict[str, Tensor]:
    """A batch of texts as [`OnPolicyDistillationModule`][] describes it.

    Args:
        texts: its rows.
        pad: what fills them up.
        device: where it goes.
        labelled: whether generated tokens are labels.
    """
    ids = pad_sequence([t.tokens.long() for t in texts], batch_first=True, padding_value=pad)
    lengths = torch.tensor([len(t.tokens) for t in texts])[:, None]
    begun = torch.tensor([t.prompt for t in texts])[:, None]
    position = torch.arange(ids.shape[1])
    # The last token of the prompt says the first that was generated.
    counted = (position >= begun - 1) & (position < lengths - 1)
    following = torch.cat([ids[:, 1:], ids[:, :1]], dim=1)
    labels = following.masked_fill(~counted, UNLABELLED)
    batch = {
        "input_ids": ids,
        "attention_mask": (position < lengths).long(),
        "labels": labels if labelled else torch.full_like(ids, UNLABELLED),
        "loss_mask": counted,
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


class _Known(LogitsProcessor):
    """Rules out ids that only one of the models has, as heads are padded to round numbers."""

    def __init__(self, vocabulary: int):
        self.vocabulary = vocabulary

    def __call__(
        self, input_ids: Int[Tensor, "rows tokens"], scores: Float[Tensor, "rows vocabulary"]
    ) -> Float[Tensor, "rows vocabulary"]:
        if scores.shape[1] <= self.vocabulary:
            return scores
        return scores.masked_fill(
            torch.arange(scores.shape[1], device=scores.device) >= self.vocabulary, -torch.inf
        )


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from a seed, on the CPU and this device; they then go on as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if device.type == "cpu":
            yield
            return
        # Not by fork_rng, which knows only devices that have numbers.
        module: Any = torch.get_device_module(device)
        state = module.get_rng_state()
        module.manual_seed(seed)
        try:
            yield
        finally:
            module.set_rng_state(state)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """While it lasts, a model is in eval mode and not compiled."""
    # A compiled model would be compiled anew for caches of every length.
    with in_eval_mode(model), uncompiled():
        yield


def copy_generation_config(source: nn.Module, model: nn.Module) -> None:
    """Let a model write as another one does, if that has anything to say of it.

    Args:
        source: a model of transformers; a body without a head says nothing.
        model: changed in place.
    """
    said = getattr(source, "generation_config", None)
    if said is not None:
        model.generation_config = copy.deepcopy(said)


@contextmanager
def _without_defaults(model: nn.Module) -> Iterator[None]:
    """Hide what the model's generation config says, which transformers adds to what it is given."""
    # Those of wrappers, such as peft's, are the model's within.
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    # A body without a head has none.
    kept = {p: p.generation_config for p in parts if hasattr(p, "generation_config")}
    for part in kept:
        part.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for part, config in kept.items():
            part.generation_config = config


def generation_config(
    max_new_tokens: int,
    temperature: float,
    beams: int,
    top_k: int | None,
    top_p: float | None,
    ends: list[int],
    pad: int,
) -> GenerationConfig:
    """How a text is continued, whatever a model's own configuration says.

    Args:
        max_new_tokens: at most.
        temperature: of drawing each token; 0 takes the likeliest.
        beams: how many texts a search follows.
        top_k: draw from so many of the likeliest tokens; `None` from all.
        top_p: draw from the likeliest that have this probability together; `None` from all.
        ends: ids that end a text.
        pad: the id that fills rows up.
    """
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        # Explicitly none: transformers takes 50 where nothing is said.
        sampling = {"do_sample": True, "temperature": float(temperature), "top_k": top_k or 0}
        sampling["top_p"] = 1.0 if top_p is None else top_p
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=beams,
        eos_token_id=ends,
        pad_token_id=pad,
        # The model's configuration is for training.
        use_cache=True,
        **sampling,
    )


def special_token(name: str, data: Any, model: nn.Module) -> Any:
    """An id such as `eos_token_id`, from the tokenizer of the data, else from the model.

    Args:
        name: of the id.
        data: a data module, or `None`.
        model: of transformers.
    """
    tokenizer = getattr(data, "tokenizer", None)
    written = getattr(innermost(model), "generation_config", None)
    ids = (getattr(one, name, None) for one in (tokenizer, written))
    return next((i for i in ids if i is not None), configured(model, name))
