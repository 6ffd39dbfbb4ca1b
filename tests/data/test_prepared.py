import json

import pytest

from tickwise.core.errors import CheckpointError, DataError
from tickwise.data.config import PrepareConfig
from tickwise.data.prepare import prepare
from tickwise.data.prepared import PreparedData
from tickwise.tokenizers.train import train_tokenizer


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text("some text to prepare, " * 50)
    prepare(PrepareConfig(sources=(str(tmp_path / "a.txt"),), out=tmp_path / "out", tokenizer="char"))
    return tmp_path / "out"


def change_description(folder, **changes):
    values = json.loads((folder / "dataset.json").read_text())
    for path, value in changes.items():
        *keys, last = path.split("__")
        target = values
        for key in keys:
            target = target[key]
        target[last] = value
    (folder / "dataset.json").write_text(json.dumps(values))


def test_layout(folder):
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "dataset.json", "test.bin", "test.documents.npy", "tokenizer.json", "tokenizer_config.json", "train.bin",
        "train.documents.npy", "validation.bin", "validation.documents.npy",
    ]
    data = PreparedData.open(folder)
    assert data.split("train").tokens.dtype == "<u2"
    assert data.split("train").document_starts.dtype == "uint64"


def test_truncated_tokens(folder):
    file = folder / "train.bin"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match="cut off"):
        PreparedData.open(folder)


def test_changed_tokens_of_the_same_size_are_found_by_verify(folder):
    file = folder / "train.bin"
    file.write_bytes(b"\xff" * file.stat().st_size)
    with pytest.raises(DataError, match="changed since it was prepared"):
        PreparedData.open(folder).verify()


def test_id_outside_the_vocabulary(folder):
    change_description(folder, splits__train__max_id=65)
    with pytest.raises(DataError, match="token id 65 is outside the vocabulary"):
        PreparedData.open(folder)


def test_tokenizer_of_other_tokens(folder):
    train_tokenizer("char", iter(["other"])).save(folder)
    with pytest.raises(DataError, match="not the one that made these tokens"):
        PreparedData.open(folder)


@pytest.mark.parametrize(("changes", "message"), [
    ({"format_version": 99}, "format 99"),
    ({"dtype": "object"}, "not uint16 or uint32"),
    ({"splits__train__documents": 7}, "does not list the 7 documents"),
    ({"splits__train__tokens": "many"}, "expected int"),
    ({"surprise": 1}, "unknown key"),
])
def test_description_that_does_not_fit(folder, changes, message):
    change_description(folder, **changes)
    with pytest.raises(DataError, match=message) as caught:
        PreparedData.open(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "error"), [
    ("dataset.json", DataError), ("train.bin", DataError), ("train.documents.npy", DataError),
    ("tokenizer.json", CheckpointError),
])
@pytest.mark.parametrize("damage", ["missing", "half"])
def test_missing_or_half_file(folder, name, error, damage):
    file = folder / name
    content = file.read_bytes()
    file.unlink()
    if damage == "half":
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(error) as caught:
        PreparedData.open(folder)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match="tickwise data prepare"):
        PreparedData.open(tmp_path / "nowhere")


def test_fingerprint_follows_the_content(folder, tmp_path):
    first = PreparedData.open(folder).fingerprint
    (tmp_path / "a.txt").write_text("some text to prepare; " * 50)
    again = prepare(PrepareConfig(sources=(str(tmp_path / "a.txt"),), out=tmp_path / "again", tokenizer="char"))
    assert again.fingerprint != first
