"""Pictures in folders: classes, splits, what cannot be read, and batches for two models."""

import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from lightning_distill.data import (
    CropAndFlip,
    Draw,
    HubPictures,
    ImageFolder,
    ImageProcessor,
    PictureArrays,
)


def picture(seed, height=12, width=10):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def save(path, seed, **size):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, **size)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for i in range(12):
        save(tmp_path / "train" / ["cat", "dog"][i % 2] / f"{i:02}.png", i)
    for i in range(4):
        save(tmp_path / "test" / ["cat", "dog"][i % 2] / f"{i}.png", 100 + i)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no picture")
    return tmp_path


def data_of(folder, **options):
    data = ImageFolder(str(folder), seed=0, **options)
    data.setup("fit")
    return data


def first(loader):
    return next(iter(loader))


def test_folders_are_classes_and_splits(folder):
    data = data_of(folder)
    assert data.label_names == ["cat", "dog"] and data.num_labels == 2
    assert {name: len(rows) for name, rows in data.splits.items()} == {
        "train": 11,
        "validation": 1,
        "test": 4,
    }
    batch = first(data.test_dataloader())
    assert batch["labels"].tolist() == [0, 0, 1, 1] and batch["row"].tolist() == [0, 1, 2, 3]
    expected = torch.from_numpy(picture(100)).permute(2, 0, 1) / 255 * 2 - 1
    assert_close(batch["pixel_values"][0], expected)
    assert "teacher" not in batch


def test_each_model_is_given_the_same_crop_in_its_own_size_and_normalisation(folder):
    teacher = ImageProcessor(24, 20, mean=(0.0,) * 3, std=(1.0,) * 3, resample=0)
    options = {"augmentation": CropAndFlip(0.25), "views": 3}
    data = data_of(folder, teacher_image_processor=teacher, **options)
    batch = first(data.train_dataloader())
    own, others = batch["pixel_values"], batch["teacher"]["pixel_values"]
    assert own.shape == (11, 3, 12, 10) and others.shape == (11, 3, 24, 20)
    assert_close((own + 1) / 2, others[:, :, ::2, ::2], atol=1e-5, rtol=0)
    plain = data.splits["train"][Draw(batch["row"].tolist())]["pixel_values"]
    assert not torch.equal(own, plain)


def test_a_picture_depends_on_seed_row_and_view_alone(folder):
    data = data_of(folder, augmentation=CropAndFlip(0.25), mixup=1.0)
    rows = data.training_rows()
    alone, among = rows[Draw([5], 2)], rows[Draw([1, 5, 3], 2)]
    assert torch.equal(alone["pixel_values"][0], among["pixel_values"][1])
    assert not torch.equal(alone["pixel_values"], rows[Draw([5], 3)]["pixel_values"])
    planned = first(data.rows_dataloader([("train", [1, 5, 3], 2)]))
    assert torch.equal(planned["pixel_values"], among["pixel_values"])
    plain = first(data.rows_dataloader([("train", [5], None)]))["pixel_values"]
    assert torch.equal(plain, data.splits["train"][Draw([5])]["pixel_values"])


def test_the_share_of_a_mix_is_the_same_for_both_and_that_of_the_label(folder):
    teacher = ImageProcessor(12, 10, mean=(0.0,) * 3, std=(1.0,) * 3)
    data = data_of(folder, teacher_image_processor=teacher, mixup=0.5)
    rows = data.training_rows()
    found = [rows[Draw([4], view)] for view in range(400)]
    whole = data.splits["train"][Draw(range(11))]["teacher"]["pixel_values"].flatten(1).double()
    own, shares, labels = whole[4], [], []
    for one in found:
        mixed = one["teacher"]["pixel_values"].flatten().double()
        assert_close(mixed.float() * 2 - 1, one["pixel_values"].flatten(), atol=1e-5, rtol=0)
        # The partner and its share by least squares.
        directions = own - whole
        size = (directions**2).sum(1).clamp(min=1e-9)
        share = 1 - ((own - mixed) * directions).sum(1) / size
        rest = share[:, None] * own + (1 - share[:, None]) * whole - mixed
        best = int((rest**2).sum(1).argmin())
        other = int(data.splits["train"].labels[best])
        if best != 4 and other != int(data.splits["train"].labels[4]):
            shares.append(float(share[best]))
            labels.append(float(one["labels"][0] != other))
    assert len(shares) > 100
    # Beta(0.5, 0.5) has mean 1/2 and standard deviation 0.354.
    assert abs(np.mean(shares) - 0.5) < 0.1 and abs(np.std(shares) - 0.354) < 0.05
    assert abs(np.mean(np.array(labels) - np.array(shares))) < 0.08


BROKEN = {
    "empty": (lambda p: p.write_bytes(b""), "the file is empty"),
    "no picture": (lambda p: p.write_bytes(b"hello"), "no picture in a format"),
    "a link to nothing": (lambda p: (p.unlink(), p.symlink_to("gone.jpg")), "no such file"),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-200]), "truncated"),
}


@pytest.mark.parametrize("check", [None, "headers"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_picture_that_cannot_be_read_is_named_before_training(folder, name, check):
    bad = save(folder / "train" / "cat" / "bad.jpg", 1, height=40, width=40)
    harm, reason = BROKEN[name]
    harm(bad)
    with pytest.raises(ValueError, match=rf"bad\.jpg \(row 6 .*{reason}.*skip_bad_rows=true"):
        data_of(folder, check=check, size=12)
    data = data_of(folder, check=check, size=12, skip_bad_rows=True)
    assert data.counts()["train rows left out"] == 1 and data.counts()["train rows"] == 11


def test_a_table_names_pictures_and_labels(folder):
    rows = [f"train/{['cat', 'dog'][i % 2]}/{i:02}.png,{'ab'[i % 2]}" for i in range(12)]
    (folder / "rows.csv").write_text("\n".join(["image,label", *rows]))
    data = ImageFolder(train=str(folder / "rows.csv"), validation_fraction=0.25)
    data.setup("fit")
    assert data.label_names == ["a", "b"] and len(data.splits["train"]) == 9
    (folder / "rows.csv").write_text("\n".join(["image,label", *rows, "train/none.png,a"]))
    with pytest.raises(ValueError, match=r"none\.png \(row 12 .*no such file"):
        ImageFolder(train=str(folder / "rows.csv")).setup("fit")


def test_contents_decide_the_fingerprint_and_settings_too(folder):
    data = data_of(folder)
    assert data.fingerprint() == data_of(folder).fingerprint()
    assert data_of(folder, size=8).fingerprint() != data.fingerprint()
    save(folder / "train" / "dog" / "01.png", 77)
    assert data_of(folder).fingerprint() != data.fingerprint()
    json.dumps(data.preprocessing())


def test_unlike_sizes_need_one_to_be_named(folder):
    save(folder / "train" / "dog" / "big.png", 1, height=30)
    with pytest.raises(ValueError, match=r"data\.size=224"):
        data_of(folder)
    assert data_of(folder, size=[6, 7]).image_size == [6, 7]


def test_labels_can_be_hidden_and_left_out(folder):
    data = data_of(folder, labelled_rows=4, batch_size=20)
    assert int((first(data.train_dataloader())["labels"] != -100).sum()) == 4
    fewer = data.replace(drop_unlabelled=True)
    assert len(first(fewer.train_dataloader())["labels"]) == 4


def test_refusals_say_what_to_do(folder, tmp_path):
    for options, words in (
        ({"task": "language_modelling"}, "one label for each picture"),
        ({"views": 2}, "no `augmentation` and no `mixup`"),
        ({"mixup": 0.0}, "`mixup` must be above 0"),
        ({"check": "some"}, "full, headers or null"),
    ):
        with pytest.raises(ValueError, match=words):
            ImageFolder(str(folder), **options)
    with pytest.raises(ValueError, match=r"data\.folder=DIR"):
        ImageFolder()
    with pytest.raises(FileNotFoundError, match="no folder"):
        data_of(tmp_path / "nowhere")
    data = data_of(folder, augmentation=lambda picture, generator: picture.float())
    with pytest.raises(ValueError, match="in uint8 and must return one"):
        first(data.train_dataloader())


def test_the_same_pictures_from_a_data_set_and_from_arrays(folder, tmp_path):
    expected = data_of(folder, check="headers")
    pictures = [picture(i) for i in (*range(0, 12, 2), *range(1, 12, 2))]
    labels = ["cat"] * 6 + ["dog"] * 6
    tests, of_tests = [picture(100 + i) for i in (0, 2, 1, 3)], ["cat", "cat", "dog", "dog"]
    kind = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})

    def rows(images, names):
        columns = {"image": [Image.fromarray(i) for i in images], "label": names}
        return datasets.Dataset.from_dict(columns, features=kind)

    both = {"train": rows(pictures, labels), "test": rows(tests, of_tests)}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "saved")
    np.savez(tmp_path / "train.npz", image=np.stack(pictures), label=np.array(labels))
    np.savez(tmp_path / "test.npz", image=np.stack(tests), label=np.array(of_tests))
    of_hub = HubPictures(str(tmp_path / "saved"))
    of_arrays = PictureArrays(str(tmp_path / "train.npz"), test=str(tmp_path / "test.npz"))
    for data in (of_hub, of_arrays):
        data.setup("fit")
        for split in ("train", "validation", "test"):
            count = len(expected.splits[split])
            found, wanted = (d.splits[split][Draw(range(count))] for d in (data, expected))
            assert torch.equal(found["pixel_values"], wanted["pixel_values"])
            assert torch.equal(found["labels"], wanted["labels"])
    with pytest.raises(ValueError, match="its pictures are in: image"):
        HubPictures(str(tmp_path / "saved"), image="label").setup("fit")
    np.savez(tmp_path / "bad.npz", image=np.zeros((3, 4, 4, 3)), label=np.zeros(3))
    with pytest.raises(ValueError, match="must be uint8 of shape"):
        PictureArrays(str(tmp_path / "bad.npz")).setup("fit")
