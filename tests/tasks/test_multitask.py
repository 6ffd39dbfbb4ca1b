"""Several tasks in one model: prefixes, mixtures, pre-training on the sources, going on from a model."""

import dataclasses
import json
import math

import numpy as np
import pytest

from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.data.pairs import Pairs, ReadPairs
from tickwise.engine.batch_beam import BeamOptions
from tickwise.interop.directory import save_model
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tickwise.tasks.multitask import PrefixedModel, parse_tasks, prefixes_of, read_tasks, read_tests, train_tasks
from tickwise.tasks.prefixed_options import PrefixedOptions, SummaryOptions
from tickwise.tasks.summarise_learned import LearnedSummariser, train_summariser
from tickwise.tasks.text_to_text import LONGEST_TARGET, PairParts, TextToText
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import train_tokenizer

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "dog": "Hund", "cat": "Katze"}
OPTIONS = PrefixedOptions(vocab_size=320, width=64, encoder_layers=1, decoder_layers=1, n_heads=2, longest=40,
                          dropout=0.0, batch_tokens=600, epochs=16, lr=0.03, copies=True)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder, chooser = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    texts = [" ".join(chooser.choice(list(WORDS), chooser.integers(1, 4)).tolist()) for _ in range(500)]
    for name, target in (("de", lambda text: " ".join(WORDS[word] for word in text.split())), ("same", str)):
        (folder / f"{name}.tsv").write_text("".join(f"{text}\t{target(text)}\n" for text in texts), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(tables, tmp_path_factory):
    tasks = parse_tasks([f"German: ={tables / 'de.tsv'}", f"the same: ={tables / 'same.tsv'}"])
    return train_tasks(read_tasks(tasks), out=tmp_path_factory.mktemp("run") / "tasks", options=OPTIONS, device="cpu")


def test_tasks_as_they_are_written():
    tasks = parse_tasks(["a: =x.en", "a: =x.de", "b: =multi30k[de,en]"])
    assert [(task.prefix, task.names) for task in tasks] == [("a: ", ("x.en", "x.de")), ("b: ", ("multi30k",))]
    assert tasks[1].read == ReadPairs(source="de", target="en")
    for wrong in ("no sign", " =x", "a: ="):
        with pytest.raises(ConfigError, match="PREFIX=FILE"):
            parse_tasks([wrong])


def test_what_one_task_is_chosen_by_no_other_is_trained_on(tmp_path, capfd):
    """Sources with several targets, so that both directions draw different parts."""
    rows = [(f"word {i % 30}", f"Wort {i}") for i in range(240)]
    (tmp_path / "x.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in rows), encoding="utf-8")
    parts = read_tasks(parse_tasks([f"there: ={tmp_path / 'x.tsv'}[0,1]", f"back: ={tmp_path / 'x.tsv'}[1,0]"]))
    (there, there_dev), (back, back_dev) = (
        [set(zip(*sides, strict=True)) for sides in ((own.training.sources, own.training.targets),
                                                     (own.development.sources, own.development.targets))]
        for own in parts.values())
    turned = {(b, a) for a, b in back_dev}
    assert turned != there_dev
    assert not there & turned
    assert not there_dev & {(b, a) for a, b in back}
    assert back
    assert "that another task's development or test part has" in capfd.readouterr().err


def test_sources_of_given_parts_are_not_trained_on_in_any_task(tmp_path, capfd):
    rows = [(f"word {i}", f"Wort {i}") for i in range(40)]
    for name, own in (("all", rows), ("dev", [("Word 3!", "x"), ("new", "neu")]), ("test", [("word 5", "y")]),
                      ("back", [("Wort 7.", "Word 7.")])):
        (tmp_path / f"{name}.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in own), encoding="utf-8")
    tasks = parse_tasks([f"there: ={tmp_path / 'all.tsv'}[0,1]", f"back: ={tmp_path / 'all.tsv'}[1,0]"])
    tests = read_tests(parse_tasks([f"there: ={tmp_path / 'test.tsv'}", f"back: ={tmp_path / 'back.tsv'}"], "--test"))
    parts = read_tasks(tasks, parse_tasks([f"there: ={tmp_path / 'dev.tsv'}"], "--dev"), tests)
    said = capfd.readouterr().err
    assert ("left out of the training 1 whose source is in the development part and 1 whose source is in the test part"
            in said)
    assert not {"word 3", "word 5", "word 7"} & set(parts["there: "].training.sources)
    assert "word 8" in parts["there: "].training.sources
    assert "Wort 7" not in {*parts["back: "].training.sources, *parts["back: "].development.sources}
    assert "Wort 3" in {*parts["back: "].training.sources, *parts["back: "].development.sources}
    with pytest.raises(DataError, match="every pair in it stands in the development or the test part"):
        read_tasks(tasks[:1], parse_tasks([f"there: ={tmp_path / 'all.tsv'}"], "--dev"))


def test_the_prefix_says_what_to_do(trained):
    model = PrefixedModel.load(trained.out, "cpu")
    assert model.prefixes == ["German: ", "the same: "]
    texts = ["one dog", "two cat", "four", "three dog dog", "cat one"]
    for prefix, right in (("German: ", [" ".join(WORDS[w] for w in t.split()) for t in texts]), ("the same:", texts)):
        found = model.answer([prefix + text for text in texts], BeamOptions(width=2))
        assert sum(a == b for a, b in zip(found, right, strict=True)) >= 4, found


def test_texts_that_cannot_be_answered(trained):
    model = PrefixedModel.load(trained.out, "cpu")
    for text, said in (("French: one", "text 3 .*no prefix that this model knows; known are 'German: ', 'the same: '"),
                       ("German: ", "empty behind its prefix 'German: '"),
                       ("German: " + "dog " * 60, "the model reads at most 39")):
        with pytest.raises(DataError, match=said):
            model.answer([text], first_number=3)
    assert model.answer(["", "German: one", " "])[::2] == ["", ""]


def test_a_prefix_ends_where_a_word_ends(trained):
    model = PrefixedModel.load(trained.out, "cpu")
    model.prefixes = ["qa", "summarise: ", "翻译"]
    for text in ("qatar is hot", "qa: why?"):
        with pytest.raises(DataError, match="no prefix that this model knows"):
            model.source(text)
    for text, read in (("qa why?", "qawhy?"), ("summarise:a text", "summarise: a text"), ("翻译狗", "翻译狗")):
        assert model.source(text) == read
    model.prefixes = ["one", "one dog: "]
    pairs = Pairs(["dog: cat", "tar"], ["x", "y"], "whose sources look like prefixes")
    assert all(answer is not None for answer in model.evaluate("one", pairs)[1])


def never_ending(tokenizer, **settings):
    """A model that nobody trained, which hardly ever ends a text."""
    end = tokenizer.eos_id
    module = EncoderDecoder(EncoderDecoderConfig(
        vocab_size=tokenizer.vocab_size, width=32, n_encoder_layers=1, n_decoder_layers=1, n_heads=1, n_kv_heads=1,
        head_dim=32, hidden=64, pad_id=end, start_id=end, eos_id=end, logit_bias=True,
        **({"source_length": 40, "context_length": 90} | settings))).initialise(1).requires_grad_(False)
    module.lm_head.bias[end] = -50
    return module


def test_answers_have_a_limit_by_what_was_trained_on_and_are_marked_when_cut(trained, monkeypatch):
    from tickwise.tasks import text_to_text

    limits, search = [], text_to_text.beam_search
    monkeypatch.setattr(text_to_text, "beam_search", lambda module, sources, options, **rest: (
        limits.append(options.longest(1, 90)) or search(module, sources, options, **rest)))
    model = PrefixedModel.load(trained.out, "cpu")
    longest = model.model.tokenizer.config[LONGEST_TARGET]
    assert 3 <= longest < 20
    model.model.module = never_ending(model.model.tokenizer)
    fine, unknown, blank = model.write(["German: one", "French: one", ""], first_number=4)
    assert fine.cut
    assert unknown.problem.startswith("text 5 ('French: one …') begins with no prefix")
    assert (unknown.text, blank.text, blank.problem) == ("", "", None)
    model.answer(["German: one"])
    model.evaluate("German: ", Pairs(["one"], ["eins"], "one"))
    assert limits == [math.ceil(1.1 * longest)] * 3


def test_scores_by_prefix(trained, tables):
    model = PrefixedModel.load(trained.out, "cpu")
    tests = read_tests(parse_tasks([f"the same: ={tables / 'same.tsv'}"], "--test"))
    scores, written = model.evaluate("the same: ", tests["the same: "].take(range(20)), BeamOptions(width=1))
    assert scores["exact_match"].value > 0.7
    assert scores["rouge1"].value >= scores["exact_match"].value
    assert len(written) == 20
    long = Pairs(["dog " * 60, "one dog"], ["x", "one dog"], "mixed")
    assert model.evaluate("the same: ", long)[1][0] is None
    with pytest.raises(DataError, match="mixed: every source is longer than the 39 tokens that the model reads"):
        model.evaluate("the same: ", long.take([0]))
    with pytest.raises(ConfigError, match="known are 'German: '"):
        model.evaluate("other: ", tests["the same: "])
    with pytest.raises(ConfigError, match="--dev 'x: ': no such prefix"):
        read_tasks(parse_tasks([f"y: ={tables / 'de.tsv'}"]), parse_tasks([f"x: ={tables / 'de.tsv'}"], "--dev"))


def test_going_on_from_a_model_keeps_its_shape_and_tokenizer_and_adds_prefixes(trained, tables, tmp_path, capfd):
    options = PrefixedOptions(longest=60, epochs=0.1, batch_tokens=600, lr=0.001, width=128)
    result = train_tasks(read_tasks(parse_tasks([f"again: ={tables / 'same.tsv'}"])), out=tmp_path / "again",
                         options=options, start=trained.out, lowercase=True, device="cpu")
    old, new = (PrefixedModel.load(run, "cpu") for run in (trained.out, result.out))
    assert new.prefixes == ["German: ", "the same: ", "again: "]
    assert (new.model.module.config.width, new.model.module.config.source_length) == (64, 60)
    assert new.model.tokenizer.fingerprint == old.model.tokenizer.fingerprint
    said = capfd.readouterr().err
    assert "warm start from" in said
    assert "without effect, because the model's shape and tokenizer stay: --options.width, --lowercase" in said
    with pytest.raises(CheckpointError, match="no such model directory"):
        train_tasks({}, out=tmp_path / "x", start=tmp_path / "nothing")


def test_a_summariser_that_goes_on_from_many_tasks_is_one(trained, tmp_path):
    rows = [{"dialogue": f"{a} {b}", "summary": a} for a in WORDS for b in WORDS]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = train_summariser([str(tmp_path / "x.jsonl")], out=tmp_path / "run", start=trained.out, device="cpu",
                              options=SummaryOptions(longest=40, epochs=0.1))
    tokenizer = Tokenizer.load(result.model)
    assert prefixes_of(tokenizer) == []
    assert tokenizer.config[LONGEST_TARGET] == 1 + max(len(ids) for ids in tokenizer.encode_plain(list(WORDS)))
    (summary,) = LearnedSummariser(TextToText.load(result.model, "cpu"), beam=1, max_tokens=4)(["one two"])
    assert isinstance(summary, str)
    with pytest.raises(ConfigError, match="use it with tickwise run text-to-text"):
        LearnedSummariser(TextToText.load(trained.out, "cpu"))


def test_sources_are_learned_first_when_asked(tables, tmp_path, capfd):
    options = PrefixedOptions(vocab_size=320, width=32, encoder_layers=1, decoder_layers=1, n_heads=1, longest=40,
                              batch_tokens=600, epochs=1, pretrain=0.5, whole=("one dog",))
    parts = read_tasks(parse_tasks([f"German: ={tables / 'de.tsv'}"]))
    result = train_tasks(parts, out=tmp_path / "run", options=options, device="cpu")
    said = capfd.readouterr().err
    assert "naming hidden spans" in said
    assert "warm start from" in said
    first = json.loads((tmp_path / "run" / "pretraining" / "run.json").read_text())
    assert first["result"]["step"] > 0
    tokenizer = Tokenizer.load(result.model)
    assert prefixes_of(tokenizer) == ["German: "]
    assert len(tokenizer.encode("x one dog")) == len(tokenizer.encode("x")) + 1
    again = train_tasks(parts, out=tmp_path / "run", options=options, device="cpu", resume=True)
    assert again.step == result.step
    plain = dataclasses.replace(options, pretrain=0.0, epochs=0.1)
    train_tasks(parts, out=tmp_path / "run", options=plain, device="cpu", overwrite=True)
    assert not (tmp_path / "run" / "pretraining").exists()


def test_what_replaces_a_run_and_is_interrupted_in_its_first_phase_does_not_go_on_with_the_old_run(
        tables, tmp_path, monkeypatch):
    options = PrefixedOptions(vocab_size=320, width=32, encoder_layers=1, decoder_layers=1, n_heads=1, longest=40,
                              batch_tokens=600, epochs=1)
    parts = read_tasks(parse_tasks([f"German: ={tables / 'de.tsv'}"]))
    run = {"out": tmp_path / "run", "device": "cpu"}
    old = train_tasks(parts, options=options, **run)
    longer = dataclasses.replace(options, epochs=3, pretrain=0.3)

    def interrupted(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tickwise.tasks.multitask._pretrain", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_tasks(parts, options=longer, overwrite=True, **run)
    new = train_tasks(parts, options=longer, resume=True, **run)
    assert new.step > old.step
    assert (tmp_path / "run" / "pretraining" / "run.json").exists()


def test_development_pairs_that_stand_in_the_test_part_choose_no_model(tmp_path, capfd):
    for name, numbers in (("train", range(30)), ("dev", range(20, 30)), ("test", range(25, 35))):
        (tmp_path / f"{name}.tsv").write_text("".join(f"dog {n}\tHund {n}\n" for n in numbers), encoding="utf-8")
    tasks, dev, test = (parse_tasks([f"German: ={tmp_path / name}.tsv"]) for name in ("train", "dev", "test"))
    parts = read_tasks(tasks, dev, read_tests(test))["German: "]
    assert parts.development.sources == [f"dog {n}" for n in range(20, 25)]
    assert parts.training.sources == [f"dog {n}" for n in range(20)]
    assert "left out of the development part 5 whose source is in the test part" in capfd.readouterr().err
    with pytest.raises(DataError, match="other pairs for the development part"):
        read_tasks(tasks, test, read_tests(test))


def test_a_run_that_is_refused_loses_nothing(tables, tmp_path):
    kept = tmp_path / "run" / "pretraining" / "model" / "config.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    (tmp_path / "run" / "run.json").write_text("{}")
    parts = read_tasks(parse_tasks([f"German: ={tables / 'de.tsv'}"]))
    with pytest.raises(DataError, match=r"with --options\.longest"):
        train_tasks(parts, out=tmp_path / "run", overwrite=True, options=PrefixedOptions(longest=2, vocab_size=320),
                    device="cpu")
    with pytest.raises(ConfigError, match="--device cuda:99"):
        train_tasks(parts, out=tmp_path / "run", overwrite=True, options=OPTIONS, device="cuda:99")
    assert kept.exists()


def test_targets_that_a_model_to_go_on_from_cannot_write_are_left_out(tmp_path, capfd):
    tokenizer = train_tokenizer("bpe", iter(["one dog two cat"] * 5), vocab_size=300, lowercase=False,
                                prefix_space=True)
    save_model(tmp_path / "start", never_ending(tokenizer, context_length=8, positions="learned"), tokenizer)
    rows = [(f"one dog {'cat ' * (i % 3)}", "two " * (1 + i % 9)) for i in range(90)]
    pairs = Pairs([a.strip() for a, _ in rows], [b.strip() for _, b in rows], "some")
    train_tasks({"": PairParts(pairs, pairs, None)}, out=tmp_path / "run", start=tmp_path / "start", device="cpu",
                options=PrefixedOptions(longest=30, epochs=0.5, batch_tokens=400))
    assert "left out: too long" in capfd.readouterr().err


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="pretrain"):
        PrefixedOptions(pretrain=1.0)
