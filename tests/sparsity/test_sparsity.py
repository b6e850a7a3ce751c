"""The callbacks on a small model, against the definition written naively."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging
from tiny import bert
from torch import nn
from torch.utils.data import DataLoader

from lightning_distill.sparsity import KeptSparsity, MagnitudeSparsity, MovementSparsity
from lightning_distill.sparsity.matrices import Matrices


class Module(L.LightningModule):
    """A regression whose student is two linear layers."""

    def __init__(self, lr=0.1):
        super().__init__()
        torch.manual_seed(0)
        self.student = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2))
        self.lr = lr
        self.seen = []

    def training_step(self, batch, _):
        self.seen.append({n: p.detach().clone() for n, p in self.student.named_parameters()})
        x, y = batch
        return ((self.student(x) - y) ** 2).mean()

    def validation_step(self, batch, _):
        self.log("val/loss", self.training_step(batch, 0))
        self.seen.pop()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr, momentum=0.5)


def rows(count=40):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, generator=generator), torch.randn(2, generator=generator))
        for _ in range(count)
    ]


def fit(module, *callbacks, epochs=2, validate=False, **options):
    data = DataLoader(rows(), 4)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=list(callbacks), logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(module, data, data if validate else None)
    return trainer


def zeros(module, layer=0):
    return float((module.student[layer].weight == 0).float().mean())


def go_on(module, sparsity, folder):
    """From the checkpoint of step 10 in a folder."""
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=2, callbacks=[sparsity], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    (path,) = folder.glob("*step=10.ckpt")
    trainer.fit(module, DataLoader(rows(), 4), ckpt_path=path, weights_only=True)


def test_the_share_grows_with_the_cube_and_stays():
    module = Module()
    sparsity = MagnitudeSparsity(0.5, start=0.2, stop=0.6, updates=4)
    fit(module, sparsity)
    found = [float((one["0.weight"] == 0).float().mean()) for one in module.seen]
    # 20 steps: an update after steps 4, 6, 8, 10 and 12, the first at the start.
    expected = [0.5 * (1 - (1 - done / 4) ** 3) for done in (1, 2, 3, 3, 4)]
    steps = [0.0] * 4 + [e for e in expected[:3] for _ in (0, 1)] + [expected[3]] * 2 + [0.5] * 8
    assert found == pytest.approx([round(32 * share) / 32 for share in steps])
    assert zeros(module) == zeros(module, 2) == 0.5


def test_what_is_0_has_no_part_in_training_any_more():
    module = Module()
    fit(module, MagnitudeSparsity(0.5, start=0.0, stop=0.0, updates=1))
    first = module.seen[1]["0.weight"] == 0
    assert all(torch.equal(one["0.weight"] == 0, first) for one in module.seen[1:])
    # The smallest after the first step, which nothing has touched.
    peer = Module()
    fit(peer, max_steps=1)
    smallest = peer.student[0].weight.abs().flatten().argsort()[:16]
    assert torch.equal(first.flatten().nonzero()[:, 0], smallest.sort().values)


def test_movement_is_the_sum_of_its_definition():
    module = Module(lr=0.4)
    sparsity = MovementSparsity(0.5, start=0.1, stop=0.9, updates=8)
    fit(module, sparsity)
    # The seventh update is followed by the last one, at the end.
    done = {2: 1, 4: 2, 6: 3, 8: 4, 10: 5, 12: 6, 14: 7, 18: 8}
    expected = naive_movement({step: 1 - (1 - n / 8) ** 3 for step, n in done.items()})
    for name, value in module.student.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)
    back = [
        before["0.weight"][(before["0.weight"] == 0) & (after["0.weight"] != 0)].numel()
        for before, after in zip(module.seen, module.seen[1:], strict=False)
    ]
    assert sum(back) > 0, "no weight came back, so this says nothing of it"


def naive_movement(updates):
    """Dense weights and masks apart, and the gradient of what the masks leave, as in the paper."""
    dense = {n: p.detach().clone() for n, p in Module().student.named_parameters()}
    masks = {n: torch.ones_like(p) for n, p in dense.items() if p.dim() == 2}
    scores = {n: torch.zeros_like(p) for n, p in masks.items()}
    momentum = {n: torch.zeros_like(p) for n, p in dense.items()}
    batches = [rows()[i : i + 4] for i in range(0, 40, 4)] * 2
    share = 0.0
    assert len(batches) == 20
    for step, batch in enumerate(batches, 1):
        used = {n: (p * masks.get(n, 1.0)).requires_grad_() for n, p in dense.items()}
        x, y = (torch.stack(one) for one in zip(*batch, strict=True))
        out = (
            torch.tanh(x @ used["0.weight"].T + used["0.bias"]) @ used["2.weight"].T
            + used["2.bias"]
        )
        ((out - y) ** 2).mean().backward()
        for name, weight in used.items():
            gradient, mask = weight.grad, masks.get(name)
            if mask is not None:
                scores[name] -= gradient * dense[name]
                gradient = gradient * mask
            momentum[name] = 0.5 * momentum[name] + gradient
            moved = 0.4 * momentum[name]
            # A weight that is 0 stays what it was until it comes back.
            dense[name] = dense[name] - (moved if mask is None else moved * mask)
        if step in updates and updates[step] != share:
            share = updates[step]
            for name, score in scores.items():
                smallest = score.flatten().argsort(stable=True)[
                    : round(0.5 * share * score.numel())
                ]
                masks[name] = torch.ones(score.numel()).index_fill(0, smallest, 0.0).view_as(score)
    return {n: p * masks.get(n, 1.0) for n, p in dense.items()}


def test_a_run_that_goes_on_is_the_same(tmp_path):
    def sparsity():
        return MovementSparsity(0.5, start=0.2, stop=0.8, updates=5)

    whole = Module()
    fit(whole, sparsity())
    keep = ModelCheckpoint(tmp_path, save_top_k=-1, every_n_train_steps=10)
    fit(Module(), sparsity(), keep)
    again = Module()
    go_on(again, sparsity(), tmp_path)
    for one, two in zip(whole.student.parameters(), again.student.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_best_weights_are_sparse_ones(tmp_path):
    module = Module(lr=0.0)
    best = ModelCheckpoint(tmp_path, monitor="val/loss", save_top_k=1)
    # Without training the dense weights are the best, and nothing improves.
    patient = EarlyStopping("val/loss", patience=1, mode="min")
    sparsity = MagnitudeSparsity(0.9, start=0.1, stop=0.8)
    trainer = fit(module, sparsity, best, patient, epochs=10, validate=True)
    assert trainer.current_epoch >= 9
    state = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    assert float((state["student.0.weight"] == 0).float().mean()) > 0.85
    assert len(list(tmp_path.glob("*.ckpt"))) == 1


def test_a_later_stage_keeps_and_goes_on():
    module = Module()
    fit(module, MagnitudeSparsity(0.5))
    kept = module.student[0].weight == 0
    fit(module, KeptSparsity())
    assert torch.equal(module.student[0].weight == 0, kept)
    module.seen = []
    fit(module, MagnitudeSparsity(0.75, stop=1.0))
    assert zeros(module) == 0.75 and (module.student[0].weight[kept] == 0).all()
    assert all((one["0.weight"][kept] == 0).all() for one in module.seen)


@pytest.mark.parametrize("how", [MagnitudeSparsity, MovementSparsity])
@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ({"amount": 0.8}, {"amount": 0.5}, 0.8),
        ({"amount": 0.5}, {"amount": 0.75}, 0.75),
        ({"amount": 0.5, "scope": "model"}, {"amount": 0.5}, None),
        ({"amount": 0.25}, {"amount": None, "pattern": "2:4"}, None),
        ({"amount": 0.25}, {"amount": 0.5, "pattern": "2x2"}, None),
    ],
)
def test_what_is_0_before_stays_so_whatever_chooses_later(how, before, after, share):
    module = Module(lr=0.4)
    fit(module, MagnitudeSparsity(**before, start=0.0, stop=0.5))
    kept = {i: module.student[i].weight == 0 for i in (0, 2)}
    module.seen = []
    fit(module, how(**after, start=0.0, stop=0.8))
    for i, mask in kept.items():
        assert mask.any()
        assert all((one[f"{i}.weight"][mask] == 0).all() for one in module.seen)
        assert (module.student[i].weight[mask] == 0).all()
        if share is not None:
            # Those of before count in the share.
            assert zeros(module, i) == round(share * mask.numel()) / mask.numel()
    assert zeros(module) >= 0.5


def test_zeros_of_other_layers_are_kept_beside_those_that_become_so():
    module = Module(lr=0.4)
    fit(module, MagnitudeSparsity(0.8, start=0.0, layers=["0"]))
    kept = module.student[0].weight == 0
    for how in (MagnitudeSparsity, MovementSparsity):
        module.seen = []
        # Two of one class, of other layers each.
        fit(module, how(0.5, layers=["2"]), KeptSparsity(["0"]), KeptSparsity(["2"]))
        assert all(torch.equal(one["0.weight"] == 0, kept) for one in module.seen)
        assert zeros(module, 2) == 0.5


def test_few_zeros_of_before_are_kept_beside_what_takes_them_for_chance():
    module = Module(lr=0.4)
    module.student[0].weight.data[0, 0] = 0
    fit(module, MovementSparsity(0.005), KeptSparsity(["0"]))
    assert module.student[0].weight[0, 0] == 0


def test_of_layers_that_are_not_trained_nothing_is_kept():
    module = Module()
    module.student[0].requires_grad_(False)
    module.student[0].weight.data[:, :4] = 0
    fit(module, KeptSparsity(["0"]))
    assert zeros(module) == 0.5
    averages = WeightAveraging()
    KeptSparsity().check_beside([averages])
    with pytest.raises(ValueError, match="do not go together"):
        MagnitudeSparsity().check_beside([averages])


def test_a_run_that_goes_on_knows_the_zeros_of_before(tmp_path):
    def movement():
        return MovementSparsity(0.75, start=0.2, stop=0.8, updates=5)

    sparse = Module(lr=0.4)
    fit(sparse, MagnitudeSparsity(0.5, start=0.0))
    state = {n: v.clone() for n, v in sparse.student.state_dict().items()}
    keep = ModelCheckpoint(tmp_path, save_top_k=-1, every_n_train_steps=10)
    whole, cut, again = Module(lr=0.4), Module(lr=0.4), Module(lr=0.4)
    whole.student.load_state_dict(state)
    cut.student.load_state_dict(state)
    fit(whole, movement())
    fit(cut, movement(), keep)
    # As fresh as in another process, but for what the checkpoint holds.
    go_on(again, movement(), tmp_path)
    for one, two in zip(whole.student.parameters(), again.student.parameters(), strict=True):
        assert torch.equal(one, two)
    assert (again.student[0].weight[state["0.weight"] == 0] == 0).all()


def test_the_weights_of_a_model_are_those_of_its_layers():
    found = Matrices(bert(2, 16))
    assert len(found.weights) == 12 and all(".layer." in path for path in found.weights)
    assert found.zeros == 0 and "0.0% of" in found.describe()
    only = Matrices(bert(2, 16), ["*.intermediate.dense"])
    assert len(only.weights) == 2


def test_gpt2_has_its_inputs_first():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    module = Module()
    module.student = GPT2LMHeadModel(config)
    sparsity = MagnitudeSparsity(None, "2:4")
    found = sparsity.check(module.student)
    assert "transformer.h.0.attn.c_attn" in found.weights
    sparsity.matrices, sparsity.masks = found, {}
    sparsity.update(0.5)
    mask = sparsity.masks["transformer.h.0.attn.c_attn"]
    # Of four inputs of one output two are kept.
    assert mask.shape == (8, 24) and (mask.T.reshape(24, 2, 4).sum(-1) == 2).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"amount": 0}, "above 0 and below 1, got 0"),
        ({"amount": 1.0}, "above 0 and below 1, got 1.0"),
        ({"amount": None}, "above 0 and below 1, got None"),
        (
            {"amount": 0.6, "pattern": "2:4"},
            r"makes 0\.5 of the weights 0.*write sparsity\.amount=null",
        ),
        ({"start": 0.7, "stop": 0.6}, "the first not after the second, got 0.7 and 0.6"),
        ({"updates": 0}, "must be at least 1, got 0"),
        ({"scope": "layers"}, "must be layer or model, got 'layers'"),
        ({"pattern": "two"}, "`pattern` must be single"),
    ],
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(ValueError, match=words):
        MagnitudeSparsity(**settings)


def test_students_that_do_not_fit():
    plain = nn.ModuleDict({"one": nn.Linear(6, 6)})
    with pytest.raises(ValueError, match=r"lies in a list of layers.*There are: one"):
        MagnitudeSparsity().check(plain)
    with pytest.raises(ValueError, match=r"does not divide the weights of one \(6, 6\)"):
        MagnitudeSparsity(None, "2:4", layers=["one"]).check(plain)
    with pytest.raises(ValueError, match=r"names 'two', and no linear layer.*It has: one"):
        MagnitudeSparsity(layers=["two"]).check(plain)
    plain.requires_grad_(False)
    with pytest.raises(ValueError, match="is trained"):
        MagnitudeSparsity(layers=["one"]).check(plain)
    with pytest.raises(ValueError, match="weight_average do not go together"):
        fit(Module(), MagnitudeSparsity(), WeightAveraging())
