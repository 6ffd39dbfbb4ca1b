"""Options of training a tokenizer."""

from tickwise.tokenizers.train import _short_words, train_tokenizer


def test_whole_strings_are_words():
    texts = ["#Person1#: Hi, it's me. #Person2#: So?", "#Person1# says hi to #Person2#'s dog. X2#"] * 3
    tokenizer = train_tokenizer("bpe", iter(texts), vocab_size=400, prefix_space=True, whole=("#Person1#", "#Person2#"))
    names = [tokenizer.backend.id_to_token(i) for i in tokenizer.encode(texts[1])]
    assert {"Ġ#Person1#", "Ġ#Person2#"} <= set(names)
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == f" {text}"
    lower = train_tokenizer("bpe", iter(texts), vocab_size=400, prefix_space=True, whole=("#Person1#",), lowercase=True)
    assert "Ġ#person1#" in [lower.backend.id_to_token(i) for i in lower.encode(texts[0])]


def test_words_without_end_are_cut_for_bpe_and_nothing_else_is():
    plain = ["It was  a day.\n" * 50, "x" * 511 + " " + "y" * 511, "他们喜欢这里，" * 200]
    assert list(_short_words(plain)) == plain
    endless = "ab" * 2000 + " end " + "1" * 1500 + "." * 1000 + "c"
    pieces = list(_short_words([endless]))
    assert "".join(pieces) == endless
    assert max(len(word) for piece in pieces for word in piece.split()) <= 3 * 512


def test_advice_about_rare_words_names_a_verb_that_has_the_flag(tickwise_cli, tmp_path):
    (tmp_path / "one.txt").write_text("Every word of this sentence stands here once.")
    code, _, err = tickwise_cli("train", "ngram", tmp_path / "one.txt", "--tokenizer", "word", "--out",
                                tmp_path / "out")
    assert code == 2
    assert "tickwise data prepare --min-frequency 1" in err.splitlines()[-1]
    code, out, _ = tickwise_cli("data", "prepare", "--help")
    assert code == 0
    assert "--min-frequency" in out
