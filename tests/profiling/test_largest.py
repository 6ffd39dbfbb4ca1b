import pytest

from tickwise.profiling.largest import largest_fitting, largest_near


@pytest.mark.parametrize("limit", [0, 1, 7, 64, 65, 100, 1000, 4096, 10**6])
def test_the_largest_number_that_fits(limit):
    def total(n):
        return 3 * n + 4

    exact = min(4096, (limit - 4) // 3) if limit >= 7 else 0
    found = largest_fitting(total, limit, most=4096)
    assert found <= exact
    assert found >= exact * 0.98 - 1
    assert found == exact or exact > 50


@pytest.mark.parametrize("largest", [0, 1, 2, 3, 17, 40, 99, 100])
@pytest.mark.parametrize("guess", [1, 2, 16, 17, 50, 100])
def test_from_any_guess_the_largest_is_found_exactly(largest, guess):
    tried = []

    def fits(number):
        assert 1 <= number <= 100
        tried.append(number)
        return number <= largest

    assert largest_near(fits, guess, most=100) == largest
    assert len(tried) == len(set(tried)), "every try costs"


def test_a_right_guess_takes_two_tries():
    tried = []
    assert largest_near(lambda number: tried.append(number) or number <= 31, 31, most=1024) == 31
    assert tried == [31, 32]
