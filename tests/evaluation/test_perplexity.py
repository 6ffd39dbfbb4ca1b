import itertools
import json
import math
from pathlib import Path

import numpy
import pytest
import torch

from tickwise.core.errors import ConfigError, DataError
from tickwise.data.config import PrepareConfig
from tickwise.data.prepare import prepare
from tickwise.engine.language_model import LanguageModel, load
from tickwise.evaluation.corpus import Corpus, count_words, words_and_bytes_per_block
from tickwise.evaluation.perplexity import evaluate
from tickwise.interop.directory import save_model

TEXT = "the cat sat on the mat.\nit was a caf\u00e9, said 中文 the dog.\n\n" * 30


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "books" / "story.txt"
    path.parent.mkdir()
    path.write_text(TEXT, encoding="utf-8")
    return path


def naive_nats(model, ids):
    """Total loss with each token read after the tokens of its window, one at a time."""
    total = 0.0
    for target in range(1, len(ids)):
        start = (target - 1) // 16 * 16
        logits = model.module(torch.tensor([ids[start:target]]))[0, -1].double()
        total -= float(logits.log_softmax(-1)[ids[target]])
    return total


def test_metrics_are_the_total_loss_over_tokens_words_and_bytes(model, text_file):
    result = evaluate(model, text_file)
    nats = naive_nats(model, [model.tokenizer.eos_id, *model.tokenizer.encode(TEXT)])
    assert result.tokens == len(TEXT), "read after the end-of-text token, every character is scored"
    assert result.loss.value == pytest.approx(nats / len(TEXT), rel=1e-5)
    assert result.perplexity.value == pytest.approx(math.exp(nats / len(TEXT)), rel=1e-4)
    n_bytes = len(TEXT.encode())
    assert result.bytes == n_bytes
    assert result.bits_per_byte.value == pytest.approx(nats / n_bytes / math.log(2), rel=1e-5)
    assert result.byte_perplexity.value == pytest.approx(2**result.bits_per_byte.value)
    assert result.words == 30 * 15
    assert math.log(result.word_perplexity.value) == pytest.approx(nats / (30 * 15), rel=1e-5)


def test_without_a_start_token_the_first_token_is_not_scored(tiny_model, text_file):
    result = evaluate(tiny_model(end_of_text=False), text_file)
    assert result.tokens == len(TEXT) - 1
    assert len(result.losses) == result.tokens
    assert result.bytes == len(TEXT.encode()) - 1


def test_intervals_hold_the_value_and_are_those_of_block_resampling(model, text_file):
    result = evaluate(model, text_file, bootstrap_samples=2000)
    assert result.blocks == math.ceil(len(TEXT) / 16)
    for name, metric in result.metrics.items():
        assert metric.interval.low < metric.value < metric.interval.high, name
    blocks = [result.losses[i : i + 16] for i in range(0, len(TEXT), 16)]
    deviations = [float((b - result.loss.value).sum()) for b in blocks]
    linearised = math.sqrt(sum(d * d for d in deviations)) / len(TEXT)
    assert result.loss.interval.stderr == pytest.approx(linearised, rel=0.1)


def test_overlapping_windows_score_the_same_tokens(model, text_file):
    plain, sliding = evaluate(model, text_file), evaluate(model, text_file, stride=4)
    assert plain.tokens == sliding.tokens
    assert plain.losses[:16] == pytest.approx(sliding.losses[:16], abs=1e-5)
    assert plain.losses[16:] != pytest.approx(sliding.losses[16:], abs=1e-5)


def test_batch_size_changes_nothing(model, text_file):
    assert evaluate(model, text_file, batch_size=1).loss.value == pytest.approx(
        evaluate(model, text_file, batch_size=7).loss.value, rel=1e-6
    )


def test_bf16_is_near_fp32(model, text_file):
    full = evaluate(model, text_file).loss.value
    low = evaluate(LanguageModel(model.module.to(torch.bfloat16), model.tokenizer), text_file)
    assert low.dtype == "bfloat16"
    assert low.loss.value == pytest.approx(full, rel=0.02)


def test_a_prepared_split_gives_the_numbers_of_its_text(model, text_file, tmp_path):
    prepared = prepare(PrepareConfig(sources=(str(text_file),), out=tmp_path / "prepared", tokenizer="char"))
    own = LanguageModel(tiny_like(model, prepared.tokenizer.vocab_size), prepared.tokenizer)
    split = prepared.split("validation")
    result = evaluate(own, tmp_path / "prepared", split="validation")
    assert result.task == "prepared/validation"
    assert (result.words, result.bytes) == (split.n_words, split.n_bytes - 1), "one letter is not scored"
    ids = split.tokens.tolist()
    assert result.loss.value == pytest.approx(naive_nats(own, ids) / (len(ids) - 1), rel=1e-5)


def tiny_like(model, vocab_size):
    import dataclasses

    from tickwise.models.decoder import Decoder

    module = Decoder(dataclasses.replace(model.config, vocab_size=vocab_size))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" not in name:
                parameter.normal_(0, 0.3, generator=generator)
    return module.requires_grad_(False)


def test_data_prepared_with_another_tokenizer_is_refused(model, text_file, tmp_path):
    prepare(PrepareConfig(sources=(str(text_file),), out=tmp_path / "prepared", tokenizer="char"))
    with pytest.raises(DataError, match="another tokenizer"):
        evaluate(model, tmp_path / "prepared")


@pytest.fixture
def trained(model, text_file, tmp_path):
    """A run directory whose model says that it was trained on the prepared text."""
    prepared = prepare(PrepareConfig(
        sources=(str(text_file),), out=tmp_path / "prepared", tokenizer="char", validation_fraction=0.2,
        test_fraction=0.1,
    ))
    record = {"data": {"prepared": str(prepared.path), "fingerprint": prepared.fingerprint}}
    save_model(tmp_path / "run" / "model", tiny_like(model, prepared.tokenizer.vocab_size), prepared.tokenizer,
               run=record)
    return tmp_path / "run", prepared


def test_a_text_file_has_no_splits(model, text_file):
    with pytest.raises(ConfigError, match="a text file has no splits; leave --split out, or give the prepared"):
        evaluate(model, text_file, split="validation")


def test_without_data_it_is_what_the_model_was_trained_on(trained, capsys):
    run, prepared = trained
    for model in (run, run / "model", load(run)):
        result = evaluate(model)
        assert result.task == "prepared/test"
        assert result.tokens == len(prepared.split("test")) - 1
        assert f"test split of {prepared.path}: {result.tokens:,} tokens" in capsys.readouterr().err
    assert evaluate(run, split="validation").tokens == len(prepared.split("validation")) - 1


def test_a_checkpoint_of_a_run_knows_its_data_too(trained):
    run, _ = trained
    (run / "checkpoints").mkdir()
    (run / "model").rename(run / "checkpoints" / "step-3")
    (run / "checkpoints" / "step-3" / "run.json").rename(run / "run.json")
    assert evaluate(run).task == "prepared/test"


def test_without_a_test_split_it_is_the_validation_split(model, text_file, tmp_path):
    prepared = prepare(PrepareConfig(sources=(str(text_file),), out=tmp_path / "prepared", tokenizer="char"))
    own = LanguageModel(tiny_like(model, prepared.tokenizer.vocab_size), prepared.tokenizer)
    assert evaluate(own, prepared.path).task == "prepared/validation"


def test_data_that_is_not_known_gone_or_changed_is_one_line_that_asks_for_data(trained, model, text_file):
    run, prepared = trained
    with pytest.raises(ConfigError, match="give --data"):
        evaluate(model)
    prepare(PrepareConfig(
        sources=(str(text_file),), out=prepared.path, tokenizer="char", test_fraction=0.3, overwrite=True
    ))
    with pytest.raises(DataError, match=r"prepared again since .* give --data"):
        evaluate(run)
    prepared.path.rename(prepared.path.with_name("elsewhere"))
    with pytest.raises(DataError, match="is gone; give --data"):
        evaluate(run)
    for record in ("{}", '{"data": null}', '{"data": {"source": "x"}}'):
        (run / "model" / "run.json").write_text(record)
        with pytest.raises(DataError, match="give --data"):
            evaluate(run)


def test_text_is_scored_as_it_is_or_cleaned_when_asked(model, tmp_path):
    path = tmp_path / "windows.txt"
    path.write_bytes(b"one line\r\n" * 50)
    with pytest.raises(DataError, match=r"character '\\r' \(U\+000D\) at byte 8, line 1 .*; --clean makes"):
        evaluate(model, path)
    assert evaluate(model, path, clean=True).bytes == 9 * 50
    with pytest.raises(ConfigError, match="--clean is for text files"):
        evaluate(model, tmp_path, clean=True)


def test_a_character_that_the_model_does_not_know_is_named_with_its_place(model, tmp_path):
    path = tmp_path / "greek.txt"
    path.write_text("\u00e9<|endoftext|>a\nb\u03b1", encoding="utf-8")
    with pytest.raises(DataError, match=r"greek.txt: character 'α' \(U\+03B1\) at byte 18, line 2 .*; take it out"):
        evaluate(model, path)


def test_result_is_json_in_the_layout_of_lm_evaluation_harness(model, text_file):
    output = json.loads(json.dumps(evaluate(model, text_file).to_json(), allow_nan=False))
    results = output["results"]["books/story"]
    for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte", "loss", "perplexity"):
        assert isinstance(results[f"{metric},none"], float)
        assert results[f"{metric}_stderr,none"] > 0
        low, high = output["intervals"]["books/story"][metric]
        assert low < results[f"{metric},none"] < high
    assert output["config"]["bootstrap_iters"] == 1000
    assert output["versions"] == {"books/story": 1}


def test_a_perplexity_that_overflows_is_null_in_json_not_infinity(model, tmp_path):
    path = tmp_path / "unspaced.txt"
    path.write_text("abcdefgh" * 200)
    output = evaluate(model, path).to_json()
    assert output["results"][f"{tmp_path.name}/unspaced"]["word_perplexity,none"] is None
    json.dumps(output, allow_nan=False)


def test_a_text_of_one_block_has_no_interval(model, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("ab")
    result = evaluate(model, path)
    assert result.tokens == 2
    assert result.loss.interval is None


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no text"), (b" \n", "no text"), (b"ab\xff", "not UTF-8 at byte 2"), (None, "no such file")],
)
def test_data_that_cannot_be_used_is_refused_in_one_line(model, tmp_path, content, message):
    path = tmp_path / "data.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        evaluate(model, path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("context", 17), ("context", 0), ("stride", 0), ("stride", 17), ("batch_size", 0), ("bootstrap_samples", 1),
     ("seed", -1), ("words", "letters")],
)
def test_a_setting_that_cannot_be_is_refused_and_named(model, text_file, name, value):
    with pytest.raises(ConfigError, match=name.replace("_", "-")):
        evaluate(model, text_file, **{name: value})


def test_words_of_wikitext_count_an_end_mark_per_line():
    text = " = Title = \n\n a b c \n"
    assert count_words(text, "whitespace") == 6
    assert count_words(text, "wikitext") == 6 + 3
    assert count_words("a b", "wikitext") == 3
    assert count_words("", "wikitext") == 0


@pytest.mark.parametrize("rule", ["whitespace", "wikitext"])
@pytest.mark.parametrize("block", [1, 7, 16])
def test_words_and_bytes_of_blocks_are_counted_where_they_start(model, rule, block):
    tokens = numpy.array(model.tokenizer.encode(TEXT))
    corpus = Corpus("x", "x", tokens, count_words(TEXT, rule), len(TEXT.encode()), Path("x"))
    edges = numpy.append(numpy.arange(0, len(tokens), block), len(tokens))
    words, n_bytes = words_and_bytes_per_block(corpus, model.tokenizer, edges, rule)
    assert words.sum() == pytest.approx(corpus.n_words)
    pieces = [TEXT[a:b] for a, b in itertools.pairwise(edges)]
    assert n_bytes == pytest.approx([len(piece.encode()) for piece in pieces])


def test_tickwise_evaluate_is_the_function_also_after_its_package_was_imported(model, text_file, tmp_path):
    save_model(tmp_path / "model", model.module, model.tokenizer)
    import tickwise.evaluation.perplexity

    assert tickwise.evaluate(tmp_path / "model", text_file).loss.value == pytest.approx(
        evaluate(model, text_file).loss.value
    )
