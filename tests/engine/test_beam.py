import itertools
import math

import pytest
import torch

from tickwise.engine.beam import BeamSearch
from tickwise.engine.engine import Engine
from tickwise.engine.options import EngineOptions
from tickwise.engine.requests import Generation, Request, TextPiece
from tickwise.engine.settings import GenerationSettings


def engine_for(module, tokenizer, **options):
    return Engine(module, tokenizer, options=EngineOptions(**{"block_size": 4, "max_rows": 40, **options}))


def search(engine, prompt, width, n=1, length_penalty=1.0, **settings):
    asked = GenerationSettings(**{"temperature": 1.0, "n": n, "max_tokens": 6, "seed": 0, "beam_width": width,
                                  "length_penalty": length_penalty, **settings})
    engine.submit(Request(prompt=prompt, settings=asked))
    found = []
    while not engine.idle:
        found += [e for e in engine.step() if isinstance(e, Generation)]
        engine.scheduler.check()
    assert engine.scheduler.pool.available == engine.runner.n_blocks
    return found


@torch.no_grad()
def log_probability(module, prompt, ids):
    logits = module(torch.tensor([[*prompt, *ids]]))[0].float().log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(ids))


def test_a_beam_as_wide_as_the_vocabulary_finds_the_most_likely_text(tiny_decoder, tokenizer):
    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size)
    prompt, n_vocab = [3, 1, 4], tokenizer.vocab_size
    found = search(engine_for(module, tokenizer), prompt, width=n_vocab, n=5, max_tokens=2, ignore_eos=True)
    scores = {ids: log_probability(module, prompt, ids) for ids in itertools.product(range(n_vocab), repeat=2)}
    best = sorted(scores, key=lambda ids: -scores[ids])[:5]
    assert [g.token_ids for g in found] == best


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("prompt", [[3, 1, 4, 1, 5], [7, 7], [20, 5, 9]])
def test_texts_are_those_of_transformers(tiny_decoder, tokenizer, tmp_path, length_penalty, prompt):
    transformers = pytest.importorskip("transformers")
    from tickwise.interop.directory import save_model

    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size)
    save_model(tmp_path / "model", module, tokenizer)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    eos = tokenizer.eos_id
    out = reference.generate(
        torch.tensor([prompt]), num_beams=4, num_return_sequences=3, max_new_tokens=8, do_sample=False,
        length_penalty=length_penalty, early_stopping=False, eos_token_id=eos, pad_token_id=eos,
    )
    expected = []
    for row in out[:, len(prompt) :].tolist():
        expected.append(tuple(row[: row.index(eos)] if eos in row else row))
    found = search(engine_for(module, tokenizer), prompt, 4, n=3, length_penalty=length_penalty, max_tokens=8)
    assert [g.token_ids for g in found] == expected


def test_a_beam_that_loses_its_blocks_finds_the_same(tiny_decoder, tokenizer):
    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size)
    alone = search(engine_for(module, tokenizer), [3, 1, 4], 3, n=3, max_tokens=12)
    engine = engine_for(module, tokenizer, n_blocks=16, tick_tokens=40)
    first = GenerationSettings(temperature=0.0, max_tokens=28, ignore_eos=True)
    for token_id in (1, 2):
        engine.submit(Request(prompt=[token_id, 2], settings=first))
    for _ in range(18):
        engine.step()
    found = search(engine, [3, 1, 4], 3, n=3, max_tokens=12)
    assert [g.token_ids for g in found if g.prompt_tokens == 3] == [g.token_ids for g in alone]
    assert engine.scheduler.n_preempted > 0


def test_the_text_comes_whole_and_a_cancelled_beam_gives_what_it_has(tiny_decoder, tokenizer):
    module = tiny_decoder(seed=3, vocab_size=tokenizer.vocab_size)
    engine = engine_for(module, tokenizer)
    settings = GenerationSettings(max_tokens=20, ignore_eos=True, beam_width=3)
    request_id = engine.submit(Request(prompt=[1, 2], settings=settings))
    for _ in range(5):
        assert engine.step() == []
    engine.cancel(request_id)
    piece, generation = engine.step()
    assert isinstance(piece, TextPiece)
    assert piece.text == generation.text
    assert (generation.finish_reason, len(generation.token_ids)) == ("cancelled", 5)


def test_an_ended_text_stays_until_nothing_can_beat_it():
    beam = BeamSearch(width=2, length_penalty=0.0, end_ids=(0,), max_tokens=10)
    logits = torch.tensor([[0.6, 0.3, 0.1]]).log()
    assert beam.advance(logits) == [(0, 1), (0, 2)]
    assert [h.token_ids for h in beam.finished] == [()]
    assert not beam.done
    beam.advance(torch.tensor([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1]]).log())
    assert [h.token_ids for h in beam.finished] == [(), (1,)]
    assert beam.done


def test_a_text_has_several_ways_to_end():
    beam = BeamSearch(width=2, length_penalty=0.0, end_ids=(0, 1), max_tokens=10)
    assert beam.advance(torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()) == [(0, 2), (0, 3)]
    assert [h.score for h in beam.finished] == pytest.approx([math.log(0.4), math.log(0.3)])
