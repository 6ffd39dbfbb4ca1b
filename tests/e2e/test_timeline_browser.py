"""The timeline page in a real browser, by pointer and by keys."""

import shutil
import time

import pytest

import synthetic_trace
from tickwise.core.stages import Stage
from tickwise.profiling.roofline import Roofline, StageWork, judge
from tickwise.report.timeline import timeline_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = ["</script><script>document.title='broken'</script>", "<img src=x onerror=\"document.title='broken'\">",
           "שלום", "\u202eabc", "🙂", "\x00", "\ud800", "", "   ", "\n", "&lt;b&gt;", "'\"`"]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs a Chromium on this machine, e.g. Debian's package chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def show(browser, tmp_path):
    """Opens a trace's page. After the test: no errors were said, nothing but the page itself was asked for."""
    problems, asked, pages = [], [], []

    def call(trace, width=1280, height=800, usage=(), **meta):
        path = tmp_path / f"timeline-{len(pages)}.html"
        path.write_text(timeline_page(**trace.page(**meta), usage=usage), encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("console", lambda message: problems.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        pages.append(page)
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready]")
        return page

    yield call
    for page in pages:
        page.close()
    assert problems == []
    assert len(asked) == len(pages)
    assert all(url.startswith("file://") for url in asked)


@pytest.fixture(scope="module")
def conversation():
    return synthetic_trace.conversation()


def rows_of(trace, tick):
    return [row for row in trace.ledger if row["tick"] == tick]


def wall(trace, tick):
    return sum(row["duration_ns"] for row in rows_of(trace, tick))


def slowest_tick(trace, phase):
    return max((row["tick"] for row in trace.ledger if row["phase"] == phase), key=lambda tick: wall(trace, tick))


def widths(page, within="#zoom"):
    """Widths in pixels of the parts, by stage, and the width of a lane's track."""
    parts = page.eval_on_selector_all(
        f"{within} .part", "nodes => nodes.map(n => [n.dataset.stage, n.getBoundingClientRect().width])")
    track = page.eval_on_selector(f"{within} .track", "node => node.getBoundingClientRect().width")
    by_stage = {}
    for stage, width in parts:
        by_stage[stage] = by_stage.get(stage, 0) + width
    return by_stage, track


def level(page):
    return page.evaluate("document.body.dataset.level")


def chosen(page):
    return page.locator("#tokens [aria-selected=true]")


def test_the_answer_names_the_slowest_token_its_stage_why_and_what_would_help(show, conversation):
    page = show(conversation)
    answer = page.locator(".answer.slowest[data-phase=decode]").inner_text()
    tick = slowest_tick(conversation, "decode")
    assert f"tick {tick}" in answer
    assert "host" in answer  # the pause that the trace was made with
    assert "× the typical one of" in answer
    assert "in only 1 of" in answer  # a pause is not what every token pays
    assert "interruption" in answer
    typical = page.locator(".answer.typical[data-phase=decode]").inner_text()
    by_stage = {}
    for row in conversation.ledger:
        if row["phase"] == "decode":
            by_stage[row["stage"]] = by_stage.get(row["stage"], 0) + row["duration_ns"]
    assert max(by_stage, key=by_stage.get) == "head"
    assert "head" in typical
    assert "Memory-bound" in typical
    assert "Fewer bytes per weight" in typical
    assert "modelled" in typical
    assert page.locator(".answer.slowest[data-phase=prefill]").count() == 1
    assert chosen(page).get_attribute("data-tick") == str(tick)


def test_a_busy_machine_is_named_and_the_typical_token_is_an_undisturbed_one(show):
    trace = synthetic_trace.Trace()
    for number in range(30):
        late = {"norm": 30_000_000} if number % 3 else None
        trace.tick("decode", ["a"], 1, 10, [("a", number, "x")], pauses=late)
    usage = [{"tick": number, "interruptions": 2 if number % 3 else 0, "cpu_ns": 1_000_000} for number in range(30)]
    page = show(trace, usage=usage)
    typical = page.locator(".answer.typical[data-phase=decode]").inner_text()
    assert "20 of 30 ticks were interrupted by other programs" in typical
    assert "The mean of the middle 4 of 10 uninterrupted decode ticks" in typical
    assert "head" in typical
    assert "norm" not in typical
    slowest = page.locator(".answer.slowest[data-phase=decode]").inner_text()
    assert "norm" in slowest
    assert "the tick was interrupted 2 ×" in slowest
    assert "between ticks" in page.locator("#overview").inner_text()
    everywhere = show(trace, usage=[{**one, "interruptions": 2} for one in usage])
    typical = everywhere.locator(".answer.typical[data-phase=decode]").inner_text()
    assert "every tick was interrupted by other programs" in typical.lower()
    assert "another program held the core" in typical


def test_a_click_on_a_token_shows_its_tick_as_lanes_that_add_up_to_it(show, conversation):
    page = show(conversation)
    cell = page.locator(".token").nth(30)
    tick = int(cell.get_attribute("data-tick"))
    cell.click()
    by_stage, track = widths(page)
    assert sum(by_stage.values()) == pytest.approx(track, abs=1.5)
    expected = {}
    for row in rows_of(conversation, tick):
        expected[row["stage"]] = expected.get(row["stage"], 0) + row["duration_ns"] / wall(conversation, tick)
    assert by_stage == pytest.approx({stage: share * track for stage, share in expected.items()}, abs=1)
    assert page.locator("#zoom .part").count() == len(rows_of(conversation, tick))


def test_width_can_be_bytes_or_flops_or_energy(show, conversation):
    page = show(conversation)
    page.locator(".token").nth(30).click()
    tick = int(chosen(page).get_attribute("data-tick"))
    before = page.locator(".token").nth(0).bounding_box()["width"]
    amounts = {
        "2": lambda row: row["flops"] or 0,
        "3": lambda row: (row["bytes_read"] or 0) + (row["bytes_written"] or 0),
        "4": lambda row: row["energy_j"],
        "1": lambda row: row["duration_ns"],
    }
    for key, amount in amounts.items():
        page.keyboard.press(key)
        by_stage, track = widths(page)
        total = sum(amount(row) for row in rows_of(conversation, tick))
        for stage in ("ffn", "head", "attention", "host"):
            share = sum(amount(row) for row in rows_of(conversation, tick) if row["stage"] == stage) / total
            assert by_stage[stage] == pytest.approx(share * track, abs=1), (key, stage)
        if key == "2":
            # The prompt's share of the FLOPs is larger than its share of the time.
            assert page.locator(".token").nth(0).bounding_box()["width"] > before
    assert page.locator("#widths [aria-checked=true]").get_attribute("data-width") == "time"


def test_energy_that_nobody_measured_is_not_available(show):
    page = show(synthetic_trace.conversation(1, 4, energy="none"))
    page.keyboard.press("4")
    assert page.locator("#widths [aria-checked=true]").get_attribute("data-width") == "time"
    assert "n/a" in page.locator("#detail").inner_text()
    assert page.locator("#table tfoot td").last.inner_text() == "n/a"


def test_the_keys_walk_the_tokens_and_zoom_in_and_out(show, conversation):
    page = show(conversation)
    page.focus("#tokens")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert chosen(page).get_attribute("data-cell") == "2"
    assert page.get_attribute("#tokens", "aria-activedescendant") == "t2"
    page.keyboard.press("ArrowDown")
    below = chosen(page).bounding_box()
    page.keyboard.press("ArrowUp")
    above = chosen(page).bounding_box()
    assert below["y"] > above["y"]
    assert abs(below["x"] - above["x"]) < 80

    page.keyboard.press("Enter")
    assert level(page) == "token"
    assert page.evaluate("document.activeElement.closest('#zoom') !== null")
    first = page.locator("#zoom .part[aria-selected=true]").get_attribute("data-stage")
    page.keyboard.press("ArrowUp")
    assert page.locator("#zoom .part[aria-selected=true]").get_attribute("data-stage") != first
    while page.locator("#zoom .part[aria-selected=true]").get_attribute("data-stage") != "ffn":
        page.keyboard.press("ArrowDown" if first != "host" else "ArrowUp")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.locator("#zoom .part[aria-selected=true]").get_attribute("data-layer") == "1"
    page.keyboard.press("Enter")
    assert level(page) == "layer"
    assert set(widths(page)[0]) == {"norm", "qkv", "rope", "attention", "out", "ffn"}
    assert page.locator("#zoom .part[aria-selected=true]").get_attribute("data-stage") == "ffn"
    page.keyboard.press("Enter")
    assert level(page) == "op"
    assert page.locator("#zoom tbody tr").count() == 2
    assert "aten.mm" in page.locator("#zoom tbody").inner_text()
    assert "not measured" in page.locator("#zoom-title").inner_text()
    seen = []
    for _ in range(5):
        page.keyboard.press("Escape")
        seen.append(level(page))
    assert seen == ["layer", "token", "request", "run", "run"]
    assert page.locator("#zoom .row").count() == 3
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert level(page) == "request"
    page.keyboard.press("Enter")
    assert level(page) == "token"


def test_two_tokens_stand_side_by_side_with_the_difference_by_stage(show, conversation):
    page = show(conversation)
    first = page.locator(".token").nth(5)
    second = page.locator(f".token[data-tick='{slowest_tick(conversation, 'decode')}']").first
    a, b = int(first.get_attribute("data-tick")), int(second.get_attribute("data-tick"))
    first.click()
    second.click(modifiers=["Shift"])
    assert level(page) == "compare"
    assert page.locator(".side").count() == 2
    left, track = widths(page, ".side:first-child")
    right, _ = widths(page, ".side:last-child")
    assert sum(right.values()) == pytest.approx(track, abs=1.5)
    assert sum(left.values()) == pytest.approx(track * wall(conversation, a) / wall(conversation, b), abs=1.5)
    row = page.locator("table.difference tbody tr").first
    assert row.get_attribute("data-stage") == "host"
    assert row.locator(".by").inner_text().startswith("+")
    assert "longer" in page.locator(".verdict").inner_text() or "more than A" in page.locator(".verdict").inner_text()
    page.keyboard.press("Escape")
    assert level(page) == "token"


def test_comparing_works_by_keys_alone(show, conversation):
    page = show(conversation)
    page.focus("#tokens")
    page.keyboard.press("Home")
    page.keyboard.press("c")
    assert "Choose the second token" in page.locator(".verdict").inner_text()
    assert page.get_attribute("#compare", "aria-pressed") == "true"
    page.keyboard.press("ArrowRight")
    assert page.locator(".side").count() == 2
    assert page.locator(".token.held").get_attribute("data-cell") == "0"
    assert chosen(page).get_attribute("data-cell") == "1"
    assert "A is prefill, B is decode" in page.locator(".verdict").inner_text()
    page.keyboard.press("c")
    assert level(page) == "token"


def test_the_arrows_walk_the_tokens_as_soon_as_the_page_is_open(show, conversation):
    page = show(conversation)
    cell = int(chosen(page).get_attribute("data-cell"))
    page.keyboard.press("ArrowRight")
    assert chosen(page).get_attribute("data-cell") == str(cell + 1)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert chosen(page).get_attribute("data-cell") == str(cell - 1)


@pytest.mark.parametrize("within", ["token", "layer", "request"])
def test_a_second_token_is_chosen_by_keys_from_inside_a_tick_too(show, conversation, within):
    page = show(conversation)
    page.focus("#tokens")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    if within == "layer":
        page.keyboard.press("Enter")
    first = 0
    if within == "request":
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowDown")  # the bar of the second token
        first = 1
    assert level(page) == within
    page.keyboard.press("c")
    assert page.locator(".token.held").get_attribute("data-cell") == str(first)
    page.keyboard.press("ArrowRight")
    assert chosen(page).get_attribute("data-cell") == str(first + 1)
    assert "Choose the second token" not in page.locator(".verdict").inner_text()
    page.keyboard.press("ArrowRight")
    assert chosen(page).get_attribute("data-cell") == str(first + 2)


def test_the_help_opens_and_closes_by_keys(show, conversation):
    page = show(conversation)
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    assert level(page) == "token"


def test_focus_is_visible_on_everything_that_takes_it(show, conversation):
    page = show(conversation)
    page.keyboard.press("Tab")
    seen = set()
    for _ in range(24):
        name, outline = page.evaluate("""() => {
            const node = document.activeElement;
            return [node.id || node.className || node.tagName, getComputedStyle(node).outlineStyle];
        }""")
        if name == "BODY":
            break
        assert outline != "none", name
        seen.add(name)
        page.keyboard.press("Tab")
    assert {"tokens", "lanes", "compare", "help-button", "roofline-plot"} <= seen


def test_the_roofline_has_a_dot_for_each_stage_with_work_and_says_its_values(show, conversation):
    page = show(conversation)
    page.locator(".token").nth(30).click()
    names = set(page.eval_on_selector_all(".dot", "dots => dots.map(d => d.dataset.stage)"))
    assert names == {"norm", "qkv", "rope", "attention", "out", "ffn", "head"}
    box = page.locator("#roofline-plot").bounding_box()
    for dot in page.locator(".dot").all():
        at = dot.bounding_box()
        assert box["x"] <= at["x"] <= box["x"] + box["width"]
        assert box["y"] <= at["y"] <= box["y"] + box["height"]
    page.locator(".dot[data-stage=attention]").hover()
    assert "FLOPs per byte" in page.locator("#tip").inner_text()
    page.focus("#roofline-plot")
    page.keyboard.press("End")
    assert "FLOPs per byte" in page.locator("#roofline-values").inner_text()
    assert "host" in page.locator("#roofline").inner_text()
    assert "20 GB/s" in page.locator("#roofline").inner_html()


def test_the_table_of_a_run_says_what_trace_show_says(show, conversation):
    page = show(conversation)
    for _ in range(3):
        page.keyboard.press("Escape")
    assert level(page) == "run"
    heads = page.locator("#table thead th").all_inner_texts()
    ceiling, bound = ([head.split("\n")[0] for head in heads].index(name) for name in ("of ceiling", "bound"))
    found = {}
    for row in page.locator("#table tbody tr").all():
        cells = row.locator("th, td").all_inner_texts()
        found[cells[0]] = cells[ceiling], cells[bound]
    roof = Roofline(number_format="bf16", flops_per_s=synthetic_trace.PEAKS["bf16"],
                    bytes_per_s=synthetic_trace.BANDWIDTH)
    decode = [row for row in conversation.ledger if row["phase"] == "decode"]
    bounds = set()
    for stage in ("norm", "qkv", "rope", "attention", "out", "ffn", "head"):
        rows = [row for row in decode if row["stage"] == stage]
        names = ("duration_ns", "flops", "bytes_read", "bytes_written")
        sums = {name: sum(row[name] for row in rows) for name in names}
        verdict = judge(StageWork(stage=Stage(stage), **sums), roof)
        said, its_bound = found[stage]
        assert its_bound == verdict.bound
        assert float(said.split()[0]) == pytest.approx(100 * verdict.roofline_share, abs=0.51)
        bounds.add(its_bound)
    assert bounds == {"memory", "overhead"}


def test_a_share_above_the_ceiling_says_why(show):
    trace = synthetic_trace.Trace(n_layers=2)
    trace.tick("decode", ["a"], 1, 100, [("a", 0, "x")])
    for row in trace.ledger:
        if row["stage"] == "head":
            row["duration_ns"] //= 10
        if row["stage"] == "ffn":
            row.update(flops=10**9, duration_ns=5_000_000)
    text = show(trace).locator("#table").inner_text()
    assert "(cache)" in text
    assert "(above peak)" in text


def test_operations_of_another_tick_than_this_one_say_so(show, conversation):
    page = show(conversation)
    page.locator(".token").nth(0).click()
    page.locator("#zoom .part[data-stage=ffn]").first.click()
    page.locator("#zoom .part[data-stage=ffn]").first.click()
    assert level(page) == "op"
    assert "operations of another prefill tick" in page.locator("#zoom .notice").inner_text()


def test_a_tick_that_was_slow_all_over_is_blamed_on_the_machine(show):
    trace = synthetic_trace.conversation(1, 30)
    for row in rows_of(trace, 12):
        row["duration_ns"] *= 3
    answer = show(trace).locator(".answer.slowest[data-phase=decode]").inner_text()
    assert "tick 12" in answer
    assert "another program" in answer
    assert "A quiet machine" in answer


def test_a_stage_that_often_takes_long_for_no_more_work_is_no_fault_of_the_model(show):
    trace = synthetic_trace.conversation(1, 40)
    for tick in range(5, 35, 4):
        slow = next(row for row in rows_of(trace, tick) if (row["stage"], row["layer"]) == ("qkv", 2))
        slow["duration_ns"] += 9_000_000
    answer = show(trace).locator(".answer.slowest[data-phase=decode]").inner_text()
    assert "qkv" in answer
    assert "more than three times that in 8 of 39 decode ticks, for no more work" in answer
    assert "Most likely an interruption" in answer
    assert "Fewer, larger operations" not in answer


def test_ticks_that_gave_no_token_say_why_there_is_none(show):
    trace = synthetic_trace.conversation(1, 6)
    trace.tokens.clear()
    page = show(trace)
    assert "beam search" in page.locator("#tokens-note").inner_text()
    assert "Slowest decode tick" in page.locator(".answer.slowest[data-phase=decode]").inner_text()
    assert "Tick " in page.locator("#zoom-title").inner_text()


def test_a_prompt_is_called_a_prompt(show, conversation):
    assert "the prompt before" in show(conversation).locator(".answer.slowest[data-phase=prefill]").inner_text()


def test_a_stage_that_only_some_ticks_have_is_no_interruption(show):
    trace = synthetic_trace.Trace()
    for step in range(12):
        extra = {"extra": "validation", "pauses": {"validation": 2_000_000_000}} if step == 11 else {}
        trace.tick("train", [], 256, 0, **extra)
    answer = show(trace).locator(".answer.slowest").inner_text()
    assert "validation" in answer
    assert "It runs in only 1 of 12 train ticks" in answer
    assert "Validating less often" in answer
    assert "interruption" not in answer


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_every_colour(show, conversation, scheme):
    page = show(conversation)
    page.emulate_media(color_scheme=scheme)
    page.locator(".token").nth(60).click()  # a prompt: parts wide enough for a number, and the warmest cell
    colours = page.evaluate("""() => {
        const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
        const read = () => [...context.getImageData(0, 0, 1, 1).data];
        const paint = (colour) => {
            context.clearRect(0, 0, 1, 1);
            context.fillStyle = colour;
            context.fillRect(0, 0, 1, 1);
            return read();
        };
        const behind = (node) => {
            const colour = paint(getComputedStyle(node).backgroundColor);
            return colour[3] === 255 ? colour : behind(node.parentElement);
        };
        return [".part", ".token", "button", "small", "p", "td"].flatMap((selector) =>
            [...document.querySelectorAll(selector)].filter((node) => node.textContent && node.offsetParent)
                .map((node) => [selector, behind(node).slice(0, 3), paint(getComputedStyle(node).color).slice(0, 3)]));
    }""")

    def luminance(colour):
        parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    assert {selector for selector, _, _ in colours} >= {".part", ".token", "button"}
    for selector, *pair in colours:
        dark, light = sorted(map(luminance, pair))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (selector, pair)


def test_text_of_the_model_is_only_text(show):
    trace = synthetic_trace.Trace()
    for position, text in enumerate(HOSTILE):
        trace.tick("decode", ["<b>r</b>"], 1, 10 + position, [("<b>r</b>", position, text)])
    page = show(trace, model="<script>document.title='broken'</script>", command=HOSTILE[0], machine=HOSTILE[1],
                sentences={"head": HOSTILE[0]})  # fmt: skip
    assert "broken" not in page.title().replace("document.title='broken'", "")
    assert page.locator("img").count() == 0
    assert page.locator("main script").count() == 0
    shown = page.eval_on_selector_all(".token", "nodes => nodes.map(n => n.textContent)")
    assert shown == [*HOSTILE[:3], "‹202E›abc", "🙂", "␀", "\ufffd", "∅", "␣␣␣", "↵", *HOSTILE[-2:]]
    page.focus("#tokens")
    page.keyboard.press("Home")
    page.keyboard.press("c")
    for _ in HOSTILE:  # each in the comparison's headings and in the path
        page.keyboard.press("ArrowRight")
    for _ in range(3):  # and in the lists of tokens and requests
        page.keyboard.press("Escape")
    assert level(page) == "run"
    assert page.locator("img").count() == 0


def test_training_steps_are_ticks_like_others(show):
    page = show(synthetic_trace.training())
    assert page.locator("h1").inner_text() == "Where every step's time went"
    answer = page.locator(".answer.slowest").inner_text()
    assert "step 25" in answer
    assert "backward" in answer  # the longest stage, but not the reason why this step is the slowest
    assert "are in host" in answer
    assert "in only 1 of 40 train ticks" in answer
    assert page.locator(".token").count() == 40
    assert "backward" in widths(page)[0]


def test_a_trace_without_costs_and_ceilings_is_drawn_and_says_what_it_does_not_know(show):
    trace = synthetic_trace.conversation(1, 5, energy="none")
    for row in trace.ledger:
        row.update(flops=None, bytes_read=None, bytes_written=None, bound=None, roofline_share=None)
    page = show(trace, ceilings=None, machine=None, dtype=None)
    by_stage, track = widths(page)
    assert sum(by_stage.values()) == pytest.approx(track, abs=1.5)
    assert "n/a" in page.locator(".answer").first.inner_text()
    page.keyboard.press("2")
    assert "n/a" in page.locator("#zoom").inner_text()
    assert "NaN" not in page.locator("body").inner_text()


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_nothing_is_wider_than_the_screen(show, conversation, size):
    page = show(conversation, *size)
    for keys in ("", "c", "Escape", "Escape", "Escape"):
        if keys:
            page.keyboard.press(keys)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], keys
        assert "undefined" not in page.locator("body").inner_text()
        assert "NaN" not in page.locator("body").inner_text()


def test_five_thousand_tokens_open_and_answer_quickly(show):
    trace = synthetic_trace.conversation(n_requests=2, n_tokens=5000)
    assert len(trace.ledger) > 190_000
    start = time.monotonic()
    page = show(trace)
    made_and_opened = time.monotonic() - start
    opened = page.evaluate("performance.timing.domComplete - performance.timing.navigationStart")
    assert opened < 4000, opened  # 1 s on two quiet cores
    assert page.evaluate("document.getElementById('trace').textContent.length") < 15_000_000
    assert page.locator(".token").count() < 3000  # only what is near the visible part exists
    took = page.evaluate("""() => {
        const start = performance.now();
        document.querySelectorAll('.token')[7].click();
        document.body.offsetHeight;
        return performance.now() - start;
    }""")
    assert took < 400, took
    page.focus("#tokens")
    page.keyboard.press("End")
    assert chosen(page).get_attribute("data-cell") == str(len(trace.tokens) - 1)
    seen, panel = chosen(page).bounding_box(), page.locator("#tokens").bounding_box()
    assert panel["y"] <= seen["y"] <= seen["y"] + seen["height"] <= panel["y"] + panel["height"]
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert level(page) == "run"
    assert made_and_opened < 30


def test_a_thinned_trace_says_so(show, conversation, monkeypatch):
    from tickwise.report import timeline_data

    monkeypatch.setattr(timeline_data, "_MOST_ROWS", 1500)
    page = show(conversation)
    notice = page.locator("#thinned").inner_text()
    assert f"of the trace's {len({row['tick'] for row in conversation.ledger})} ticks" in notice
    assert page.locator(".gap").count() > 3
