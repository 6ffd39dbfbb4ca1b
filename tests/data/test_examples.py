"""Labelled texts from the formats that people have, and what is said of broken ones."""

import gzip
import json
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tickwise.core.errors import DataError
from tickwise.data.examples import (
    Examples,
    ReadExamples,
    distinct_texts,
    read_examples,
    split_examples,
    stratified_folds,
    unify_labels,
    without_texts,
)

ROWS = [("the cat sat here", "animal"), ("a red car drove by", "thing"), ("dogs, and more dogs", "animal"),
        ("the lamp is on", "thing")]


def write(path, content):
    path.write_text(content, encoding="utf-8")
    return str(path)


def read(*sources, **settings):
    return read_examples(sources, ReadExamples(**settings))


def pairs(examples):
    return list(zip(examples.texts, examples.labels, strict=True))


def in_every_format(tmp_path):
    yield write(tmp_path / "a.tsv", "".join(f"{t}\t{c}\n" for t, c in ROWS))
    yield write(tmp_path / "label_first.txt", "".join(f"{c}\t{t}\n" for t, c in ROWS))
    yield write(tmp_path / "header.tsv", "sentence\tlabel\n" + "".join(f"{t}\t{c}\n" for t, c in ROWS))
    yield write(tmp_path / "b.csv", "label,review\n" + "".join(f'{c},"{t}"\n' for t, c in ROWS))
    yield write(tmp_path / "no_header.csv", "".join(f'{c},"{t}"\n' for t, c in ROWS))
    yield write(tmp_path / "c.jsonl", "".join(json.dumps({"id": 1, "text": t, "label": c}) + "\n" for t, c in ROWS))
    yield write(tmp_path / "d.json", json.dumps([{"content": t, "category": c} for t, c in ROWS]))
    yield write(tmp_path / "spaces.txt", "".join(f"{c} {t}\n" for t, c in ROWS))
    yield write(tmp_path / "fasttext.txt", "".join(f"__label__{c} {t}\n" for t, c in ROWS))
    yield write(tmp_path / "windows.tsv", "\ufeff" + "".join(f"{t}\t{c}\r\n" for t, c in ROWS))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": t, "label": c} for t, c in ROWS]),
                                tmp_path / "e.parquet")
    yield str(tmp_path / "e.parquet")
    (tmp_path / "f.tsv.gz").write_bytes(gzip.compress("".join(f"{t}\t{c}\n" for t, c in ROWS).encode()))
    yield str(tmp_path / "f.tsv.gz")
    with zipfile.ZipFile(tmp_path / "g.zip", "w") as archive:
        archive.writestr("inside.csv", "cat,label,review\n" + "".join(f'x,{c},"{t}"\n' for t, c in ROWS))
    yield str(tmp_path / "g.zip")


def test_every_format_gives_the_same_examples(tmp_path):
    for source in in_every_format(tmp_path):
        assert pairs(read(source)) == ROWS, source


def test_columns_can_be_named_or_numbered(tmp_path):
    path = write(tmp_path / "a.csv", "id,headline,kind\n1,the cat,x\n2,the dog,y\n")
    assert pairs(read(path, text_column="headline", label_column="kind")) == [("the cat", "x"), ("the dog", "y")]
    assert pairs(read(write(tmp_path / "b.tsv", "1\tcat\tx\n2\tdog\ty\n"), text_column="1", label_column="2")) == [
        ("cat", "x"), ("dog", "y")]
    with pytest.raises(DataError, match="no column 'title'; it has id, headline, kind"):
        read(path, text_column="title", label_column="kind")


def reviews(n=40):
    return [(f"the {i}th of them was as {'bad' if i % 2 else 'good'} as the others", str(i % 2)) for i in range(n)]


@pytest.mark.parametrize("header", ["utterance,stars", "v1,v2", "Review Text,Rating"])
def test_a_header_of_unusual_names_is_no_text(tmp_path, capsys, header):
    rows = [(t, "no" if c == "1" else "yes") for t, c in reviews()] if header == "v1,v2" else reviews()
    path = write(tmp_path / "a.csv", f"{header}\n" + "".join(f"{t},{c}\n" for t, c in rows))
    assert pairs(read(path)) == rows
    assert pairs(read(path, text_column="0", label_column="1")) == rows
    text, label = header.split(",")
    said = " ".join(capsys.readouterr().err.split())
    assert f"took its first line for a header: the text is '{text}', the label '{label}'; if that line" in said


def test_columns_that_hardly_any_row_fills_are_no_labels(tmp_path):
    rows = reviews()
    path = write(tmp_path / "a.csv", "v1,v2,,,\n" + "".join(f'{c},"{t}",,,\n' for t, c in rows))
    assert pairs(read(path)) == rows
    path = write(tmp_path / "b.csv", "label,text,,\n0,bad,,\n1,fine,,\n0,bad, or worse,\n")
    assert pairs(read(path)) == [("bad", "0"), ("fine", "1"), ("bad, or worse", "0")]
    path = write(tmp_path / "c.tsv", "".join(f"{c}\t{t}\t{'seen' if c == 'x' else ''}\n" for t, c in rows))
    assert pairs(read(path)) == rows


@pytest.mark.parametrize("first", [
    ("nothing at all to complain of, really, from beginning to end", "lone"),  # a text
    ("great", "1"),  # a label that others have
    ("!!!", "lone"),  # no name
    ("an extraordinarily disappointing", "lone"),  # as long as the others
])
def test_a_first_row_that_could_be_a_text_is_one(tmp_path, first):
    rows = [first, *reviews()]
    assert pairs(read(write(tmp_path / "a.tsv", "".join(f"{t}\t{c}\n" for t, c in rows)))) == rows
    few = [("great", "lone"), ("the food was bad in every way", "0"), ("the food was good in every way", "1")]
    assert pairs(read(write(tmp_path / "b.tsv", "".join(f"{t}\t{c}\n" for t, c in few)))) == few


def test_labels_lose_spaces_and_differences_of_case(tmp_path, capsys):
    path = write(tmp_path / "a.tsv", "one text\tSpam \ntwo texts\t spam\nthree texts\tspam\nfour texts\tHam\n")
    unified, = unify_labels([read(path)])
    assert unified.labels == ("spam", "spam", "spam", "Ham")
    assert "'Spam' is 'spam'" in capsys.readouterr().err


def test_the_part_of_a_label_before_a_mark(tmp_path):
    path = write(tmp_path / "a.txt", "NUM:date When was it ?\nHUM:ind Who was it ?\nNUM:count How many ?\n")
    assert read(path, label_until=":").labels == ("NUM", "HUM", "NUM")


def test_rows_without_text_or_label_are_left_out_and_counted(tmp_path, capsys):
    path = write(tmp_path / "a.csv", "label,text\n1,good one\n0,\n,bad one\n1,fine\n")
    assert pairs(read(path)) == [("good one", "1"), ("fine", "1")]
    assert "left out 1 rows without text, 1 without a label" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.tsv", "", "empty"), ("a.csv", "text\nonly\n", "one column"), ("a.jsonl", "{\n", "line 1: not valid JSON"),
    ("a.jsonl", '{"text": "x"}\n', "which column is the label"), ("a.tsv", "a b\tx\n\nc d\ty\nonly text\n", "line 4"),
    ("a.txt", "no labels at all\nnothing in these lines\nyet another one\nand more of it\nfive now\n", "no labels"),
    ("a.json", '{"text": "x"}', "not a JSON list"), ("a.parquet", "not parquet", "not a readable parquet"),
    ("a.zip", "not a zip", "not a readable zip"),
])
def test_what_is_said_of_broken_files(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / name, content))


@pytest.mark.parametrize("order", [("text", "label"), ("label", "text")])
def test_numbers_of_rows_before_the_columns_are_left_out(tmp_path, capsys, order):
    rows = [{"text": text.replace(",", ""), "label": label} for text, label in ROWS]
    path = write(tmp_path / "a.csv", ",".join(order) + "\n" + "".join(
        f'"{number}",{row[order[0]]},{row[order[1]]}\n' for number, row in enumerate(rows, start=1)))
    assert pairs(read(path)) == [(row["text"], row["label"]) for row in rows]
    assert "every row has a number of its own before the columns" in " ".join(capsys.readouterr().err.split())


def test_a_text_that_fills_more_cells_than_the_header_has_is_read_whole(tmp_path, capsys):
    path = write(tmp_path / "a.csv", 'label,text\nneg,Bad, awful, never again\npos,"fine, thanks"\npos,good,,\n')
    assert pairs(read(path)) == [("Bad, awful, never again", "neg"), ("fine, thanks", "pos"), ("good", "pos")]
    assert "1 rows have more columns than the first one, line 2 for one" in " ".join(capsys.readouterr().err.split())
    path = write(tmp_path / "a.tsv", "neg\tnot good\npos\tgood\nneg\tbad\tand the rest\npos\tvery good\n")
    assert pairs(read(path))[2] == ("bad\tand the rest", "neg")


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.csv", 'text,label\n"one\ntwo",pos\nfine,pos\nnot good, but,neg\n',
     r"line 5: 3 columns, but the first row has 2; .*quotation marks"),
    ("a.tsv", "text\tlabel\nfine\tpos\nnot\tgood\tneg\n", r"line 3: 3 columns, .*cannot have a tab"),
])
def test_rows_with_too_many_cells_are_refused_where_it_is_unclear_what_they_mean(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / name, content))


def test_files_that_are_not_there_or_not_utf8(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read(str(tmp_path / "gone.tsv"))
    chinese = "这是一条很好的评论,我们都喜欢\t好\n服务态度非常差,房间也很小\t差\n"
    (tmp_path / "gb.tsv").write_bytes(chinese.encode("gb18030"))
    with pytest.raises(DataError, match=r"line 1: not utf-8; it looks like GB18030 .*--encoding gb18030"):
        read(str(tmp_path / "gb.tsv"))
    assert read(str(tmp_path / "gb.tsv"), encoding="gb18030").labels == ("好", "差")
    (tmp_path / "utf16.tsv").write_bytes(chinese.encode("utf-16"))
    assert read(str(tmp_path / "utf16.tsv")).labels == ("好", "差")


def test_labels_in_a_file_of_their_own(tmp_path):
    texts, labels = write(tmp_path / "texts.txt", "one\ntwo\nthree\n"), tmp_path / "labels.txt"
    write(labels, "a\nb\na\n")
    assert pairs(read_examples([texts], ReadExamples(), labels=labels)) == [("one", "a"), ("two", "b"), ("three", "a")]
    write(tmp_path / "texts.txt", "A\x0cB\nC\u2028and so on\r\nD")
    write(labels, "a\nb\nc\x1c\n")
    assert read_examples([texts], ReadExamples(), labels=labels).labels == ("a", "b", "c")
    write(tmp_path / "texts.txt", "one\ntwo\nthree\n")
    write(labels, "a\nb\n")
    with pytest.raises(DataError, match=r"2 labels for the 3 lines .*line 3 is the first"):
        read_examples([texts], ReadExamples(), labels=labels)


def test_parts_share_no_text():
    train = Examples(("A b", "c", "c ", "d"), ("x", "x", "x", "y"), "train")
    assert distinct_texts(train).texts == ("A b", "c", "d")
    assert without_texts(train, [Examples(("a  B",), ("x",), "test")]).texts == ("c", "c ", "d")


def test_a_split_depends_on_texts_alone_and_leaves_every_class_in_the_rest():
    texts = tuple(f"text number {i}" for i in range(500))
    examples = Examples(texts, tuple("rare" if i == 7 else str(i % 3) for i in range(500)), "all")
    rest, part = split_examples(examples, 0.2, "test")
    assert len(rest) + len(part) == 500
    assert 70 <= len(part) <= 130
    assert "rare" in rest.labels
    backwards = examples.take(range(499, -1, -1))
    assert set(split_examples(backwards, 0.2, "test")[1].texts) == set(part.texts)
    assert set(split_examples(examples, 0.2, "dev")[1].texts) != set(part.texts)


def test_folds_share_every_class_evenly():
    examples = Examples(tuple(map(str, range(103))), tuple("rare" if i < 7 else "often" for i in range(103)), "all")
    folds = stratified_folds(examples, 5, seed=1)
    for label, most in (("rare", 2), ("often", 20)):
        counts = np.bincount(folds[[given == label for given in examples.labels]], minlength=5)
        assert counts.max() == most
        assert counts.max() - counts.min() <= 1
    assert (folds == stratified_folds(examples, 5, seed=1)).all()
    assert (folds != stratified_folds(examples, 5, seed=2)).any()


def test_published_sets_are_read_as_their_publishers_wrote_them(shared_data, monkeypatch):
    monkeypatch.setenv("TICKWISE_DATA", str(shared_data))
    trec = read_examples(["trec"], ReadExamples(label_until=":"), split="test")
    assert len(trec) == 500
    assert set(trec.labels) == {"ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"}
    spam = read_examples([str(shared_data / "sms_spam" / "SMSSpamCollection")], ReadExamples())
    assert (spam.labels.count("ham"), spam.labels.count("spam")) == (4827, 747)
    hotel = read_examples([str(shared_data / "chnsenticorp_htl" / "ChnSentiCorp_htl_all.csv")], ReadExamples())
    assert (hotel.labels.count("1"), hotel.labels.count("0")) == (5322, 2443)


def test_a_header_with_a_name_twice_is_no_row(tmp_path):
    for header in ("text,text,label", "text,label,label"):
        (tmp_path / "a.csv").write_text(f"{header}\none,two,x\nthree,four,y\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"more than one column '(text|label)'"):
            read_examples([str(tmp_path / "a.csv")], ReadExamples())


def test_repeated_texts_with_other_labels_are_counted(capsys):
    kept = distinct_texts(Examples(("a", "b", "A ", "a", "c"), ("x", "x", "y", "x", "y"), "f"))
    assert (kept.texts, kept.labels) == (("a", "b", "c"), ("x", "x", "y"))
    assert "left out 2 repeated texts, 1 of them with another label" in capsys.readouterr().err
