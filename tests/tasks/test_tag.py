"""A trained tagger on raw text, and reading what it is trained on."""

import dataclasses

import pytest
import torch

from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.data.tag_features import TagFeatures
from tickwise.data.tagged import Span, TaggedSentence
from tickwise.report.entities import entity_page, terminal_text
from tickwise.tasks.tag import Entity, EntityTagger, TagData, build_training, learned_habits, read_parts
from tickwise.tasks.tag_options import TagOptions, TagReading
from tickwise.text.word_habits import WordHabits

SMALL = TagOptions(word_width=16, feature_width=4, hidden=12, min_count=1, batch_tokens=60, dropout=0.1)


def train(sentences, steps=60):
    made = build_training(TagData(sentences, sentences[:3]), SMALL, seed=1)
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(made.module.parameters(), lr=0.02)
    for _ in range(steps):
        loss, _ = made.objective.loss(made.module, *made.objective.next_batch().inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return EntityTagger(made.module, made.features)


@pytest.fixture(scope="module")
def english():
    sentences = [TaggedSentence((person, "visits", *place.split(), "."),
                                (Span(0, 1, "PER"), Span(2, 2 + len(place.split()), "LOC")))
                 for person in ("Ada", "Kurt", "Emmy", "Alan") for place in ("Bonn", "Oslo", "New York")]
    return train(sentences)


@pytest.fixture(scope="module")
def chinese():
    sentences = [TaggedSentence(tuple(f"{person}在{place}。"), (Span(0, 2, "NAME"), Span(3, 5, "LOC")))
                 for person in ("李明", "王芳", "张伟") for place in ("北京", "上海", "广州")]
    return train(sentences)


def test_entities_have_their_places_in_the_text(english):
    text = "Ada visits  New York. Kurt visits Bonn."
    (entities,) = english.tag([text])
    assert [(e.text, e.type) for e in entities] == [("Ada", "PER"), ("New York", "LOC"), ("Kurt", "PER"),
                                                    ("Bonn", "LOC")]
    for entity in entities:
        assert text[entity.start : entity.end] == entity.text
        assert 0.5 < entity.probability <= 1
    assert set(english.types) == {"PER", "LOC"}


def test_chinese_is_read_character_by_character(chinese):
    assert chinese.features.unit == "character"
    (entities,) = chinese.tag(["李明在 广州。"])
    assert [(e.start, e.end, e.type) for e in entities] == [(0, 2, "NAME"), (4, 6, "LOC")]


def test_texts_are_answered_one_by_one_whatever_they_are(english):
    texts = ["", " \n", "😀👩‍🚀", "שלום עולם", "\u0000", "Ada visits Oslo .", "x" * 100_000, "word " * 3_000]
    found = english.tag(texts)
    assert len(found) == len(texts)
    assert found[0] == found[1] == []
    (alone,) = english.tag([texts[5]])
    assert [e.text for e in found[5]] == [e.text for e in alone] == ["Ada", "Oslo"]
    assert [e.probability for e in found[5]] == pytest.approx([e.probability for e in alone])
    for text, entities in zip(texts, found, strict=True):
        assert all(text[e.start : e.end] == e.text for e in entities)


def test_text_is_split_as_the_training_words_were(tmp_path):
    sentences = [TaggedSentence((f"{c}.", name, "visits", "St.", place, "."), (Span(0, 2, "PER"), Span(3, 5, "LOC")))
                 for c in "ABC" for name in ("Ada", "Kurt") for place in ("Gall", "Ives")]
    tagger = train(sentences)
    (found,) = tagger.tag(["C. Kurt visits St. Ives."])
    assert [(e.text, e.type) for e in found] == [("C. Kurt", "PER"), ("St. Ives", "LOC")]
    learned_habits(sentences).save(tmp_path)
    assert "St." in WordHabits.load(tmp_path).kept


def test_tokenized_text_is_not_split_again(english, chinese):
    text = "Ada visits New York .\nKurt. visits Bonn"
    (found,) = english.tag([text], tokenized=True)
    assert [e.text for e in found[:2]] == ["Ada", "New York"]
    places = [(e.start, e.end) for e in found]
    assert all(text[:start][-1:].strip() == "" and text[end:][:1].strip() == "" for start, end in places)
    with pytest.raises(ConfigError, match="--tokenized"):
        chinese.tag(["李明"], tokenized=True)


def test_scores_against_tagged_sentences(english):
    right = TaggedSentence(("Ada", "visits", "Bonn", "."), (Span(0, 1, "PER"), Span(2, 3, "LOC")))
    wrong = dataclasses.replace(right, entities=(Span(0, 1, "PLANET"),))
    assert english.evaluate([right]).overall.f1 == 1
    assert english.evaluate([right, wrong]).overall.correct == 2
    assert english.evaluate([right, wrong]).by_type["PLANET"].recall == 0
    assert english.tag_tokens([right.tokens]) == [list(right.entities)]
    assert english.tag_tokens([(), right.tokens, ()]) == [[], list(right.entities), []]
    assert english.tag_tokens([()]) == [[]]
    assert english.evaluate([TaggedSentence((), ()), right]).overall.f1 == 1


def test_features_survive_saving_and_must_fit_the_model(english, chinese, tmp_path):
    english.features.save(tmp_path)
    again = TagFeatures.load(tmp_path)
    mine, theirs = english.features.encode(["Ada", "naïve", "B2B"]), again.encode(["Ada", "naïve", "B2B"])
    assert (mine.features == theirs.features).all()
    assert (mine.characters == theirs.characters).all()
    with pytest.raises(CheckpointError, match="do not belong together"):
        EntityTagger(english.module, chinese.features)
    (tmp_path / "tag_features.json").write_text('{"unit": "letter"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a tagger's feature table"):
        TagFeatures.load(tmp_path)


def test_a_development_part_is_taken_from_the_training_data(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("".join(f"Ada{i} B-PER\nsang O\n\n" for i in range(30)), encoding="utf-8")
    data = read_parts([str(path)], [], TagOptions())
    assert (len(data.training), len(data.development)) == (27, 3)
    assert not {s.tokens for s in data.training} & {s.tokens for s in data.development}
    path.write_text("a O\nb O\n", encoding="utf-8")
    with pytest.raises(DataError, match="every tag is O"):
        read_parts([str(path)], [], TagOptions())


def test_options_that_make_no_sense_are_refused():
    for change in ({"hidden": 0}, {"dropout": 1.0}, {"context": -1}, {"lr": 0.0}):
        with pytest.raises(ConfigError, match="--options"):
            TagOptions(**change)


def test_pages_and_lines_mark_entities_and_escape_everything():
    text = "<b>Ada</b> & Bonn"
    entities = [Entity(3, 6, "Ada", "PER", 0.9), Entity(13, 17, "Bonn", "<LOC>", None)]
    page = entity_page([text], [entities], ("PER", "<LOC>"), "T<i>")
    assert "<b>" not in page
    assert "&lt;b&gt;<mark" in page
    assert "Ada<small>PER</small></mark>" in page
    assert "&lt;LOC&gt;" in page
    assert "<i>" not in page
    assert terminal_text(text, entities, ("PER", "<LOC>"), colour=False) == "<b>[Ada]/PER</b> & [Bonn]/<LOC>"
    coloured = terminal_text(text, entities, ("PER", "<LOC>"), colour=True)
    assert "\033[34;1mAda\033[0m" in coloured


def test_equal_sentences_are_in_one_part(tmp_path):
    lines = [f"{name} O\nin O\nOslo{n % 30} B-LOC\n" for n in range(90) for name in ("Ada", "Kurt")]
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = read_parts([str(tmp_path / "a.txt")], [], TagReading())
    assert len(data.training) + len(data.development) == 180
    assert 3 <= len(data.development) <= 40
    assert not {s.tokens for s in data.training} & {s.tokens for s in data.development}
    (tmp_path / "b.txt").write_text("\n".join(lines[:2]) + "\n", encoding="utf-8")
    two = read_parts([str(tmp_path / "b.txt")], [], TagReading())
    assert (len(two.training), len(two.development)) == (1, 1)
