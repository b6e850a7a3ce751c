"""What matters of a model, against sums over slices that are written out, in float64."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from students.families import batch_for, FAMILIES
from students.test_pruned import anatomy_of
from torch.nn import functional as F

from lightning_distill.models.inputs import call_model, model_inputs
from lightning_distill.run.cost_of_cuts import distance, label_loss
from lightning_distill.students.importance import (
    at_random,
    by_activations,
    by_gradient,
    by_magnitude,
)
from lightning_distill.students.narrow import most_important
from lightning_distill.students.pruned import prune
from lightning_distill.students.units import Anatomy
from lightning_distill.tasks import Classification, Embedding, LanguageModelling, Regression

BY_NAME = {family.name: family for family in FAMILIES}
HEAD, HEADS, NEURONS, WIDTH = 8, 2, 24, 16


def close(found, expected):
    torch.testing.assert_close(found.double(), torch.as_tensor(expected).double())


def of_rows(weight, row, size=HEAD):
    return weight[row * size : (row + 1) * size]


def test_activations_are_means_over_tokens_that_are_no_padding():
    family = BY_NAME["BERT"]
    anatomy = anatomy_of(family)
    model, batches = anatomy.model.eval(), [batch_for(family, seed) for seed in (0, 1)]
    # Of another length: tokens count, and not batches.
    batches[1] = {n: v[:, :5] if v.dim() > 1 else v for n, v in batches[1].items()}
    batches[1]["attention_mask"][1, 1:] = 0
    scores = by_activations(
        anatomy, batches, lambda b: call_model(model, model_inputs(b, model), {})
    )
    model.double().set_attn_implementation("eager")
    sums = {
        "heads": torch.zeros(4, HEADS).double(),
        "neurons": torch.zeros(4, NEURONS).double(),
        "layers": torch.zeros(4).double(),
        "channels": torch.zeros(WIDTH).double(),
    }
    count = 0
    for batch in batches:
        ids, mask = batch["input_ids"], batch["attention_mask"]
        with torch.no_grad():
            out = model(ids, mask, output_hidden_states=True, output_attentions=True)
        for i, layer in enumerate(model.bert.encoder.layer):
            given, returned, maps = (
                out.hidden_states[i],
                out.hidden_states[i + 1],
                out.attentions[i],
            )
            part = layer.attention.self.value
            value = given @ part.weight.T + part.bias
            made = [maps[:, h] @ value[..., HEAD * h : HEAD * (h + 1)] for h in range(HEADS)]
            attended = layer.attention.output(torch.cat(made, -1), given)
            part = layer.intermediate.dense
            neurons = F.gelu(attended @ part.weight.T + part.bias)
            for row, place in mask.nonzero().tolist():
                at = row, place
                for h in range(HEADS):
                    sums["heads"][i, h] += made[h][at].square().sum().sqrt()
                sums["neurons"][i] += neurons[at].abs()
                sums["channels"] += given[at].abs() + attended[at].abs()
                a, b = given[at], returned[at]
                sums["layers"][i] += 1 - (a @ b) / (a.norm() * b.norm())
        count += int(mask.sum())
    for i in range(4):
        base = f"bert.encoder.layer.{i}"
        close(scores.heads[f"{base}.attention.output.dense"], sums["heads"][i] / count)
        close(scores.neurons[f"{base}.output.dense"], sums["neurons"][i] / count)
    close(scores.layers["bert.encoder.layer"], sums["layers"] / count)
    close(scores.channels, sums["channels"] / count)


def test_tokens_of_a_decoder_are_counted_by_what_it_writes():
    family = BY_NAME["T5"]
    anatomy, batch = anatomy_of(family), batch_for(family)
    model = anatomy.model

    def scores(given):
        return by_activations(
            anatomy, [given], lambda b: call_model(model, model_inputs(b, model), {})
        )

    found = scores(batch)
    # Rows without padding, and of each length by themselves.
    short = {n: v[::2, : 5 if n != "labels" else 3] for n, v in batch.items()}
    long = {n: v[1::2] for n, v in batch.items()}
    parts = [scores(short), scores(long)]
    for path, tokens in (("encoder.block", (10, 14)), ("decoder.block", (6, 10))):
        mean = sum(n * p.layers[path] for n, p in zip(tokens, parts, strict=True)) / sum(tokens)
        close(found.layers[path], mean)


def slices_of(name, state):
    """Of the second layer: weights of each head, of each group, of each neuron."""
    if name == "BERT":
        base = "bert.encoder.layer.1."
        q, k, v = (f"{base}attention.self.{n}" for n in ("query", "key", "value"))
        out, into, back = (
            f"{base}{n}.dense" for n in ("attention.output", "intermediate", "output")
        )
        of_head = [
            [of_rows(state[f"{p}.{w}"], h) for p in (q, k, v) for w in ("weight", "bias")]
            + [state[f"{out}.weight"][:, HEAD * h : HEAD * (h + 1)]]
            for h in range(HEADS)
        ]
        of_neuron = [
            [state[f"{into}.weight"][n], state[f"{into}.bias"][n], state[f"{back}.weight"][:, n]]
            for n in range(NEURONS)
        ]
        return out, of_head, back, of_neuron
    if name == "GPT-2":
        base = "transformer.h.1."
        out, back = f"{base}attn.c_proj", f"{base}mlp.c_proj"
        of_head = [
            [
                state[f"{base}attn.c_attn.{w}"][
                    ..., WIDTH * p + HEAD * h : WIDTH * p + HEAD * h + HEAD
                ]
                for p in range(3)
                for w in ("weight", "bias")
            ]
            + [state[f"{out}.weight"][HEAD * h : HEAD * (h + 1)]]
            for h in range(HEADS)
        ]
        of_neuron = [
            [
                state[f"{base}mlp.c_fc.weight"][:, n],
                state[f"{base}mlp.c_fc.bias"][n],
                state[f"{back}.weight"][n],
            ]
            for n in range(4 * WIDTH)
        ]
        return out, of_head, back, of_neuron
    base = "model.layers.1."
    if name == "ModernBERT":
        out, back = f"{base}attn.Wo", f"{base}mlp.Wo"
        fused, gated = state[f"{base}attn.Wqkv.weight"], state[f"{base}mlp.Wi.weight"]
        of_head = [
            [of_rows(fused[WIDTH * p : WIDTH * (p + 1)], h) for p in range(3)]
            + [state[f"{out}.weight"][:, HEAD * h : HEAD * (h + 1)]]
            for h in range(HEADS)
        ]
        of_neuron = [
            [gated[n], gated[NEURONS + n], state[f"{back}.weight"][:, n]] for n in range(NEURONS)
        ]
        return out, of_head, back, of_neuron
    # Of Qwen3 both heads read the same keys and values.
    out, back = f"{base}self_attn.o_proj", f"{base}mlp.down_proj"
    of_head = [
        [
            of_rows(state[f"{base}self_attn.q_proj.weight"], h),
            state[f"{out}.weight"][:, HEAD * h : HEAD * (h + 1)],
        ]
        for h in range(HEADS)
    ]
    of_neuron = [
        [state[f"{base}mlp.{p}_proj.weight"][n] for p in ("gate", "up")]
        + [state[f"{back}.weight"][:, n]]
        for n in range(NEURONS)
    ]
    return out, of_head, back, of_neuron


def square(weight):
    return float((weight.double() ** 2).sum())


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "ModernBERT", "Qwen3"])
def test_magnitude_is_the_norm_of_the_weights_of_a_unit(name):
    anatomy = anatomy_of(BY_NAME[name])
    state = anatomy.model.state_dict()
    scores = by_magnitude(anatomy)
    out, of_head, back, of_neuron = slices_of(name, state)
    grouped = anatomy.shape.group > 1
    own = scores.heads[out] ** 2 + (0 if grouped else scores.groups[out] ** 2)
    close(own, [sum(map(square, parts)) for parts in of_head])
    close(scores.neurons[back], [sum(map(square, parts)) ** 0.5 for parts in of_neuron])
    path = out.partition(".1.")[0]
    layer = anatomy.model.get_submodule(f"{path}.1")
    close(scores.layers[path][1], sum(map(square, layer.parameters())) ** 0.5)
    if grouped:
        keys = [state[f"model.layers.1.self_attn.{p}_proj.weight"] for p in ("k", "v")]
        close(scores.groups[out], [sum(map(square, keys)) ** 0.5])


def test_a_channel_has_the_weights_of_its_row_or_column_everywhere():
    anatomy = anatomy_of(BY_NAME["GPT-2"])
    totals = torch.zeros(WIDTH).double()
    for name, weight in anatomy.model.named_parameters():
        weight = weight.detach().double() ** 2
        if name.endswith(("attn.c_proj.weight", "mlp.c_proj.weight")):
            totals += weight.sum(0)
        elif name.endswith(("c_attn.weight", "c_fc.weight")):
            totals += weight.sum(1)
        elif not name.endswith(("c_attn.bias", "c_fc.bias")):
            # Embeddings, norms, and biases of what is added to the hidden states.
            totals += weight if weight.dim() == 1 else weight.sum(0)
    close(by_magnitude(anatomy).channels, totals.sqrt())


@pytest.mark.parametrize("name", ["BERT", "GPT-2"])
def test_gradients_are_of_the_loss_on_labels(name):
    family = BY_NAME[name]
    anatomy = anatomy_of(family)
    model, batches = anatomy.model, [batch_for(family, seed) for seed in (0, 1)]
    task = Classification() if name == "BERT" else LanguageModelling()
    scores = by_gradient(anatomy, batches, lambda b: label_loss(model, task, b))
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    model.double().requires_grad_(True)
    totals: dict = {}
    for batch in batches:
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = F.cross_entropy(logits.flatten(0, -2), batch["labels"].flatten())
        model.zero_grad()
        loss.backward()
        for key, weight in model.named_parameters():
            if weight.grad is not None:
                totals[key] = totals.get(key, 0) + (weight * weight.grad).abs().detach() / 2
    out, of_head, back, of_neuron = slices_of(name, totals)
    heads = scores.heads[out] + scores.groups[out]
    for found, parts in ((heads, of_head), (scores.neurons[back], of_neuron)):
        expected = torch.tensor([sum(float(p.sum()) for p in weights) for weights in parts])
        torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-7)


def test_without_labels_the_gradient_is_of_what_the_model_predicts():
    family = BY_NAME["GPT-2"]
    model, batch = anatomy_of(family).model, batch_for(family)
    batch.pop("labels")
    with torch.no_grad():
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    there = batch["attention_mask"].bool()
    expected = F.cross_entropy(logits[there], logits[there].argmax(-1))
    close(label_loss(model, LanguageModelling(), batch), expected)
    with pytest.raises(ValueError, match=r"data\.task=regression has none\. Take student\.import"):
        label_loss(anatomy_of(BY_NAME["BERT"]).model, Regression(), batch_for(BY_NAME["BERT"]) | {
            "labels": torch.full((4,), torch.nan)})  # fmt: skip


def test_the_distance_is_the_divergence_from_the_teacher():
    family = BY_NAME["GPT-2"]
    student, teacher = anatomy_of(family).model, anatomy_of(family).model
    with torch.no_grad():
        student.transformer.h[0].mlp.c_fc.weight.mul_(0.5)
    batches = [batch_for(family, seed) for seed in (0, 1)]
    found = distance(student, teacher, LanguageModelling(), batches)
    total, count = 0.0, 0
    for batch in batches:
        p, q = (
            m(batch["input_ids"], attention_mask=batch["attention_mask"])
            .logits.double()
            .softmax(-1)
            for m in (teacher, student)
        )
        for row, place in (batch["labels"] != -100).nonzero().tolist():
            a, b = p[row, place], q[row, place]
            total, count = total + float((a * (a / b).log()).sum()), count + 1
    assert found == pytest.approx(total / count, rel=1e-4) and found > 1e-4
    assert distance(copy.deepcopy(teacher), teacher, LanguageModelling(), batches) == 0


def test_the_distance_of_vectors_of_single_texts_is_that_of_their_cosines():
    family = BY_NAME["BERT"]
    # Of another width: vectors cannot be compared, and cosines can.
    student, teacher = (anatomy_of(family, hidden_size=w).model.bert.eval() for w in (8, 16))
    batch = batch_for(family)
    batch = {n: batch[n] for n in ("input_ids", "attention_mask")}
    batch["place"] = torch.zeros(len(batch["input_ids"]), dtype=torch.long)
    batch["labels"] = torch.full((len(batch["input_ids"]),), torch.nan)
    found = distance(student, teacher, Embedding(), [batch])
    cosines = []
    for model in (student, teacher):
        vectors = []
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            kept = ids[mask.bool()][None]
            with torch.no_grad():
                vectors.append(model(kept).last_hidden_state[0].double().mean(0))
        pairs = itertools.combinations(vectors, 2)
        cosines.append(torch.stack([a @ b / (a.norm() * b.norm()) for a, b in pairs]))
    ours, theirs = cosines
    expected = (ours - theirs).square().sum() / theirs.square().sum()
    assert found == pytest.approx(float(expected), rel=1e-4) and found > 1e-3


def test_labels_in_another_order_are_no_distance():
    family = BY_NAME["BERT"]
    anatomy = anatomy_of(family)
    names = ["a", "b", "c"]
    anatomy.model.config.id2label = dict(enumerate(names))
    student = prune(anatomy, anatomy.shape, at_random(anatomy, 0), label_names=names[::-1])
    batches = [batch_for(family, seed) for seed in (0, 1)]
    assert distance(student, anatomy.model, Classification(), batches) == pytest.approx(0, abs=1e-9)


def test_the_largest_are_kept_and_heads_that_share_a_table_have_one_number():
    anatomy = anatomy_of(BY_NAME["T5"])
    scores = by_magnitude(anatomy).finished(torch.zeros_like)
    paths = [of for of in scores.heads if of.startswith("encoder")]
    for i, of in enumerate(paths):
        # Head 0 matters more in three layers, and head 1 so much more in one that it is kept.
        scores.heads[of] = torch.tensor([1.0, 0.0] if i < 3 else [0.0, 9.0])
    cross = [of for of in scores.heads if "EncDecAttention" in of]
    for i, of in enumerate(cross):
        scores.heads[of] = torch.tensor([0.0, 1.0] if i % 2 else [1.0, 0.0])
    scores.neurons["decoder.block.0.layer.2.DenseReluDense.wo"][[3, 20]] = 1.0
    shape = replace(anatomy.shape.with_heads(1), intermediate=2)
    kept = most_important(Anatomy(anatomy.model), shape, scores)
    assert [kept.heads[of].tolist() for of in paths] == [[1]] * 4
    assert [kept.heads[of].tolist() for of in cross] == [[0], [1], [0], [1]]
    assert kept.neurons["decoder.block.0.layer.2.DenseReluDense.wo"].tolist() == [3, 20]
