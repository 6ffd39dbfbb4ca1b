"""What a timeline page shows in a browser, and what the trace behind it says."""


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
