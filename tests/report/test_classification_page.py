"""The page of a classifier."""

import re

from tickwise.report.classification import ReliabilityPoint, reliability_chart


def test_each_bar_says_how_many_predictions_it_stands_on():
    chart = reliability_chart((
        ReliabilityPoint(0.0, 0.25, 0, None, None), ReliabilityPoint(0.25, 0.5, 2, 0.4, 1.0),
        ReliabilityPoint(0.5, 0.75, 10, 0.6, 0.5), ReliabilityPoint(0.75, 1.0, 12_345, 0.9, 0.95)))
    assert re.findall(r'class="count"[^>]*>([^<]*)<', chart) == ["2", "10", "12k"]
    assert chart.count("<rect") == 3
    assert chart.count('<rect class="few"') == 1
    assert "12,345 predictions at 90%: 95.0% right" in chart
