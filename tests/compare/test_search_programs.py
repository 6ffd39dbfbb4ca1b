"""What is looked up directly is what the index and the model would have answered."""

import pytest
import torch

from tickwise.compare.programs import Tally
from tickwise.compare.search_programs import NextWord, PassageSearch

PASSAGES = {
    "river": "The river floods the valley in spring, and the valley is green.", "sea": "The sea is deep and cold.",
    "hill": "Sheep graze on the green hill above the river.", "town": "The town has a market, a mill and a river."}
QUESTIONS = ["Where do sheep graze?", "How deep is the sea?", "What floods the valley?", "green river", "mills"]


def test_passages_are_those_of_the_index():
    from tickwise.data.passages import Passage
    from tickwise.tasks.passage_index import build_index

    index = build_index(Passage(text, name, "") for name, text in PASSAGES.items())
    search = PassageSearch(PASSAGES)
    for question, hits in zip(QUESTIONS, index.search(QUESTIONS, 1), strict=True):
        assert search.answer(question) == hits[0].passage.source, question
    assert search.answer("zebra") == "?"
    tally = Tally()
    search.answer("green river", tally)
    assert tally.steps["additions"] == 2 + 3


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    import random

    from tickwise.interop.directory import load_module
    from tickwise.tokenizers.tokenizer import Tokenizer
    from tickwise.training.tables import NgramTrainConfig, train_ngram

    folder = tmp_path_factory.mktemp("ngram")
    chooser = random.Random(1)
    nouns = ["cat", "dog", "bird", "horse"]
    (folder / "text.txt").write_text("\n".join(
        f"the {chooser.choice(nouns)} sees the {chooser.choice(nouns)}." for _ in range(400)))
    train_ngram(NgramTrainConfig(data=folder / "text.txt", out=folder / "model", tokenizer="bpe", vocab_size=280))
    return load_module(folder / "model", device="cpu"), Tokenizer.load(folder / "model")


def test_the_next_word_is_the_model_s_likeliest(counted):
    module, tokenizer = counted
    program = NextWord(module, tokenizer)
    for text in ("the cat sees", "the dog sees the", "the bird sees the horse.\nthe", "zz", "the cat sees q"):
        with torch.no_grad():
            wanted = int(module(torch.tensor([tokenizer.encode(text)]))[0, -1].argmax())
        assert program.answer(text) == tokenizer.decode([wanted]).strip(), text
    tally = Tally()
    program.answer("the cat sees", tally)
    assert tally.steps["multiplications and additions"] > 280
