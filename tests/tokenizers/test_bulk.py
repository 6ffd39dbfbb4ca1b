"""The fast path gives exactly the ids of the tokenizers library."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenizers
from tickwise.tokenizers.bulk import BulkEncoder, ByteLevelEncoder, is_plain_byte_level
from tickwise.tokenizers.tokenizer import Tokenizer, symbol_of_byte
from tickwise.tokenizers.train import train_tokenizer

TEXTS = {
    "english": "tiny_shakespeare/input.txt",
    "wikipedia": "wikitext2/valid.txt",
    "chinese": "thucnews_titles/test.txt",
    "tang": "tang_poems/poet.tang.0.json",
}
# Everything that GPT-2's pattern treats in a special way, and things that look like it.
HOSTILE = "abstrevlmdST' ’\n\t\r\x0b\x0c\x1c\x85 \u3000\u2028\u200dé我ひ😀🇩1٣½Ⅷ.,!?-_\u0301"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    english = "It's what they'll do: we've 1000 things, don't I'd? " * 20
    return train_tokenizer("bpe", iter([english + "我喜欢自然语言处理。" * 9 + HOSTILE * 5]), vocab_size=600)


@pytest.fixture(scope="module")
def encoder(tokenizer) -> BulkEncoder:
    return BulkEncoder(tokenizer)


def check(encoder, tokenizer: Tokenizer, texts: list[str]) -> None:
    ids, counts = encoder.encode(texts)
    library = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    library.encode_special_tokens = True
    expected = [e.ids for e in library.encode_batch(texts, add_special_tokens=False)]
    assert counts.tolist() == [len(one) for one in expected]
    assert ids.tolist() == [i for one in expected for i in one]


def test_byte_level_bpe_takes_the_fast_path(tokenizer):
    assert is_plain_byte_level(tokenizer)


@pytest.mark.parametrize("name", TEXTS)
def test_real_text(encoder, tokenizer, name, shared_data):
    text = (shared_data / TEXTS[name]).read_text(encoding="utf-8")[:400_000]
    check(encoder, tokenizer, text.split("\n\n"))
    check(encoder, tokenizer, text.split("\n"))


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.text(alphabet=HOSTILE, max_size=30), min_size=1, max_size=5))
def test_hostile_text(encoder, tokenizer, texts):
    check(encoder, tokenizer, texts)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_any_unicode_text(encoder, tokenizer, texts):
    check(encoder, tokenizer, texts)


def test_full_word_table_starts_afresh(tokenizer, monkeypatch):
    monkeypatch.setattr(ByteLevelEncoder, "MOST_WORDS", 40)
    monkeypatch.setattr(ByteLevelEncoder, "_TABLE_BITS", 4)
    encoder = BulkEncoder(tokenizer)
    for start in range(0, 900, 30):
        check(encoder, tokenizer, [" ".join(f"word{n}" for n in range(start, start + 30))])


def test_written_special_token_is_text(encoder, tokenizer):
    ids, _ = encoder.encode(["a<|endoftext|>b"])
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode(ids.tolist()) == "a<|endoftext|>b"


@pytest.mark.parametrize("kind", ["char", "word"])
def test_other_kinds(kind):
    texts = ["the cat", "", "the dog\n", "我喜欢猫。"] * 2
    tokenizer = train_tokenizer(kind, iter(texts))
    ids, counts = BulkEncoder(tokenizer).encode(texts)
    expected = tokenizer.encode_batch(texts)
    assert counts.tolist() == [len(one) for one in expected]
    assert ids.tolist() == [i for one in expected for i in one]


def test_tokenizer_with_another_split_goes_through_the_library(tokenizer, tmp_path):
    settings = json.loads(tokenizer.backend.to_str())
    settings["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    other = Tokenizer.load(tmp_path)
    assert not is_plain_byte_level(other)
    check(BulkEncoder(other), other, ["we'll see", "things"])


def test_no_text_gives_no_ids(encoder):
    ids, counts = encoder.encode([])
    assert ids.dtype == counts.dtype == np.int64
    assert len(ids) == len(counts) == 0


def test_vocabulary_in_which_every_byte_is_merged(tokenizer, tmp_path):
    """Without a byte that no merge has, words go through the library one by one."""
    settings = json.loads(tokenizer.backend.to_str())
    vocabulary = settings["model"]["vocab"]
    for byte in (0xFF, 0xFE, 0xFD, 0xFC, 0xFB, 0xFA, 0xF9, 0xF8, 0xF7, 0xF6, 0xF5, 0xC1, 0xC0):
        pair = [symbol_of_byte()[byte]] * 2
        settings["model"]["merges"].append(pair)
        vocabulary["".join(pair)] = len(vocabulary)
    (tmp_path / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    other = Tokenizer.load(tmp_path)
    assert is_plain_byte_level(other)
    check(BulkEncoder(other), other, ["we'll see 我喜欢", "new things"])
