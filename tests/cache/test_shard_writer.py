"""What a shard writer takes, and what it refuses."""

import zlib

import numpy as np
import pytest
import torch

from lightning_distill.cache import Answer, Full, ShardWriter, TopK
from lightning_distill.cache.answer import signature
from lightning_distill.cache.shard import Shard
from lightning_distill.cache.shard_writer import row_checksums

IDS = np.arange(8, dtype=np.int64).reshape(4, 2)
TOKENS = Answer("hidden_states[1]", True, (2,), Full())


def test_tokens_are_kept_without_padding_and_where_each_row_begins(tmp_path):
    writer = ShardWriter(tmp_path, [TOKENS])
    values = torch.arange(24.0).reshape(4, 3, 2)
    writer.add(IDS, {TOKENS.name: values}, [2, 0, 3, 1])
    writer.add(IDS[:1] + 50, {TOKENS.name: values[:1, :1]}, [1])
    facts = writer.write("shard-00000")
    assert (facts["rows"], len(writer), writer.bytes) == (5, 0, 0)
    shard = Shard(tmp_path / facts["file"], facts)
    assert shard["tokens"].tolist() == [0, 2, 2, 5, 6, 7]
    right = [values[0, :2], values[2], values[3, :1], values[0, :1]]
    assert shard["hidden_states[1]/values"].tolist() == torch.cat(right).tolist()
    # A row's checksum: of the mark, of its id, of its bytes.
    plain = zlib.crc32(IDS[2].tobytes(), TOKENS.mark(""))
    assert shard["hidden_states[1]/crc"][2] == zlib.crc32(values[2].numpy().tobytes(), plain)
    assert shard["hidden_states[1]/crc"][1] == zlib.crc32(IDS[1].tobytes(), TOKENS.mark(""))


def test_fewer_vectors_than_tokens_are_refused(tmp_path):
    # A model that halves the number of tokens.
    writer = ShardWriter(tmp_path, [TOKENS])
    with pytest.raises(ValueError, match=r"\(4, 2, 2\), which is not one vector for each of 12"):
        writer.add(IDS, {TOKENS.name: torch.zeros(4, 2, 2)}, [4, 4, 2, 2])
    writer.add(IDS, {TOKENS.name: torch.zeros(4, 2, 2)}, [2, 1, 0, 2])
    with pytest.raises(ValueError, match="or per token where the batch has an attention_mask"):
        writer.add(IDS, {TOKENS.name: torch.zeros(4, 2, 2)}, None)


def test_a_row_of_one_number_is_kept_in_all_types(tmp_path):
    for dtype in ("float32", "float8"):
        writer = ShardWriter(tmp_path, [Answer("logits", False, (), Full(dtype))])
        writer.add(IDS, {"logits": torch.tensor([1.0, 20.0, -3.0, 0.0])}, None)
        assert len(writer) == 4
    writer = ShardWriter(tmp_path, [Answer("logits", False, (), TopK(2))])
    with pytest.raises(ValueError, match="leaves no tail of 1 classes"):
        writer.add(IDS, {"logits": torch.zeros(4)}, None)


def test_a_checksum_is_of_teacher_encoding_id_and_each_byte():
    fields = [torch.arange(6, dtype=torch.int16).reshape(3, 2), torch.ones(3)]
    plain = row_checksums(IDS[:3], fields, [1, 1, 1])
    assert len(set(plain)) == 3
    for changed in (
        row_checksums(IDS[:3] + 1, fields, [1, 1, 1]),
        row_checksums(IDS[:3], fields, [1, 1, 1], mark=1),
        row_checksums(IDS[:3], [fields[0] + 1, fields[1]], [1, 1, 1]),
        row_checksums(IDS[:3], [fields[0], fields[1] + 1e-6], [1, 1, 1]),
    ):
        assert all(a != b for a, b in zip(plain, changed, strict=True))
    # Of its own bytes alone.
    other = fields[0].clone()
    other[1] = 9
    changed = row_checksums(IDS[:3], [other, fields[1]], [1, 1, 1])
    assert [a == b for a, b in zip(plain, changed, strict=True)] == [True, False, True]


def test_a_signature_is_of_teacher_and_answers():
    one = [Answer("logits", False, (3,), TopK(1))]
    other = [Answer("logits", False, (3,), TopK(1, temperature=2.0))]
    found = {signature(t, a) for t in ("a", "b") for a in (one, other, [*one, *other], [])}
    assert len(found) == 8
    assert len({a.mark(t) for t in ("a", "b") for a in (*one, *other)}) == 4
