"""Students and teachers of timm, against timm itself."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from timm_there import timm as of_timm, weights_file
from tiny import loader, trainer
from torch.testing import assert_close

from lightning_distill import distill, Term
from lightning_distill.criteria import Hint, SoftTarget
from lightning_distill.data.pictures.image_processor import load_image_processor
from lightning_distill.data.pictures.timm_settings import timm_settings
from lightning_distill.models.timm_models import what_timm_says
from lightning_distill.students import timm as student
from lightning_distill.teachers import timm as teacher

NAMES = ["a", "b", "c"]


def pictures(size=32, rows=4, seed=0):
    return torch.randn(rows, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_a_fresh_student_has_the_weights_that_timm_draws():
    made = student("test_resnet", 3, NAMES, seed=5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = of_timm.create_model("test_resnet", num_classes=3)
    assert_close(made.timm_model.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert made.config.id2label == dict(enumerate(NAMES)) and made.training
    # Whatever ran before, and without drawing random numbers from others.
    before = torch.get_rng_state()
    again = student("test_resnet", 3, NAMES, seed=5)
    assert_close(again.state_dict(), made.state_dict(), rtol=0, atol=0)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_of_a_file_answer_as_in_timm_and_after_they_are_saved(tmp_path):
    path, model = weights_file(tmp_path / "weights.safetensors")
    taught = teacher("test_resnet", 3, NAMES, path=path)
    with torch.no_grad():
        expected = model(pictures())
        assert torch.equal(taught(pixel_values=pictures()).logits, expected)
    taught.save_pretrained(tmp_path / "saved")
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "saved").eval()
    assert again.config.id2label == dict(enumerate(NAMES))
    with torch.no_grad():
        assert_close(again(pixel_values=pictures()).logits, expected)
    # What we have saved is a file of weights too.
    whole = teacher("test_resnet", 3, NAMES, path=str(tmp_path / "saved" / "model.safetensors"))
    assert_close(whole.state_dict(), taught.state_dict(), rtol=0, atol=0)


def test_a_student_keeps_all_but_a_head_of_another_size(tmp_path, caplog):
    path, model = weights_file(tmp_path / "weights.safetensors", classes=5)
    caplog.set_level("INFO", "lightning_distill")
    made = student("test_resnet", 3, path=path).timm_model.state_dict()
    kept = {n: w for n, w in model.state_dict().items() if not n.startswith("fc.")}
    assert_close({name: made[name] for name in kept}, kept, rtol=0, atol=0)
    assert made["fc.weight"].shape[0] == 3
    assert "a fresh head of 3 classes for that of 5" in caplog.text


def test_a_vision_transformer_is_made_for_the_size_of_the_pictures(tmp_path):
    path, _ = weights_file(tmp_path / "weights.safetensors", "test_vit")
    made = student("test_vit", 3, path=path, image_size=64)
    assert made.config.model_args == {"img_size": 64}
    assert made(pixel_values=pictures(64)).logits.shape == (4, 3)
    made.save_pretrained(tmp_path / "saved")
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "saved")
    assert_close(again.state_dict(), made.state_dict(), rtol=0, atol=0)
    # A convolution reads any size.
    assert student("test_resnet", 3, image_size=64).config.model_args is None


def test_pretrained_weights_are_those_of_timm(tmp_path, monkeypatch):
    path, model = weights_file(tmp_path / "weights.safetensors", classes=1000)
    create = of_timm.create_model

    def from_file(name, pretrained=False, pretrained_cfg_overlay=None, **options):
        overlay = {"file": path} if pretrained else pretrained_cfg_overlay
        return create(name, pretrained=pretrained, pretrained_cfg_overlay=overlay, **options)

    monkeypatch.setattr(of_timm, "create_model", from_file)
    taught = teacher("test_resnet", 1000, pretrained=True)
    assert_close(taught.timm_model.state_dict(), model.state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"knows 1000 classes, and the data has 3\. Train it for"):
        teacher("test_resnet", 3, pretrained=True)
    assert student("test_resnet", 3, pretrained=True).timm_model.fc.out_features == 3


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_tiny"])
def test_pictures_are_as_timm_makes_them(name):
    said = what_timm_says(name)
    smooth = np.random.default_rng(0).integers(0, 256, (8, 9, 3)).astype(np.uint8)
    picture = Image.fromarray(smooth).resize((300, 240), Image.Resampling.BICUBIC)
    config = of_timm.data.resolve_data_config(pretrained_cfg=said)
    resize, _, *rest = of_timm.data.create_transform(**config, is_training=False).transforms
    resized = resize(picture)
    # Where a pixel is left over, transformers begins to cut here and torchvision one further on.
    left, top = ((side - 224) // 2 for side in resized.size)
    expected = resized.crop((left, top, left + 224, top + 224))
    for step in rest:
        expected = step(expected)
    ours = load_image_processor(timm_settings(name, said))
    found = ours(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
    # Both round to whole pixels, which may differ by one.
    assert_close(found, expected, atol=1.01 / 255 / min(ours.std), rtol=0)


def test_errors_say_what_to_do(tmp_path):
    path, _ = weights_file(tmp_path / "weights.safetensors", classes=5)
    with pytest.raises(ValueError, match=r"must be a model of timm, got 'resnet19'\. Nearest: res"):
        student("resnet19", 3)
    with pytest.raises(ValueError, match=r"the weights that timm has are: resnet18\."):
        student("resnet18.none", 3)
    with pytest.raises(ValueError, match=r"drawn at random teach nothing"):
        teacher("test_resnet", 3)
    with pytest.raises(ValueError, match=r"knows 5 classes, and the data has 3"):
        teacher("test_resnet", 3, path=path)
    with pytest.raises(ValueError, match=r"test_vit of timm cannot be made so: .*[Mm]issing"):
        teacher("test_vit", 5, path=path)
    with pytest.raises(ValueError, match=r"cannot be made so: .*no_such"):
        student("test_resnet", 3, no_such=1)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.safetensors"):
        student("test_resnet", 3, path=str(tmp_path / "none.safetensors"))
    with pytest.raises(ValueError, match=r"is a folder, .* teacher=pretrained"):
        teacher("test_resnet", 3, path=str(tmp_path))
    (tmp_path / "cut.safetensors").write_bytes(b"0123456789")
    with pytest.raises(ValueError, match=r"test_resnet cannot be read from .*cut"):
        teacher("test_resnet", 3, path=str(tmp_path / "cut.safetensors"))
    with pytest.raises(ValueError, match=r"classify pictures, not token_classification"):
        student("test_resnet", 3, task="token_classification")


def test_layers_are_compared_by_the_names_of_timm(tmp_path):
    path, _ = weights_file(tmp_path / "weights.safetensors")
    taught = teacher("test_resnet", 3, path=path)
    small = student("test_efficientnet", 3)
    terms = {
        "logits": Term(SoftTarget(4.0), {r: f"{r}.logits" for r in ("student", "teacher")}),
        "maps": Term(
            Hint(),
            {
                "student": "student.layer:timm_model.blocks.1",
                "teacher": "teacher.layer:timm_model.layer1",
            },
            adapter="linear",
        ),
    }
    before = {n: w.clone() for n, w in taught.state_dict().items()}
    batches = [
        {"pixel_values": pictures(seed=i), "labels": torch.tensor([0, 1, 2, 0])} for i in (1, 2)
    ]
    start = {n: p.clone() for n, p in small.named_parameters()}
    trained = distill(small, taught, loader(batches), terms, trainer(tmp_path))
    assert any(not torch.equal(p, start[n]) for n, p in trained.named_parameters())
    assert_close(taught.state_dict(), before, rtol=0, atol=0)
