import numpy
import pytest

from tickwise.profiling.scatter import FEWEST, scatter

USUAL_NS = numpy.array([100e3, 60e3, 160e3, 110e3, 150e3, 70e3, 60e3, 210e3, 80e3, 140e3])
FFN = 7
EQUAL = [True] * len(USUAL_NS)


def run(seed, n=90, pace=1.0, ffn=1.0):
    """A run whose machine is ``pace`` times as slow, with noise of its own, spells of neighbouring ticks and stages
    that do not all feel the machine alike."""
    generator = numpy.random.default_rng(seed)
    spells = numpy.repeat(numpy.exp(generator.normal(0, 0.1, -(-n // 8))), 8)[:n, None]
    feels = pace ** generator.normal(1, 0.1, len(USUAL_NS))
    times = USUAL_NS * feels * spells * numpy.exp(generator.normal(0, 0.05, (n, len(USUAL_NS))))
    times[:, FFN] *= ffn
    return times


@pytest.mark.parametrize("pace", [1.0, 1.5, 0.6])
def test_runs_of_the_same_program_have_no_culprit(pace):
    for seed in range(10):
        found = scatter(run(seed), run(100 + seed, pace=pace), EQUAL, 90)
        assert found.stands_out == ()
        assert found.common.value == pytest.approx(pace, rel=0.25)
        assert found.common_from <= found.common.value <= found.common_to
        if pace != 1.0:
            assert found.whole.differs
            assert found.common.differs


def test_spells_of_the_machine_make_the_interval_wide():
    """Of single ticks the interval would leave out that the two runs are alike."""
    outside = 0
    for seed in range(12):
        found = scatter(run(seed), run(100 + seed), EQUAL, 90)
        outside += not found.whole.low <= 1 <= found.whole.high
    assert outside <= 2


@pytest.mark.parametrize("pace", [1.0, 1.5, 0.6])
def test_a_stage_that_is_twice_as_slow_stands_out(pace):
    for seed in range(5):
        found = scatter(run(seed), run(100 + seed, pace=pace, ffn=2.0), EQUAL, 90)
        assert found.stands_out == (FFN,)
        assert found.stages[FFN].value == pytest.approx(2 * pace, rel=0.3)
        assert found.common.value == pytest.approx(pace, rel=0.25)
        faster = scatter(run(seed), run(100 + seed, pace=pace, ffn=0.5), EQUAL, 90)
        assert faster.stands_out == (FFN,)


def test_without_equal_work_nothing_is_the_machines():
    found = scatter(run(0), run(1, pace=1.5), [False] * len(USUAL_NS), 90)
    assert found.common is None
    assert found.stands_out[0] == FFN, "the largest part of the difference"


def test_few_ticks_have_no_verdict_however_many_tokens_they_wrote():
    assert scatter(run(0), run(1), EQUAL, FEWEST - 1) is None
    assert scatter(run(0, n=FEWEST), run(1, n=FEWEST), EQUAL, FEWEST) is not None
    assert scatter(numpy.zeros((20, 3)), numpy.zeros((20, 3)), [True] * 3, 20) is None


def test_tokens_of_a_tick_are_one_observation():
    """Eight times the same times tell no more than once."""
    a, b = run(0), run(1)
    once = scatter(a, b, EQUAL, 90).whole
    eight = scatter(a.repeat(8, axis=0), b.repeat(8, axis=0), EQUAL, 90).whole
    assert eight.high / eight.low == pytest.approx(once.high / once.low, rel=0.25)


def test_a_stage_that_only_one_of_them_has_is_named():
    a, b = run(0), run(1)
    a[:, 3] = 0
    found = scatter(a, b, [place != 3 for place in range(len(USUAL_NS))], 90)
    assert found.stages[3] is None
    assert found.stands_out == (3,)
