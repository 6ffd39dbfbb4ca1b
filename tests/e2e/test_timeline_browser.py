"""The timeline page in a real browser: what it says and draws."""

import time

import pytest

import synthetic_trace
from tickwise.core.stages import Stage
from tickwise.profiling.roofline import Roofline, StageWork, judge
from timeline_parts import chosen, level, rows_of, slowest_tick, wall, widths

HOSTILE = ["</script><script>document.title='broken'</script>", "<img src=x onerror=\"document.title='broken'\">",
           "שלום", "\u202eabc", "🙂", "\x00", "\ud800", "", "   ", "\n", "&lt;b&gt;", "'\"`"]  # fmt: skip


def test_the_answer_names_the_slowest_token_its_stage_why_and_what_would_help(show, conversation):
    page = show(conversation)
    answer = page.locator(".answer.slowest[data-phase=decode]").inner_text()
    tick = slowest_tick(conversation, "decode")
    assert f"tick {tick}" in answer
    assert "host" in answer  # the pause that the trace was made with
    assert "× the typical one of" in answer
    assert "its usual time for no more work" in answer  # a pause is not what every token pays
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
    usage = [{"tick": number, "interruptions": 2 if number % 3 else 0, "cpu_ns": 1_000_000,
              "core_wait_ns": 40_000_000} for number in range(30)]
    page = show(trace, usage=usage)
    typical = page.locator(".answer.typical[data-phase=decode]").inner_text()
    assert "20 of 30 ticks were interrupted by other programs" in typical
    assert "The mean of the middle 4 of 10 uninterrupted decode ticks" in typical
    assert "head" in typical
    assert "norm" not in typical
    slowest = page.locator(".answer.slowest[data-phase=decode]").inner_text()
    assert "norm" in slowest
    assert "another program held the core (interrupted 2 times)" in slowest
    assert "1 ms of processor time; other programs interrupted it 2 ×" in slowest.lower()
    assert "between ticks" in page.locator("#overview").inner_text()
    everywhere = show(trace, usage=[{**one, "interruptions": 2} for one in usage])
    typical = everywhere.locator(".answer.typical[data-phase=decode]").inner_text()
    assert "every tick was interrupted by other programs" in typical.lower()
    assert "Other programs interrupted it" in typical
    assert "off the tick" not in typical


def test_a_prompt_that_was_interrupted_is_no_fault_of_the_model(show):
    trace = synthetic_trace.Trace()
    trace.tick("prefill", ["a"], 40, 0, [("a", 0, "x")], pauses={"norm": 28_200_000})
    wall_ns = wall(trace, 0)
    usage = [{"tick": 0, "interruptions": 5, "cpu_ns": wall_ns - 28_200_000, "core_wait_ns": 28_200_000}]
    answer = show(trace, usage=usage).locator(".answer.slowest").inner_text()
    assert "norm" in answer
    assert "Another program held the core (interrupted 5 times); for 28.2 ms of its" in answer
    assert "Nothing in the model; without the other programs" in answer
    assert "Fewer, larger operations" not in answer
    little = show(trace, usage=[{**usage[0], "cpu_ns": round(0.93 * wall_ns)}]).locator(".answer.slowest").inner_text()
    assert "Other programs interrupted it: its own processor time was" in little
    assert "off the tick" not in little
    assert "Every tick was interrupted by other programs" in little
    waited = show(trace, usage=[{**usage[0], "interruptions": 0, "core_wait_ns": 0}])
    assert "Fewer, larger operations" in waited.locator(".answer.slowest").inner_text()


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
    assert "Nothing in the model; in its usual time 6" in answer


def test_a_stage_that_often_takes_long_for_no_more_work_is_no_fault_of_the_model(show):
    trace = synthetic_trace.conversation(1, 40)
    for tick in range(5, 35, 4):
        slow = next(row for row in rows_of(trace, tick) if (row["stage"], row["layer"]) == ("qkv", 2))
        slow["duration_ns"] += 9_000_000
    answer = show(trace).locator(".answer.slowest[data-phase=decode]").inner_text()
    assert "qkv" in answer
    assert "its usual time for no more work: most likely an interruption" in answer
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
    assert "in validation, which most ticks do without" in answer
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
    assert "above the typical tick are in host" in answer
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
    assert opened < 15_000, opened  # 1 s on two quiet cores; what grows with the square takes minutes
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


def test_what_no_thread_ran_for_is_said_at_every_level_and_never_python_s(show):
    trace = synthetic_trace.Trace()
    for number in range(30):
        trace.tick("decode", ["a"], 1, 10, [("a", number, "x")], pauses={"host": 4_000_000} if number == 12 else None)
    waits = [4_000_000 * (number == 12) for number in range(30)]
    usage = [{"tick": number, "interruptions": int(wait > 0), "core_wait_ns": wait,
              "cpu_ns": wall(trace, number) - wait} for number, wait in enumerate(waits)]
    page = show(trace, usage=usage)
    page.locator('.token[data-tick="12"]').click()
    for name in ("token", "layer", "op"):
        assert level(page) == name
        said = page.locator("#detail").inner_text()
        assert "another program held the core" in said.lower()
        assert "of that fell into this part's" in said
        page.locator("#zoom .part[data-stage=host]").first.click() if name != "op" else None
    assert "Python's" not in page.locator("#zoom").inner_text()


def test_the_caption_follows_the_chosen_figure(show, conversation):
    page = show(conversation)
    assert "bar: time of the tick that gave the token, measured" in page.locator("#tokens-note").inner_text()
    page.keyboard.press("2")
    note = page.locator("#tokens-note").inner_text()
    assert "bar: FLOPs of the tick that gave the token, counted; warmer is more" in note
