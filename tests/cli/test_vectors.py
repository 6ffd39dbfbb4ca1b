"""tickwise vectors: train, ask, export, import."""

import json

import pytest

from tickwise.profiling.trace_store import open_trace


def test_vectors_from_text_to_neighbours_and_back(tmp_path, small_text, tickwise_cli):
    out = tmp_path / "vectors"
    code, printed, err = tickwise_cli("vectors", "train", small_text, "--out", out, "--method", "svd", "--width", 8,
                                      "--negatives", 1, "--subsample", 0, "--json")
    assert code == 0, err
    assert json.loads(printed)["width"] == 8
    code, printed, err = tickwise_cli("vectors", "neighbours", out, "cat", "sees", "-k", 4, "--json")
    assert code == 0, err
    near = json.loads(printed)["neighbours"]
    assert set(near) == {"cat", "sees"}
    assert len(near["cat"]) == 4
    assert {"dog", "bird", "horse", "fish"} & {n["word"] for n in near["cat"]}
    code, printed, err = tickwise_cli("vectors", "analogy", out, "cat", "dog", "sees", "-k", 2)
    assert code == 0, err
    assert printed.startswith("cat : dog = sees : ")
    assert tickwise_cli("vectors", "export", out, "--out", tmp_path / "v.txt")[0] == 0
    assert tickwise_cli("vectors", "import", tmp_path / "v.txt", "--out", tmp_path / "again")[0] == 0
    again = tickwise_cli("vectors", "neighbours", tmp_path / "again", "cat", "sees", "-k", 4, "--json")[1]
    assert json.loads(again) == {"neighbours": near}


def test_shifted_vectors_say_so_in_their_record_and_differ(tmp_path, small_text, tickwise_cli):
    stored = {}
    for shift in (1.0, 1.2):
        out = tmp_path / f"shift-{shift}"
        code, _, err = tickwise_cli("vectors", "train", small_text, "--out", out, "--method", "svd", "--width", 8,
                                    "--shift", shift)
        assert code == 0, err
        assert json.loads((out / "run.json").read_text())["settings"]["shift"] == shift
        stored[shift] = (out / "model.safetensors").read_bytes()
    assert stored[1.0] != stored[1.2]


@pytest.mark.parametrize("method", ["sgns", "glove", "svd"])
def test_vectors_are_listed_and_their_training_is_traced(tmp_path, small_text, tickwise_cli, method):
    out, trace = tmp_path / "vectors", tmp_path / "trace"
    code, _, err = tickwise_cli("vectors", "train", small_text, "--out", out, "--method", method, "--width", 8,
                                "--epochs", 1, "--subsample", 1e-4, "--trace", trace)
    assert code == 0, err
    rows = open_trace(trace).rows()
    assert {"forward", "host"} <= {row["stage"] for row in rows}
    code, listing, err = tickwise_cli("disasm", out, "--json")
    assert code == 0, err
    assert [row["stage"] for row in json.loads(listing)["by_stage"]] == ["embed"]
    code, _, err = tickwise_cli("trace", out, "--prompt", "the", "--out", tmp_path / "no")
    assert code == 2
    assert "word vectors" in err
    assert "tickwise vectors neighbours" in err


def test_mistakes_are_one_line_and_write_nothing(tmp_path, small_text, tickwise_cli):
    out = tmp_path / "vectors"
    for words, said in [
        (("train", small_text, "--out", out, "--width", "0"), "--width: must be at least 1"),
        (("train", small_text, "--out", out, "--min-count", "100000"), "--min-count"),
        (("train", small_text, "--out", out, "--method", "svd", "--shift", "0.5"), "--shift: must be at least 1"),
        (("train", small_text, "--out", tmp_path), "something else than word vectors"),
        (("neighbours", out, "cat"), "no such folder"),
        (("import", small_text, "--out", out), "line 1: "),
    ]:
        code, printed, err = tickwise_cli("vectors", *words)
        assert (code, printed) == (2, ""), err
        assert said in err.strip().splitlines()[-1]
        assert not out.exists()
