"""The next word: the search against every spelling there is, all families that continue texts, and scores by hand."""

import io
import itertools
import json
import math
import re
from collections import Counter, defaultdict

import numpy
import pytest
import torch

from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.interop.directory import save_model
from tickwise.models.bag import Bag, BagConfig
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.models.factorised import Factorised, FactorisedConfig
from tickwise.models.recurrent import Recurrent, RecurrentConfig
from tickwise.tasks.next_word import NextWords
from tickwise.tokenizers.train import char_tokenizer, train_tokenizer
from tickwise.training.ngram import count_ngrams

CHARACTERS = "ab' "
TEXT = "ab a b'a aa bab b a'b ba " * 30


def family(name, tokenizer, text=TEXT, context=20):
    """A model of each family, whose every number counts."""
    vocab_size, generator = tokenizer.vocab_size, torch.Generator().manual_seed(4)
    ngram = count_ngrams(numpy.array(tokenizer.encode(text)), vocab_size, order=3)
    module = {
        "ngram": lambda: ngram,
        "factorised": lambda: Factorised(FactorisedConfig(rank=3, n_positions=2, decays=(0.5,), window=4,
                                                          ngram=ngram.config)),
        "recurrent": lambda: Recurrent(RecurrentConfig(vocab_size=vocab_size, width=8, hidden=8, n_layers=2)),
        "decoder": lambda: Decoder(DecoderConfig(vocab_size=vocab_size, context_length=context, width=16, n_layers=2,
                                                 n_heads=2, n_kv_heads=1, head_dim=8, hidden=24)),
    }[name]()
    if name != "ngram":
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.empty(parameter.shape).normal_(0, 0.5, generator=generator))
    if name == "factorised":
        module.ngram = ngram
        module.mixture.data.fill_(0.4)
    return module.eval()


@pytest.fixture(scope="module")
def characters():
    return char_tokenizer(Counter(CHARACTERS), vocab_size=None, end_of_text=True, unknown=False)


def every_word(module, tokenizer, text, longest):
    """The probabilities of all spellings of up to ``longest`` characters, by word, each read by itself from the
    beginning; and what those that are longer have together."""
    found, left = defaultdict(list), 0.0
    ids = tokenizer.encode(text)

    @torch.no_grad()
    def after(tokens):
        hidden = module.hidden_states(torch.tensor([[*ids, *tokens]]))
        return module.logits(hidden[:, -1:])[0, 0].softmax(-1)

    def visit(written, probability):
        nonlocal left
        shares = after(tokenizer.encode(written)) * probability
        word = written.strip(" ")
        ended = 0.0
        for character in [*CHARACTERS, None]:
            share = float(shares[tokenizer.eos_id if character is None else tokenizer.encode(character)[0]])
            if word and (character in (" ", None) or character + word[-1] == "''"):
                ended += share
            elif character == " " or (written and character in ("a", "b")) or (word and character == "'"):
                if len(written) < longest:
                    visit(written + character, share)
                else:
                    left += share
        if word:
            found[word.removesuffix("'")].append(ended)

    visit("", 1.0)
    return dict(found), left


@pytest.mark.parametrize("name", ["ngram", "factorised", "recurrent", "decoder"])
def test_the_words_are_the_likeliest_of_all_that_can_be_spelled(name, characters):
    module = family(name, characters)
    found = dict(NextWords(module, characters).predict("b a ba", 6))
    expected, left = every_word(module, characters, "b a ba", 7)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    least = min(found.values())
    assert {word for word, spellings in expected.items() if max(spellings) > least} <= set(found)
    for word, probability in found.items():
        # Spellings of a word that are likelier than the last word shown are all in it.
        assert sum(p for p in expected[word] if p > least) - 1e-6 < probability < sum(expected[word]) + left + 1e-6
    assert left < 0.3


@pytest.mark.parametrize("name", ["ngram", "factorised", "recurrent", "decoder"])
def test_what_was_asked_before_changes_nothing(name, characters):
    model = NextWords(family(name, characters), characters)
    texts = ["a", "b a b ba ab", "a b" * 12, "ba'a"]
    first = [model.predict(text) for text in texts]
    assert [model.predict(text) for text in reversed(texts)] == first[::-1]
    assert first[0] != first[1]
    assert sum(word.probability for word in first[1]) < 1


def test_sub_words_are_completed_to_words():
    text = "the kitten sits. there is the mitten, then the kitten sleeps. the bitten apple didn't fall.\n" * 40
    tokenizer = train_tokenizer("bpe", iter([text]), vocab_size=262)
    assert len(tokenizer.encode(" kitten")) > 2
    model = NextWords(count_ngrams(numpy.array(tokenizer.encode(text)), tokenizer.vocab_size, order=12), tokenizer)
    words = dict(model.predict("there is the mitten, then the", 8))
    assert max(words, key=words.get) == "kitten"
    assert words["kitten"] > 0.9 > 100 * max(words.get(beginning, 0) for beginning in ("k", "ki", "kit", "kitt"))
    assert model.predict("then the kitten")[0].word == "sleeps"
    assert model.predict("the bitten apple")[0].word == "didn't"
    for blank in ("then the", "then the ", "then the\t"):
        assert model.predict(blank)[0].word == "kitten"
    # Tokens that go on inside the last word begin no new one.
    assert not any(word.word in ("ten", "tten", "n") for word in model.predict("then the kit", 10))


def test_more_words_are_given_than_a_beginning_has_branches():
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + 150)))
    tokenizer = train_tokenizer("char", iter([characters]))
    model = NextWords(count_ngrams(numpy.array(tokenizer.encode(characters)), tokenizer.vocab_size, order=1), tokenizer)
    found = model.predict("一", 140)
    assert len({word for word, _ in found} & set(characters)) == 140


def test_words_of_chinese_and_of_bytes_that_are_no_characters():
    text = "我们在北京大学学习。naïve café — 我们喜欢北京。\n" * 40
    for kind, size in (("bpe", 262), ("char", None), ("word", None)):
        tokenizer = train_tokenizer(kind, iter([text]), vocab_size=size)
        model = NextWords(count_ngrams(numpy.array(tokenizer.encode(text)), tokenizer.vocab_size, order=5), tokenizer)
        after = [word for word, _ in model.predict("我们喜欢", 5)]
        assert after[0] == ("北京" if kind == "word" else "北"), kind
        assert not any("\ufffd" in word for word in after)
        assert model.predict("学习。naïve")[0].word == "café"


def test_text_that_is_split_by_spaces_has_the_words_between_them():
    text = "the n't cat 's <unk> $ N mr. cat\n" * 30
    tokenizer = train_tokenizer("word", iter([text]), word_style="spaces", min_frequency=1)
    model = NextWords(count_ngrams(numpy.array(tokenizer.encode(text)), tokenizer.vocab_size, order=3,
                                   boundary=tokenizer.eos_id), tokenizer)
    assert model.predict("the")[0].word == "n't"
    assert model.predict("$ N")[0].word == "mr."
    assert not {"<unk>", "<eos>", ""} & {word for word, _ in model.predict("cat 's", 50)}
    scores = model.evaluate("the n't cat 's <unk> $ N mr. cat\n" * 3, most=None)
    assert scores.n == 26
    assert scores.top_1.value == pytest.approx(23 / 26)  # an unknown word is never right


def test_scores_by_hand():
    text = "aa bb cc. aa dd cc. aa bb cc. aa bb cc. " * 25
    tokenizer = train_tokenizer("word", iter([text]), min_frequency=1)
    model = NextWords(count_ngrams(numpy.array(tokenizer.encode(text)), tokenizer.vocab_size, order=2), tokenizer)
    scores = model.evaluate("cc. aa dd cc. aa bb cc. zz", task="by hand", most=None)
    # Behind "aa" stands bb (3 of 4), then dd; behind both stands cc, behind the full stop aa.
    assert [place.word for place in model.places("cc. aa dd cc. zz")] == ["aa", "dd", "cc", "zz"]
    assert scores.top_1.value == pytest.approx(5 / 7)
    assert scores.top_5.value == pytest.approx(6 / 7)
    assert scores.mrr.value == pytest.approx((1 / 2 + 5) / 7)
    assert scores.top_1.interval.low < scores.top_1.value < scores.top_1.interval.high
    written = scores.to_json()
    assert written["results"]["by hand"]["top_1_accuracy,none"] == scores.top_1.value
    assert written["n-samples"]["by hand"] == {"original": 7, "effective": 7}
    assert written["configs"]["by hand"]["output_type"] == "ranking"
    assert written["configs"]["by hand"]["characters_before"] == min(8000, 8 * model.module.config.context_length)
    right = model.evaluate("aa bb cc. aa bb cc. aa", most=None).top_1
    assert (right.value, right.interval.high) == (1, 1)
    assert right.interval.low < 0.7, "few words prove little"


def test_of_many_words_some_are_drawn_by_the_seed():
    text = " ".join(f"w{i}" for i in range(300)) + "\n"
    tokenizer = train_tokenizer("word", iter([text * 3]), min_frequency=1)
    model = NextWords(count_ngrams(numpy.array(tokenizer.encode(text * 3)), tokenizer.vocab_size, order=2), tokenizer)
    scored = []
    first = model.evaluate(text, most=40, seed=3, on_scored=scored.append)
    assert (first.n, first.n_words, sum(scored)) == (40, 299, 40)
    assert first == model.evaluate(text, most=40, seed=3)
    assert 0.9 < first.top_1.value <= 1


def test_mistakes(characters, tmp_path):
    model = NextWords(family("ngram", characters), characters)
    with pytest.raises(ConfigError, match="--n: must be at least 1"):
        model.predict("a", 0)
    with pytest.raises(ConfigError, match="--most"):
        model.evaluate(TEXT, most=0)
    with pytest.raises(DataError, match="no word stands behind another"):
        model.evaluate("aab")
    with pytest.raises(DataError, match="'c'"):
        model.predict("abc")
    bag = Bag(BagConfig(labels=("a", "b"), n_features=3))
    save_model(tmp_path / "bag", bag, characters)
    with pytest.raises(CheckpointError, match="not a language model"):
        NextWords.load(tmp_path / "bag")


# ---------------------------------------------------------------- the verb


@pytest.fixture
def story(tmp_path, tickwise_cli):
    lines = [f"{a} sees {b}." for a, b in itertools.product(("Ada", "Bob", "Cleo"), ("a cat", "a dog", "the sea"))]
    text = tmp_path / "story.txt"
    text.write_text("\n".join(lines * 20) + "\n", encoding="utf-8")
    code, _, err = tickwise_cli("train", "ngram", text, "--tokenizer", "bpe", "--vocab-size", 290, "--order", 4,
                                "--out", tmp_path / "model")
    assert code == 0, err
    return text, tmp_path / "model"


def test_a_text_a_file_and_a_test_of_the_verb(story, tickwise_cli, tmp_path):
    text, model = story
    code, out, err = tickwise_cli("run", "next-word", model, "Bob")
    assert code == 0, err
    shown = re.fullmatch(r"(0\.\d{4})\tsees", out.splitlines()[0])
    assert 0.3 < float(shown[1]) <= 1
    code, out, err = tickwise_cli("run", "next-word", model, "Ada sees a", "--n", 2, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["text"] == "Ada sees a"
    assert {word["word"] for word in found["words"]} == {"cat", "dog"}
    assert math.isclose(found["words"][0]["probability"], 0.5, abs_tol=0.1)
    texts = tmp_path / "texts.txt"
    texts.write_text("Ada\nCleo sees\n", encoding="utf-8")
    code, out, _ = tickwise_cli("run", "next-word", model, "--input", texts, "--n", 1)
    assert (code, [line.split("\t")[-1] for line in out.splitlines()]) == (0, ["Ada", "sees", "Cleo sees", "a"])
    code, out, err = tickwise_cli("run", "next-word", model, "--test", text, "--most", 60, "--json")
    assert code == 0, err
    (scores,) = json.loads(out)["results"].values()
    # "sees" is certain behind a name, a name behind a line's end is one of three.
    assert 0.5 < scores["top_1_accuracy,none"] < 0.95
    assert scores["top_5_accuracy,none"] == 1
    assert scores["top_1_accuracy,none"] < scores["mrr@10,none"] < 1
    assert scores["mrr@10_stderr,none"] > 0
    out = tickwise_cli("run", "next-word", model, "--test", text, "--most", 20)[1]
    assert out.splitlines()[0].startswith("metric")
    assert out.splitlines()[-1] == "20 words"


def test_a_line_that_cannot_be_read_is_named_and_the_others_are_answered(characters, tickwise_cli, tmp_path):
    save_model(tmp_path / "model", family("ngram", characters), characters)
    texts = tmp_path / "texts.txt"
    texts.write_text("b a\nxyz\n\nab\n", encoding="utf-8")
    code, out, err = tickwise_cli("run", "next-word", tmp_path / "model", "--input", texts, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, ["error" in row for row in rows]) == (2, [False, True, False, False])
    assert all(row.get("words", True) for row in rows), "a blank line is the beginning of a text"
    assert "1 of 4 texts cannot be read; the first: " in err
    assert "line 2: character 'x'" in err
    code, out, err = tickwise_cli("run", "next-word", tmp_path / "model", "xyz")
    assert (code, out) == (2, "")
    assert err.startswith("tickwise: character 'x'")


def test_texts_are_typed_at_a_terminal(story, tickwise_cli, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal("Bob\n\nCleo sees\n"))
    code, out, err = tickwise_cli("run", "next-word", story[1], "--n", 1)
    assert (code, [line.split("\t")[1] for line in out.splitlines()]) == (0, ["sees", "a"])
    assert "end with Ctrl-D" in err


@pytest.mark.parametrize(("words", "said"), [
    (["a", "--n", "0"], "--n: must be at least 1"), ([""], "the text is empty"),
    (["a", "--input", "STORY"], "give one of the text, --input and --test, not text and input"),
    (["--test", "nowhere.txt"], "nowhere.txt: cannot read it"), (["--test", "STORY", "--most", "0"], "--most"),
])
def test_mistakes_of_the_verb_are_one_line(story, tickwise_cli, words, said):
    given = [str(story[0]) if word == "STORY" else word for word in words]
    code, out, err = tickwise_cli("run", "next-word", story[1], *given)
    assert (code, out) == (2, "")
    assert said in err.strip().splitlines()[-1]
