"""``tickwise evaluate --task blimp`` from the command line."""

import json

import pytest


@pytest.fixture
def sets(tmp_path):
    folder = tmp_path / "sets"
    folder.mkdir()
    for name, pairs in (("one", [("a bad", "dab a"), ("a cab", "bac a")]), ("two", [("jig.", ".gij")])):
        rows = [json.dumps({"sentence_good": good, "sentence_bad": bad}) for good, bad in pairs]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "models_summary.jsonl").write_text('{"UID": "one"}\n', encoding="utf-8")
    return folder


def test_the_table_has_every_set_and_their_mean(tickwise_cli, tiny_model, sets):
    code, out, _ = tickwise_cli("evaluate", tiny_model, "--task", "blimp", "--data", sets)
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["one", "two", "mean"]
    code, out, _ = tickwise_cli("evaluate", tiny_model, "--task", "blimp", "--data", sets, "--json")
    results = json.loads(out)["results"]
    mean = (results["blimp_one"]["acc,none"] + results["blimp_two"]["acc,none"]) / 2
    assert results["blimp"]["acc,none"] == pytest.approx(mean)


def test_mistakes_are_one_line(tickwise_cli, tiny_model, sets, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\n', encoding="utf-8")
    for words, said in ((["--data", sets, "--stride", 4], "--stride"),
                        (["--data", tmp_path / "none.jsonl"], "cannot read"),
                        (["--data", tmp_path / "bad.jsonl"], "sentence_good"),
                        (["--data", sets, "--bootstrap-samples", 1], "at least 2")):
        code, out, err = tickwise_cli("evaluate", tiny_model, "--task", "blimp", *words)
        assert (code, out) == (2, ""), words
        assert len(err.strip().splitlines()) == 1, err
        assert said in err
