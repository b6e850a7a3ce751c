"""Tiny causal language models of several families, a batch for them, and fused terms."""

import torch
import transformers as hf

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import FusedLinearDivergence

SMALL = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
SMALL |= {"intermediate_size": 24, "max_position_embeddings": 32, "pad_token_id": 0}
MODELS = {
    "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config, {"n_embd": 16, "n_head": 2, "n_positions": 32}),
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, SMALL),
    "qwen2, tied": (hf.Qwen2ForCausalLM, hf.Qwen2Config, SMALL | {"tie_word_embeddings": True}),
    # So low that it bends the small logits of models that were never trained.
    "gemma2": (
        hf.Gemma2ForCausalLM,
        hf.Gemma2Config,
        SMALL | {"final_logit_softcapping": 0.05, "query_pre_attn_scalar": 8},
    ),
    "cohere": (hf.CohereForCausalLM, hf.CohereConfig, SMALL | {"logit_scale": 3.0}),
    "granite": (hf.GraniteForCausalLM, hf.GraniteConfig, SMALL | {"logits_scaling": 0.25}),
}


def model(name, vocabulary=50, layers=1, seed=0):
    kind, config, options = MODELS[name]
    depth = {"n_layer": layers} if name == "gpt2" else {"num_hidden_layers": layers}
    torch.manual_seed(seed)
    return kind(config(vocab_size=vocabulary, **depth, **options)).eval()


def batch(rows=3, tokens=7):
    ids = torch.randint(1, 48, (rows, tokens), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def fused(criterion=None, **options):
    inputs = {
        "student": "student.layer_input:lm_head",
        "teacher": "teacher.layer_input:lm_head",
        "student_head": "student.head:lm_head",
        "teacher_head": "teacher.head:lm_head",
        "labels": "batch.labels",
    }
    return Term(FusedLinearDivergence(criterion, shift_labels=True, **options), inputs)


def module_of(student, teacher, *terms, metrics=None):
    named = {f"term_{i}": term for i, term in enumerate(terms)}
    return DistillationModule(student, teacher, Objective(named), metrics)


def step(module, batch):
    """Loss and gradients of one batch, and the shapes of the logits that the models returned."""
    module.prepare(batch)
    values, student, teacher = module.read_sources(batch, heads="skipped")
    loss = module.objective(values)["loss"]
    learned = {n: p for n, p in module.student.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
    return loss, dict(zip(learned, found, strict=True)), student.logits.shape, teacher.logits.shape
