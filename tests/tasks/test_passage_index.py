"""BM25 and embeddings in an index on disk."""

import math
import random

import numpy
import pytest
import torch

from tickwise.core.errors import CheckpointError, ConfigError, DataError, OutputError, UserError
from tickwise.data.encoder_inputs import with_marks
from tickwise.data.passages import Passage, Question, read_passages
from tickwise.interop.directory import save_model
from tickwise.interop.word_vectors import save_word_vectors
from tickwise.models.encoder_heads import SentenceEmbedder, SentenceEmbedderConfig
from tickwise.models.word_vectors import NamedVectors, WordVectors, WordVectorsConfig
from tickwise.tasks.answer_documents import DocumentAnswers
from tickwise.tasks.embedders import WeightedWords
from tickwise.tasks.passage_index import PassageIndex, build_index
from tickwise.tasks.retrieve import (
    THRESHOLD,
    Outcome,
    Shares,
    best_cut,
    choose_threshold,
    evaluate_retrieval,
    held_out_shares,
    keep_threshold,
    right_passages,
    shares,
    threshold_of,
)
from tickwise.tokenizers.train import train_tokenizer

TEXTS = ["Paris is the capital of France. The Seine flows through it.", "Berlin is the capital of Germany.",
         "The Amazon river flows through Brazil.", "量子计算机利用量子比特进行计算。", "北京是中国的首都，人口很多。"]


def made(texts=TEXTS, path=None, **settings):
    return build_index([Passage(text, "a.txt", f"line {i}") for i, text in enumerate(texts)], path, **settings)


@pytest.fixture
def vectors(tmp_path):
    """Word vectors in which a car is an automobile and a dog is none."""
    words = {"car": [1, 0.1, 0], "automobile": [1, 0.12, 0], "dog": [0, 1, 0], "bank": [0, 0, 1], "river": [0, 0.2, 1]}
    module = WordVectors(WordVectorsConfig(vocab_size=len(words), width=3))
    module.weight.data = torch.tensor(list(words.values()), dtype=torch.float32)
    save_word_vectors(tmp_path / "vectors", NamedVectors(list(words), module))
    return tmp_path / "vectors"


def test_questions_find_their_passages():
    hits = made().search(["What is the capital of France?", "flowing rivers", "中国的首都是哪里", "量子比特"], 2)
    assert [own[0].number for own in hits] == [0, 2, 4, 3]
    assert hits[0][0].passage.place == "line 0"


def test_scores_are_bm25_over_the_most_that_is_possible():
    # Terms without function words and endings; by hand from the definition.
    texts = ["apple pear pear", "apple plum", "plum plum plum kiwi"]
    index = made(texts)
    n, mean = 3, 3.0
    lengths, counts = [3, 2, 4], {"pear": [2, 0, 0], "plum": [0, 1, 3]}

    def idf(n_with):
        return math.log(1 + (n - n_with + 0.5) / (n_with + 0.5))

    expected = numpy.zeros(3)
    for term, n_with in (("pear", 1), ("plum", 2)):
        for i, tf in enumerate(counts[term]):
            expected[i] += idf(n_with) * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * lengths[i] / mean))
    expected /= 2.2 * (idf(1) + idf(2) + idf(0))
    (hits,) = index.search(["pear plum mango"], 3)
    assert {hit.number: pytest.approx(hit.score, rel=1e-5) for hit in hits} == dict(enumerate(expected))


def test_an_index_on_disk_is_the_same(tmp_path):
    path = tmp_path / "index"
    fresh = made(path=path)
    again = PassageIndex.open(path)
    question = ["capital of Germany"]
    assert again.search(question) == fresh.search(question) == made().search(question)
    with pytest.raises(OutputError, match="--overwrite"):
        made(path=path)
    assert made(TEXTS[:2], path, overwrite=True).n_passages == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("x")
    with pytest.raises(OutputError, match="no index"):
        made(path=tmp_path / "other")


def test_damaged_and_missing_indexes(tmp_path):
    path = tmp_path / "index"
    made(path=path)
    (path / "index.duckdb").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="damaged"):
        PassageIndex.open(path)
    with pytest.raises(DataError, match="missing"):
        PassageIndex.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no passage"):
        made([])
    assert not list(tmp_path.glob("*.tmp-*"))


def test_words_that_no_passage_has_find_nothing():
    assert made().search(["zebra", "", "the of"]) == [[], [], []]
    with pytest.raises(ConfigError, match="at least 1"):
        made().search(["x"], 0)


def test_passages_can_be_left_out():
    index = made()
    (hits,) = index.search(["capital"], 5, without=[{0}])
    assert [hit.number for hit in hits] == [1]


def test_embeddings_find_what_shares_no_word(vectors, tmp_path):
    texts = ["an automobile for sale", "a dog for sale", "the river bank", "nothing known"]
    index = made(texts, tmp_path / "index", embedder=vectors)
    assert made(texts).search(["car"]) == [[]]
    for asked in (index, PassageIndex.open(tmp_path / "index"), made(texts, embedder=vectors)):
        (hits,) = asked.search(["car"], 1)
        assert hits[0].number == 0
        assert hits[0].cosine > 0.5
    (hits,) = index.search(["dog"], 1)
    assert hits[0].score == pytest.approx(0.9 * hits[0].bm25 + 0.1 * hits[0].cosine)
    (plain,) = index.search(["dog"], 1, embedding_weight=0)
    assert (plain[0].score, plain[0].cosine) == (plain[0].bm25, None)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        index.search(["dog"], embedding_weight=2)


def test_cosines_are_of_weighed_words_without_the_mean(vectors):
    from tickwise.interop.word_vectors import load_word_vectors

    texts = ["car dog", "bank dog", "river"]
    index = made(texts, embedder=vectors)
    model = WeightedWords(load_word_vectors(vectors), index.word_weight)
    rows = model.embed(texts)
    question = model.embed(["automobile"])[0]
    assert numpy.linalg.norm(rows, axis=1) == pytest.approx(1)
    mean = rows.mean(axis=0)
    expected = [(question - mean) @ (row - mean) / numpy.linalg.norm(question - mean) / numpy.linalg.norm(row - mean)
                for row in rows]
    (hits,) = index.search(["automobile"], 3, embedding_weight=1)
    assert hits[0].cosine == pytest.approx(max(expected), abs=1e-5)


def test_an_encoder_embeds_too(tmp_path):
    tokenizer = with_marks(train_tokenizer("bpe", iter(TEXTS), vocab_size=300))
    module = SentenceEmbedder(SentenceEmbedderConfig(
        vocab_size=tokenizer.vocab_size, context_length=32, width=16, n_layers=1, n_heads=2, head_dim=8, hidden=16))
    save_model(tmp_path / "encoder", module.initialise(0), tokenizer)
    index = made(embedder=tmp_path / "encoder", path=tmp_path / "index")
    (hits,) = PassageIndex.open(tmp_path / "index").search(["capital of France"], 5)
    assert len(index.header["embedding_mean"]) == 16
    assert hits[0].number == 0
    assert {type(hit.cosine) for hit in hits} == {float}


def test_an_index_refuses_an_embedder_that_has_changed(vectors, tmp_path):
    made(["a car", "a dog"], tmp_path / "index", embedder=vectors)
    assert PassageIndex.open(tmp_path / "index").has_embeddings
    other = WordVectors(WordVectorsConfig(vocab_size=5, width=3))  # of the same words and width
    other.weight.data = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    save_word_vectors(vectors, NamedVectors(["car", "automobile", "dog", "bank", "river"], other))
    with pytest.raises(CheckpointError, match="has changed since"):
        PassageIndex.open(tmp_path / "index")
    (tmp_path / "v.txt").write_text("car 1 0\ndog 0 1\n")
    made(["a car", "a dog"], tmp_path / "of_file", embedder=tmp_path / "v.txt")
    (tmp_path / "v.txt").write_text("car 1 0\ndog 0 2\n")
    with pytest.raises(CheckpointError, match="has changed since"):
        PassageIndex.open(tmp_path / "of_file")


def test_a_threshold_belongs_to_its_share_of_embeddings(vectors, tmp_path):
    texts = ["an automobile for sale", "a dog for sale", "the river bank", "nothing known"]
    questions = [Question("dog sale", texts[1], ()), Question("car", texts[0], ())]
    path = tmp_path / "index"
    index = made(texts, path, embedder=vectors)
    assert threshold_of(index, 0) == THRESHOLD
    assert threshold_of(index) == pytest.approx(0.9 * THRESHOLD)
    assert threshold_of(made(texts)) == threshold_of(made(texts), 0.5) == THRESHOLD
    chosen = choose_threshold(index, questions, 0.4)
    keep_threshold(path, chosen)
    again = PassageIndex.open(path)
    assert chosen.embedding_weight == again.weight() == 0.4
    assert threshold_of(again) == threshold_of(again, 0.4) == chosen.value
    assert again.search(["car"]) == again.search(["car"], embedding_weight=0.4) == index.search(
        ["car"], embedding_weight=0.4)
    with pytest.raises(ConfigError, match=r"chosen with 0\.4"):
        DocumentAnswers(again, embedding_weight=0.1)
    assert DocumentAnswers(again, threshold=0.2, embedding_weight=0.1).threshold == 0.2
    assert DocumentAnswers(again, reader_weight=0.0).threshold == chosen.value


def test_an_encoder_computes_where_it_is_told(tmp_path):
    tokenizer = with_marks(train_tokenizer("bpe", iter(TEXTS), vocab_size=300))
    module = SentenceEmbedder(SentenceEmbedderConfig(
        vocab_size=tokenizer.vocab_size, context_length=32, width=16, n_layers=1, n_heads=2, head_dim=8, hidden=16))
    save_model(tmp_path / "encoder", module.initialise(0), tokenizer)
    made(embedder=tmp_path / "encoder", path=tmp_path / "index", device="cpu")
    for use in (lambda: PassageIndex.open(tmp_path / "index", "cuda:99"),
                lambda: made(embedder=tmp_path / "encoder", device="cuda:99"),
                lambda: made(embedder=tmp_path / "encoder", path=tmp_path / "other", device="cuda:99")):
        with pytest.raises(UserError, match="cuda"):
            use()


def test_embedders_that_are_none(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CheckpointError):
            made(embedder=path)


QUESTIONS = [Question("What is the capital of France?", TEXTS[0], ("Paris",)),
             Question("Which river flows through Brazil?", TEXTS[2], ("The Amazon", "Amazon")),
             Question("Which country has Berlin as its capital?", TEXTS[1], ("Germany",)),
             Question("sale zebra mango", TEXTS[3], ("量子",))]


@pytest.mark.parametrize(("there", "gone", "expected"), [
    ([0.9, 0.8, 0.1], [0.9, 0.8, 0.1], 0.85),  # all cuts are as good: the highest that answers something
    ([0.9, 0.8], [0.2, 0.4], 0.6),  # halfway
    ([0.9, 0.8], [0.9, -float("inf")], 0.8),  # nothing was found for one
    ([0.7, 0.7], [0.7, 0.7], 0.7),
])
def test_a_cut_lies_halfway_between_scores_and_high_where_it_makes_no_difference(there, gone, expected):
    outcomes = [Outcome(a, True, b) for a, b in zip(there, gone, strict=True)]
    assert best_cut(outcomes) == pytest.approx(expected)


def test_wrong_answers_are_no_reason_for_a_low_cut():
    right = [Outcome(0.9, True, 0.1), Outcome(0.8, True, 0.2)]
    wrong = [Outcome(0.5, False, 0.45)] * 3
    assert best_cut(right) == pytest.approx(0.5)
    assert best_cut(right + wrong) == pytest.approx(0.65)  # not 0.475, from which on the wrong ones are answered too
    with pytest.raises(DataError, match="no question is answered from its own paragraph"):
        best_cut(wrong)


def test_shares_are_held_out_by_paragraph():
    draws = numpy.random.default_rng(0)
    # Scores say nothing: what a cut seems to gain where it was chosen is chance.
    outcomes = [Outcome(float(a), True, float(b)) for a, b in draws.random((30, 2))]
    own = [frozenset({number // 3}) for number in range(30)]
    cut = best_cut(outcomes)
    chosen_on, held_out = shares(outcomes, [cut] * 30), held_out_shares(outcomes, own)
    assert held_out.found + held_out.refused < chosen_on.found + chosen_on.refused
    apart = [Outcome(0.9, True, 0.1)] * 4
    assert held_out_shares(apart, own[::3][:4]) == Shares(1, 1, 1)
    assert held_out_shares(apart, own[:1] * 4) is None
    assert held_out_shares([apart[0], Outcome(0.9, False, 0.1)], [own[0], own[-1]]) is None


def test_recall_and_threshold(tmp_path):
    index = made(path=tmp_path / "index")
    assert right_passages(index, QUESTIONS) == [{0}, {2}, {1}, {3}]
    scores = evaluate_retrieval(index, QUESTIONS, ks=(1, 2))
    assert scores["recall@1"].value == 0.75
    chosen = choose_threshold(index, QUESTIONS)
    # Three questions find their paragraph; without it another one is found for two of them, with lower scores.
    scored = [[hits[0].score if hits else 0 for hits in index.search([q.text for q in QUESTIONS], 1, without=without)]
              for without in (None, [{0}, {2}, {1}, {3}])]
    assert (chosen.found, chosen.right) == (0.75, 1)
    assert chosen.refused == sum(score < chosen.value for score in scored[1]) / 4
    assert max(score for score in scored[1] if score < chosen.value) < chosen.value < min(scored[0][:3])
    keep_threshold(tmp_path / "index", chosen)
    assert threshold_of(PassageIndex.open(tmp_path / "index")) == chosen.value
    with pytest.raises(DataError, match="not in the index"):
        evaluate_retrieval(index, [Question("x", "elsewhere", ())])
    with pytest.raises(DataError, match="has no paragraph"):
        evaluate_retrieval(index, [Question("x", "", ())])


def test_many_questions_at_once_are_each_answered_as_alone():
    draw = random.Random(3)
    words = [f"w{i}" for i in range(40)]
    texts = [" ".join(draw.choices(words, k=12)) for _ in range(60)]
    questions = [" ".join(draw.choices(words, k=3)) for _ in range(20)]
    index = made(texts)
    assert index.search(questions, 3) == [index.search([question], 3)[0] for question in questions]


@pytest.mark.slow
def test_a_document_of_50_megabytes(tmp_path):
    draw = random.Random(5)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(20_000)]
    path = tmp_path / "big.txt"
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < 50_000_000:
            file.write(" ".join(draw.choices(words, k=80)) + ".\n\n")
        file.write("The lighthouse of Zanthor was built by Mirabel Quince.\n")
    index = build_index(read_passages([str(path)]), tmp_path / "index")
    (hits,) = index.search(["Who built the lighthouse of Zanthor?"], 1)
    assert "Mirabel Quince" in hits[0].passage.text
    assert hits[0].score > 0.5
