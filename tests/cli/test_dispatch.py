"""What the command line says to mistakes: one line, exit code 2, and suggestions only where they are near."""

import io
import os
import subprocess
import sys

import pytest

from tickwise.cli import dispatch, main
from tickwise.core.signals import TerminatedError


def said(capsys, *words):
    assert main(list(words)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err.strip()


@pytest.mark.parametrize(("flag", "near"), [
    ("--depht", "--depth"), ("--lr", "--optimizer.lr"), ("--width", "--model.width"), ("--toke", "--tokenizer"),
    ("--steps", "--max-steps"), ("--batch_sise", "--batch-size"),
])
def test_a_flag_that_is_nearly_right_gets_a_suggestion(capsys, flag, near):
    assert f"did you mean '{near}'?" in said(capsys, "train", "text.txt", flag, "3")


@pytest.mark.parametrize("flag", ["--bogus", "--colour", "--jsno-please", "--x", "--max"])
def test_a_flag_that_is_nowhere_near_gets_none(capsys, flag):
    message = said(capsys, "train", "text.txt", flag)
    assert message == f"tickwise: train: no flag {flag}; see tickwise train --help"


@pytest.mark.parametrize(("words", "expected"), [
    (["--depth", "two"], "--depth: expected a whole number, got 'two'"),
    (["--depth", "2.5"], "--depth: expected a whole number, got '2.5'"),
    (["--label-smoothing", "hot"], "--label-smoothing: expected a number, got 'hot'"),
    (["--max-steps", "many"], "--max-steps: expected a whole number, got 'many'"),
    (["--max-seconds", "soon"], "--max-seconds: expected a number, got 'soon'"),
    (["--depth"], "--depth: give a value after it"), (["more.txt"], "Unrecognized options: more.txt"),
])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_value_of_the_wrong_type_is_told_in_plain_words(capsys, monkeypatch, words, expected, encoding):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))  # decides how boxes are drawn
    assert said(capsys, "train", "text.txt", *words) == f"tickwise: train: {expected}; see tickwise train --help"


def test_a_wrong_verb(capsys):
    assert said(capsys, "trian") == "tickwise: no verb 'trian'; did you mean 'train'?; see tickwise --help"
    assert said(capsys, "--jsno") == "tickwise: --jsno: a verb comes first, then its flags; see tickwise --help"


@pytest.mark.parametrize(("error", "code", "line"), [
    (KeyboardInterrupt, 130, "tickwise: interrupted\n"), (TerminatedError, 143, "tickwise: terminated\n"),
])
def test_the_first_of_several_ranks_says_that_a_signal_ended_them(capsys, monkeypatch, error, code, line):
    def end(_parsed):
        raise error

    monkeypatch.setattr(dispatch, "load_verb", lambda verb: (None, end))
    monkeypatch.setattr(dispatch, "parse", lambda verb, words: None)
    assert (main(["doctor"]), capsys.readouterr().err) == (code, line)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    for rank, said_by_it in ((0, line), (1, "")):
        monkeypatch.setenv("RANK", str(rank))
        assert (main(["doctor"]), capsys.readouterr().err) == (code, said_by_it)


def test_completion_has_help(capsys):
    assert main(["completion", "--help"]) == 0
    assert "bash|zsh|tcsh" in capsys.readouterr().out
    assert said(capsys, "completion").endswith("say for which shell: bash, zsh, tcsh")
    assert "no shell 'fish'" in said(capsys, "completion", "fish")


@pytest.mark.parametrize("words", [["--help"], ["doctor", "--help"], ["completion", "bash"], ["data", "ls"]])
def test_a_reader_that_has_gone_is_no_mistake(words):
    """As ``| head -1`` leaves: whatever is said then, is said to nobody."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tickwise", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
