"""Tiny models of the families that people distil; run as a program it writes docs/families.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from lightning_distill.students import from_teacher
from lightning_distill.students.layer_stacks import layer_stacks

TABLE = Path(__file__).parents[2] / "docs" / "families.md"
VOCABULARY, ROWS, TOKENS = 60, 4, 7
TOKEN_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WIDTHS = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
WIDTHS |= {"intermediate_size": 24}
TEXT = WIDTHS | TOKEN_IDS | {"vocab_size": VOCABULARY}
PICTURE = {"image_size": 16, "patch_size": 8}
# Of models with an encoder and a decoder.
BOTH = {"d_model": 16, "encoder_layers": 4, "decoder_layers": 4, "vocab_size": VOCABULARY}
BOTH |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 2}
BOTH |= {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32} | TOKEN_IDS
STAGES = {"depths": [2, 2, 4, 2]}
TOWERS = {"text_config": TEXT | {"projection_dim": 8}, "projection_dim": 8}
TOWERS |= {"vision_config": WIDTHS | PICTURE}

HIDDEN = ("hidden_states",)
ENCODER_DECODER = ("encoder_hidden_states", "decoder_hidden_states")


@dataclass(frozen=True)
class Family:
    """A model of one family, and what is expected of it.

    Attributes:
        name: in the table.
        model: the class of transformers.
        kind: what a configuration calls the family.
        config: fields of the configuration.
        batch: which batch it reads: rows, tokens, pairs, sounds, pictures or both.
        layers: of the student.
        kept: from each list of modules to the numbers of the teacher's layers that are left.
        states: outputs that a term reads layer by layer.
        answer: the output that both models are compared by.
        note: for the table.
    """

    name: str
    model: str
    kind: str
    config: Mapping[str, Any]
    batch: str
    layers: Any
    kept: Mapping[str, list[int]] = field(default_factory=dict)
    states: tuple[str, ...] = HIDDEN
    answer: str = "logits"
    note: str = ""

    def build(self, seed: int = 5) -> Any:
        """A teacher with random weights, in eval mode."""
        fields = dict(self.config)
        if self.answer == "logits" and self.batch in ("rows", "pictures"):
            fields["num_labels"] = 3
        config = transformers.AutoConfig.for_model(self.kind, **fields)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = getattr(transformers, self.model)(config)
            for p in model.parameters():
                # The usual small numbers would make every layer nearly the identity. What is not
                # trained, as the sines of Marian, stays what it is.
                nn.init.normal_(p, std=0.2) if p.dim() > 1 and p.requires_grad else None
        model.tie_weights()
        return model.eval().requires_grad_(False)


def encoder(name: str, model: str, kind: str, path: str, note: str = "", **more: Any) -> Family:
    config = TEXT | more
    return Family(name, model, kind, config, "rows", 2, {path: [1, 3]}, note=note)


def decoder(name: str, model: str, kind: str, path: str, note: str = "", **config: Any) -> Family:
    return Family(name, model, kind, config, "tokens", 2, {path: [1, 3]}, note=note)


def writer(name: str, model: str, kind: str, path: str, batch: str = "pairs", **config: Any):
    paths = {path.format("encoder"): [1, 3], path.format("decoder"): [3]}
    layers, states = {"encoder": 2, "decoder": 1}, ENCODER_DECODER
    note = "encoder and decoder are cut apart"
    return Family(name, model, kind, config, batch, layers, paths, states, note=note)


def staged(name: str, model: str, kind: str, path: str, kept: Any, note: str, **more: Any):
    paths = {path.format(i): numbers for i, numbers in enumerate(kept)}
    return Family(name, model, kind, STAGES | more, "pictures", [1, 1, 2, 1], paths, note=note)


GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 4, "num_decoder_layers": 4}
T5 |= {"num_heads": 2, "vocab_size": VOCABULARY, "decoder_start_token_id": 0}
T5 |= {"pad_token_id": 0, "eos_token_id": 1}
NO_HEADS = {k: v for k, v in TEXT.items() if k not in ("num_attention_heads", "intermediate_size")}
SIZES = {"hidden_sizes": [8, 8, 16, 16]}
SHIFTS = "every second layer of a stage shifts its windows: `keep=first` leaves each as it was"
RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "conv_kernel_size": 3}
SMALL = {"cls_token_id": 1, "sep_token_id": 2}

FAMILIES = [
    encoder("BERT", "BertForSequenceClassification", "bert", "bert.encoder.layer"),
    Family(
        "DistilBERT",
        "DistilBertForSequenceClassification",
        "distilbert",
        {"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 24, "vocab_size": VOCABULARY},
        "rows",
        2,
        {"distilbert.transformer.layer": [1, 3]},
    ),
    encoder("RoBERTa", "RobertaForSequenceClassification", "roberta", "roberta.encoder.layer"),
    encoder("XLM-R", "XLMRobertaForSequenceClassification", "xlm-roberta", "roberta.encoder.layer"),
    encoder("MPNet", "MPNetForSequenceClassification", "mpnet", "mpnet.encoder.layer"),
    encoder(
        "ELECTRA",
        "ElectraForSequenceClassification",
        "electra",
        "electra.encoder.layer",
        embedding_size=8,
    ),
    encoder(
        "DeBERTa-v2",
        "DebertaV2ForSequenceClassification",
        "deberta-v2",
        "deberta.encoder.layer",
        **RELATIVE,
    ),
    Family(
        "ALBERT",
        "AlbertForSequenceClassification",
        "albert",
        TEXT | {"embedding_size": 8},
        "rows",
        2,
        note="one layer is run many times: only how often changes",
    ),
    Family(
        "ModernBERT",
        "ModernBertForSequenceClassification",
        "modernbert",
        TEXT | SMALL | {"local_attention": 4},
        "rows",
        2,
        {"model.layers": [0, 3]},
        note="the first layer has no norm, so it is always kept",
    ),
    decoder(
        "GPT-2",
        "GPT2LMHeadModel",
        "gpt2",
        "transformer.h",
        **{"n_embd": 16, "n_layer": 4, "n_head": 2, "vocab_size": VOCABULARY} | TOKEN_IDS,
    ),
    decoder("Llama", "LlamaForCausalLM", "llama", "model.layers", **TEXT),
    decoder("Qwen2", "Qwen2ForCausalLM", "qwen2", "model.layers", **TEXT, num_key_value_heads=1),
    decoder("Qwen3", "Qwen3ForCausalLM", "qwen3", "model.layers", **TEXT, **GROUPED),
    decoder(
        "Gemma 2",
        "Gemma2ForCausalLM",
        "gemma2",
        "model.layers",
        "`layer_types` are cut with the layers",
        **TEXT,
        **GROUPED,
        sliding_window=4,
    ),
    decoder("Phi", "PhiForCausalLM", "phi", "model.layers", **TEXT),
    decoder("Mamba", "MambaForCausalLM", "mamba", "backbone.layers", **NO_HEADS, state_size=4),
    Family(
        "Qwen2, classifying",
        "Qwen2ForSequenceClassification",
        "qwen2",
        TEXT | {"num_key_value_heads": 1},
        "rows",
        2,
        {"model.layers": [1, 3]},
        note="reads the last token that is no padding",
    ),
    writer("T5", "T5ForConditionalGeneration", "t5", "{}.block", **T5),
    writer("BART", "BartForConditionalGeneration", "bart", "model.{}.layers", **BOTH),
    writer(
        "Marian",
        "MarianMTModel",
        "marian",
        "model.{}.layers",
        **BOTH,
        decoder_vocab_size=VOCABULARY,
    ),
    writer(
        "Whisper",
        "WhisperForConditionalGeneration",
        "whisper",
        "model.{}.layers",
        "sounds",
        **BOTH,
        num_mel_bins=4,
        max_source_positions=8,
        max_target_positions=16,
    ),
    Family(
        "ViT",
        "ViTForImageClassification",
        "vit",
        WIDTHS | PICTURE,
        "pictures",
        2,
        {"vit.layers": [1, 3]},
    ),
    Family(
        "DeiT",
        "DeiTForImageClassification",
        "deit",
        WIDTHS | PICTURE,
        "pictures",
        2,
        {"deit.layers": [1, 3]},
    ),
    staged(
        "Swin",
        "SwinForImageClassification",
        "swin",
        "swin.encoder.layers.{}.blocks",
        [[1], [1], [1, 3], [1]],
        SHIFTS,
        **{"image_size": 16, "patch_size": 1, "embed_dim": 8, "num_heads": [1, 1, 2, 2]},
        window_size=2,
    ),
    staged(
        "ConvNeXt",
        "ConvNextForImageClassification",
        "convnext",
        "convnext.encoder.stages.{}.layers",
        [[1], [1], [1, 3], [1]],
        "layers of each stage",
        **SIZES,
        patch_size=2,
        layer_scale_init_value=1.0,
    ),
    staged(
        "ResNet",
        "ResNetForImageClassification",
        "resnet",
        "resnet.encoder.stages.{}.layers",
        [[1], [0], [0, 3], [0]],
        "the first layer of a stage changes the size, so it is always kept",
        **SIZES,
        embedding_size=8,
        layer_type="basic",
    ),
    Family(
        "CLIP",
        "CLIPModel",
        "clip",
        TOWERS,
        "both",
        {"text": 2, "vision": 1},
        {"text_model.encoder.layers": [1, 3], "vision_model.encoder.layers": [3]},
        ("text_model_output.hidden_states", "vision_model_output.hidden_states"),
        "logits_per_image",
        "the towers are cut apart",
    ),
    Family(
        "CLIP's text tower",
        "CLIPTextModelWithProjection",
        "clip_text_model",
        TEXT | {"projection_dim": 8},
        "rows",
        2,
        {"text_model.encoder.layers": [1, 3]},
        answer="text_embeds",
    ),
    Family(
        "CLIP's vision tower",
        "CLIPVisionModelWithProjection",
        "clip_vision_model",
        WIDTHS | PICTURE | {"projection_dim": 8},
        "pictures",
        2,
        {"vision_model.encoder.layers": [1, 3]},
        answer="image_embeds",
    ),
]


def batch_for(family: Family, seed: int = 0) -> dict[str, torch.Tensor]:
    """A batch that such a model reads, some of its rows padded."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, least: int = 5, below: int = VOCABULARY) -> torch.Tensor:
        return torch.randint(least, below, shape, generator=generator)

    mask = torch.ones(ROWS, TOKENS, dtype=torch.long)
    mask[::2, -2:] = 0
    text = {"input_ids": draw(ROWS, TOKENS) * mask, "attention_mask": mask}
    pictures = {"pixel_values": torch.randn(ROWS, 3, 16, 16, generator=generator)}
    sounds = {"input_features": torch.randn(ROWS, 4, 16, generator=generator)}
    written = draw(ROWS, 5)
    written[::2, -2:] = -100
    following = nn.functional.pad(text["input_ids"][:, 1:], (0, 1), value=-100)
    of_rows = {"labels": draw(ROWS, least=0, below=3)}
    return {
        "rows": text | of_rows,
        "tokens": text | {"labels": following.masked_fill(following == 0, -100)},
        "pairs": text | {"labels": written},
        "sounds": sounds | {"labels": written},
        "pictures": pictures | of_rows,
        "both": text | pictures,
    }[family.batch]


def halved(family: Family, teacher: Any) -> Any:
    """The student of the family."""
    return from_teacher(teacher, family.layers)


def typed(layers: Any) -> str:
    """As it is written on the command line."""
    if isinstance(layers, Mapping):
        return "{" + ", ".join(f"{k}: {v}" for k, v in layers.items()) + "}"
    return str(layers).replace(" ", "")


def row_of(family: Family) -> str:
    """A line of the table, made from the model itself."""
    teacher = family.build()
    stacks = layer_stacks(teacher)
    paths = [path for stack in stacks for stage in stack.paths for path in stage]
    if len(paths) > 2:
        paths = [f"{paths[0]}, ..."]
    fields = [f"{stack.part}.{stack.field}".lstrip(".") for stack in stacks]
    states = [f"student.{state}[*]" for state in family.states]
    cells = [
        family.name,
        code([family.model]),
        code(paths) or "shared",
        code(fields),
        code([f"student.layers={typed(family.layers)}"]),
        code(states),
        family.note,
    ]
    return "| " + " | ".join(cells) + " |"


def code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


HEAD = """\
# Model families

Tiny random models of these families are cut, distilled for two steps by their logits and their
hidden states, saved and loaded again by transformers alone, in `tests/students/test_families.py`.
The student keeps the weights of the layers that it keeps; with all of its layers it answers as the
teacher, bit for bit; and loaded again it answers as it did.

What is in no line works too if one field of the model's configuration counts a list of its layers:
the list is found by building the model with one layer more, not by the name of its class.

`python tests/students/families.py` writes this file, and a test holds that it is the one committed.

| family | model | its layers | counted by | halved by | terms on layers | note |
|---|---|---|---|---|---|---|
"""

FOOT = """
[A student cut from any teacher](tasks/families.md) says how to choose layers.

What cannot be cut:

- Models of timm (`TimmWrapperForImageClassification`): the configuration names an architecture,
  and no field of it counts layers. Distil them as teachers (`teacher=timm`), and take a smaller one
  of timm as the student (`student=timm student.name=...`); terms read their layers by
  `student.layer:timm_model.PATH`.
- Models with quantised weights, whose layers cannot be copied in float32.
- Modules that are no model of transformers: no configuration says how to make a smaller one.
"""


def table() -> str:
    """The whole file."""
    return HEAD + "".join(f"{row_of(family)}\n" for family in FAMILIES) + FOOT


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
