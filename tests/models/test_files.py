import json

import pytest
from tiny import bert

from lightning_distill.models.files import check_model_files, file_in
from lightning_distill.models.hugging_face import load


@pytest.fixture
def sharded(tmp_path):
    folder = tmp_path / "model"
    bert(layers=1, width=8).save_pretrained(folder, max_shard_size="2KB")
    index = folder / "model.safetensors.index.json"
    assert len(set(json.loads(index.read_text())["weight_map"].values())) > 1
    return folder, index


def test_shards_of_the_folder_are_read(sharded):
    load(str(sharded[0]), None)


@pytest.mark.parametrize(
    "name", ["../other.safetensors", "/etc/hostname", "a/../../b", "", None, 3]
)
def test_an_index_names_files_of_its_own_folder_only(sharded, name):
    folder, index = sharded
    content = json.loads(index.read_text())
    content["weight_map"][next(iter(content["weight_map"]))] = name
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"index\.json names the file .*only files of the same"):
        load(str(folder), None)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": [1]}', "[" * 100_000])
def test_an_index_that_says_nothing_is_named(sharded, content):
    folder, index = sharded
    index.write_text(content)
    with pytest.raises(ValueError, match=r"index\.json does not say in which files"):
        load(str(folder), None)


def test_links_out_of_the_folder_are_refused_but_for_those_of_the_hub(tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ValueError, match=r"'config\.json', which does not lie in"):
        check_model_files(folder)
    snapshot, blobs = tmp_path / "models--a/snapshots/1234", tmp_path / "models--a/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "abcd").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/abcd")
    check_model_files(snapshot)
    assert file_in(snapshot, "config.json", "x") == snapshot / "config.json"
    (snapshot / "tokenizer.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ValueError, match=r"'tokenizer\.json', which does not lie in"):
        check_model_files(snapshot)
