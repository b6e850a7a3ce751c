import json

import lightning as L
from data.text.test_token_masking import made
from tiny import loader, text_batches

from lightning_distill.report.row_texts import LONGEST, ROW_TEXTS, write_row_texts


def test_texts_are_what_the_student_reads(tmp_path):
    data = made(augmentation=None)
    held = data.splits["test"].student["input_ids"]
    write_row_texts(tmp_path, data, [3, 0])
    found = json.loads((tmp_path / ROW_TEXTS).read_text())
    assert found.keys() == {"0", "3"}
    for number, text in found.items():
        assert text == data.tokenizer.decode(held[int(number)], skip_special_tokens=True)
        assert "##" not in text and "[" not in text and 0 < len(text) <= LONGEST


def test_a_long_text_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_distill.report.row_texts.LONGEST", 5)
    write_row_texts(tmp_path, made(augmentation=None), [1])
    (text,) = json.loads((tmp_path / ROW_TEXTS).read_text()).values()
    assert len(text) == 7 and text.endswith(" …")


def test_of_rows_that_are_no_text_nothing_is_written(tmp_path):
    class Plain(L.LightningDataModule):
        tokenizer = None

        def test_dataloader(self):
            return loader(text_batches(1))

    write_row_texts(tmp_path, Plain(), [1])
    write_row_texts(tmp_path, made(augmentation=None), [])
    assert not (tmp_path / ROW_TEXTS).exists()
