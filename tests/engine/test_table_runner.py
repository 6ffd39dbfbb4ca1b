"""Models that look at the last few tokens only, in the engine."""

from collections import Counter

import numpy
import pytest
import torch

from tickwise.cli.trace_show import trace_as_json
from tickwise.engine.language_model import LanguageModel
from tickwise.engine.runner import RowInput
from tickwise.engine.table_runner import TableCosts, TableRunner
from tickwise.engine.tracing import traced, writing_costs
from tickwise.engine.work import RowWork, TickWork
from tickwise.evaluation.windows import token_losses
from tickwise.models.factorised import Factorised, FactorisedConfig
from tickwise.profiling.trace_store import open_trace
from tickwise.tokenizers.train import char_tokenizer
from tickwise.training.factorised import FactorisedSettings, build_factorised
from tickwise.training.ngram import count_ngrams


@pytest.fixture(params=["ngram", "factorised"])
def module(request):
    ids = numpy.random.default_rng(0).integers(0, 20, size=400)
    ngram = count_ngrams(ids, 20, order=3, boundary=3)
    if request.param == "ngram":
        return ngram
    module = Factorised(FactorisedConfig(rank=4, n_positions=2, decays=(0.9,), window=6, ngram=ngram.config))
    module.ngram = ngram
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if not name.startswith("ngram."):
            parameter.data = torch.rand(parameter.shape, generator=generator)
    return module


TEXT = [5, 8, 3, 7, 7, 2, 9, 11, 4, 6, 1, 0, 13]


def test_pieces_of_a_text_say_what_the_whole_text_says(module):
    expected = module(torch.tensor([TEXT]))[0]
    runner = TableRunner(module, n_blocks=8, block_size=4)
    blocks = [6, 1, 3, 2]
    torch.testing.assert_close(runner.run([RowInput(TEXT[:5], 0, blocks[:2], 2)]), expected[3:5])
    assert runner.run([RowInput(TEXT[5:9], 5, blocks[:3], 0)]) is None
    torch.testing.assert_close(runner.run([RowInput(TEXT[9:10], 9, blocks[:3], 1)]), expected[9:10])
    other = RowInput(TEXT[:3], 0, [0], 3)
    found = runner.run([RowInput(TEXT[10:13], 10, blocks, 3), other])
    torch.testing.assert_close(found, torch.cat([expected[10:13], expected[:3]]))


def test_a_copied_block_continues_like_its_original(module):
    runner = TableRunner(module, n_blocks=4, block_size=4)
    runner.run([RowInput(TEXT[:6], 0, [0, 1], 1)])
    runner.copy_blocks([(1, 3)])
    original = runner.run([RowInput([2], 6, [0, 1], 1)])
    torch.testing.assert_close(runner.run([RowInput([2], 6, [0, 3], 1)]), original)
    assert runner.state_bytes == 4 * 4 * 8


RHYME = "the cat sat on the mat, the rat sat on the cat, and the cat sat still.\n" * 8


@pytest.fixture(params=["ngram", "factorised"])
def language_model(request):
    tokenizer = char_tokenizer(Counter(RHYME), vocab_size=None, end_of_text=True, unknown=False)
    ids = numpy.array([tokenizer.eos_id, *tokenizer.encode(RHYME)])
    ngram = count_ngrams(ids, tokenizer.vocab_size, order=5, boundary=tokenizer.eos_id, context_length=64)
    if request.param == "ngram":
        return LanguageModel(ngram, tokenizer)
    settings = FactorisedSettings(rank=8, n_positions=2, window=10, epochs=1, batch_size=128, sampled_words=10)
    return LanguageModel(build_factorised(ngram, ids, ids[:300], settings), tokenizer)


def test_counted_models_write_score_and_are_evaluated(language_model):
    written = language_model.generate("the cat", max_tokens=40, temperature=0)
    assert written.text.startswith(" sat on the")
    # Past the context, the text slides on.
    assert len(language_model.generate("the", max_tokens=100, temperature=0.7, seed=1,
                                       ignore_eos=True).token_ids) == 100
    assert [s.text for s in language_model.generate("the", n=2, max_tokens=20, seed=3)] == [
        s.text for s in language_model.generate("the", n=2, max_tokens=20, seed=3)]
    assert language_model.score("the cat sat").perplexity < language_model.score("eht tac tas").perplexity
    ids = numpy.array([language_model.tokenizer.eos_id, *language_model.tokenizer.encode(RHYME[:60])])
    losses = token_losses(language_model.module, ids, context=64, stride=64, batch_size=1)
    assert losses.sum() == pytest.approx(language_model.score(RHYME[:60]).nats, rel=1e-5)
    single = language_model.module.target_log_probabilities(torch.from_numpy(ids))
    assert losses == pytest.approx(-single.numpy(), abs=1e-5)


def test_what_a_tick_costs_is_listed_and_traced(language_model, tmp_path):
    with traced(language_model, tmp_path / "trace", writing_costs(language_model, use_cache=True)):
        language_model.generate("the cat", max_tokens=5, temperature=0)
    ticks = trace_as_json(open_trace(tmp_path / "trace"))["ticks"]
    stages = {stage["stage"]: stage for tick in ticks if tick["phase"] == "decode" for stage in tick["stages"]}
    assert stages["head"]["bytes_read"] > 0
    if isinstance(language_model.module, Factorised):
        config = language_model.module.config
        products = config.n_features * config.rank + config.rank * config.vocab_size
        sums = len(config.decays) * config.window * config.rank
        listing = TableCosts(language_model.module).listing(TickWork((RowWork("one", 1, 3, "decode"),)))
        assert listing.total.flops == 2 * (products + sums)
