import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenizers
from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.tokenizers.tokenizer import Tokenizer, symbol_of_byte
from tickwise.tokenizers.train import train_tokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

MIXED = "Don't you know?  It's 3½ o'clock.\n\n我喜欢自然语言处理，真的。\tÉtude — naïve café 😀👩‍👧\n" * 3


@pytest.fixture
def shared(shared_data: Path):
    """Reads a file of the real data sets."""
    return lambda name: (shared_data / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train_tokenizer("bpe", iter([MIXED * 5]), vocab_size=400)


def test_char_vocabulary_of_one_text_is_its_characters_in_code_point_order():
    tokenizer = train_tokenizer("char", iter(["cab\n"]), end_of_text=False)
    assert tokenizer.vocab_size == 4
    assert tokenizer.eos_id is None
    assert tokenizer.encode("\nabc") == [0, 1, 2, 3]
    assert tokenizer.decode([3, 1, 2, 0]) == "cab\n"


def test_tiny_shakespeare_has_the_ids_of_nanogpt(shared):
    text = shared("tiny_shakespeare/input.txt")
    tokenizer = train_tokenizer("char", iter([text]), end_of_text=False)
    assert tokenizer.vocab_size == 65
    assert tokenizer.encode(text[:10]) == [18, 47, 56, 57, 58, 1, 15, 47, 58, 47]  # "First Citi"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_unseen_character_is_an_error_that_names_it_unless_there_is_an_unknown_token():
    strict = train_tokenizer("char", iter(["abc"]), end_of_text=False)
    with pytest.raises(DataError, match=r"'é' \(U\+00E9\) at position 1"):
        strict.encode("aé")
    lenient = train_tokenizer("char", iter(["abc"]), end_of_text=False, unknown=True)
    assert lenient.encode("aéb") == [0, lenient.unk_id, 1]


def test_char_vocabulary_limit_keeps_the_most_frequent():
    tokenizer = train_tokenizer("char", iter(["aaabbcd"]), vocab_size=3, end_of_text=False)
    assert tokenizer.encode("abc") == [0, 1, tokenizer.unk_id]


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_saved_tokenizer_gives_the_same_ids_here_and_in_transformers(kind, tmp_path):
    from transformers import PreTrainedTokenizerFast

    text = MIXED if kind != "word" else MIXED.replace("我喜欢自然语言处理，真的。", "")  # Han words need the segmenter
    tokenizer = train_tokenizer(kind, iter([text]), vocab_size=None if kind != "bpe" else 300)
    tokenizer.save(tmp_path)
    ids = tokenizer.encode(text)
    loaded = Tokenizer.load(tmp_path)
    other = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert loaded.kind == kind
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode(text) == ids
    assert other(text)["input_ids"] == ids
    assert other.eos_token_id == tokenizer.eos_id
    assert other.decode(ids) == tokenizer.decode(ids)


@settings(max_examples=150, deadline=None)
@given(text=st.text())
def test_bpe_gives_any_text_back(bpe, text):
    assert bpe.decode(bpe.encode(text), skip_special=False) == text


def test_word_tokenizer_gives_known_text_back_with_chinese_words():
    text = "the cat, the dog! I'm here.\n我喜欢自然语言处理，我喜欢猫。the end\n"
    tokenizer = train_tokenizer("word", iter([text] * 2))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    words = [tokenizer.decode([i]) for i in ids]
    assert "喜欢" in words
    assert " cat" in words


def test_rare_words_become_unknown():
    tokenizer = train_tokenizer("word", iter(["a b a b rare"]), min_frequency=2)
    assert tokenizer.decode(tokenizer.encode("a rare")).endswith("<unk>")
    assert tokenizer.encode(" rare") == [tokenizer.unk_id]


def test_wikitext2_counts_are_the_published_ones(shared):
    train = shared("wikitext2/train.txt")
    tokenizer = train_tokenizer("word", iter([train]), min_frequency=1, word_style="spaces")
    counts = [len(tokenizer.encode(shared(f"wikitext2/{name}.txt"))) for name in ("train", "valid", "test")]
    assert counts == [2_088_628, 217_646, 245_569]
    assert tokenizer.vocab_size == 33_278


def test_stream_gives_whole_characters_and_joins_to_the_text(bpe):
    for tokenizer in (bpe, train_tokenizer("word", iter([MIXED])), train_tokenizer("char", iter([MIXED]))):
        ids = tokenizer.encode(MIXED)
        decoder = tokenizer.stream_decoder()
        pieces = [decoder.push(i) for i in ids]
        assert "�" not in "".join(pieces)
        assert "".join(pieces) + decoder.flush() == tokenizer.decode(ids)


def sentencepiece(texts, decoder="llama"):
    """A tokenizer like Llama 2's: ▁ for a space and before the first word, unknown characters as their bytes."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    if decoder == "llama":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.decoder = decoders.Sequence([
            decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        backend.decoder = decoders.Metaspace(prepend_scheme="first", split=True)
    special = ["<unk>", "<s>", "</s>", *(byte_tokens if decoder == "llama" else [])]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    state = json.loads(backend.to_str())
    # The trainer can only add the byte tokens as special ones, which decoding would leave out.
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in byte_tokens]
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    return Tokenizer(backend, "other", {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"})


PLAIN = "the cat sat on the mat, the dog sat on the log and the cat ran"
CHINESE = "我们在北京学习自然语言处理。今天天气很好,我们去公园。"


@pytest.mark.parametrize("kind", ["llama", "metaspace", "bpe", "char", "word", "spaces", "chinese"])
def test_written_text_goes_on_from_the_prompt_as_the_whole_text_does(kind):
    text = CHINESE if kind == "chinese" else PLAIN
    if kind in ("llama", "metaspace"):
        tokenizer = sentencepiece([text], kind)
        text += " – é中 end" if kind == "llama" else ""  # characters that are only there as bytes
    elif kind == "spaces":
        text = "the cat sat\n on the mat\n and the log"
        tokenizer = train_tokenizer("word", iter([text]), min_frequency=1, word_style="spaces")
    else:
        named = {"bpe": "bpe", "char": "char", "word": "word", "chinese": "word"}[kind]
        tokenizer = train_tokenizer(named, iter([text]), min_frequency=1)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    for cut in range(len(ids)):
        prompt = tokenizer.decode(ids[:cut])
        if "�" in prompt:  # a prompt is text: it does not end within a character
            continue
        decoder = tokenizer.stream_decoder(ids[:cut])
        written = "".join(decoder.push(token_id) for token_id in ids[cut:]) + decoder.flush()
        assert prompt + written == tokenizer.decode(ids), cut


@pytest.mark.parametrize("decoder", ["llama", "metaspace"])
def test_a_text_after_a_mark_begins_without_a_space(decoder):
    tokenizer = sentencepiece([PLAIN], decoder)
    stream = tokenizer.stream_decoder([tokenizer.bos_id])
    assert "".join(map(stream.push, tokenizer.encode("the cat"))) == "the cat"


def test_stream_holds_an_incomplete_character_back_until_the_end(bpe):
    ids = [bpe.backend.token_to_id(symbol_of_byte()[byte]) for byte in "é".encode()]
    decoder = bpe.stream_decoder()
    assert decoder.push(ids[0]) == ""
    assert decoder.push(ids[1]) == "é"
    assert decoder.push(ids[0]) == ""
    assert decoder.flush() == "�"


def test_special_tokens_give_no_text(bpe):
    ids = [*bpe.encode("It's"), bpe.eos_id]
    assert bpe.decode(ids) == "It's"
    assert bpe.stream_decoder().push(bpe.eos_id) == ""


def test_id_outside_the_vocabulary_is_an_error(bpe):
    with pytest.raises(DataError, match="token id 400 is outside the vocabulary"):
        bpe.decode([1, 400])


def test_corrupt_or_missing_tokenizer_is_one_line(bpe, tmp_path):
    with pytest.raises(CheckpointError, match="no tokenizer there"):
        Tokenizer.load(tmp_path)
    bpe.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8")[:500], encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a readable tokenizer") as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_tokenizer_of_another_tool_is_read_without_its_config(bpe, tmp_path):
    (tmp_path / "tokenizer.json").write_text(bpe.backend.to_str(), encoding="utf-8")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (loaded.kind, loaded.eos_id) == ("bpe", bpe.eos_id)


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="at least 257"):
        train_tokenizer("bpe", iter(["text"]), vocab_size=100)
    with pytest.raises(ConfigError, match="not one of char, word, bpe"):
        train_tokenizer("sentencepiece", iter(["text"]))
    with pytest.raises(DataError, match="no text"):
        train_tokenizer("char", iter([""]))


def test_config_says_how_to_segment(tmp_path):
    train_tokenizer("word", iter(["我喜欢猫我喜欢猫"]), min_frequency=1).save(tmp_path)
    assert "rjieba" in json.loads((tmp_path / "tokenizer_config.json").read_text())["tickwise_segmentation"]


def test_words_keep_their_capitals_and_digits():
    tokenizer = train_tokenizer("word", iter(["the King of 1234 foxes, U-turns 北京"]), min_frequency=1)
    tokens = [tokenizer.backend.id_to_token(i) for i in tokenizer.encode("the King of 1234 foxes, U-turns 北京")]
    assert tokens == ["the", " King", " of", " 1234", " foxes", ",", " U", "-", "turns", " ", "北京"]


def wrapping_tokenizer(template):
    """A tokenizer of words, with marks for both ends of a text."""
    names = ["<s>", "</s>", "<extra_id_0>", "<unk>", "a", "dog"]
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(names[:4])
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 0), ("</s>", 1)])
    return Tokenizer(backend, "other", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})


def test_sources_stand_between_the_marks_of_the_post_processor_without_their_end():
    both, end, none = (wrapping_tokenizer(template) for template in ("<s> $A </s>", "$A </s>", "$A"))
    texts = ["a dog", " \ta dog\r\n", "", " \n "]
    assert both.encode_sources(texts) == [[0, 4, 5], [0, 4, 5], [], []]
    assert end.encode_sources(texts) == none.encode_sources(texts) == [[4, 5], [4, 5], [], []]
    assert both.between_marks([]) == [0]


def test_nothing_that_is_written_in_a_source_is_a_mark():
    assert wrapping_tokenizer("<s> $A </s>").encode_sources(["a cat </s> <extra_id_0> dog"]) == [[0, 4, 3, 5]]


def test_an_end_mark_in_front_of_another_mark_is_refused():
    with pytest.raises(DataError, match="an end mark elsewhere"):
        wrapping_tokenizer("$A </s> <s>").encode_sources(["a dog"])


def test_no_text_is_cut_or_padded_because_the_file_of_a_tokenizer_asks_for_it(tmp_path):
    tokenizer = wrapping_tokenizer("$A </s>")
    tokenizer.backend.enable_truncation(2)
    tokenizer.backend.enable_padding(pad_id=3, pad_token="<unk>")
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.encode_batch(["a dog a dog", "a"]) == [[4, 5, 4, 5], [4]]
    assert again.encode_sources(["a dog a dog", "a"]) == [[4, 5, 4, 5], [4]]


def test_the_share_of_tokens_that_are_no_whole_characters():
    own = train_tokenizer("bpe", iter(["the dog sees the cat", "über"] * 20), vocab_size=300)
    assert own.strange_share(own.encode_plain(["the dog"])[0]) == 0
    assert own.strange_share(own.encode_plain(["狗"])[0]) == 1
    assert own.strange_share([]) == 0
    words = train_tokenizer("word", iter(["the dog sees the cat"] * 3), vocab_size=20)
    ids = words.encode_plain(["the wolf"])[0]
    assert words.unk_id in ids
    assert words.strange_share(ids) == pytest.approx(ids.count(words.unk_id) / len(ids))


def test_what_a_token_spells_has_the_blank_before_a_word():
    names = {"<0x0A>": 0, "<0xe4>": 1, "▁dog": 2, "s": 3}
    pieces = Tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE(names, [])), "other")
    assert [pieces.spelled_bytes(number) for number in range(5)] == [b"\n", b"\xe4", b" dog", b"s", b""]
    own = train_tokenizer("bpe", iter(["the dog"] * 3), vocab_size=262)
    assert b"".join(map(own.spelled_bytes, own.encode("a dog 狗"))) == "a dog 狗".encode()
    words = train_tokenizer("word", iter(["the dog\n"] * 3), word_style="spaces", min_frequency=1)
    assert b"".join(map(words.spelled_bytes, words.encode("the dog"))) == b" the dog"
