"""``tickwise run summarise`` on files and at a prompt."""

import io
import json

import pytest


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"One is {n}. Two is there.\n" for n in range(6)), encoding="utf-8")
    return path


def test_a_prompt_asks_for_texts(tickwise_cli, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal("One. Two. Three.\n\n" + "No. " * 4001 + "\nFour. Five.\n"))
    code, out, err = tickwise_cli("run", "summarise", "--sentences", 1)
    assert (code, out) == (0, "One.\nFour.\n")
    assert "a text per line; end with Ctrl-D" in err
    assert "4,001 sentences is too long" in err
    monkeypatch.setattr("sys.stdin", Terminal("One. Two.\nThree.\n"))
    _, out, _ = tickwise_cli("run", "summarise", "--method", "lead", "--sentences", 1, "--json")
    assert [json.loads(line) for line in out.splitlines()] == [{"summary": "One."}, {"summary": "Three."}]


def test_summaries_are_written_as_they_come_with_their_progress(tickwise_cli, lines, monkeypatch):
    monkeypatch.setattr("tickwise.core.console._PLAIN_INTERVAL_S", 0.0)
    monkeypatch.setattr("tickwise.cli.run_summarise._AT_ONCE", 2)
    both = io.StringIO()
    monkeypatch.setattr("sys.stdout", both)
    monkeypatch.setattr("sys.stderr", both)
    code, _, _ = tickwise_cli("run", "summarise", "--input", lines, "--each-line", "--method", "lead", "--sentences", 1)
    assert code == 0
    kept = [line.split(" texts")[0] for line in both.getvalue().splitlines()]
    expected = []
    for n in range(0, 6, 2):
        expected += [f"summarising: {[17, 50, 83][n // 2]}% {n + 1}", f"summarising: {[33, 67, 100][n // 2]}% {n + 2}",
                     f"One is {n}.", f"One is {n + 1}."]
    assert kept == expected


def test_a_text_that_is_too_long_leaves_the_others(tickwise_cli, lines, monkeypatch):
    with lines.open("a", encoding="utf-8") as stream:
        stream.write("No. " * 4001 + "\nThe end.\n")
    words = ["run", "summarise", "--input", lines, "--each-line", "--sentences", 1]
    code, out, err = tickwise_cli(*words)
    assert (code, out.split("\n")[5:]) == (2, ["One is 5.", "", "The end.", ""])
    assert err.startswith("tickwise: 1 of 8 texts have no summary; the first: text 7: a text of 4,001 sentences")
    code, out, _ = tickwise_cli(*words, "--json")
    assert ["error" in row for row in json.loads(out)["samples"]] == [False] * 6 + [True, False]
    code, out, err = tickwise_cli("run", "summarise", "No. " * 4001, "--json")
    assert (code, out) == (2, "")
    assert err.startswith("tickwise: a text of 4,001 sentences")
