import math
from collections import Counter

import numpy
import pytest
import torch

from tickwise.core.errors import ConfigError, NumericsError
from tickwise.engine import sampling, truncation
from tickwise.engine.sampling import LogitsError, TokenChooser, choose, draw, report, shaped_logits
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.truncation import candidates
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import char_tokenizer

PROBABILITIES = torch.tensor([[0.5, 0.25, 0.15, 0.1]])
LOGITS = PROBABILITIES.log()


def characters(text: str, end_of_text: bool = False) -> Tokenizer:
    """A vocabulary with one token per character, in order."""
    return char_tokenizer(Counter(text), vocab_size=None, end_of_text=end_of_text, unknown=False)


ABCD = characters("abcd")
LARGE = characters("".join(map(chr, range(0x4E00, 0x4E00 + 5000))))


def chooser(tokenizer=ABCD, prompt=(), sample_index=0, **settings) -> TokenChooser:
    settings.setdefault("seed", 0)
    return TokenChooser(GenerationSettings(**settings), prompt, tokenizer, sample_index)


def shape(logits, **settings):
    """Probabilities (B, V) after temperature and truncation."""
    logits_BV = torch.as_tensor(logits)
    weights, ids = candidates(logits_BV, GenerationSettings(**settings))
    weights = weights / weights.sum(-1, keepdim=True)
    return weights if ids is None else torch.zeros_like(logits_BV.float()).scatter_(-1, ids, weights)


# ---------------------------------------------------------------- temperature and truncation


def test_temperature_raises_probabilities_to_its_inverse():
    expected = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    torch.testing.assert_close(shape(LOGITS, temperature=0.5), expected)


@pytest.mark.parametrize("temperature", [1e-30, 1e-300, 5e-324])
def test_a_temperature_near_zero_is_greedy_without_overflow(temperature):
    assert shape(LOGITS * 1e4, temperature=temperature).tolist() == [[1, 0, 0, 0]]


@pytest.mark.parametrize("temperature", [1e39, 1e300])
def test_a_huge_temperature_makes_all_alike_but_what_is_ruled_out(temperature):
    logits = torch.tensor([[1.0, -5.0, -math.inf, 3.0]])
    torch.testing.assert_close(shape(logits, temperature=temperature), torch.tensor([[1 / 3, 1 / 3, 0, 1 / 3]]))


def test_top_k_keeps_the_k_most_likely():
    torch.testing.assert_close(shape(LOGITS, top_k=2), torch.tensor([[2 / 3, 1 / 3, 0, 0]]))


@pytest.mark.parametrize(("top_p", "kept"), [(0.49, 1), (0.51, 2), (0.74, 2), (0.76, 3), (0.99, 4), (1e-9, 1)])
def test_top_p_keeps_the_smallest_set_that_holds_it(top_p, kept):
    assert int((shape(LOGITS, top_p=top_p) > 0).sum()) == kept


@pytest.mark.parametrize(("min_p", "kept"), [(0.0, 4), (0.25, 3), (0.4, 2), (1.0, 1)])
def test_min_p_keeps_what_is_likely_enough_beside_the_best(min_p, kept):
    assert int((shape(LOGITS, min_p=min_p) > 0).sum()) == kept


def test_typical_prefers_the_expected_surprise_to_the_highest_probability():
    # The entropy is 1.49 nats: 1/5 (surprise 1.61) is nearest, and the most likely token (0.92) comes fourth.
    probabilities = torch.tensor([[0.4, 0.2, 0.15, 0.15, 0.1]])
    assert (shape(probabilities.log(), typical_p=0.15)[0] > 0).tolist() == [False, True, False, False, False]
    assert (shape(probabilities.log(), typical_p=0.3)[0] > 0).sum() == 2
    assert shape(probabilities.log(), typical_p=0.4)[0, 0] == 0


def test_the_shortcut_for_large_vocabularies_equals_a_full_sort(monkeypatch):
    logits = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)) * 4
    for settings in ({"top_p": 0.9}, {"typical_p": 0.3}):
        short = shape(logits, **settings)
        monkeypatch.setattr(truncation, "_NUCLEUS_CANDIDATES", 5000)
        full = shape(logits, **settings)
        monkeypatch.undo()
        assert int((full > 0).sum(-1).max()) < 256
        torch.testing.assert_close(short, full)


def test_the_shortcut_falls_back_when_the_distribution_is_flat():
    assert int((shape(torch.zeros(1, 5000), top_p=0.9) > 0).sum()) == pytest.approx(4500, abs=2)


@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": 7}, {"top_p": 0.7}, {"min_p": 0.2}, {"typical_p": 0.6}, {"top_k": 9, "typical_p": 0.5},
        {"temperature": 0.6, "top_k": 20, "top_p": 0.8, "min_p": 0.05, "typical_p": 0.9},
    ],
)
def test_equals_the_logits_processors_of_transformers(settings):
    warpers = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(2)) * 2
    expected = logits
    if "temperature" in settings:
        expected = warpers.TemperatureLogitsWarper(settings["temperature"])(None, expected)
    if "top_k" in settings:
        expected = warpers.TopKLogitsWarper(settings["top_k"])(None, expected)
    if "top_p" in settings:
        expected = warpers.TopPLogitsWarper(settings["top_p"])(None, expected)
    if "min_p" in settings:
        expected = warpers.MinPLogitsWarper(settings["min_p"])(None, expected)
    if "typical_p" in settings:
        expected = warpers.TypicalLogitsWarper(settings["typical_p"])(None, expected)
    torch.testing.assert_close(shape(logits, **settings), expected.softmax(-1))


# ---------------------------------------------------------------- the whole distribution, against a plain definition


def keep_smallest_set(probabilities, priority, mass):
    """The first tokens by ``priority`` that together hold ``mass``, one at a time."""
    held, kept = 0.0, {}
    for token in sorted(probabilities, key=priority):
        if held >= mass:
            break
        kept[token] = probabilities[token]
        held += probabilities[token]
    return {token: p / held for token, p in kept.items()}


def plain_distribution(logits, settings, prompt, written):
    """The definition in float64 with dictionaries: what each setting says, in the documented order."""
    scores = dict(enumerate(map(float, logits)))
    for token in {*prompt, *written}:
        penalty = settings.repetition_penalty
        scores[token] = scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
    for token, count in Counter(written).items():
        scores[token] -= count * settings.frequency_penalty + settings.presence_penalty
    for token, bias in settings.logit_bias:
        scores[token] = scores[token] + bias if bias > -100 else -math.inf
    scores = {token: score / settings.temperature for token, score in scores.items() if score > -math.inf}
    top = max(scores.values())
    weights = {token: math.exp(score - top) for token, score in scores.items()}
    probabilities = {token: weight / sum(weights.values()) for token, weight in weights.items()}
    if settings.top_k:
        best = sorted(probabilities, key=probabilities.get, reverse=True)[: settings.top_k]
        total = sum(probabilities[token] for token in best)
        probabilities = {token: probabilities[token] / total for token in best}
    if settings.top_p < 1:
        probabilities = keep_smallest_set(probabilities, lambda t: -probabilities[t], settings.top_p)
    if settings.min_p:
        least = settings.min_p * max(probabilities.values())
        kept = {token: p for token, p in probabilities.items() if p >= least}
        probabilities = {token: p / sum(kept.values()) for token, p in kept.items()}
    if settings.typical_p < 1:
        entropy = -sum(p * math.log(p) for p in probabilities.values())
        probabilities = keep_smallest_set(
            probabilities, lambda t: abs(-math.log(probabilities[t]) - entropy), settings.typical_p
        )
    return [probabilities.get(token, 0.0) for token in range(len(logits))]


TWELVE = characters("abcdefghijkl")
MIXES = [
    {},
    {"temperature": 0.7, "top_k": 5},
    {"top_p": 0.8, "min_p": 0.1},
    {"typical_p": 0.6},
    {"temperature": 1.4, "typical_p": 0.9, "top_k": 8},
    {"repetition_penalty": 1.5, "presence_penalty": 0.4, "frequency_penalty": -0.3},
    {"logit_bias": {2: 1.5, 7: -100, 0: -3.0}, "top_p": 0.95},
    {"repetition_penalty": 0.8, "frequency_penalty": 1.0, "logit_bias": {1: 2.0}, "temperature": 0.8, "min_p": 0.02},
]
HISTORY = ([1, 5, 9], [5, 5, 2, 0, 5])


def with_history(logits, **settings):
    """A chooser that read and wrote ``HISTORY``."""
    row = chooser(TWELVE, prompt=HISTORY[0], **settings)
    for token in HISTORY[1]:
        row.commit(token)
    return row


@pytest.mark.parametrize("settings", MIXES)
def test_the_distribution_is_that_of_the_definition(settings):
    logits = torch.randn(12, generator=torch.Generator().manual_seed(5)) * 1.5
    row = with_history(logits, **settings)
    expected = plain_distribution(logits, row.settings, *HISTORY)
    assert sampling.distribution(logits, row).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("settings", MIXES)
def test_draws_follow_the_distribution_of_the_definition(settings):
    logits = torch.randn(12, generator=torch.Generator().manual_seed(6))
    first = with_history(logits, **settings)
    expected = numpy.array(plain_distribution(logits, first.settings, *HISTORY))
    n = 6000
    rows = [first.fork(index) for index in range(n)]
    observed = numpy.bincount([c.token_id for c in choose(logits.expand(n, -1), rows)], minlength=12)
    assert observed[expected == 0].sum() == 0
    possible = expected > 0
    chi_squared = ((observed - n * expected)[possible] ** 2 / (n * expected)[possible]).sum()
    freedom = int(possible.sum()) - 1
    # The 99.9 % quantile by the approximation of Wilson and Hilferty; the seeds are fixed.
    limit = freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3
    assert chi_squared < limit


def test_successive_draws_of_one_row_follow_the_distribution():
    row, n = chooser(seed=3), 5000
    observed = Counter(choose(LOGITS, [row])[0].token_id for _ in range(n))
    expected = PROBABILITIES[0].tolist()
    assert sum((observed[i] - n * p) ** 2 / (n * p) for i, p in enumerate(expected)) < 16.3


def test_a_draw_from_given_weights_follows_them():
    row, n = chooser(seed=4), 4000
    observed = Counter(draw(torch.tensor([0.0, 3.0, 0.0, 1.0]), row) for _ in range(n))
    assert set(observed) == {1, 3}
    assert observed[1] == pytest.approx(0.75 * n, abs=4 * math.sqrt(n * 0.75 * 0.25))
    assert row.n_chosen == 0


# ---------------------------------------------------------------- penalties and bias


def test_penalties_against_values_computed_by_hand():
    row = chooser(prompt=[0], repetition_penalty=2.0, frequency_penalty=0.5, presence_penalty=0.25)
    for token in (1, 1, 2):
        row.commit(token)
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.75]])
    # 2/2 (only read); -2*2 - 2*0.5 - 0.25; 1/2 - 0.5 - 0.25; never seen
    assert shaped_logits(logits, [row]).tolist() == [[1.0, -5.25, -0.25, 0.75]]
    assert logits.tolist() == [[2.0, -2.0, 1.0, 0.75]], "the model's logits stay as they were"


def test_presence_and_frequency_penalties_do_not_count_the_prompt():
    row = chooser(prompt=[0, 0, 1], frequency_penalty=1.0, presence_penalty=1.0)
    assert shaped_logits(LOGITS, [row]).tolist() == LOGITS.tolist()


def test_repetition_penalty_equals_transformers():
    warpers = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(2, 12, generator=torch.Generator().manual_seed(3))
    history = torch.tensor([[1, 5, 5], [7, 0, 11]])
    rows = [chooser(TWELVE, prompt=ids, repetition_penalty=1.7) for ids in history.tolist()]
    expected = warpers.RepetitionPenaltyLogitsProcessor(1.7)(history, logits.clone())
    torch.testing.assert_close(shaped_logits(logits, rows), expected)


def test_penalties_count_hundreds_of_different_tokens():
    row = chooser(LARGE, prompt=range(600), repetition_penalty=2.0, frequency_penalty=1.0)
    for token in range(400, 1000):
        row.commit(token)
    shaped = shaped_logits(torch.ones(1, 5000), [row])[0]
    assert shaped[:400].unique().tolist() == [0.5]
    assert shaped[400:1000].unique().tolist() == [-0.5]
    assert shaped[1000:].unique().tolist() == [1.0]


def test_bias_is_added_and_minus_100_rules_out():
    row = chooser(logit_bias={0: 1.5, "b": -2.0, 3: -100})
    assert shaped_logits(torch.zeros(1, 4), [row]).tolist() == [[1.5, -2.0, 0.0, -math.inf]]


def test_a_token_that_is_ruled_out_is_not_chosen_even_when_only_it_is_likely():
    row = chooser(logit_bias={0: -100}, temperature=0)
    assert choose(torch.tensor([[900.0, 0.0, 1.0, 0.0]]), [row])[0].token_id == 2


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        ({4: 1.0}, "no token 4; the vocabulary has 0 to 3"),
        ({-1: 1.0}, "no token -1"),
        ({"x": 1.0}, "'x' is not one token"),
        ({"ab": 1.0}, "it takes 2 tokens"),
        ({"a": 1.0, 0: 2.0}, "given twice"),
        (dict.fromkeys(range(4), -100), "every token is ruled out"),
    ],
)
def test_bias_for_what_is_not_one_token_is_refused(bias, message):
    with pytest.raises(ConfigError, match=message):
        chooser(logit_bias=bias)


def test_special_tokens_can_be_biased_by_name():
    tokenizer = characters("abc", end_of_text=True)
    row = chooser(tokenizer, logit_bias={"<|endoftext|>": -100})
    assert shaped_logits(torch.zeros(1, 4), [row])[0, tokenizer.eos_id] == -math.inf


# ---------------------------------------------------------------- ends


def test_the_end_of_text_is_ruled_out_before_min_tokens():
    tokenizer = characters("abc", end_of_text=True)
    row = chooser(tokenizer, min_tokens=3, stop_token_ids=[1], temperature=0)
    logits = torch.tensor([[0.0, 2.0, 1.0, 3.0]])
    assert [choose(logits, [row])[0].token_id for _ in range(3)] == [2, 2, 2]
    assert row.end is None
    assert choose(logits, [row])[0].token_id == tokenizer.eos_id
    assert row.end == "eos"


def test_every_end_that_the_models_own_settings_name_ends_the_text():
    tokenizer = characters("abc", end_of_text=True)
    tokenizer.end_ids = (2,)
    logits = torch.tensor([[0.0, 1.0, 3.0, 2.0]])
    row = chooser(tokenizer, min_tokens=1, temperature=0)
    assert choose(logits, [row])[0].token_id == 1, "neither end before min_tokens"
    choose(logits, [row])
    assert row.end == "eos"
    row = chooser(tokenizer, ignore_eos=True, temperature=0)
    assert choose(logits, [row])[0].token_id == 2
    assert row.end is None


def test_a_stop_token_ends_the_text_and_an_ignored_end_of_text_does_not():
    tokenizer = characters("abc", end_of_text=True)
    row = chooser(tokenizer, stop_token_ids=[1], ignore_eos=True)
    row.commit(tokenizer.eos_id)
    assert row.end is None
    row.commit(1)
    assert row.end == "stop_token"


def test_a_stop_token_outside_the_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="stop_token_ids: no token 4"):
        chooser(stop_token_ids=[4])


def test_only_ending_tokens_in_the_vocabulary_cannot_reach_min_tokens():
    with pytest.raises(ConfigError, match="every token is ruled out"):
        chooser(stop_token_ids=[0, 1, 2, 3], min_tokens=1)


# ---------------------------------------------------------------- rows beside each other


MIXED_ROWS = [
    {"temperature": 0.0}, {}, {"top_p": 0.9}, {"top_p": 0.9, "repetition_penalty": 1.3}, {"typical_p": 0.4},
    {"temperature": 0.0, "presence_penalty": 1.0}, {"top_k": 40, "logit_bias": {3: 5.0}}, {"top_p": 0.9, "logprobs": 2},
]


def test_a_row_chooses_the_same_whatever_rows_are_beside_it():
    generator = torch.Generator().manual_seed(1)
    # A sharp row and a flat one take different ways through a large vocabulary.
    steepness = torch.tensor([6.0, 1.0, 6.0, 0.1, 2.0, 3.0, 4.0, 0.1]).unsqueeze(1)
    logits = [torch.randn(8, 5000, generator=generator) * steepness for _ in range(6)]
    together = [chooser(LARGE, sample_index=i, seed=9, **s) for i, s in enumerate(MIXED_ROWS)]
    written = [choose(logits_BV, together) for logits_BV in logits]
    for i, settings in enumerate(MIXED_ROWS):
        alone = chooser(LARGE, sample_index=i, seed=9, **settings)
        assert [choose(logits_BV[i : i + 1], [alone])[0] for logits_BV in logits] == [step[i] for step in written], i


def test_same_seed_same_tokens_and_another_seed_others():
    def written(**settings):
        row = chooser(**settings)
        return [choose(LOGITS, [row])[0].token_id for _ in range(40)]

    assert written(seed=1) == written(seed=1)
    assert len({tuple(written(**s)) for s in ({"seed": 1}, {"seed": 2}, {"seed": 1, "sample_index": 1})}) == 3


def test_without_a_seed_the_one_that_was_drawn_is_known():
    row = chooser(seed=None)
    again = chooser(seed=row.seed)
    assert [row.uniform() for _ in range(5)] == [again.uniform() for _ in range(5)]
    assert chooser(seed=None).seed != row.seed


def test_a_fork_goes_on_alone_with_its_own_random_numbers():
    row = chooser(frequency_penalty=1.0, seed=5)
    row.commit(0)
    twin = row.fork(1)
    twin.commit(0)
    row.commit(1)
    assert shaped_logits(torch.zeros(1, 4), [row]).tolist() == [[-1.0, -1.0, 0.0, 0.0]]
    assert shaped_logits(torch.zeros(1, 4), [twin]).tolist() == [[-2.0, 0.0, 0.0, 0.0]]
    assert twin.uniform() == chooser(seed=5, sample_index=1).uniform() != row.uniform()


# ---------------------------------------------------------------- log-probabilities


def test_log_probabilities_are_the_model_s_own_before_all_settings():
    row = chooser(logprobs=2, temperature=0.2, logit_bias={0: -100}, repetition_penalty=3.0, top_k=1)
    choice = choose(LOGITS, [row])[0]
    assert choice.token_id == 1
    assert choice.logprob == pytest.approx(math.log(0.25), abs=1e-6)
    assert [token for token, _ in choice.top] == [0, 1]
    assert [value for _, value in choice.top] == pytest.approx([math.log(0.5), math.log(0.25)], abs=1e-6)


def test_each_row_reports_as_many_as_it_asks_for():
    rows = [chooser(logprobs=0), chooser(), chooser(logprobs=4), chooser(logprobs=1, temperature=0)]
    choices = choose(LOGITS.expand(4, -1), rows)
    assert [len(choice.top) for choice in choices] == [0, 0, 4, 1]
    assert [choice.logprob is None for choice in choices] == [False, True, False, False]
    assert report(LOGITS, [rows[0]], [3])[0].logprob == pytest.approx(math.log(0.1), abs=1e-6)
    with pytest.raises(ConfigError, match="logprobs: at most 4"):
        chooser(logprobs=5)


# ---------------------------------------------------------------- bad numbers


class _FixedUniform:
    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


@pytest.mark.parametrize(("uniform", "expected"), [(0.0, 1), (numpy.nextafter(1.0, 0.0), 2)])
def test_extreme_uniform_numbers_never_pick_a_token_that_was_ruled_out(uniform, expected):
    row = chooser()
    row._generator = _FixedUniform(uniform)
    assert choose(torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]), [row])[0].token_id == expected


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {}, {"temperature": 0.0, "logprobs": 1}, {"top_p": 0.5}])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_are_an_error_not_a_token(settings, bad):
    logits = torch.tensor([[0.0, bad, 1.0, 0.0]])
    with pytest.raises(NumericsError):
        choose(logits, [chooser(**settings)])
    with pytest.raises(NumericsError):
        sampling.distribution(logits[0], chooser(**settings))


def test_the_error_names_the_rows_and_leaves_the_others_as_they_were():
    logits = LOGITS.expand(5, -1).clone()
    logits[1, 0] = logits[2, 3] = logits[3, 1] = torch.nan
    settings = [{}, {}, {"temperature": 0.0}, {"top_k": 2}, {"temperature": 0.0, "frequency_penalty": 1.0}]
    rows = [chooser(sample_index=i, **s) for i, s in enumerate(settings)]
    with pytest.raises(LogitsError) as caught:
        choose(logits, rows)
    assert sorted(caught.value.rows) == [1, 2, 3]
    fresh = [chooser(sample_index=i, **s) for i, s in enumerate(settings)]
    assert choose(LOGITS.expand(5, -1), rows) == choose(LOGITS.expand(5, -1), fresh)


def test_a_model_without_any_possible_token_is_an_error():
    with pytest.raises(NumericsError):
        choose(torch.full((1, 4), -torch.inf), [chooser(temperature=0)])


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": 5.0}])
def test_outputs_that_stand_for_no_token_are_never_chosen(settings):
    logits = torch.tensor([[0.0, 1.0, 0.0, 0.0, 9.0, 9.0]])
    rows = [chooser(sample_index=i, **settings) for i in range(50)]
    assert max(choice.token_id for choice in choose(logits.expand(50, -1), rows)) < 4
    probabilities = sampling.distribution(logits[0], rows[0])
    assert probabilities.shape == (6,)
    assert probabilities[4:].tolist() == [0, 0]
    assert float(probabilities.sum()) == pytest.approx(1)


def test_bf16_logits_are_weighed_in_float32():
    row = chooser(temperature=0.0, logit_bias={2: 0.001})
    assert choose(torch.full((1, 4), 256.0, dtype=torch.bfloat16), [row])[0].token_id == 2


@pytest.mark.parametrize("name", ["top_p", "typical_p"])
@pytest.mark.parametrize("mass", [1e-30, 1e-50, 5e-324])
def test_a_share_too_small_for_float32_keeps_one_token(name, mass):
    assert int((shape(LOGITS, **{name: mass}) > 0).sum()) == 1
    assert int((shape(LOGITS, **{name: mass, "top_k": 3}) > 0).sum()) == 1


def test_log_probabilities_name_no_token_that_does_not_exist():
    wide = torch.cat([LOGITS, torch.full((1, 3), 9.0)], dim=-1)
    (choice,) = report(wide, [chooser(logprobs=4)], [1])
    assert [token_id for token_id, _ in choice.top] == [0, 1, 2, 3]
    assert choice.logprob == pytest.approx(math.log(0.25), abs=1e-5)
