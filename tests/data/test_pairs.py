"""Pairs of texts: the formats they come in, what is left out, and what is held out."""

import gzip
import json

import pytest

from tickwise.core.errors import ConfigError, DataError
from tickwise.data.pairs import Pairs, ReadPairs, hold_out, identity, read_pairs, sides_in

ENGLISH = ["A dog runs.", "Two men sit.", "A red house."]
GERMAN = ["Ein Hund rennt.", "Zwei Männer sitzen.", "Ein Haus."]
DEFAULT = ReadPairs()


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_parallel_files_packed_or_not(tmp_path):
    first = write(tmp_path / "x.en", "\n".join(ENGLISH) + "\n")
    second = tmp_path / "x.de.gz"
    second.write_bytes(gzip.compress("\r\n".join(GERMAN).encode()))
    pairs = read_pairs([first, str(second)], DEFAULT)
    assert (pairs.sources, pairs.targets) == (ENGLISH, GERMAN)
    by_ending = read_pairs([str(tmp_path / "x")], ReadPairs(source="de", target="en"))
    assert (by_ending.sources, by_ending.targets) == (GERMAN, ENGLISH)
    assert pairs.fingerprint() != by_ending.fingerprint()


def test_stray_carriage_returns_and_blank_lines_at_the_end_do_not_shift_parallel_files(tmp_path):
    first = write(tmp_path / "x.en", "A dog\r runs.\r\nTwo men sit.\n\n\n")
    second = write(tmp_path / "x.de", "Ein Hund rennt.\nZwei Männer sitzen.")
    pairs = read_pairs([first, second], DEFAULT)
    assert [" ".join(text.split()) for text in pairs.sources] == ["A dog runs.", "Two men sit."]
    assert pairs.targets == ["Ein Hund rennt.", "Zwei Männer sitzen."]
    assert read_pairs([second, first], DEFAULT).sources == pairs.targets
    table = write(tmp_path / "x.tsv", "A dog\r runs.\tEin Hund rennt.\r\n\nTwo men sit.\tZwei Männer sitzen.\n")
    assert read_pairs([table], DEFAULT).targets == pairs.targets


@pytest.mark.parametrize(("name", "content", "read"), [
    ("a.tsv", "{0}\t{1}\tnote\n", DEFAULT),
    ("a.txt", "\ufeff{0}\t{1}\tnote\n", DEFAULT),
    ("a.tsv", "id\tde\ten\n7\t{1}\t{0}\n", ReadPairs(source="en", target="de")),
    ("a.tsv", "id\ttarget\tsource\n7\t{1}\t{0}\n", DEFAULT),
    ("a.tsv", "7\t{1}\t{0}\n", ReadPairs(source="2", target="1")),
    ("a.tsv", "{1}\t{0}\n", ReadPairs(source="1")),
    ("a.csv", '"{0}","{1}"\n', DEFAULT),
    ("a.jsonl", '{{"target": "{1}", "n": 1, "source": "{0}"}}\n', DEFAULT),
    ("a.jsonl", '{{"en": "{0}", "de": "{1}"}}\n', DEFAULT),
    ("a.jsonl", '{{"translation": {{"en": "{0}", "de": "{1}"}}}}\n', ReadPairs(target="de")),
    ("a.jsonl", '{{"de": "{1}", "en": "{0}"}}\n', ReadPairs(source="en")),
    ("a.json", '[{{"en": "{0}", "de": "{1}"}}]\n', DEFAULT),
])
def test_tables(tmp_path, name, content, read):
    pairs = read_pairs([write(tmp_path / name, content.format("A dog runs.", "Ein Hund rennt."))], read)
    assert (pairs.sources, pairs.targets) == (["A dog runs."], ["Ein Hund rennt."])


def test_parquet_and_several_sources(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"en": ENGLISH, "de": GERMAN}), tmp_path / "a.parquet")
    other = write(tmp_path / "b.tsv", "Hi.\tHallo.\n")
    pairs = read_pairs([str(tmp_path / "a.parquet"), other], DEFAULT)
    assert pairs.sources == [*ENGLISH, "Hi."]
    assert pairs.targets == [*GERMAN, "Hallo."]


def test_blank_sides_are_left_out_and_controls_removed(tmp_path, capsys):
    pairs = read_pairs([write(tmp_path / "a.tsv", "a\tb\n \tc\nd\x07\te \nf\t\n")], DEFAULT)
    assert (pairs.sources, pairs.targets) == (["a", "d"], ["b", "e"])
    assert "left out 2 pairs" in capsys.readouterr().err


def test_pairs_know_the_rows_that_they_come_from(tmp_path):
    names = [write(tmp_path / "x.en", "one\n\nthree\nfour\n\n"), write(tmp_path / "x.de", "eins\nzwei\ndrei\nvier\n\n")]
    pairs = read_pairs([*names, write(tmp_path / "y.tsv", "five\tfünf\n")], DEFAULT)
    assert (pairs.sources, list(pairs.rows)) == (["one", "three", "four", "five"], [0, 2, 3, 5])
    assert pairs.take([3, 1]).by_row(["E", "C"]) == ["", "", "C", "", "", "E"]
    assert Pairs(["a", "b"], ["c", "d"], "x").take([1]).by_row(["B"]) == ["", "B"]


def test_which_sides_stand_in_another_part():
    pairs = Pairs(["A dog.", "a cat", "c"], ["Ein Hund", "eine Katze", "d"], "x")
    other = Pairs(["a dog", "x", "C!"], ["ein Hund!", "Eine Katze.", "y"], "y")
    assert sides_in(pairs, other) == [(True, True), (False, True), (True, False)]


@pytest.mark.parametrize(("files", "names", "read", "said"), [
    ({"x.en": "a\nb\n", "x.de": "a\n"}, ["x.en", "x.de"], DEFAULT, "x.en has 2 lines and .*x.de 1: line 2 is"),
    ({"x.en": "a\nb\n"}, ["x.en"], DEFAULT, "name the other one after it"),
    ({"x.en": "a\nb\n"}, ["x"], ReadPairs(source="en", target="de"), r"x\.de: no such file"),
    ({}, ["x.en", "x.de"], DEFAULT, "no such file"),
    ({"a.tsv": "a\tb\nc\n"}, ["a.tsv"], DEFAULT, "row 2: 1 columns"),
    ({"a.tsv": "a\tb\n"}, ["a.tsv"], ReadPairs(source="en"), "no column 'en' in its first row"),
    ({"a.jsonl": '{"a": 1, "b": 2, "c": 3}\n'}, ["a.jsonl"], DEFAULT, "which column is the source"),
    ({"a.jsonl": '{"a": 1, "b": 2}\n'}, ["a.jsonl"], ReadPairs(target="de"), "no column 'de'; it has a, b"),
    ({"a.jsonl": '[1, 2]\n'}, ["a.jsonl"], DEFAULT, "must be an object"),
    ({"a.jsonl": '{"a": \n'}, ["a.jsonl"], DEFAULT, "line 1: not valid JSON"),
    ({"a.tsv": ""}, ["a.tsv"], DEFAULT, "empty"),
    ({"a.tsv": " \t \n"}, ["a.tsv"], DEFAULT, "empty|no pair"),
])
def test_what_cannot_be_used_is_named(tmp_path, monkeypatch, files, names, read, said):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        write(tmp_path / name, text)
    with pytest.raises(DataError, match=said):
        read_pairs(names, read)


def test_other_encodings_and_broken_archives_are_named(tmp_path):
    (tmp_path / "x.en").write_bytes(b"a\nb\n")
    (tmp_path / "x.de").write_bytes("Männer\nFüße über Bäche\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"x\.de: not UTF-8; it looks like Windows-1252"):
        read_pairs([str(tmp_path / "x.en"), str(tmp_path / "x.de")], DEFAULT)
    (tmp_path / "x.de.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"x\.de\.gz: cannot read it"):
        read_pairs([str(tmp_path / "x.en"), str(tmp_path / "x.de.gz")], DEFAULT)


def test_known_data_sets(shared_data, monkeypatch):
    monkeypatch.setenv("TICKWISE_DATA", str(shared_data))
    test = read_pairs(["multi30k"], ReadPairs(source="de", target="en"), split="test")
    assert len(test) == 1000
    assert test.sources[0].startswith("Ein Mann mit einem orangefarbenen Hut")
    assert read_pairs(["multi30k/validation"], ReadPairs(target="fr", source="en")).targets[0].startswith("Un groupe")
    to_english = read_pairs(["cmn_eng"], ReadPairs(source="zh"))
    assert (to_english.sources[0], to_english.targets[0]) == ("嗨。", "Hi.")
    with pytest.raises(DataError, match="a split is one of"):
        read_pairs(["multi30k/dev"], DEFAULT)


def test_identity_ignores_case_width_and_punctuation():
    assert identity("Ｈello, World！") == identity("hello world")
    assert identity("好的。") == identity("好的") != identity("好")
    assert identity("?!") != identity("...")


def many(n=400):
    """Sources that share targets and the other way round."""
    return Pairs([f"source {i // 2}" for i in range(n)], [f"target {i // 3}" for i in range(n)], "many")


def test_neither_side_of_what_is_held_out_occurs_in_the_rest():
    rest, part = hold_out(many(), 40, "test")
    assert len(part) == 40
    assert len(set(part.sources)) == len(set(part.targets)) == 40
    assert not set(rest.sources) & set(part.sources)
    assert not set(rest.targets) & set(part.targets)
    assert len(rest) >= 400 - 40 * 4


def test_holding_out_depends_on_the_texts_alone_and_is_the_same_both_ways():
    pairs = many()
    backwards = Pairs(pairs.targets[::-1], pairs.sources[::-1], "backwards")
    part, other = hold_out(pairs, 30, "test")[1], hold_out(backwards, 30, "test")[1]
    assert set(zip(part.sources, part.targets, strict=True)) == set(zip(other.targets, other.sources, strict=True))
    assert hold_out(pairs, 30, "validation")[1].sources != part.sources
    with pytest.raises(ConfigError, match="cannot hold out 300"):
        hold_out(pairs, 300, "test")


def test_labels_repeat_and_what_is_left_out_is_said(capfd):
    pairs = Pairs([f"text {i % 150}" for i in range(200)], [("good", "bad")[i % 2] for i in range(200)], "labels")
    rest, part = hold_out(pairs, 20, "x", targets_repeat=True)
    assert len(part) == len(set(part.sources)) == 20
    assert set(part.targets) == set(rest.targets) == {"good", "bad"}
    assert not set(map(identity, part.sources)) & set(map(identity, rest.sources))
    n_neither = 200 - len(part) - len(rest)
    assert 0 < n_neither < 20
    said = capfd.readouterr().err
    assert f"labels: left out {n_neither} pairs whose source is that of one of the 20 held out" in said
    with pytest.raises(ConfigError, match="cannot hold out 20"):
        hold_out(pairs, 20, "x")


def test_rows_without_a_key_are_named(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"source": "a", "target": "b"}\n{"source": "c", "label": "d"}\n')
    with pytest.raises(DataError, match=r"row 2: no key 'target'; it has source, label"):
        read_pairs([path], DEFAULT)


def test_what_is_written_as_json_lines_reads_back(tmp_path):
    rows = "".join(json.dumps({"source": s, "target": t}) + "\n" for s, t in zip(ENGLISH, GERMAN, strict=True))
    assert read_pairs([write(tmp_path / "a.jsonl", rows)], DEFAULT).targets == GERMAN
