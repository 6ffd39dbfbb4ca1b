"""Training a tagger: batches, resuming, and that it learns."""

import pytest
import torch

from tickwise.core.errors import CheckpointError, DataError
from tickwise.data.tag_features import UNKNOWN, TagFeatures
from tickwise.data.tagged import Span, TaggedSentence, iobes_labels
from tickwise.tasks.tag import TagData, build_training, cut
from tickwise.tasks.tag_options import TagOptions
from tickwise.training.tagging_objective import examples, predict, predict_entities

PEOPLE, PLACES = ["Ada", "Kurt", "Emmy", "Alan"], ["Bonn", "Oslo", "New York"]


def corpus():
    sentences = []
    for person in PEOPLE:
        for place in PLACES:
            for verb in ("visits", "likes", "leaves"):
                where = place.split()
                tokens = (person, verb, *where, ".")
                sentences.append(TaggedSentence(tokens, (Span(0, 1, "PER"), Span(2, 2 + len(where), "LOC")),
                                                len(sentences) + 1, len(sentences) // 9))
    return sentences


SMALL = TagOptions(word_width=16, feature_width=4, hidden=12, min_count=1, batch_tokens=40, dropout=0.1)


def training(seed=1, options=SMALL):
    return build_training(TagData(corpus(), corpus()[::5]), options, seed)


def five_lines(made, steps):
    optimizer = torch.optim.Adam(made.module.parameters(), lr=0.02)
    for _ in range(steps):
        loss, _ = made.objective.loss(made.module, *made.objective.next_batch().inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("context", [0, 20])
def test_it_learns_the_entities(context):
    import dataclasses

    made = training(options=dataclasses.replace(SMALL, context=context))
    torch.manual_seed(0)
    before = made.objective.validate(made.module, torch.device("cpu"), None)
    five_lines(made, 60)
    after = made.objective.validate(made.module, torch.device("cpu"), None)
    assert after["f1"] > 0.95 > before["f1"]
    assert after["loss"] == pytest.approx(1 - after["f1"])
    assert made.module.training


def test_each_sentence_is_read_once_an_epoch_and_epochs_differ():
    made = training()
    objective = made.objective
    orders = []
    for _ in range(2):
        rows = 0
        firsts = []
        for _ in range(len(objective._batches(len(orders)))):
            batch = objective.next_batch()
            rows += len(batch.inputs[0])
            firsts.append(batch.inputs[0].shape)
            assert batch.n_tokens == int(batch.inputs[3].sum())
            assert batch.inputs[0].shape[0] * batch.inputs[0].shape[1] <= 40
        assert rows == len(corpus())
        orders.append(objective._order)
    assert orders[0] != orders[1]


def test_it_goes_on_with_the_very_next_batch():
    one, other = training().objective, training().objective
    for _ in range(17):
        one.next_batch()
    other.restore(one.state(), {})
    for _ in range(12):
        for mine, theirs in zip(one.next_batch().inputs, other.next_batch().inputs, strict=True):
            assert torch.equal(mine, theirs)
    with pytest.raises(CheckpointError, match="seed"):
        training(seed=2).objective.restore(one.state(), {})


def test_rare_words_are_sometimes_read_as_unknown():
    features = TagFeatures.build([["rare", *["often"] * 999]], min_count=1, names=["word"])
    (rates,) = features.drop_rates(0.25)
    assert rates[features.encode(["rare"]).features[0, 0]] == pytest.approx(0.2)
    assert rates[features.encode(["often"]).features[0, 0]] < 0.001
    assert rates[UNKNOWN] == 0


def test_joined_sentences_come_back_in_order():
    sentences = corpus()
    labels = iobes_labels(["LOC", "PER"])
    made = training()
    alone = examples(sentences, made.features, labels)
    joined = examples(sentences, made.features, labels, context=20)
    assert len(joined) < len(alone) == len(sentences)
    found = predict_entities(made.module, joined, torch.device("cpu"))
    assert len(found) == len(sentences)
    for spans, sentence in zip(found, sentences, strict=True):
        assert all(span.end <= len(sentence.tokens) for span in spans)
    for example in joined:  # nothing goes over a document's border
        assert sum(example.lengths) + len(example.lengths) - 1 == len(example.tags)


def test_probabilities_are_those_of_the_whole_entity():
    made = training()
    five_lines(made, 40)
    made.module.eval()
    data = examples(corpus()[:4], made.features, made.module.config.labels)
    for entities in predict(made.module, data, torch.device("cpu"), probabilities=True):
        assert entities
        for _, probability in entities:
            assert 0.5 < probability <= 1


def test_unseen_characters_and_words_are_unknown():
    features = TagFeatures.build([["ab", "ab", "ab"]])
    encoded = features.encode(["😀", "שלום", "a" * 5000])
    assert encoded.features[0, 0] == UNKNOWN
    assert (encoded.characters[0] == [UNKNOWN, *[0] * (encoded.characters.shape[1] - 1)]).all()
    assert encoded.characters.shape[1] < 100


def test_a_sentence_of_ten_thousand_tokens_is_cut_outside_entities():
    spans = tuple(Span(i, i + 7, "PER") for i in range(0, 9990, 10))
    pieces = list(cut(TaggedSentence(tuple("x" * 10_000), spans), 1003))
    assert sum(len(piece.tokens) for piece in pieces) == 10_000
    assert sum(len(piece.entities) for piece in pieces) == len(spans)
    assert all(span.end <= len(piece.tokens) for piece in pieces for span in piece.entities)
    assert max(len(piece.tokens) for piece in pieces) < 1020


def test_a_type_that_training_lacks_counts_as_missed_and_unlabelled_data_is_refused():
    stray = TaggedSentence(("Mars",), (Span(0, 1, "PLANET"),))
    made = build_training(TagData(corpus(), [stray]), SMALL, 1)
    assert made.objective.validate(made.module, torch.device("cpu"), None)["f1"] == 0
    with pytest.raises(DataError, match="line 1: the type 'PLANET' does not occur"):
        examples([stray], made.features, made.module.config.labels)
