"""A recurrent model in the engine: what it writes is what a plain loop writes."""

import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage
from tickwise.engine.engine import Engine
from tickwise.engine.generation import generate_events
from tickwise.engine.options import EngineOptions
from tickwise.engine.recurrent_runner import RecurrentCosts, RecurrentRunner
from tickwise.engine.requests import Generation, Request
from tickwise.engine.runner import RowInput
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.work import RowWork, TickWork
from tickwise.models.recurrent import Recurrent, RecurrentConfig


@pytest.fixture
def module(tokenizer):
    torch.manual_seed(0)
    module = Recurrent(RecurrentConfig(vocab_size=tokenizer.vocab_size, width=16, hidden=24, n_layers=2))
    for parameter in module.initialise(0).parameters():
        torch.nn.init.normal_(parameter, 0, 0.5)
    return module.requires_grad_(False).eval()


@torch.inference_mode()
def written_plainly(module, prompt_ids, n):
    """Greedy, one token after the other."""
    tokens, state = list(prompt_ids), None
    ids = tokens
    for _ in range(n):
        logits, state = module(torch.tensor([ids]), state)
        ids = [int(logits[0, -1].argmax())]
        tokens += ids
    return tokens[len(prompt_ids) :]


def greedy(prompt, n=20):
    return Request(prompt=prompt, settings=GenerationSettings(max_tokens=n, temperature=0, ignore_eos=True))


def test_rows_of_different_lengths_say_what_each_says_alone(module):
    runner = RecurrentRunner(module, 4)
    texts = [[3, 1, 4, 1], [5], [9, 2, 6, 5]]
    logits = runner.run([RowInput(ids, 0, [block], 1) for block, ids in enumerate(texts)])
    more = runner.run([RowInput([7], 4, [0], 1), RowInput([8, 8], 1, [1], 2), RowInput([2], 4, [2], 0)])
    with torch.inference_mode():
        alone = [module(torch.tensor([ids]))[0][0] for ids in ([3, 1, 4, 1, 7], [5, 8, 8], [9, 2, 6, 5])]
    torch.testing.assert_close(logits, torch.stack([alone[0][3], alone[1][0], alone[2][3]]))
    torch.testing.assert_close(more, torch.stack([alone[0][4], alone[1][1], alone[1][2]]))
    assert runner.run([RowInput([1], 0, [3], 0)]) is None


def test_a_copied_block_goes_on_like_its_original_and_a_new_text_like_a_new_one(module):
    runner = RecurrentRunner(module, 2)
    fresh = runner.run([RowInput([3, 1], 0, [0], 1)])
    runner.copy_blocks([(0, 1)])
    first = runner.run([RowInput([4], 2, [0], 1)])
    torch.testing.assert_close(runner.run([RowInput([4], 2, [1], 1)]), first)
    torch.testing.assert_close(runner.run([RowInput([3, 1], 0, [1], 1)]), fresh)


def test_the_engine_writes_what_the_plain_loop_writes(module, tokenizer):
    prompts = [[3, 1, 4, 1, 5, 9, 2, 6], [5], [8, 9, 7], [3, 2]]
    # Few tokens a tick, so that prompts are read in pieces while others decode; fewer slots than requests.
    engine = Engine(module, tokenizer, options=EngineOptions(max_rows=2, tick_tokens=3))
    names = [engine.submit(greedy(prompt)) for prompt in prompts]
    done = {e.request_id: list(e.token_ids) for e in engine.run_until_idle() if isinstance(e, Generation)}
    for name, prompt in zip(names, prompts, strict=True):
        assert done[name] == written_plainly(module, prompt, 20)


def test_a_cancelled_request_leaves_the_others_as_they_are(module, tokenizer):
    engine = Engine(module, tokenizer, options=EngineOptions(max_rows=2))
    first, second = engine.submit(greedy([1, 2, 3], 40)), engine.submit(greedy([4, 5], 30))
    for _ in range(5):
        engine.step()
    engine.cancel(first)
    third = engine.submit(greedy([6], 10))
    done = {e.request_id: list(e.token_ids) for e in engine.run_until_idle() if isinstance(e, Generation)}
    assert done[second] == written_plainly(module, [4, 5], 30)
    assert done[third] == written_plainly(module, [6], 10)
    assert 0 < len(done[first]) < 40


def test_samples_and_beams_of_one_prompt_share_its_state(module, tokenizer):
    engine = Engine(module, tokenizer, options=EngineOptions(max_rows=4))
    settings = GenerationSettings(max_tokens=8, n=4, seed=1, ignore_eos=True)
    engine.submit(Request(prompt=[1, 2, 3], settings=settings))
    assert len({tuple(e.token_ids) for e in engine.run_until_idle() if isinstance(e, Generation)}) > 1
    engine.submit(Request(prompt=[1, 2, 3], settings=GenerationSettings(max_tokens=8, beam_width=3, temperature=0)))
    assert [e for e in engine.run_until_idle() if isinstance(e, Generation)]


def test_the_way_from_a_prompt_to_text_is_the_decoders(module, tokenizer):
    settings = GenerationSettings(max_tokens=12, temperature=0, ignore_eos=True)
    *_, last = generate_events(module, tokenizer, "abc", settings)
    assert list(last.token_ids) == written_plainly(module, tokenizer.encode("abc"), 12)


@pytest.mark.parametrize("options", [{"speculate": "lookup"}, {"use_cache": False}])
def test_what_needs_a_decoder_is_refused(module, tokenizer, options):
    with pytest.raises(ConfigError, match="a recurrent model always keeps its state"):
        Engine(module, tokenizer, options=EngineOptions(**options))


def test_costs_of_a_tick_are_those_of_its_listing(module):
    costs = RecurrentCosts(module)
    work = TickWork((RowWork("a", 1, 9, "decode"), RowWork("b", 1, 99, "decode")))
    table, lengths = costs(work)
    figures = table.at(lengths)
    assert figures[Stage.RECURRENT, 0][0] == 2 * 2 * 4 * 24 * (16 + 24)
    assert figures[Stage.RECURRENT, 1][0] == 2 * 2 * 4 * 24 * (24 + 24)
    assert costs(TickWork((RowWork("a", 1, 500, "decode"), RowWork("b", 1, 1, "decode"))))[0] is table
    assert costs.typical_listing()
