import json
import sys

import pytest

from tickwise.core.errors import DataError
from tickwise.data.catalogue import DATA_SETS, find
from tickwise.data.config import PrepareConfig
from tickwise.data.prepare import prepare
from tickwise.data.rows import hub_rows

# Rows as counted by those who collected the files.
ROWS = {
    "multi30k": {"train": 29_000, "validation": 1_014, "test": 1_000},
    "cmn_eng": {"train": 29_155},
    "tang_poems": {"train": 10_008},
    "trec": {"train": 5_452, "test": 500},
    "sst2": {"train": 6_920, "validation": 872, "test": 1_821},
    "chnsenticorp": {"train": 7_766},
    "sms_spam": {"train": 5_574},
    "conll2003": {"train": 14_041, "validation": 3_250, "test": 3_453},
    "wnut17": {"train": 3_394, "validation": 1_009, "test": 1_287},
    "resume_ner": {"train": 3_821, "validation": 463, "test": 477},
    "xquad_zh": {"validation": 1_190},
    "cmrc2018": {"train": 3_219, "test": 1_002},
    "dialogsum": {"train": 12_460, "validation": 500, "test": 500},
    "gsm8k": {"train": 7_473, "test": 1_319},
    "blimp": {"test": 12_000},
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_the_published_files(name, shared_data):
    entry = DATA_SETS[name]
    assert entry.is_local(shared_data)
    assert {split: sum(1 for _ in entry.rows(split, shared_data)) for split in entry.files} == ROWS[name]


def test_conll2003_tokens(shared_data):
    rows = list(DATA_SETS["conll2003"].rows("test", shared_data))
    assert sum(len(row["tokens"]) for row in rows) == 46_435
    assert rows[0]["tokens"][:3] == ["SOCCER", "-", "JAPAN"]
    assert rows[0]["tags"][2] == "I-LOC"


def test_every_set_that_is_here_gives_text(shared_data):
    for entry in DATA_SETS.values():
        if entry.is_local(shared_data):
            for split in entry.files:
                assert next(entry.documents(split, shared_data)).strip(), entry.name


def test_named_set_is_prepared_with_its_published_splits(shared_data, tmp_path):
    data = prepare(PrepareConfig(sources=("sst2",), out=tmp_path / "out", vocab_size=500, data_dir=shared_data))
    removed = data.info.duplicates["removed"]
    assert sum(info.documents for info in data.split_info.values()) == 6_920 + 872 + 1_821 - removed
    assert list(data.splits) == ["train", "validation", "test"]
    assert len(data.info.sources) == 3


def test_misspelt_name_gets_a_suggestion():
    with pytest.raises(DataError, match="did you mean 'wikitext2'"):
        find("wikitext-2")
    assert find("my_corpus.txt") is None


def test_files_through_the_datasets_library(tmp_path):
    pytest.importorskip("datasets")
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps({"question": f"q{n}", "answer": f"a{n}"}) + "\n" for n in range(5)))
    options = {"cache_dir": str(tmp_path / "cache")}
    rows = list(hub_rows("json", "train", data_files=str(lines), **options))
    assert [row["question"] for row in rows] == [f"q{n}" for n in range(5)]
    text = tmp_path / "a.txt"
    text.write_text("one\ntwo\n")
    assert [row["text"] for row in hub_rows("text", "train", data_files=str(text), **options)] == ["one", "two"]


def test_missing_library_and_failed_download_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'tickwise\[hub\]'"):
        list(DATA_SETS["gsm8k"].rows("train", tmp_path))
    monkeypatch.undo()
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="cannot be downloaded") as caught:
        list(hub_rows("json", "train", data_files=str(tmp_path / "missing.jsonl"), cache_dir=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_set_that_is_nowhere(tmp_path):
    with pytest.raises(DataError, match=r"cmn_eng: not in .* --data-dir"):
        list(DATA_SETS["cmn_eng"].rows("train", tmp_path))


def test_damaged_table(tmp_path):
    (tmp_path / "cmn_eng").mkdir()
    (tmp_path / "cmn_eng" / "cmn.txt").write_text("Hi.\t嗨。\tx\nbroken\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"cmn.txt, line 2: 1 columns, expected 2"):
        list(DATA_SETS["cmn_eng"].rows("train", tmp_path))
