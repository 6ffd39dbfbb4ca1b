"""Pairs with judgements, in the layouts in which they are published."""

import json

import pytest

from tickwise.core.errors import DataError
from tickwise.data.judged_pairs import read_judged_pairs

PAIRS = [("a cat, asleep", "a kitten", 4.5), ("a dog", "the tax", 0.0), ("it rains", "rain", 5.0)]
STS = "\n".join(f'main-news\theadlines\t2015\t{n:04}\t{score}\t{a}\t{b}' for n, (a, b, score) in enumerate(PAIRS))
CSV = "score,sentence2,sentence1\n" + "\n".join(f'{score},{b},"{a}"' for a, b, score in PAIRS)
LAYOUTS = {
    "behind.tsv": "\n".join(f"{a}\t{b}\t{score}" for a, b, score in PAIRS),
    "before.txt": "\n".join(f"{score}\t{a}\t{b}" for a, b, score in PAIRS),
    "sts-test.csv": STS,  # tab-separated, whatever its name says
    "sts.tsv": STS + "\tsource one\tsource two",
    "named.csv": CSV,
    "sick.tsv": "pair_ID\tsentence_A\tsentence_B\trelatedness_score\n" + "\n".join(
        f"{n}\t{a}\t{b}\t{score}" for n, (a, b, score) in enumerate(PAIRS)),
    "rows.jsonl": "\n".join(json.dumps({"text1": a, "text2": b, "similarity": score}) for a, b, score in PAIRS),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_layouts_say_the_same(name, tmp_path):
    (tmp_path / name).write_text(LAYOUTS[name], encoding="utf-8")
    read = read_judged_pairs([str(tmp_path / name)])
    assert list(zip(read.left, read.right, read.judged, strict=True)) == PAIRS


def test_columns_are_named_and_numbers_may_be_missing(tmp_path, capfd):
    path = tmp_path / "pairs.csv"
    path.write_text("x,y,z,gold\n1,a,b,2\n2,c,d,\n3,e,,4\n", encoding="utf-8")
    read = read_judged_pairs([str(path)], ["y", "Z", "gold"])
    assert (read.left, read.right, read.judged) == (["a"], ["b"], [2.0])
    assert "left out 2 pairs with a blank side or no number" in capfd.readouterr().err
    read = read_judged_pairs([str(path)], ["y", "z"])
    assert (read.left, read.right, read.judged) == (["a", "c"], ["b", "d"], None)
    (tmp_path / "two.tsv").write_text("a\tb\nc\td\n", encoding="utf-8")
    assert read_judged_pairs([str(tmp_path / "two.tsv")]).judged is None


@pytest.mark.parametrize(("name", "text", "said"), [
    ("a.tsv", "a\tb\t1\nc\td\n", "row 2: has not the 3 columns"),
    ("a.tsv", "a\tb\t1\nc\td\tmuch\n", "row 2: 'much' is not a number"),
    ("a.tsv", "a\tb\t1\nc\td\tnan\n", "row 2: 'nan' is not a number"),
    ("a.tsv", "3\tb\t1\n5\ta\t4\n", "numbers stand in its first and its last column, and which of them"),
    ("a.tsv", "premise\thypothesis\tmark\na\tb\t1\nc\td\t2\n",
     "its first row (premise, hypothesis, mark) has no number where the others have one"),
    ("a.tsv", "g\tf\ty\tid\tn\ts\tt\na\tb\tc\td\t5\te\tf\n", "say with --columns which of them"),
    ("a.tsv", "a\tb\tc\n", "which of them are a pair cannot be told"),
    ("a.csv", "a,b,c,d\n1,2,3,4\n", "which of them are a pair cannot be told"),
    ("a.txt", "no pair\nat all\n", "no line has a tab"),
    ("a.tsv", "", "empty"),
    ("a.jsonl", '{"x": "a", "y": "b"}\n', "which columns are the texts? It has x, y"),
    ("a.jsonl", '{"text1": "a", "text2": "b"}\n{"text1": "a"}\n', "row 2: has not the 2 columns"),
    ("a.tsv", "a\t \n", "no pair of texts"),
])
def test_mistakes_name_the_row(name, text, said, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as problem:
        read_judged_pairs([str(tmp_path / name)])
    assert said in str(problem.value)
    assert str(tmp_path / name) in str(problem.value)


def test_the_column_of_numbers_is_found_in_all_rows(tmp_path, capfd):
    path = tmp_path / "a.tsv"
    path.write_text("4.5\tin the year\t1984\n1\ta dog\tthe tax\n", encoding="utf-8")
    read = read_judged_pairs([str(path)])
    assert (read.left, read.right, read.judged) == (["in the year", "a dog"], ["1984", "the tax"], [4.5, 1.0])
    assert capfd.readouterr().err == ""
    path.write_text("english\tgerman\na dog\tein Hund\n", encoding="utf-8")
    assert read_judged_pairs([str(path)]).left == ["english", "a dog"]
    assert "the first row (english, german) names no columns that are known and was taken for a pair" in " ".join(
        capfd.readouterr().err.split())
    read = read_judged_pairs([str(path)], ["english", "german"])
    assert (read.left, capfd.readouterr().err) == (["a dog"], "")


def test_files_with_and_without_numbers_are_not_mixed(tmp_path):
    (tmp_path / "a.tsv").write_text("a\tb\t1\n")
    (tmp_path / "b.tsv").write_text("a\tb\n")
    with pytest.raises(DataError, match="score them apart"):
        read_judged_pairs([str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv")])
    with pytest.raises(DataError, match="no such file"):
        read_judged_pairs([str(tmp_path / "c.tsv")])
    with pytest.raises(DataError, match="no column 'q'"):
        read_judged_pairs([str(tmp_path / "b.tsv")], ["q", "r"])
