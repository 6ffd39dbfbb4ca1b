import gzip
import io
import json
import re

import pytest


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("The cat sat on the mat.\n\n" * 3 + "".join(f"Line number {n}.\n\n" for n in range(200)))
    return file


def test_prepare_prints_json_alone_on_stdout(tickwise_cli, text, tmp_path):
    code, out, err = tickwise_cli("data", "prepare", text, "--out", tmp_path / "out", "--vocab-size", 280, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["tokenizer"] == {"kind": "bpe", "vocab_size": 280}
    assert report["splits"]["train"]["tokens"] * 2 == (tmp_path / "out" / "train.bin").stat().st_size
    assert report["duplicates"]["exact"] == 2
    assert "paragraphs" in err


def test_prepare_from_standard_input(tickwise_cli, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one text\n" * 50)))
    code, out, _ = tickwise_cli("data", "prepare", "-", "--out", tmp_path / "out", "--tokenizer", "char", "--json")
    assert code == 0
    assert json.loads(out)["splits"]["train"]["bytes"] == 405


def test_dry_run_writes_nothing(tickwise_cli, text, tmp_path):
    code, out, _ = tickwise_cli("data", "prepare", text, "--out", tmp_path / "out", "--dry-run", "--json")
    assert code == 0
    planned = json.loads(out)
    assert planned["input_bytes"] == text.stat().st_size
    assert planned["documents"] == "one text in its order"
    assert not (tmp_path / "out").exists()


def test_check_of_prepared_data_shows_what_the_model_sees(tickwise_cli, text, tmp_path):
    tickwise_cli("data", "prepare", text, "--out", tmp_path / "out", "--tokenizer", "char")
    code, out, _ = tickwise_cli("data", "check", tmp_path / "out", "--sample-tokens", 7)
    assert code == 0
    assert "T|h|e| |c|a|t" in out
    assert "2 exact" in out
    code, out, _ = tickwise_cli("data", "check", tmp_path / "out", "--json")
    assert json.loads(out)["splits"]["validation"]["tokens"] > 0


def test_check_of_raw_text_counts_words_and_duplicates(tickwise_cli, text):
    code, out, _ = tickwise_cli("data", "check", text, "--documents", "paragraph", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["duplicates"]["exact"] == 2
    assert report["splits"]["train"]["words"] == 6 + 3 * (report["splits"]["train"]["documents"] - 1)


def test_check_finds_changed_tokens(tickwise_cli, text, tmp_path):
    tickwise_cli("data", "prepare", text, "--out", tmp_path / "out", "--tokenizer", "char")
    file = tmp_path / "out" / "train.bin"
    file.write_bytes(b"\xff" * file.stat().st_size)
    code, _, err = tickwise_cli("data", "check", tmp_path / "out")
    assert code == 2
    assert "changed since it was prepared" in err


@pytest.mark.parametrize("verb", ["check", "prepare"])
@pytest.mark.parametrize("names", [("config.json", "model.safetensors"), ("run.json", "metrics.jsonl")])
def test_a_run_or_model_is_not_taken_for_text(tickwise_cli, tmp_path, verb, names):
    for name in names:
        (tmp_path / name).write_text('{"text": "not a corpus"}')
    flags = ["--out", tmp_path / "out"] if verb == "prepare" else []
    code, out, err = tickwise_cli("data", verb, tmp_path, *flags)
    assert (code, out) == (2, "")
    assert "is the directory of a model or of a training run, not data; give the text" in err
    assert err.count("\n") == 1


def test_ls_names_sets_and_says_which_are_here(tickwise_cli, tmp_path):
    (tmp_path / "tiny_shakespeare").mkdir()
    (tmp_path / "tiny_shakespeare" / "input.txt").write_text("To be")
    code, out, _ = tickwise_cli("data", "ls", "--data-dir", tmp_path, "--json")
    found = {row["name"]: row for row in json.loads(out)["data_sets"]}
    assert code == 0
    assert found["tiny_shakespeare"]["available"] == "local"
    assert found["gsm8k"]["available"] == "hub"
    assert found["cmn_eng"]["available"] == "missing"
    code, out, _ = tickwise_cli("data", "ls", "--data-dir", tmp_path)
    assert "tiny_shakespeare" in out


@pytest.mark.parametrize(("name", "content", "flags", "message"), [
    ("empty.txt", b"", [], "empty"),
    ("blank.txt", b"\r\n \x00"[:3], ["--documents", "line"], "no text in it"),
    ("spaces.txt", b" \n\n\t", [], "no text in it"),
    ("image.png", b"\x89PNG\0\0", [], "binary"),
    ("latin.txt", b"caf\xe9", [], "byte 3 (0xe9)"),
    ("rows.jsonl", b'{"a": 1}\n', [], "line 1: no field 'text'"),
    ("cut.txt.gz", gzip.compress(b"text" * 999, mtime=0)[:-9], [], "gzip"),
    ("a.txt", b"text", ["--vocab-size", "50"], "at least 257"),
    ("a.txt", b"text", ["--tokenizer-from", "/nowhere"], "no tokenizer there"),
    ("a.txt", b"text", ["--validation-fraction", "1.5"], "must leave text"),
])
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(tickwise_cli, tmp_path, name, content, flags, message):
    (tmp_path / name).write_bytes(content)
    code, out, err = tickwise_cli("data", "prepare", tmp_path / name, "--out", tmp_path / "out", *flags)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_help_names_every_ending_that_a_folder_is_searched_for(tickwise_cli, tmp_path):
    _, out, _ = tickwise_cli("data", "prepare", "--help")
    _, _, err = tickwise_cli("data", "prepare", tmp_path, "--out", tmp_path / "out")
    endings = re.findall(r"\.[a-z]+", err.split("files that end in")[1])
    assert ".md" in endings
    assert set(endings) <= set(re.findall(r"\.[a-z]+", out))


def test_source_that_is_not_there(tickwise_cli, tmp_path):
    code, _, err = tickwise_cli("data", "prepare", tmp_path / "no.txt", "--out", tmp_path / "out")
    assert code == 2
    assert "no such file or folder" in err
