import math

import pytest

from tickwise.core.errors import ConfigError
from tickwise.engine.settings import GenerationSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", math.nan), ("temperature", -0.1), ("temperature", math.inf),
        ("top_p", 0.0), ("top_p", 1.1), ("top_p", math.nan), ("top_k", -1), ("top_k", 2.5), ("min_p", -0.1),
        ("min_p", 1.5), ("repetition_penalty", 0.0), ("repetition_penalty", math.nan), ("max_tokens", 0),
        ("n", 0), ("seed", -1), ("stop", ("",)),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_line_that_names_it(name, value):
    with pytest.raises(ConfigError, match=name) as caught:
        GenerationSettings(**{name: value})
    assert "\n" not in str(caught.value)


def test_a_single_stop_string_is_not_taken_as_its_letters():
    assert GenerationSettings(stop="END").stop == ("END",)
    assert GenerationSettings(stop=["a", "b"]).stop == ("a", "b")
