"""Texts that student and teacher generate are trained on as they should be."""

import itertools
import random
from types import SimpleNamespace

import lightning as L
import pytest
import torch
import transformers as hf
from lightning.pytorch.callbacks import ModelCheckpoint
from processes import in_two_processes
from tiny import loader, trainer
from torch import multiprocessing as mp, nn
from torch.testing import assert_close

from lightning_distill import (
    DistillationModule,
    Objective,
    OnPolicyDistillationModule,
    schedules,
    Term,
)
from lightning_distill.criteria import FusedLinearDivergence, HardLabel, JSD, ReverseKL, SoftTarget
from lightning_distill.models.generation import batch_of, prompts, seeded, Text
from lightning_distill.objective.normalisation import shares
from lightning_distill.teachers import CachingTeacher
from lightning_distill.training.replay_buffer import ReplayBuffer

PAD, END = 0, 1
ENDS = [END, 5, 9, 12, 17]
NONE = -100


def gpt2(layers=1, vocabulary=20, seed=0, spread=0.5, **changes):
    """Its weights are so large that its greedy texts differ, and some of them end."""
    options = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    options |= {"n_embd": 16, "n_head": 2, "n_positions": 32, "initializer_range": spread}
    options |= {"eos_token_id": END, "pad_token_id": PAD, "bos_token_id": None}
    torch.manual_seed(seed)
    config = hf.GPT2Config(vocab_size=vocabulary, n_layer=layers, **options | changes)
    return hf.GPT2LMHeadModel(config)


def llama(layers=1, vocabulary=20, seed=0, **changes):
    options = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    options |= {"intermediate_size": 24, "max_position_embeddings": 32, "initializer_range": 0.5}
    options |= {"eos_token_id": END, "pad_token_id": PAD, "bos_token_id": None}
    torch.manual_seed(seed)
    config = hf.LlamaConfig(vocab_size=vocabulary, num_hidden_layers=layers, **options | changes)
    return hf.LlamaForCausalLM(config)


def batch(seed=0, rows=4, tokens=9):
    """Rows with a prompt of 2 to 5 tokens, its completion, and padding behind."""
    numbers = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 20, (rows, tokens), generator=numbers)
    begun = torch.randint(2, 6, (rows,), generator=numbers)[:, None]
    lengths = torch.randint(6, tokens + 1, (rows,), generator=numbers)[:, None]
    at = torch.arange(tokens)
    counted = (at >= begun - 1) & (at < lengths - 1)
    return {
        "input_ids": ids.masked_fill(at >= lengths, PAD),
        "attention_mask": (at < lengths).long(),
        "labels": ids.roll(-1, 1).masked_fill(~counted, NONE),
        "label_bytes": counted.long(),
        "row": torch.arange(rows),
    }


def fused(criterion=None, **options):
    inputs = {
        "student": "student.layer_input:lm_head",
        "teacher": "teacher.layer_input:lm_head",
        "student_head": "student.head:lm_head",
        "teacher_head": "teacher.head:lm_head",
        "labels": "batch.labels",
    }
    return Term(FusedLinearDivergence(criterion, **options), inputs)


def on_logits(criterion):
    return Term(criterion, {"student": "student.logits", "teacher": "teacher.logits"})


def hard():
    return Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"})


def module(student=None, teacher=None, terms=None, kind=OnPolicyDistillationModule, **options):
    return kind(
        gpt2(seed=1) if student is None else student,
        gpt2(2, seed=2) if teacher is None else teacher,
        Objective({"fused": fused()} if terms is None else terms),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.05),
        **({"max_new_tokens": 6} | options if kind is OnPolicyDistillationModule else options),
    )


class Trained(L.Callback):
    """Every batch that was trained on, in the place of the data's."""

    def __init__(self):
        self.batches = []

    def on_fit_start(self, trainer, pl_module):
        made = pl_module.training_batch

        def keep(batch):
            self.batches.append(made(batch))
            return self.batches[-1]

        pl_module.training_batch = keep


def fit(tmp_path, made, data, **options):
    runner = trainer(tmp_path, **options)
    runner.fit(made, loader(data))
    return runner


# What is generated.


def test_the_prompt_of_a_row_ends_where_its_first_label_is_predicted_from():
    given = batch(rows=12)
    given["labels"][3] = NONE  # all prompt
    given["labels"][4, 0] = 7  # counts from the first token on
    expected = []
    for i in range(12):
        row = given["input_ids"][i, : int(given["attention_mask"][i].sum())].tolist()
        labels = given["labels"][i].tolist()
        end = next((j + 1 for j, label in enumerate(labels) if label != NONE), len(row))
        expected.append(row[:4] if end == 1 else row[:end])
    assert [p.tolist() for p in prompts(given, prompt_tokens=4)] == expected
    assert len({len(p) for p in expected}) > 2
    # Wherever the padding is.
    left = {"input_ids": [], "attention_mask": [], "labels": []}
    for i, length in enumerate(given["attention_mask"].sum(1).tolist()):
        for name, rows in left.items():
            rows.append(given[name][i].roll(9 - length))
    left = {name: torch.stack(rows) for name, rows in left.items()}
    assert [p.tolist() for p in prompts(left, prompt_tokens=4)] == expected


def test_the_batch_of_texts_is_that_of_a_loop_over_rows():
    numbers = random.Random(0)
    texts = []
    for i in range(7):
        prompt, completion = numbers.randint(1, 5), numbers.randint(1, 6)
        tokens = [numbers.randint(2, 19) for _ in range(prompt + completion)]
        texts.append(Text(torch.tensor(tokens), prompt, i % 2 == 0))
    width = max(len(t.tokens) for t in texts)
    for labelled in (True, False):
        made = batch_of(texts, PAD, torch.device("cpu"), labelled)
        assert set(made) == {"input_ids", "attention_mask", "labels", "loss_mask"}
        for i, text in enumerate(texts):
            row, n = text.tokens.tolist(), len(text.tokens)
            labels = [NONE] * width
            for j in range(text.prompt, n):
                labels[j - 1] = row[j]
            assert made["input_ids"][i].tolist() == row + [PAD] * (width - n)
            assert made["attention_mask"][i].tolist() == [1] * n + [0] * (width - n)
            assert made["loss_mask"][i].tolist() == [label != NONE for label in labels]
            assert made["labels"][i].tolist() == (labels if labelled else [NONE] * width)


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("writer", ["student", "teacher"])
def test_greedy_texts_are_those_of_transformers_for_each_prompt_alone(make, writer):
    student, teacher = make(seed=3), make(2, seed=4)
    options = {
        "student_fraction": 0.0,
        f"{writer}_fraction": 1.0,
        "eos_token_id": ENDS,
    }
    made = module(student, teacher, temperature=0.0, max_new_tokens=8, **options)
    model = getattr(made, writer)
    given = batch(rows=16)
    # What the model says of its own generation is for another purpose.
    model.generation_config.update(repetition_penalty=9.0, max_length=3, do_sample=True, top_k=1)
    model.config.use_cache = False
    kept = model.generation_config.to_dict()
    found = made.training_batch(given)
    assert model.generation_config.to_dict() == kept
    model.eval()
    model.generation_config = hf.GenerationConfig()
    ends = []
    for i, prompt in enumerate(prompts(given)):
        alone = model.generate(
            prompt[None],
            do_sample=False,
            max_new_tokens=8,
            eos_token_id=ENDS,
            pad_token_id=PAD,
        )[0]
        ends.append(int(alone[-1]) in ENDS)
        length = int(found["attention_mask"][i].sum())
        assert found["input_ids"][i, :length].tolist() == alone.tolist()
        assert int(found["loss_mask"][i].sum()) == len(alone) - len(prompt)
    assert {True, False} == set(ends)


def test_beams_of_the_teacher_are_those_of_transformers():
    teacher = gpt2(2, seed=4).eval()
    made = module(teacher=teacher, beams=3, student_fraction=0, teacher_fraction=1)
    given = batch(rows=8)
    found = made.training_batch(given)
    for i, prompt in enumerate(prompts(given)):
        options = {"num_beams": 3, "max_new_tokens": 6, "eos_token_id": END}
        alone = teacher.generate(prompt[None], do_sample=False, pad_token_id=PAD, **options)[0]
        length = int(found["attention_mask"][i].sum())
        assert found["input_ids"][i, :length].tolist() == alone.tolist()


def test_texts_are_drawn_from_what_is_trained():
    """Dropout off, at temperature 1, from all tokens: frequencies of 2000 first tokens, seed 0."""
    student = gpt2(seed=3, embd_pdrop=0.9, spread=0.1).train()
    student.generation_config.update(top_k=2, top_p=0.2, temperature=0.1)
    made = module(student, max_new_tokens=1)
    one = {name: value[:1].repeat(2000, 1) for name, value in batch().items() if name != "row"}
    found = made.training_batch(one)
    prompt = prompts(one)[0]
    with torch.no_grad():
        expected = student.eval()(prompt[None]).logits[0, -1].softmax(-1)
    drawn = found["input_ids"][:, len(prompt)]
    frequencies = torch.bincount(drawn, minlength=20) / 2000
    # Four standard deviations of a frequency.
    assert ((frequencies - expected).abs() < 4 * (expected * (1 - expected) / 2000).sqrt()).all()
    sharp = module(student, max_new_tokens=1, top_k=2).training_batch(one)
    assert set(sharp["input_ids"][:, len(prompt)].tolist()) == set(expected.topk(2)[1].tolist())


def test_ids_that_one_model_lacks_are_never_generated():
    student, teacher = gpt2(vocabulary=64, seed=3), gpt2(2, vocabulary=20, seed=4)
    made = module(student, teacher, max_new_tokens=10)
    assert made.training_batch(batch(rows=64))["input_ids"].max() < 20


def test_a_prompt_that_leaves_no_room_loses_its_start():
    made = module(gpt2(seed=1, n_positions=8), max_new_tokens=5, temperature=0.0)
    given = batch(rows=12)
    found = made.training_batch(given)
    assert found["input_ids"].shape[1] <= 8
    for i, prompt in enumerate(prompts(given)):
        assert found["input_ids"][i, : len(prompt[-3:])].tolist() == prompt[-3:].tolist()


# What generating leaves as it was.


def test_modes_and_the_stream_of_random_numbers_are_left_alone():
    student = gpt2(seed=1).train()
    student.transformer.h[0].attn.eval()
    student.gradient_checkpointing_enable()
    modes = [m.training for m in student.modules()]
    made = module(student)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = made.training_batch(batch())
    assert torch.equal(torch.rand(3), expected)
    assert [m.training for m in student.modules()] == modes
    # The same whatever was drawn before.
    again = module(student)
    torch.manual_seed(6)
    assert torch.equal(again.training_batch(batch())["input_ids"], found["input_ids"])
    following = [again.training_batch(batch())["input_ids"].tolist() for _ in range(3)]
    assert found["input_ids"].tolist() not in following


def test_the_stream_of_another_device_is_left_alone_too(monkeypatch):
    generator = torch.Generator().manual_seed(3)
    device = SimpleNamespace(
        get_rng_state=generator.get_state,
        set_rng_state=generator.set_state,
        manual_seed=generator.manual_seed,
    )
    monkeypatch.setattr(torch, "get_device_module", lambda _: device)
    expected = torch.rand(2, generator=torch.Generator().manual_seed(3))
    for _ in range(2):
        with seeded(8, torch.device("meta")):
            drawn = torch.rand(2, generator=generator)
        assert torch.equal(drawn, torch.rand(2, generator=torch.Generator().manual_seed(8)))
    assert torch.equal(torch.rand(2, generator=generator), expected)


def test_a_compiled_student_generates_uncompiled(unchecked_types):
    ran = []

    def backend(graph, inputs):
        return lambda *args: ran.append(1) or graph(*args)

    made = module()
    made.student.compile(backend=backend)
    found = made.training_batch(batch())
    assert not ran
    assert torch.equal(found["input_ids"], module().training_batch(batch())["input_ids"])
    made.read_sources(found)
    assert ran


def test_the_gradient_under_autocast_is_there_after_generating():
    """Autocast keeps weights that it converted under no_grad, which then have no gradient."""
    gradients = []
    for generating in (True, False):
        made = module(gpt2(seed=1), terms={"soft": on_logits(SoftTarget(1.0))})
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if generating:
                found = made.training_batch(batch())
            loss = made.objective(made.read_sources(found)[0])["loss"]
        loss.backward()
        gradients.append([p.grad for p in made.student.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_a_teacher_in_bfloat16(tmp_path):
    made = module(teacher=gpt2(2, seed=2).bfloat16(), student_fraction=0.5, teacher_fraction=0.5)
    fit(tmp_path, made, [batch(i) for i in range(4)], precision="bf16-mixed")


# What is learnt.


def by_hand(made, trained, divergence):
    """Mean over the generated tokens, from each text alone and without padding."""
    values = []
    for i in range(len(trained["input_ids"])):
        tokens = trained["input_ids"][i, : int(trained["attention_mask"][i].sum())][None]
        s = made.student.eval()(tokens).logits[0]
        t = made.teacher(tokens).logits[0]
        for j in trained["loss_mask"][i].nonzero().flatten().tolist():
            values.append(divergence(s[j].log_softmax(-1), t[j].log_softmax(-1)))
    return torch.stack(values).mean()


def kl(p, q):
    return (p.exp() * (p - q)).sum()


def test_only_generated_tokens_count_and_the_students_own_are_no_labels():
    terms = {
        "fused": fused(ReverseKL(), label_weight=0.7),
        "plain": on_logits(ReverseKL()),
        "unfused": fused(ReverseKL(), label_weight=0.7, fused=False),
        "hard": hard(),
    }
    made = module(terms=terms)
    made.prepare(batch())
    trained = made.training_batch(batch())
    values, _, _ = made.read_sources(trained)
    losses = made.objective(values)
    expected = by_hand(made, trained, kl)
    for name in ("fused", "plain", "unfused"):
        assert_close(losses[name], expected)
    assert losses["hard"] == 0
    counts = made.objective.counts(values)
    generated = int(trained["loss_mask"].sum())
    assert counts == {"fused": generated, "plain": generated, "unfused": generated, "hard": 0}
    assert generated < int(trained["attention_mask"].sum()) < trained["input_ids"].numel()


def test_the_teachers_texts_are_labels(tmp_path):
    made = module(terms={"hard": hard()}, student_fraction=0.0, teacher_fraction=1.0)
    watch = Trained()
    before = {n: v.clone() for n, v in made.student.state_dict().items()}
    runner = fit(tmp_path, made, [batch()], callbacks=[watch])
    (trained,) = watch.batches
    made.student.load_state_dict(before)
    likelihoods = []
    for prompt in prompts(batch()):
        written = made.teacher.generate(
            prompt[None], do_sample=False, max_new_tokens=6, eos_token_id=END, pad_token_id=PAD
        )
        logits = made.student.eval()(written).logits[0].log_softmax(-1)
        for j in range(len(prompt) - 1, written.shape[1] - 1):
            likelihoods.append(logits[j, written[0, j + 1]])
    assert len(likelihoods) == int((trained["labels"] != NONE).sum())
    assert_close(runner.callback_metrics["train/hard"], -torch.stack(likelihoods).mean())


def test_validation_counts_by_the_labels_of_the_data(tmp_path):
    made = module(terms={"plain": on_logits(JSD())})
    runner = trainer(tmp_path)
    runner.validate(made, loader([batch()]), verbose=False)
    values, _, _ = made.read_sources(batch())
    s, t = (values[x] for x in made.objective.terms["plain"].sources()[:2])
    counted = batch()["labels"] != NONE
    assert_close(runner.callback_metrics["val/plain"], JSD()(s[counted], t[counted]))


def test_a_mask_that_is_named_is_kept():
    inputs = {"student": "student.logits", "teacher": "teacher.logits"}
    term = Term(SoftTarget(), {**inputs, "mask": "batch.attention_mask"})
    made = module(terms={"soft": term})
    assert str(made.objective.terms["soft"].inputs["mask"]) == "batch.attention_mask"


@pytest.mark.parametrize("student_fraction", [0.0, 1e-12])
def test_without_generating_it_is_the_plain_module_to_the_last_bit(tmp_path, student_fraction):
    weights = []
    for kind in (DistillationModule, OnPolicyDistillationModule):
        options = {} if kind is DistillationModule else {"student_fraction": student_fraction}
        terms = {"fused": fused(JSD(), label_weight=0.5), "hard": hard()}
        made = module(gpt2(seed=1, embd_pdrop=0.1), terms=terms, kind=kind, **options)
        torch.manual_seed(7)
        fit(tmp_path, made, [batch(i) for i in range(4)], max_epochs=2)
        weights.append(made.student.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_all_batches_are_generated_if_asked_for_and_it_is_logged(tmp_path):
    data, watch = [batch(i) for i in range(6)], Trained()
    made = module(teacher_fraction=0.0, student_fraction=1.0)
    runner = fit(tmp_path, made, data, callbacks=[watch], log_every_n_steps=1)
    assert len(watch.batches) == 6
    for given, trained in zip(data, watch.batches, strict=True):
        assert (trained["labels"] == NONE).all()
        for i, prompt in enumerate(prompts(given)):
            assert trained["input_ids"][i, : len(prompt)].tolist() == prompt.tolist()
    found = runner.callback_metrics
    assert found["train/on_policy"] == 1 and "train/from_teacher" not in found
    last = watch.batches[-1]
    counts = last["loss_mask"].sum(1)
    assert found["train/generated_tokens"] == pytest.approx(counts.float().mean().item())
    lengths = last["attention_mask"].sum(1)
    ended = last["input_ids"][torch.arange(4), lengths - 1] == END
    assert found["train/ended"] == pytest.approx(ended.float().mean().item())


def origins(made, count):
    return [made._origin(i) for i in range(count)]


def test_shares_are_kept_and_depend_on_seed_and_number_alone():
    options = {"student_fraction": 0.5, "teacher_fraction": 0.3}
    found = origins(module(**options), 4000)
    for origin, share in (("student", 0.5), ("teacher", 0.3), ("data", 0.2)):
        assert found.count(origin) / 4000 == pytest.approx(share, abs=0.03)
    torch.manual_seed(9)
    random.seed(9)
    assert origins(module(**options), 4000) == found
    assert origins(module(**options, seed=1), 4000) != found


def test_a_share_may_be_a_schedule(tmp_path):
    share = schedules.Step([0.0, 1.0], at=[0.5])
    watch = Trained()
    fit(tmp_path, module(student_fraction=share), [batch()] * 6, callbacks=[watch])
    assert ["row" not in b for b in watch.batches] == [False] * 3 + [True] * 3


def sequences(model, prompt, depth):
    """All texts of so many tokens after a prompt, each with its likelihood step by step."""
    ids = range(model.config.vocab_size)
    tokens = torch.tensor([[prompt, *rest] for rest in itertools.product(ids, repeat=depth)])
    logs = model(tokens).logits[:, :-1].log_softmax(-1)
    return tokens, logs


def expected_reverse_kl(student, teacher, prompt, depth):
    """Of the distributions over whole texts, by going through all; a text goes on after its end
    in both alike, which adds nothing."""
    with torch.no_grad():
        tokens, q = sequences(student.eval(), prompt, depth)
        _, p = sequences(teacher.eval(), prompt, depth)
        chosen = tokens[:, 1:, None]
        alive = (tokens[:, 1:] == END).cumsum(1) - (tokens[:, 1:] == END).long() == 0
        q, p = (x.gather(2, chosen)[..., 0] for x in (q, p))
        # What comes after an end is the first of its continuations only.
        real = ((tokens[:, 1:] == 0) | alive).all(1)
        q, p = (x.masked_fill(~alive, 0.0).sum(1)[real] for x in (q, p))
        assert_close(q.exp().sum(), torch.tensor(1.0))
        return float((q.exp() * (q - p)).sum())


def test_a_student_comes_close_to_its_teacher_on_its_own_texts(tmp_path):
    """Two tokens and an end; models of seeds 1 and 2, texts of seed 0. 30 steps of Adam."""
    student, teacher = gpt2(1, 3, seed=1), gpt2(2, 3, seed=2)
    row = torch.tensor([[2, 2]]).repeat(32, 1)
    given = {"input_ids": row, "attention_mask": torch.ones_like(row)}
    given["labels"] = torch.tensor([[2, NONE]]).repeat(32, 1)
    made = OnPolicyDistillationModule(
        student,
        teacher,
        Objective({"fused": fused(ReverseKL())}),
        optimizer=lambda groups: torch.optim.Adam(groups, lr=0.02),
        max_new_tokens=4,
        prompt_tokens=1,
    )
    before = expected_reverse_kl(student, teacher, 2, 4)
    fit(tmp_path, made, [given] * 30)
    after = expected_reverse_kl(student, teacher, 2, 4)
    assert before > 0.3 and after < before / 10


# What is kept.


def test_the_buffer_keeps_the_last_texts():
    texts = [Text(torch.arange(i + 2), i % 2 + 1, i % 3 == 0) for i in range(9)]
    buffer = ReplayBuffer(4)
    for text in texts:
        buffer.add([text])
    assert [len(t.tokens) for t in buffer.texts] == [7, 8, 9, 10]
    drawn = buffer.draw(3, random.Random(0))
    assert len({len(t.tokens) for t in drawn}) == 3
    assert len(buffer.draw(9, random.Random(0))) == 4
    # Two processes; then as many, and then three.
    other = ReplayBuffer(4)
    other.add(texts[:2])
    states = [buffer.state(), other.state()]
    found = ReplayBuffer(4)
    found.load(states, rank=1, ranks=2)
    for one, text in zip(found.texts, texts[:2], strict=True):
        assert one.tokens.tolist() == text.tokens.tolist()
        assert (one.prompt, one.ended) == (text.prompt, text.ended)
    shared = []
    for rank in range(3):
        found.load(states, rank, ranks=3)
        shared += [len(t.tokens) for t in found.texts]
    assert sorted(shared) == [2, 3, 7, 8, 9, 10]
    nothing = ReplayBuffer(0)
    nothing.add(texts)
    assert len(nothing) == 0
    found.load([nothing.state()], 0, 1)
    assert len(found) == 0


def rows_of(made):
    return [
        tuple(row[: int(n)].tolist())
        for row, n in zip(made["input_ids"], made["attention_mask"].sum(1), strict=True)
    ]


def test_a_share_of_the_students_batches_was_generated_before():
    made = module(replay_size=8, replay_fraction=0.5, max_new_tokens=12)
    seen, fresh, replayed = [], 0, 0
    for i in range(40):
        rows = rows_of(made.training_batch(batch(i)))
        if made._origin(i) == "replay" and i > 0:
            replayed += 1
            assert set(rows) <= set(seen[-8:]) and len(set(rows)) == 4
        else:
            fresh += 1
            seen += rows
        assert len(made.replay) <= 8
    assert fresh > 12 and replayed > 12


def test_a_resumed_run_goes_on_as_an_uncut_one(tmp_path):
    data = [batch(i) for i in range(4)]
    options = {"student_fraction": 0.6, "teacher_fraction": 0.2}
    options |= {"replay_size": 6, "replay_fraction": 0.5}
    whole, first, second = (module(**options) for _ in range(3))
    watch = Trained()
    fit(tmp_path, whole, data, max_epochs=4, callbacks=[watch])
    saved = ModelCheckpoint(tmp_path, save_last=True)
    fit(tmp_path, first, data, max_epochs=2, callbacks=[saved], enable_checkpointing=True)
    held = torch.load(tmp_path / "last.ckpt", weights_only=True)["on_policy"]
    assert held["batches"] == 8 and len(held["replay"][0]["lengths"]) == 6
    again = Trained()
    runner = trainer(tmp_path, max_epochs=4, callbacks=[again])
    runner.fit(second, loader(data), ckpt_path=tmp_path / "last.ckpt")
    for one, other in zip(watch.batches[8:], again.batches, strict=True):
        assert torch.equal(one["input_ids"], other["input_ids"])
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert {origin for origin in origins(whole, 16)} == {"student", "teacher", "data", "replay"}


# Several processes.


def _gradients(made, given):
    made.prepare(batch())
    trained = made.training_batch(given)
    own = made.objective.count_batch(trained)[None]
    everyone, ranks = own.clone(), 1
    if torch.distributed.is_initialized():
        ranks = torch.distributed.get_world_size()
        torch.distributed.all_reduce(everyone)
    (share,) = shares(own, everyone, ranks, made.objective.gathers(), averaged=1)
    made.objective(made.read_sources(trained)[0], share)["loss"].backward()
    return trained, torch.cat([p.grad.flatten() for p in made.student.parameters()])


def greedy_module():
    return module(gpt2(seed=3), temperature=0.0, max_new_tokens=8, eos_token_id=ENDS)


def _worker(rank, store, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    greedy = greedy_module()
    rows = slice(0, 5) if rank == 0 else slice(5, 16)
    trained, gradient = _gradients(greedy, {n: v[rows] for n, v in batch(rows=16).items()})
    torch.distributed.all_reduce(gradient)
    drawing = module(student_fraction=0.5, teacher_fraction=0.2, replay_size=3)
    checkpoint = {}
    decided = origins(drawing, 100)
    number = decided.index("student")
    drawing._batches = number
    drawn = drawing.training_batch(batch())
    drawing.on_save_checkpoint(checkpoint)
    other = module(student_fraction=0.5, teacher_fraction=0.2, replay_size=3)
    other.on_load_checkpoint(checkpoint)
    kept = [[t.tokens.tolist() for t in m.replay.texts] for m in (drawing, other)]
    results[rank] = {
        "tokens": int(trained["loss_mask"].sum()),
        "gradient": (gradient / 2).tolist(),
        "decided": decided,
        "drawn": rows_of(drawn),
        "kept": kept,
    }
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    with mp.Manager() as manager:
        results = manager.dict()
        in_two_processes(_worker, (str(tmp_path_factory.mktemp("ranks") / "store"), results))
        return dict(results)


@pytest.mark.slow
def test_two_processes_with_texts_of_other_lengths_give_the_gradient_of_one(ranks):
    trained, gradient = _gradients(greedy_module(), batch(rows=16))
    assert ranks[0]["tokens"] / 5 != ranks[1]["tokens"] / 11
    assert ranks[0]["tokens"] + ranks[1]["tokens"] == int(trained["loss_mask"].sum())
    for rank in (0, 1):
        assert_close(torch.tensor(ranks[rank]["gradient"]), gradient, rtol=1e-4, atol=1e-6)


def test_processes_decide_alike_write_differently_and_keep_their_own(ranks):
    assert ranks[0]["decided"] == ranks[1]["decided"]
    assert not set(ranks[0]["drawn"]) & set(ranks[1]["drawn"])
    for rank in (0, 1):
        before, after = ranks[rank]["kept"]
        assert before == after and [tuple(row) for row in before] == ranks[rank]["drawn"][-3:]


# What is refused.


def without(given, *names, **more):
    return {n: v for n, v in given.items() if n not in names} | more


PACKED = without(batch(), "attention_mask", position_ids=torch.arange(9).repeat(4, 1))
PLAIN = without(batch(), "labels", labels=batch()["input_ids"].roll(-1, 1))
OTHER = batch() | {"teacher": {"input_ids": batch()["input_ids"]}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (PACKED, r"batch is packed .* no prompt to go on from. Set data.packing=false"),
        (PLAIN, r"labels count from its first token on.*Set prompt_tokens to how many"),
        (OTHER, r"tokens of the teacher's own.*Use a teacher with the student's tokenizer"),
        (without(batch(), "labels"), r"needs batches of language modelling.*\(4, 9\) and None"),
        (batch() | {"labels": torch.zeros(4)}, r"both \(rows, tokens\).*\(4, 9\) and \(4,\)"),
    ],
)
def test_batches_without_prompts_are_refused_before_the_first_step(tmp_path, given, words):
    made = module()
    with pytest.raises(ValueError, match=words):
        fit(tmp_path, made, [given])
    assert made.trainer.global_step == 0


def test_packed_batches_are_fine_where_nothing_is_generated(tmp_path):
    fit(tmp_path, module(student_fraction=0), [PACKED])
    trainer(tmp_path).validate(module(), loader([PACKED]), verbose=False)


class Mute(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.lm_head = nn.Embedding(20, 8), nn.Linear(8, 20)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"student_fraction": 1.5}, r"`student_fraction` must be a number from 0 to 1, got 1.5"),
        ({"student_fraction": True}, r"`student_fraction` must be a number from 0 to 1, got True"),
        ({"teacher_fraction": 0.2}, r"must sum to 1 at most, got 1 and 0.2 at 0 % of the run"),
        (
            {"student_fraction": schedules.Linear(0.0, 1.0), "teacher_fraction": 0.5},
            r"must sum to 1 at most, got 0.51 and 0.5 at 51 % of the run",
        ),
        ({"replay_fraction": 0.5}, r"replay_size is 0, so that nothing is kept to be replayed"),
        ({"replay_fraction": -1}, r"`replay_fraction` must be a number from 0 to 1, got -1"),
        ({"max_new_tokens": 0}, r"`max_new_tokens` must be a whole number, at least 1, got 0"),
        ({"prompt_tokens": 0}, r"`prompt_tokens` must be a whole number, at least 1, got 0"),
        ({"temperature": -1.0}, r"`temperature` must be finite and not negative .*, got -1.0"),
        ({"top_p": 0.0}, r"`top_p` must be above 0 and at most 1, or null, got 0.0"),
        ({"beams": 2, "teacher_temperature": 1.0}, r"beams=2 searches and teacher_temperature=1"),
        (
            {"student": Mute()},
            r"The student is a Mute and cannot generate.*auto_class=AutoModelFor",
        ),
        ({"terms": {"hard": hard()}}, r"No term reads the teacher.*set student_fraction=0"),
        ({"terms": {"f": fused(shift_labels=True)}}, r"Term 'f' has shift_labels=true.* to false"),
    ],
)
def test_what_cannot_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        module(**options)


def test_a_teacher_is_needed_and_a_live_one(tmp_path):
    with pytest.raises(ValueError, match="teacher_fraction is above 0, but `teacher` is None"):
        OnPolicyDistillationModule(
            gpt2(), None, Objective({"h": hard()}), student_fraction=0, teacher_fraction=1
        )
    with pytest.raises(ValueError, match=r"is a CachingTeacher, .*Use a live teacher"):
        module(teacher=CachingTeacher(gpt2(2), tmp_path / "cache"))


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"eos_token_id": None}, {}, r"It is not known which token ends a text.*Set eos_token_id"),
        ({"eos_token_id": 50256}, {}, r"Token 50256, which ends a text .* not among the 20 that"),
        ({}, {"max_new_tokens": 32}, r"leaves no token for a prompt: the models read 32"),
    ],
)
def test_ends_and_lengths_are_looked_at_before_the_first_step(changes, options, words):
    made = module(gpt2(seed=1, **changes), **options)
    with pytest.raises(ValueError, match=words):
        made.prepare(batch())


def test_the_tokenizer_says_what_ends_a_text(tmp_path):
    class Data(L.LightningDataModule):
        class tokenizer:
            eos_token_id, pad_token_id = 5, 6

        def train_dataloader(self):
            return loader([batch()])

    made = module(gpt2(seed=1, eos_token_id=50256, pad_token_id=None))
    watch = Trained()
    runner = trainer(tmp_path, callbacks=[watch])
    runner.fit(made, datamodule=Data())
    assert made.ends() == [5] and made.pad() == 6
    assert watch.batches[0]["input_ids"].max() < 20
    own = module(gpt2(seed=1, eos_token_id=50256), eos_token_id=[7, 8])
    assert own.ends() == [7, 8] and own.pad() == PAD
