"""The timeline page in a real browser, by keys, and two tokens side by side."""

import pytest

from timeline_parts import chosen, level, slowest_tick, wall, widths


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
