"""Conversations from files, and as ids."""

import json

import pytest

from tickwise.core.errors import DataError
from tickwise.data.chats import EncodedChats, read_chats
from tickwise.tokenizers.chat import encode_turns, with_chat
from tickwise.tokenizers.train import train_tokenizer

ROWS = [
    {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": " q "},
                  {"role": "assistant", "content": "a"}]},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    {"instruction": "Add.", "input": "1 1", "output": "2"},
    {"instruction": "Hi.", "input": "", "output": "Hi."},
    {"turns": ["q", "a", "q2"]},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_all_formats(tmp_path):
    chats = read_chats([write(tmp_path / "a.jsonl", ROWS)])
    assert [[(m["role"], m["content"]) for m in chat] for chat in chats] == [
        [("system", "s"), ("user", "q"), ("assistant", "a")],
        [("user", "q"), ("assistant", "a")],
        [("user", "Add.\n1 1"), ("assistant", "2")],
        [("user", "Hi."), ("assistant", "Hi.")],
        [("user", "q"), ("assistant", "a")],
    ]
    (tmp_path / "b.json").write_text(json.dumps(ROWS[2:4]), encoding="utf-8")
    assert read_chats([str(tmp_path / "b.json")]) == chats[2:4]


@pytest.mark.parametrize(("row", "said"), [
    ({"messages": [{"role": "robot", "content": "x"}]}, "row 2, message 1: role 'robot' is not one of"),
    ({"messages": [{"role": "user", "content": "  "}]}, "row 2, message 1: has no text"),
    ({"messages": ["x"]}, "message 1: role None"),
    ({"messages": [{"role": "user", "content": "x"}]}, "row 2: no turn of the assistant"),
    ({"text": "x"}, r"needs messages, .* \(it has text\)"),
    ([1], "row 2: not an object"),
])
def test_rows_that_are_none(tmp_path, row, said):
    path = write(tmp_path / "a.jsonl", [ROWS[0], row])
    with pytest.raises(DataError, match=said):
        read_chats([path])


def test_files_that_are_none(tmp_path):
    for name, said in ((str(tmp_path / "none.jsonl"), "no such file"), (str(tmp_path), "not a file"),
                       (write(tmp_path / "empty.jsonl", []), "no ")):
        with pytest.raises(DataError, match=said):
            read_chats([name])


def test_long_ones_are_cut_behind_an_answer_or_left_out():
    tokenizer = with_chat(train_tokenizer("bpe", iter(["user assistant q a"] * 3), vocab_size=300))
    chat = [{"role": role, "content": text} for role, text in
            (("user", "q"), ("assistant", "a"), ("user", "q"), ("assistant", "a long answer"))]
    whole, first = (len(encode_turns(tokenizer, part)[0]) for part in (chat, chat[:2]))
    encoded = EncodedChats([chat, chat], tokenizer, whole)
    assert (len(encoded), encoded.n_cut, encoded.n_left_out) == (2, 0, 0)
    encoded = EncodedChats([chat, chat[:2]], tokenizer, whole - 2)
    assert (len(encoded), encoded.n_cut) == (2, 1)
    assert len(encoded.ids[0]) == first - 1  # the template's line end is not the assistant's
    assert encoded.n_own == 4
    encoded = EncodedChats([chat, chat[:2]], tokenizer, first - 2)
    assert (len(encoded), encoded.n_left_out) == (0, 2)
