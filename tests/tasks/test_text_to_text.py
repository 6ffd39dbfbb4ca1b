"""Text to text: parts, training that resumes bit for bit, translations of one and of many."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tickwise.core.errors import CheckpointError, DataError, NumericsError, OutputError
from tickwise.data.pairs import Pairs, ReadPairs, identity, read_pairs
from tickwise.engine.batch_beam import BeamOptions
from tickwise.interop.directory import read_tensors
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tickwise.profiling.trace_store import open_trace
from tickwise.tasks import text_to_text as task
from tickwise.tasks.text_to_text import (
    PairParts,
    TextToText,
    own_test,
    read_parts,
    train_text_to_text,
    without_given,
)
from tickwise.tasks.text_to_text_options import TextToTextOptions
from tickwise.tokenizers.train import train_tokenizer

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "dog": "Hund", "cat": "Katze"}
OPTIONS = TextToTextOptions(vocab_size=400, width=64, encoder_layers=1, decoder_layers=1, n_heads=2, longest=40,
                            dropout=0.1, batch_tokens=500, epochs=20, lr=0.03)


def corpus(n=1000, seed=0):
    chooser = np.random.default_rng(seed)
    sources = [" ".join(chooser.choice(list(WORDS), chooser.integers(1, 5)).tolist()) for _ in range(n)]
    return Pairs(sources, [" ".join(WORDS[word] for word in text.split()) for text in sources], "numbers")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    pairs = corpus()
    path = tmp_path_factory.mktemp("pairs") / "numbers.tsv"
    path.write_text("".join(f"{s}\t{t}\n" for s, t in zip(pairs.sources, pairs.targets, strict=True)), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "numbers"
    parts = read_parts([table], [], ReadPairs(), 20)
    return parts, train_text_to_text(parts, out=out, options=dataclasses.replace(OPTIONS, epochs=40), device="cpu")


def test_parts_share_no_side(table):
    parts = read_parts([table], [], ReadPairs(), 20)
    assert len(parts.held_out) == 20
    for name in ("sources", "targets"):
        sides = [set(getattr(part, name)) for part in (parts.training, parts.development, parts.held_out)]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]


def test_it_learns_to_translate_what_it_never_saw(trained):
    parts, result = trained
    model = TextToText.load(result.out, device="cpu")
    for beam in (1, 4):
        translations = model.translate(parts.held_out.sources, BeamOptions(width=beam))
        right = sum(a == b for a, b in zip(translations, parts.held_out.targets, strict=True))
        assert right >= 12
    assert model.score(translations, parts.held_out.targets).bleu.value > 60
    assert model.perplexity(parts.held_out) == pytest.approx(result.validation["perplexity"], abs=0.5)
    assert read_pairs([str(result.out / "held-out.jsonl")], ReadPairs()).targets == parts.held_out.targets


def test_texts_come_back_in_order_and_blank_ones_stay_blank(trained):
    model = TextToText.load(trained[1].model, device="cpu")
    done = []
    texts = ["two dog", "", "one", "  ", "five four three two", "one"]
    translations = model.translate(texts, advance=done.append)
    assert sum(done) == len(texts)
    assert translations[1] == translations[3] == ""
    assert translations[2] == translations[5] == model.translate(["one"])[0]
    assert model.translate([]) == []


def test_a_text_of_a_language_it_never_saw_gets_some_answer_which_is_said_and_one_too_long_is_named(trained, capfd):
    model = TextToText.load(trained[1].model, device="cpu")
    assert [one.problem for one in model.write(["one dog", "狗是大的", "two cats"], first_number=5)] == [None] * 3
    assert "1 of 3 texts (the first is text 6) are mostly in characters" in capfd.readouterr().err
    model.write(["one dog says naïve"])
    assert capfd.readouterr().err == ""
    with pytest.raises(DataError, match=r"text 12 \('dog dog .* the model reads at most 39"):
        model.translate(["one", "dog " * 300], first_number=11)


def test_a_run_that_was_cut_off_ends_with_the_same_weights(table, tmp_path):
    parts = read_parts([table], [], ReadPairs(), 0)
    options = dataclasses.replace(OPTIONS, epochs=2, vocab_size=300)
    whole = train_text_to_text(parts, out=tmp_path / "whole", options=options, device="cpu")
    assert whole.step > 8
    cut = tmp_path / "cut"
    interrupt_after(7, parts, cut, options)
    assert json.loads((cut / "run.json").read_text())["result"]["step"] == 7
    resumed = train_text_to_text(parts, out=cut, options=options, device="cpu", resume=True)
    first, second = (read_tensors(r.out / "checkpoints" / f"step-{whole.step}" / "model.safetensors")
                     for r in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def interrupt_after(steps, parts, out, options):
    """A run that Ctrl-C ends after so many steps."""
    import os
    import signal

    from tickwise.training import text_to_text

    class Counted(text_to_text.TextToTextObjective):
        def next_batch(self):
            if self.batches.position == steps - 1 and self.batches.epoch == 0:
                os.kill(os.getpid(), signal.SIGINT)
            return super().next_batch()

    from tickwise.tasks import pair_training as task

    original = task.TextToTextObjective
    task.TextToTextObjective = Counted
    try:
        assert train_text_to_text(parts, out=out, options=options, device="cpu").interrupted
    finally:
        task.TextToTextObjective = original


def test_a_lower_case_model_stays_one(table, tmp_path):
    parts = read_parts([table], [], ReadPairs(), 0)
    options = dataclasses.replace(OPTIONS, epochs=0.3, vocab_size=300)
    result = train_text_to_text(parts, out=tmp_path / "run", options=options, lowercase=True, device="cpu")
    model = TextToText.load(result.out, device="cpu")
    assert model.lowercase
    assert model.encode(["ONE Dog"]) == model.encode(["one dog"])
    scores = model.score(["hund"], ["Hund"])
    assert "case:lc" in scores.signatures["bleu"]


def test_other_models_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such model directory"):
        TextToText.load(tmp_path / "nowhere")


def written(path, pairs):
    path.write_text("".join(f"{s}\t{t}\n" for s, t in zip(pairs.sources, pairs.targets, strict=True)), encoding="utf-8")
    return str(path)


def test_what_is_held_out_is_in_no_other_part_also_when_those_are_given(table, tmp_path, capsys):
    given = written(tmp_path / "dev.tsv", corpus(300, seed=0))  # of the same texts as the table
    parts = read_parts([table], [given], ReadPairs(), 20)
    for name in ("sources", "targets"):
        held_out, *others = ({identity(text) for text in getattr(part, name)}
                             for part in (parts.held_out, parts.development, parts.training))
        assert not any(held_out & other for other in others)
    assert 0 < len(parts.development) < 300
    assert f"left out {300 - len(parts.development)} pairs" in capsys.readouterr().err
    with pytest.raises(DataError, match="held out"):
        read_parts([table], [written(tmp_path / "same.tsv", parts.held_out)], ReadPairs(), 20)


def test_the_training_part_of_a_data_set_is_known_by_its_name(monkeypatch):
    read = []

    def noted(names, read_as, *, split="train"):
        read.append((tuple(names), split))
        return corpus(50) if split == "train" else Pairs(["a horse"], ["ein Pferd"], split)

    monkeypatch.setattr(task, "read_pairs", noted)
    read_parts(["multi30k/train"], [], ReadPairs(source="en", target="de"), 0)
    assert read == [(("multi30k/train",), "train"), (("multi30k",), "validation")]
    assert own_test(["multi30k/train"]) == ("multi30k",)
    assert own_test(["multi30k/validation", "nowhere/train"]) == ()


SIDES = Pairs(["a dog", "a cat", "a cow", "a pig", "a hen"], ["Hund", "Katze", "Kuh", "Schwein", "Huhn"], "animals")
"""Of each part that follows: one pair, one source and one target that are those of a training pair."""
DEVELOPMENT = Pairs(["A dog!", "a CAT", "other"], ["hund", "Kater", "Kuh"], "development")
TEST = Pairs(["a pig", "b"], ["Sau", "c"], "test")


def test_what_given_parts_have_is_not_trained_on(capfd):
    said = []

    def kept(*parts, **settings):
        found = without_given(SIDES, *parts, **settings).targets
        said.append(capfd.readouterr().err.strip())
        return found

    assert kept(DEVELOPMENT, TEST, targets_repeat=True) == ["Kuh", "Huhn"]
    assert kept(DEVELOPMENT, TEST, targets_repeat=False) == ["Katze", "Kuh", "Huhn"]
    assert kept(None, DEVELOPMENT, targets_repeat=False) == ["Schwein", "Huhn"]
    assert kept(None, None, targets_repeat=False) == SIDES.targets
    assert said == [
        "animals: left out of the training 2 whose source is in the development part and 1 whose source is in the test "
        "part",
        "animals: left out of the training 1 of which both sides are in the development part and 1 of which a side is "
        "in the test part; 2 that share one side with the development part are trained on",
        "animals: left out of the training 3 of which a side is in the test part", ""]
    with pytest.raises(DataError, match="animals: every pair in it stands in the development or the test part"):
        without_given(SIDES, None, SIDES, targets_repeat=True)


def test_parts_that_are_read_share_nothing_with_the_test(table):
    test = corpus(40, seed=0)
    parts = read_parts([table], [], ReadPairs(), 0, test=test)
    for part in (parts.training, parts.development):
        assert not set(part.sources) & set(test.sources)
        assert not set(part.targets) & set(test.targets)


def test_real_parts(shared_data, monkeypatch, capfd):
    """Dialogues of the development part that are trained on are left out; Multi30k's training part stays whole."""
    monkeypatch.setenv("TICKWISE_DATA", str(shared_data))
    parts = read_parts(["dialogsum"], (), ReadPairs(source="dialogue", target="summary"), 0, targets_repeat=True)
    assert not set(map(identity, parts.training.sources)) & set(map(identity, parts.development.sources))
    assert "left out of the training 60 whose source is in the development part" in capfd.readouterr().err
    languages = ReadPairs(source="en", target="de")
    test = read_pairs(["multi30k"], languages, split="test")
    whole = read_pairs(["multi30k"], languages)
    assert read_parts(["multi30k"], (), languages, 0, test=test).training.fingerprint() == whole.fingerprint()


def made(longest=40, **settings):
    """A model that nobody trained: it knows some bytes, and hardly ever ends."""
    tokenizer = train_tokenizer("bpe", iter(["a dog runs on the beach"] * 5), vocab_size=300, lowercase=False,
                                prefix_space=True)
    end = tokenizer.eos_id
    usual = {"vocab_size": tokenizer.vocab_size, "source_length": longest, "context_length": longest, "pad_id": end,
             "start_id": end, "logit_bias": True}
    module = EncoderDecoder(EncoderDecoderConfig(
        **(usual | settings), width=32, n_encoder_layers=1, n_decoder_layers=1, n_heads=2, n_kv_heads=2, head_dim=16,
        hidden=64, eos_id=end)).initialise(1).requires_grad_(False)
    module.lm_head.bias[end] = -50
    return TextToText(module, tokenizer)


def test_perplexity_begins_targets_as_the_model_does(capfd):
    model = made(source_length=40, context_length=6, start_id=3)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.module.parameters():
        parameter.normal_(0, 0.3, generator=generator)
    text, target = "a dog runs", "the dog"
    source, ids = (model.tokenizer.encode_plain([side])[0] for side in (text, target))
    end = model.module.config.eos_id
    logits = model.module(torch.tensor([[*source, end]]), None, torch.tensor([[3, *ids]]))[0]
    right = torch.nn.functional.cross_entropy(logits, torch.tensor([*ids, end])).exp().item()
    other = model.module(torch.tensor([[*source, end]]), None, torch.tensor([[end, *ids]]))[0]
    wrong = torch.nn.functional.cross_entropy(other, torch.tensor([*ids, end])).exp().item()
    assert abs(right - wrong) > 1e-3 * right
    assert model.perplexity(Pairs([text], [target], "one")) == pytest.approx(right, rel=1e-5)
    capfd.readouterr()
    both = Pairs([text, text], [target, "dog " * 20], "two")
    assert model.perplexity(both) == pytest.approx(right, rel=1e-5)
    assert "two: 1 of 2 pairs have no part in the perplexity" in capfd.readouterr().err


def test_texts_that_are_cut_are_marked_and_those_too_long_do_not_stop_the_others():
    model = made()
    short, long, blank = model.write(["a dog", "dog " * 60, " "], BeamOptions(width=2), first_number=7)
    assert short.cut
    assert short.text
    assert short.problem is None
    assert (blank.text, blank.cut, blank.problem) == ("", False, None)
    assert (long.text, long.cut) == ("", False)
    assert long.problem.startswith("text 8 ('dog dog")
    model.module.lm_head.bias[model.module.config.eos_id] = 50
    assert not model.write(["a dog"])[0].cut


@pytest.mark.parametrize(("max_tokens", "trained_with", "n"), [
    (None, None, 13), (None, 20, 22), (None, 900, 40), (5, None, 5), (5, 20, 5), (90, 20, 40)])
def test_how_long_a_text_may_be(max_tokens, trained_with, n):
    from tickwise.engine.batch_beam import beam_search
    from tickwise.tasks.text_to_text import LONGEST_TARGET

    model = made()
    if trained_with is not None:
        model.tokenizer.config[LONGEST_TARGET] = trained_with
    (found,) = dict(beam_search(model.module, [[5]], model.beam_options(2, 1.0, max_tokens))).values()
    assert len(found[0].token_ids) == n


QUICK = dataclasses.replace(OPTIONS, epochs=0.3, vocab_size=300, batch_tokens=2000)


def test_sources_that_are_too_long_are_said_before_the_training_and_left_out_of_the_scores(table, tmp_path, capsys):
    parts = read_parts([table], [], ReadPairs(), 20)
    long = Pairs(["dog " * 60, "one two"], ["Hund", "eins zwei"], "long")
    with pytest.raises(DataError, match="every source of the test part"):
        train_text_to_text(parts, out=tmp_path / "run", options=QUICK, device="cpu", test=long.take([0]))
    assert not (tmp_path / "run").exists()
    result = train_text_to_text(parts, out=tmp_path / "run", options=QUICK, device="cpu", test=long)
    said = capsys.readouterr().err
    assert said.index("not scored, because their sources have more than 39 tokens: 1 of the test part") < said.index(
        "parameters")
    model = TextToText.load(result.model, device="cpu")
    assert model.readable(long.sources) == [1]
    assert model.perplexity(Pairs(["one"], ["Hund " * 60], "long target")) is None


def test_a_run_that_is_replaced_leaves_nothing_of_what_it_held_out(table, tmp_path):
    out = tmp_path / "run"
    for n, again in ((20, False), (0, True)):
        train_text_to_text(read_parts([table], [], ReadPairs(), n), out=out, options=QUICK, device="cpu",
                           overwrite=again)
        assert (out / "held-out.jsonl").exists() == bool(n)


def test_messages_of_a_training_name_flags_that_the_task_has(table, tmp_path, capsys):
    parts, out = read_parts([table], [], ReadPairs(), 0), tmp_path / "run"
    options = dataclasses.replace(QUICK, epochs=2)
    interrupt_after(2, parts, out, options)
    assert "go on with the same command and --resume" in capsys.readouterr().err
    with pytest.raises(OutputError, match=r"go on with --resume,"):
        train_text_to_text(parts, out=out, options=options, device="cpu")
    with pytest.raises(CheckpointError, match="another tokenizer"):
        train_text_to_text(parts, out=out, options=options, device="cpu", resume=True, lowercase=True)
    changed = dataclasses.replace(options, lr=1e30, dropout=0.2, label_smoothing=0.2)
    with pytest.raises(NumericsError, match=r"Lower --options\.lr"):
        train_text_to_text(parts, out=out, options=changed, device="cpu", resume=True)
    said = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("other settings than before"))
    assert "optimizer.lr 0.03 → 1e+30" in said
    assert "label_smoothing 0.1 → 0.2" in said
    assert "model.dropout 0.1 → 0.2" in said


def test_traces_of_steps_and_of_translations_count_their_work(trained, tmp_path):
    parts = PairParts(corpus(120), corpus(20, seed=1), None)
    options = dataclasses.replace(QUICK, epochs=1, batch_tokens=200)
    train_text_to_text(parts, out=tmp_path / "run", options=options, device="cpu", trace=tmp_path / "steps")
    rows = open_trace(tmp_path / "steps").rows()
    assert {row["phase"] for row in rows} == {"train"}
    assert min(row["batch"] for row in rows) > 1
    for stage in ("cross_attention", "head", "backward", "optimizer"):
        assert all(row["bytes_read"] > 0 for row in rows if row["stage"] == stage), stage
    flops = {row["tick"]: row["flops"] for row in rows if row["stage"] == "backward"}
    assert len(set(flops.values())) > 1, "batches differ"

    model = TextToText.load(trained[1].model, device="cpu")
    with model.traced_writing(tmp_path / "trace", name="numbers"):
        model.translate(["one two", "five four three two"])
    rows = open_trace(tmp_path / "trace").rows()
    assert {row["phase"] for row in rows} == {"prefill", "decode"}
    assert sum(row["flops"] or 0 for row in rows if row["stage"] == "cross_attention") > 0
    model.translate(["one"])  # the trace is closed


def test_a_model_with_more_outputs_than_tokens_writes_tokens_only(trained):
    model = TextToText.load(trained[1].model, device="cpu")
    config = dataclasses.replace(model.module.config, vocab_size=model.tokenizer.vocab_size + 5, logit_bias=True,
                                 tie_embeddings=False)
    module = EncoderDecoder(config).initialise(1).requires_grad_(False)
    module.lm_head.bias.zero_()[-5:] = 50.0
    assert isinstance(TextToText(module, model.tokenizer).translate(["one two"])[0], str)
