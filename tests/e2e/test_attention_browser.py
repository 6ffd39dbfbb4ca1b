"""The page of attention maps in a real browser: what it says, by pointing and by keys."""

import numpy
import pytest

from tickwise.report.attention import Map, Pictured, attention_page

HOSTILE = "</script><script>document.title='broken'</script>"
SOURCE, TARGET = ("␣the", "␣dog", HOSTILE, "⟨end⟩"), ("␣der", "␣Hund", "⟨end⟩")


def weights(m, n, seed):
    drawn = numpy.random.default_rng(seed).random((2, 3, m, n)).astype(numpy.float32)
    return drawn / drawn.sum(-1, keepdims=True)


CROSS, ENCODER = weights(3, 4, 1), weights(4, 4, 2)


@pytest.fixture
def page(browser, tmp_path):
    shown = Pictured("a model", ["the dog", "der Hund"], [Map("cross", TARGET, SOURCE, CROSS),
                                                          Map("encoder", SOURCE, SOURCE, ENCODER),
                                                          Map("copy", TARGET, SOURCE, CROSS[:1, :1], (0.5, 0.25, 0.125))
                                                          ], "tickwise")
    path, problems, asked = tmp_path / "attention.html", [], []
    path.write_text(attention_page(shown), encoding="utf-8")
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.on("console", lambda message: problems.append(message.text) if message.type != "log" else None)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(path.as_uri())
    opened.wait_for_selector("body[data-ready]")
    yield opened
    title = opened.title()
    opened.close()
    assert problems == []
    assert asked == [path.as_uri()]
    assert title == "a model – attention – tickwise"


def said(query, key, value):
    return f"{query} ← {key}: {value:.3f}"


def test_pointing_at_a_token_shades_what_it_looks_at_and_says_the_most(page):
    mean = CROSS.mean((0, 1))
    page.locator(".query-token").nth(1).hover()
    best = int(mean[1].argmax())
    assert page.locator("#values").inner_text() == said("␣Hund", SOURCE[best], mean[1, best])
    shares = [page.locator(".key-token").nth(i).get_attribute("title") for i in range(4)]
    assert shares == [f"{value:.3f}" for value in mean[1]]
    assert page.locator(".key-token").nth(2).inner_text() == HOSTILE
    page.locator("#map").hover(position={"x": 250, "y": 10})


def test_keys_read_single_weights_and_go_from_head_to_head(page):
    mean = CROSS.mean((0, 1))
    page.locator("#map").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.locator("#values").inner_text() == said("␣Hund", "␣dog", mean[1, 1])
    for _ in range(5):
        page.keyboard.press("PageDown")
    assert page.locator("#chosen").inner_text() == "Layer 2, head 2"
    assert page.locator("#values").inner_text() == said("␣Hund", "␣dog", CROSS[1, 1, 1, 1])
    page.keyboard.press("End")
    assert page.locator("#values").inner_text() == said("␣Hund", "⟨end⟩", CROSS[1, 1, 1, 3])


def test_heads_by_layer_and_the_other_maps(page):
    assert page.locator("#heads button").count() == 2 * (3 + 1)
    page.locator("#heads button[data-layer='0'][data-head='-1']").click()
    assert page.locator("#chosen").inner_text() == "Layer 1, the mean of its heads"
    assert page.locator("#values").inner_text() == said("␣der", "␣the", CROSS[0].mean(0)[0, 0])
    page.locator("#maps button").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#maps button[aria-selected='true']").inner_text() == "source"
    assert page.locator(".query-token").count() == 4
    assert page.locator("#values").inner_text() == said("␣the", "␣the", ENCODER.mean((0, 1))[0, 0])
    drawn = page.evaluate("""() => { const c = document.getElementById('map');
        return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0); }""")
    assert drawn


def test_a_pointer_has_one_picture_and_says_how_much_is_copied(page):
    page.locator("#maps button").nth(2).click()
    assert page.locator("#chosen").inner_text() == "The pointer (the mean of its heads)"
    assert not page.locator("#heads").is_visible()
    page.locator(".query-token").nth(1).hover()
    assert page.locator("#values").inner_text().endswith("; it is copied with probability 0.250")
    page.locator("#maps button").first.click()
    assert page.locator("#heads").is_visible()
