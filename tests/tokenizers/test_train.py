"""Options of training a tokenizer."""

from tickwise.tokenizers.train import train_tokenizer


def test_whole_strings_are_words():
    texts = ["#Person1#: Hi, it's me. #Person2#: So?", "#Person1# says hi to #Person2#'s dog. X2#"] * 3
    tokenizer = train_tokenizer("bpe", iter(texts), vocab_size=400, prefix_space=True, whole=("#Person1#", "#Person2#"))
    names = [tokenizer.backend.id_to_token(i) for i in tokenizer.encode(texts[1])]
    assert {"Ġ#Person1#", "Ġ#Person2#"} <= set(names)
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == f" {text}"
    lower = train_tokenizer("bpe", iter(texts), vocab_size=400, prefix_space=True, whole=("#Person1#",), lowercase=True)
    assert "Ġ#person1#" in [lower.backend.id_to_token(i) for i in lower.encode(texts[0])]
