"""Beam search over many sources: what it finds is what transformers finds, and what each source finds alone."""

import math
import random

import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage
from tickwise.engine.batch_beam import BeamOptions, beam_search, most_likely
from tickwise.engine.beam_costs import BeamCosts
from tickwise.engine.packed_weights import packed_weights, why_not_packed
from tickwise.engine.sampling import LogitsError
from tickwise.profiling.program import stage_costs

CHANGES = [
    {},
    {"positions": "sinusoidal", "norm": "layernorm", "norm_place": "post", "final_norm": False, "activation": "relu",
     "bias": True, "logit_bias": True},
    {"positions": "learned", "n_kv_heads": 2, "tie_embeddings": False},
    {"positions": "relative", "scale_scores": False, "scale_logits": True, "scale_embedding": False},
    {"copies": True, "n_kv_heads": 2},
]  # fmt: skip


def some_sources(n, longest, seed=0, n_vocab=40):
    chooser = random.Random(seed)
    return [[chooser.randrange(3, n_vocab) for _ in range(chooser.randint(1, longest))] for _ in range(n)]


def found_for(module, sources, **options):
    found = dict(beam_search(module, sources, BeamOptions(**options)))
    assert sorted(found) == list(range(len(sources)))
    return [found[index] for index in range(len(sources))]


@torch.no_grad()
def slow_twin(module, source, *, width, length_penalty, max_tokens):
    """Beam search with the whole text computed again for every candidate: (score, ids without the end mark)."""
    eos = module.config.eos_id
    source_1S, finished, beams = torch.tensor([[*source, eos]]), [], [(0.0, ())]
    for length in range(1, max_tokens + 1):
        ways = []
        for score, text in beams:
            logits = module(source_1S, None, torch.tensor([[module.config.start_id, *text]]))[0, -1]
            ways += [(score + p, (*text, i)) for i, p in enumerate(logits.log_softmax(-1).tolist())]
        ways.sort(reverse=True)
        ends = [w for w in ways[:width] if w[1][-1] == eos or length == max_tokens]
        finished = sorted(finished + [(s / length**length_penalty, t) for s, t in ends], reverse=True)[:width]
        beams = [w for w in ways[: 2 * width] if w[1][-1] != eos][:width]
        if len(finished) == width and beams[0][0] / length**length_penalty <= finished[-1][0]:
            break
    return [(score, text[:-1] if text[-1] == eos else text) for score, text in finished]


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("width", [1, 3])
def test_every_source_finds_what_a_slow_search_finds_for_it_alone(tiny_encoder_decoder, changes, width):
    module = tiny_encoder_decoder(eos_bias=6.0 if changes.get("copies") else 3.0, **changes)
    sources = some_sources(9, 7)
    # Fewer places than sources, so that some join while others are written.
    found = found_for(module, sources, width=width, n_best=width, max_ratio=0, max_extra=7, batch=4)
    for source, hypotheses in zip(sources, found, strict=True):
        expected = slow_twin(module, source, width=width, length_penalty=1.0, max_tokens=7)
        assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-4)
        assert [h.token_ids for h in hypotheses] == [ids for _, ids in expected]
    assert any(hypothesis.ended for hypotheses in found for hypothesis in hypotheses)


def test_a_beam_of_one_takes_the_most_likely_token(tiny_encoder_decoder):
    module = tiny_encoder_decoder()
    for source, (best,) in zip(sources := some_sources(5, 6), found_for(module, sources, width=1, max_ratio=2),
                               strict=True):
        text = [module.config.start_id]
        longest = 2 * len(source) + 10
        with torch.no_grad():
            while len(text) <= longest and (len(text) == 1 or text[-1] != module.config.eos_id):
                logits = module(torch.tensor([[*source, module.config.eos_id]]), None, torch.tensor([text]))
                text.append(int(logits[0, -1].argmax()))
        assert list(best.token_ids) == [token for token in text[1:] if token != module.config.eos_id]
        assert best.ended == (text[-1] == module.config.eos_id)


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["marian", "bart", "t5"])
def test_texts_and_scores_are_those_of_transformers(tmp_path, kind, length_penalty):
    transformers = pytest.importorskip("transformers")
    from tickwise.interop.directory import load_module

    torch.manual_seed(3)
    reference = tiny_reference(transformers, kind)
    reference.save_pretrained(tmp_path)
    module = load_module(tmp_path)
    sources = some_sources(7, 9, seed=1, n_vocab=49)
    longest, eos, pad = max(map(len, sources)) + 1, module.config.eos_id, module.config.pad_id
    ids = torch.tensor([[*s, eos] + [pad] * (longest - len(s) - 1) for s in sources])
    mask = torch.tensor([[1] * (len(s) + 1) + [0] * (longest - len(s) - 1) for s in sources])
    out = reference.generate(
        ids, attention_mask=mask, num_beams=4, num_return_sequences=3, max_new_tokens=12, do_sample=False,
        length_penalty=length_penalty, early_stopping=False, forced_eos_token_id=None, forced_bos_token_id=None,
        no_repeat_ngram_size=0, min_length=0, return_dict_in_generate=True, output_scores=True,
    )
    found = found_for(module, sources, width=4, n_best=3, length_penalty=length_penalty, max_ratio=0, max_extra=12,
                      batch=3)
    texts = [row[: row.index(eos)] if eos in row else row for row in out.sequences[:, 1:].tolist()]
    assert [list(h.token_ids) for hypotheses in found for h in hypotheses] == texts
    assert [h.score for hypotheses in found for h in hypotheses] == pytest.approx(out.sequences_scores.tolist(),
                                                                                  rel=1e-4)


def tiny_reference(transformers, kind):
    """A model of transformers whose texts end after a few tokens, each differently."""
    if kind == "t5":
        config = transformers.T5Config(
            vocab_size=50, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, decoder_start_token_id=0,
            pad_token_id=0, eos_token_id=1, relative_attention_num_buckets=8, relative_attention_max_distance=16,
            initializer_factor=3.0)
        model = transformers.T5ForConditionalGeneration(config).eval()
    else:
        sizes = {
            "vocab_size": 50, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32,
            "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "init_std": 0.4}
        config_class, model_class = ((transformers.MarianConfig, transformers.MarianMTModel) if kind == "marian" else
                                     (transformers.BartConfig, transformers.BartForConditionalGeneration))
        model = model_class(config_class(**sizes, **({"bos_token_id": 2} if kind == "bart" else {}))).eval()
        model.final_logits_bias[0, 1] = 0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "bias" in name:
                parameter.normal_(0, 0.2)
    return model


def test_the_penalty_of_gnmt_is_the_formula_of_its_paper(tiny_encoder_decoder):
    module = tiny_encoder_decoder()
    (plain,), (gnmt,) = (
        [hypotheses[0] for hypotheses in found_for(module, [[5, 9, 11]], width=40, max_ratio=0, max_extra=1,
                                                   length_penalty=penalty, normalise=norm)]
        for penalty, norm in ((0.0, "power"), (0.6, "gnmt")))
    assert gnmt.score == pytest.approx(plain.score)  # of a single token: ((5 + 1) / 6) ** 0.6 = 1
    (two,), (two_gnmt,) = (
        [hypotheses[0] for hypotheses in found_for(module, [[5, 9, 11]], width=1, max_ratio=0, max_extra=2,
                                                   length_penalty=penalty, normalise=norm)]
        for penalty, norm in ((0.0, "power"), (0.6, "gnmt")))
    assert two.token_ids == two_gnmt.token_ids
    n_tokens = len(two.token_ids) + two.ended
    assert two_gnmt.score == pytest.approx(two.score / ((5 + n_tokens) / 6) ** 0.6)


def test_no_text_is_longer_than_its_source_allows(tiny_encoder_decoder):
    module = tiny_encoder_decoder(eos_bias=-50.0)
    sources = [[4] * 5, [4], [4] * 20]
    found = found_for(module, sources, width=2, max_ratio=1.5, max_extra=2)
    assert [len(hypotheses[0].token_ids) for hypotheses in found] == [9, 3, module.config.context_length]
    assert not any(hypothesis.ended for hypotheses in found for hypothesis in hypotheses)


@pytest.mark.parametrize("n_vocab", [5, 63, 64, 200, 1000])
@pytest.mark.parametrize("width", [1, 4])
def test_the_most_likely_continuations_are_those_of_a_full_sort(n_vocab, width):
    torch.manual_seed(n_vocab)
    logits, scores = 3 * torch.randn(3, width, n_vocab), -torch.rand(3, width)
    totals = logits.log_softmax(-1) + scores[..., None]
    top, beams, ids = most_likely(logits, scores, 8)
    expected = totals.flatten(1).sort(descending=True).values[:, : min(8, width * n_vocab)]
    torch.testing.assert_close(top, expected)
    torch.testing.assert_close(totals[torch.arange(3)[:, None], beams, ids], expected)
    assert all(len(set(zip(b, i, strict=True))) == len(b) for b, i in zip(beams.tolist(), ids.tolist(), strict=True))


@pytest.mark.parametrize("n_vocab", [20, 640])
def test_logits_that_are_no_numbers_are_an_error(n_vocab):
    logits = torch.zeros(2, 2, n_vocab)
    logits[1, 0, 3] = math.nan
    with pytest.raises(LogitsError):
        most_likely(logits, torch.zeros(2, 2), 4)


def test_users_mistakes_are_one_line(tiny_encoder_decoder):
    module = tiny_encoder_decoder()
    with pytest.raises(ConfigError, match=r"source 2 has 40 tokens and the model reads at most 23; shorten"):
        list(beam_search(module, [[4], [4] * 40]))
    with pytest.raises(ConfigError, match="widen the beam"):
        BeamOptions(width=2, n_best=3)
    with pytest.raises(ConfigError, match="no room"):
        BeamOptions(max_ratio=0, max_extra=0)
    assert list(beam_search(module, [])) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_are_of_a_twin_that_computes_the_same(tiny_encoder_decoder, dtype):
    module = tiny_encoder_decoder(bias=True).to(dtype)
    inputs = torch.randint(3, 40, (4, 6)), None, torch.randint(3, 40, (4, 5))
    twin = packed_weights(module, 1000)
    assert twin is not module or why_not_packed(dtype)
    assert not any("forward" in vars(layer) for layer in module.modules())
    assert all(ours is theirs for ours, theirs in zip(twin.parameters(), module.parameters(), strict=True))
    with torch.inference_mode():
        tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.15, "rtol": 0.05}
        torch.testing.assert_close(twin(*inputs), module(*inputs), **tolerance)
    assert packed_weights(module, 10) is module, "a few rows are not worth it"


def test_a_number_format_that_cannot_be_packed_is_said_and_changes_nothing(tiny_encoder_decoder):
    module = tiny_encoder_decoder().double()
    assert "float64" in why_not_packed(torch.float64)
    assert packed_weights(module, 1000) is module


def test_a_search_that_is_left_half_way_leaves_the_model_to_others(tiny_encoder_decoder):
    module, other = (tiny_encoder_decoder(eos_bias=3.0) for _ in range(2))
    sources = some_sources(80, 7)
    begun = beam_search(module, sources, BeamOptions(batch=8))
    next(begun)
    with torch.no_grad():
        for mine, theirs in zip(module.parameters(), other.parameters(), strict=True):
            mine.mul_(0.5)
            theirs.mul_(0.5)
        inputs = torch.randint(3, 40, (4, 6)), None, torch.randint(3, 40, (4, 5))
        torch.testing.assert_close(module(*inputs), other(*inputs))
    begun.close()


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("positions", ["rope", "sinusoidal", "learned", "relative"])
def test_a_text_that_ends_at_the_model_s_limit_leaves_the_others_alone(tiny_encoder_decoder, positions, width):
    module = tiny_encoder_decoder(eos_bias=-50.0, source_length=20, positions=positions)
    sources = [[4] * 7] + [[4]] * 30  # the first one may be the longest, and ends when the others are under way
    options = {"width": width, "max_ratio": 1, "max_extra": 13, "batch": 16}
    together = found_for(module, sources, **options)
    assert len(together[0][0].token_ids) >= module.config.context_length - 1
    (alone,) = found_for(module, sources[:1], **options)
    assert [text.token_ids for text in together[0]] == [text.token_ids for text in alone]


@pytest.mark.parametrize("changes", [{}, {"positions": "relative", "n_kv_heads": 2}])
@pytest.mark.parametrize("width", [1, 3])
def test_every_tick_costs_what_a_listing_of_it_counts(tiny_encoder_decoder, changes, width):
    module = tiny_encoder_decoder(eos_bias=2.0, **changes)
    works, costs = [], BeamCosts(module)

    class Heard:
        def begin_tick(self):
            self.marks = []

        def mark(self, stage, layer=None):
            self.marks.append(stage)

        def tick_work(self, work):
            works.append(work)

        def end_tick(self, tokens):
            stages = [Stage.EMBED, Stage.ATTENTION, Stage.CROSS_ATTENTION, Stage.HEAD, Stage.SAMPLE]
            assert [stage for stage in dict.fromkeys(self.marks) if stage in stages] == stages

    plain = found_for(module, some_sources(9, 7), width=width, batch=4)
    found = dict(beam_search(module, some_sources(9, 7), BeamOptions(width=width, batch=4), ledger=Heard()))
    assert [found[index] for index in range(9)] == plain
    assert {work.phase for work in works} == {"prefill", "decode"}
    assert sum(work.batch for work in works if work.phase == "prefill") == 9
    for work in (*works[:3], works[len(works) // 2], works[-1]):
        table, lengths = costs(work)
        listed = stage_costs(costs.listing(work))
        for key, figures in table.at(lengths).items():
            assert figures == (listed[key].flops, listed[key].bytes_read, listed[key].bytes_written), (work, key)
        assert sum(cost.flops for cost in listed.values()) > 0


def test_fewer_are_searched_side_by_side_where_the_vocabulary_is_large(tiny_encoder_decoder, monkeypatch):
    module, sources = tiny_encoder_decoder(eos_bias=3.0), some_sources(20, 7)
    rows: list[int] = []
    own = module.logits
    monkeypatch.setattr(module, "logits", lambda hidden, memory: rows.append(len(hidden)) or own(hidden, memory))
    expected = found_for(module, sources, width=2)
    assert max(rows) == 20
    rows.clear()
    monkeypatch.setattr("tickwise.engine.batch_beam._MOST_LOGITS", 2 * 5 * module.config.vocab_size)
    assert [[text.token_ids for text in texts] for texts in found_for(module, sources, width=2)] == \
        [[text.token_ids for text in texts] for texts in expected]
    assert max(rows) == 5
