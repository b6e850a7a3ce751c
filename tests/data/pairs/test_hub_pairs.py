"""Pairs of data sets of the hub, from folders in its layouts."""

import datasets
import pytest

from lightning_distill.data import HubPairs

TEXTS = [(f"an old cat {i}", f"eine alte Katze {i}") for i in range(6)]


def translations(rows, **more) -> datasets.Dataset:
    columns = {"translation": [{"en": en, "de": de} for en, de in rows], **more}
    languages = datasets.Translation(languages=["en", "de"])
    features = {"translation": languages, **{n: datasets.Value("string") for n in more}}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def saved(path, **splits) -> str:
    datasets.DatasetDict(splits).save_to_disk(str(path))
    return str(path)


def ready(path, **options) -> HubPairs:
    data = HubPairs(path, **{"vocab_size": 300, **options})
    data.setup()
    return data


@pytest.mark.parametrize(("source", "target"), [("en", "de"), ("translation.en", "translation.de")])
def test_a_translation_is_a_source_and_a_target(source, target, tmp_path):
    path = saved(tmp_path / "d", train=translations(TEXTS), validation=translations(TEXTS[:2]))
    data = ready(path, source=source, target=target)
    assert data.splits["train"].texts == TEXTS
    # Without a split for testing the validation rows are it.
    assert data.splits["test"].texts == TEXTS[:2]
    back = ready(path, source=target, target=source)
    assert back.splits["train"].texts == [(de, en) for en, de in TEXTS]
    ids = next(iter(data.rows_dataloader([("train", [3], None)])))["labels"][0]
    assert data.tokenizer.decode(ids[:-1]) == TEXTS[3][1]


def test_plain_columns_and_splits_are_named(tmp_path):
    rows = {"article": [a for a, _ in TEXTS], "highlights": [b for _, b in TEXTS]}
    plain = datasets.Dataset.from_dict(rows)
    path = saved(tmp_path / "d", training=plain, dev=plain.select([1, 2]))
    data = ready(path, source="article", target="highlights", train="training", validation="dev")
    assert data.splits["train"].texts == TEXTS and data.splits["validation"].texts == TEXTS[1:3]
    with pytest.raises(ValueError, match="has no split 'train' .data.train.; it has training, dev"):
        ready(path, source="article", target="highlights")
    with pytest.raises(ValueError, match="no column 'articles' .*mean data.source=article"):
        ready(path, source="articles", target="highlights", train="training", validation=None)
    with pytest.raises(FileNotFoundError, match="could not be loaded: .*give a local folder"):
        ready(str(tmp_path / "none"))


def test_a_part_that_another_column_is_called_is_not_guessed(tmp_path):
    path = saved(tmp_path / "Data", train=translations(TEXTS, en=["another"] * 6))
    assert ready(path, source="en", target="de").splits["train"].texts[0][0] == "another"
    with pytest.raises(
        ValueError, match=r"The train data .*/Data\) has no column 'fr' .*it has .*translation.en"
    ):
        ready(path, source="fr", target="de")


def test_a_row_without_one_of_them_is_a_bad_row(tmp_path):
    path = saved(tmp_path / "d", train=translations([*TEXTS, ("alone", None)]))
    with pytest.raises(ValueError, match=r"Row 6 of the train data \(.*must have a target .*'de'"):
        ready(path, source="en", target="de")
    data = ready(path, source="en", target="de", skip_bad_rows=True)
    assert data.counts()["train rows left out"] == 1
