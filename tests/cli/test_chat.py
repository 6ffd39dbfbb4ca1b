"""``tickwise adapt --task chat`` and ``tickwise chat`` from the command line."""

import io
import json
import os
import signal

import pytest

from tickwise.profiling.trace_store import open_trace
from tickwise.tokenizers.chat import has_chat
from tickwise.tokenizers.tokenizer import Tokenizer


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self):
        return True


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    rows = [{"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": a}]}
            for a in ("a", "b", "ab", "ba", "c", "d")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def talker(tickwise_cli, tmp_path):
    """A folder with a byte-level model: the tiny one of other tests has no letters for the roles."""
    text = tmp_path / "text.txt"
    text.write_text("a b c d user assistant system\n" * 300, encoding="utf-8")
    code, _, err = tickwise_cli("train", text, "--out", tmp_path / "base", "--depth", 1, "--model.width", 16,
                                "--model.n-heads", 1, "--context", 64, "--vocab-size", 280, "--max-steps", 1,
                                "--batch-size", 2, "--device", "cpu")
    assert code == 0, err
    return tmp_path


def test_adapt_and_talk(tickwise_cli, talker, chats, monkeypatch):
    run = talker / "chat"
    words = ("adapt", talker / "base", "--task", "chat", "--train", chats, "--out", run, "--tuning.epochs", 1,
             "--tuning.batch-size", 2, "--device", "cpu")
    code, out, err = tickwise_cli(*words, "--json")
    assert code == 0, err
    development = json.loads(out)["development"]
    assert 0 < development["loss"] < 10
    assert has_chat(Tokenizer.load(run / "model"))
    talk = ("chat", run, "--max-tokens", 4, "--temperature", 0, "--device", "cpu")
    said = f"a b\n\n/nothing\n/reset\nc\nd\n/save {talker / 'x.jsonl'}\n/save {chats}\n/exit\na\n"
    before = chats.read_text()
    monkeypatch.setattr("sys.stdin", Terminal(said))
    code, out, err = tickwise_cli(*talk, "--json")
    assert code == 0, err
    messages = json.loads(out)["messages"]
    assert [m["content"] for m in messages if m["role"] == "user"] == ["c", "d"]
    assert json.loads((talker / "x.jsonl").read_text()) == {"messages": messages}
    assert "no command /nothing" in err
    assert "is there already" in err
    assert chats.read_text() == before
    monkeypatch.setattr("sys.stdin", io.StringIO("c\nd\n"))
    code, out, err = tickwise_cli(*talk, "--save", talker / "y.jsonl", "--trace", talker / "trace")
    assert code == 0, err
    trace = open_trace(talker / "trace")
    written = trace.select("SELECT request_id, count(*) AS n FROM tokens GROUP BY ALL")
    phases = {row["phase"] for row in trace.select("SELECT DISTINCT phase FROM ledger")}
    assert len(written) == 2
    assert err.count("the answer was cut after 4 tokens") == sum(row["n"] == 4 for row in written)
    assert all(1 <= row["n"] <= 4 for row in written)
    assert "prefill" in phases
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    assert [line.strip() for line in out.splitlines() if line.strip()] == [
        line.strip() for answer in answers for line in answer.splitlines() if line.strip()]
    assert json.loads((talker / "y.jsonl").read_text()) == {"messages": messages}
    monkeypatch.setattr("sys.stdin", io.StringIO("word " * 100 + "\n"))
    code, _, err = tickwise_cli(*talk)
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "the model reads 64" in err


class Terminated(io.StringIO):
    """Lines, and then SIGTERM where the next one is waited for."""

    def readline(self, *size):
        line = super().readline(*size)
        if not line:
            os.kill(os.getpid(), signal.SIGTERM)
        return line


def test_a_talk_that_is_ended_from_outside_is_saved(tickwise_cli, talker, chats, monkeypatch):
    run = talker / "chat"
    code, _, err = tickwise_cli("adapt", talker / "base", "--task", "chat", "--train", chats, "--out", run,
                                "--tuning.epochs", 1, "--tuning.batch-size", 2, "--device", "cpu")
    assert code == 0, err
    for saved, trace in ((talker / "a.json", ()), (talker / "b.json", ("--trace", talker / "trace"))):
        monkeypatch.setattr("sys.stdin", Terminated("a\n"))
        code, _, err = tickwise_cli("chat", run, "--max-tokens", 1, "--device", "cpu", "--save", saved, *trace)
        assert (code, err.splitlines()[-1]) == (143, "tickwise: terminated")
        assert [message["role"] for message in json.loads(saved.read_text())["messages"]] == ["user", "assistant"]
    assert open_trace(talker / "trace").header["counts"]["ticks"]


def test_what_is_piped_in_is_text_and_never_a_command(tickwise_cli, talker, chats, monkeypatch, tmp_path):
    run, victim = talker / "chat", tmp_path / "victim.txt"
    victim.write_text("mine")
    code, _, err = tickwise_cli("adapt", talker / "base", "--task", "chat", "--train", chats, "--out", run,
                                "--tuning.epochs", 1, "--tuning.batch-size", 2, "--device", "cpu")
    assert code == 0, err
    said = [f"/save {victim.name}", "/reset", "/exit", "a"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(said)))
    code, out, err = tickwise_cli("chat", run, "--max-tokens", 1, "--device", "cpu", "--json")
    assert code == 0, err
    assert [m["content"] for m in json.loads(out)["messages"] if m["role"] == "user"][-1] == "a"
    assert victim.read_text() == "mine"


def test_mistakes_are_one_line(tickwise_cli, tiny_model, chats, tmp_path):
    for words, said in (
        (("chat", tiny_model), "knows no turns"),
        (("chat", tiny_model, "--top-p", 2), "top_p"),
        (("chat", tmp_path), "not a model directory"),
        (("adapt", tiny_model, "--task", "classify", "--train", chats, "--out", "o", "--context", 3), "--context"),
        (("adapt", tiny_model, "--task", "chat", "--train", tmp_path / "no", "--out", tmp_path / "o"), "no such file"),
        (("adapt", tiny_model, "--task", "chat", "--train", chats, "--test", chats, "--out", "o"), "--test"),
        (("adapt", tiny_model, "--task", "chat", "--train", chats, "--out", "o", "--label-column", 1),
         "--label-column: has a meaning with --task classify only"),
        (("adapt", tiny_model, "--task", "chat", "--train", chats, "--out", "o", "--tuning.word-dropout", 0.2),
         "--tuning.word-dropout: is for encoders"),
    ):
        code, out, err = tickwise_cli(*words)
        assert (code, out) == (2, ""), words
        assert len(err.strip().splitlines()) == 1, err
        assert said in err
