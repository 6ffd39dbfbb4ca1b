import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from tickwise.core.errors import OutputError
from tickwise.core.stages import Stage
from tickwise.report.charts import duration, loss_chart, ticks
from tickwise.report.data import Breakdown, Figure, ReportData, Sample, TimeRow
from tickwise.report.metrics import Metric
from tickwise.report.page import page, write_report
from tickwise.report.style import CSS

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>&amp;\'"'


class Elements(HTMLParser):
    """Tags with their attributes, and the text that a reader sees."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text, self._inside = [], "", []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data):
        if not self._inside:
            self.text += data


def breakdown(text="16 sequences"):
    rows = (
        TimeRow(stage="attention", duration_ns=60e6, flops=12_900_000_000, share_of_peak=0.4, bound="compute"),
        TimeRow(stage="ffn", duration_ns=30e6, flops=None),
        TimeRow(stage="host", duration_ns=10e6, flops=0),
    )
    return Breakdown(title="One step", text=text, wall_ns=100e6, rows=rows, flops=12_900_000_000,
                     timeline=f"{text}.html")


def report(text="plain"):
    return ReportData(
        title=text, summary=text, figures=(Figure(text, text, "measured", text), Figure("energy", None, "measured")),
        metrics=tuple(Metric(step=s, loss=3.0 / s, validation_loss=2.0 if s == 40 else None) for s in range(1, 41)),
        samples=(Sample(text, text, text),), machine=text, ceilings=(Figure("fp32", "1 GFLOP/s", "measured"),),
        breakdowns=(breakdown(text),), command=text, versions={text: text}, notes=(text,),
    )


def test_hostile_text_stays_text_wherever_it_stands():
    elements = Elements(page(report(HOSTILE)))
    assert not [tag for tag, _ in elements.tags if tag == "img"]
    assert sum(tag == "script" for tag, _ in elements.tags) == 2
    assert not [a for _, attributes in elements.tags for a in attributes if a.startswith("on")]
    assert all("<" not in attributes.get("href", "") for _, attributes in elements.tags)
    assert elements.text.count(HOSTILE) >= 9


def test_the_page_loads_nothing_and_links_the_timeline_beside_it():
    html = page(report())
    elements = Elements(html)
    assert not [a for _, attributes in elements.tags for a in attributes if a in ("src", "srcset", "data")]
    assert [(tag, attributes["href"]) for tag, attributes in elements.tags if "href" in attributes] == [
        ("a", "plain.html")]
    assert not re.search(r"@import|url\(", html)
    assert any("default-src 'none'" in attributes.get("content", "") for _, attributes in elements.tags)


def test_what_is_not_known_is_shown_as_not_available_and_every_figure_has_its_kind():
    text = Elements(page(report())).text
    assert "energyn/a" in text
    assert text[text.index("ffn30 ms"):].startswith("ffn30 ms30.0%n/an/an/a")
    assert "compute" in text
    for kind in ("measured", "counted", "modelled"):
        assert kind in text


def test_rows_that_do_not_add_up_are_refused():
    with pytest.raises(AssertionError, match="add up"):
        Breakdown(title="x", text="", wall_ns=100.0, rows=(TimeRow(stage="host", duration_ns=98.0),))


def test_the_hover_has_the_values_of_the_curve_and_the_curve_is_inside_the_picture():
    metrics = report().metrics
    chart = loss_chart(metrics)
    points = json.loads(re.search(r'id="loss-data">(.*?)</script>', chart).group(1))
    assert [point[0] for point in points] == [m.step for m in metrics]
    assert [point[2] for point in points] == [round(m.loss, 4) for m in metrics]
    assert points[39][3] == 2.0
    drawn = [tuple(map(float, pair.split(","))) for line in re.findall(r'points="([^"]+)"', chart)
             for pair in line.split()]
    assert len(drawn) > 80
    assert all(0 <= x <= 800 and 0 <= y <= 340 for x, y in drawn)


@pytest.mark.parametrize("losses", [[], [2.0], [2.0, 2.0]])
def test_short_and_flat_curves_are_drawn_or_left_out(losses):
    chart = loss_chart(tuple(Metric(step=i + 1, loss=loss) for i, loss in enumerate(losses)))
    assert bool(chart) == bool(losses)
    assert "nan" not in chart


def test_a_long_run_makes_a_small_page():
    data = ReportData(title="", summary="", metrics=tuple(Metric(step=i, loss=1.0 + i % 7) for i in range(100_000)))
    assert len(page(data)) < 200_000


def test_ticks_are_round_and_inside():
    assert ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(1.27, 1.93, 4) == [1.4, 1.6, 1.8]
    assert ticks(3, 3, 4) == [3]


def test_durations_are_read_in_their_own_unit():
    assert [duration(ns) for ns in (950, 1500, 2.5e6, 1.25e9)] == ["950 ns", "1.5 µs", "2.5 ms", "1.25 s"]


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_report(tmp_path / "file" / "report.html", report())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_in_a_browser_arrow_keys_read_the_curve(tmp_path):
    press = """<script>window.addEventListener("load", () => {
      const svg = document.getElementById("loss");
      svg.dispatchEvent(new KeyboardEvent("keydown", {key: "End"}));
      svg.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}));
    });</script></body>"""
    (tmp_path / "report.html").write_text(page(report(HOSTILE)).replace("</body>", press))
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}",
         "--dump-dom", f"file://{tmp_path / 'report.html'}"],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout
    assert re.search(r"<output[^>]*>step 39 · training 0\.077</output>", shown)


def test_every_stage_has_a_colour_of_its_own():
    for stage in Stage:
        assert f".stage-{stage} {{" in CSS, stage
