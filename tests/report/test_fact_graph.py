"""Facts as boxes and arrows."""

import re
from xml.etree import ElementTree

import pytest

from tickwise.core.errors import ConfigError
from tickwise.report.fact_graph import Arrow, FactPicture, check_ending, fact_svg, write_fact_picture

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*arrows, **settings):
    picture = FactPicture("A question?", "", [Arrow(*arrow) for arrow in arrows], **settings)
    return ElementTree.fromstring(fact_svg(picture))


def boxes(image):
    """Name → (x, y, width, height) of its box."""
    found = {}
    for group in image.iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        found[group.find(f"{SVG}title").text] = tuple(float(rect.get(k)) for k in ("x", "y", "width", "height"))
    return found


def test_every_name_is_one_box_and_every_fact_one_arrow():
    image = drawn(("Ada", "born in", "London"), ("LONDON", "located in", "England"), ("Ada", "mother", "Byron"))
    assert set(boxes(image)) == {"Ada", "London", "England", "Byron"}
    assert len(image.findall(f"{SVG}path")) == 3
    assert {text.text for text in image.iter(f"{SVG}text")} >= {"born in", "located in", "mother"}


def test_boxes_do_not_overlap_and_stay_within_the_picture():
    ring = [(f"name {i}", "part of", f"name {(i + 1) % 7}") for i in range(7)]
    image = drawn(*ring, *[("name 3", "like", f"thing {i}") for i in range(9)], ("alone", "is", "here"))
    width, height = float(image.get("width")), float(image.get("height"))
    placed = list(boxes(image).values())
    for i, (x, y, w, h) in enumerate(placed):
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        for a, b, c, d in placed[:i]:
            assert x + w <= a or a + c <= x or y + h <= b or b + d <= y


def test_an_arrow_points_at_the_object_though_it_stands_to_the_left():
    fact = ("England", "capital", "London")
    backwards, forwards = drawn(fact, first="London"), drawn(fact)
    assert boxes(backwards)["London"][0] < boxes(backwards)["England"][0]
    assert backwards.find(f"{SVG}path").get("marker-start") == "url(#tip)"
    assert boxes(forwards)["England"][0] < boxes(forwards)["London"][0]
    assert forwards.find(f"{SVG}path").get("marker-end") == "url(#tip)"


def test_answers_stand_out():
    image = drawn(("Ada", "born in", "London"), marked=frozenset({"London"}))
    fills = {group.find(f"{SVG}title").text: group.find(f"{SVG}rect").get("fill") for group in image.iter(f"{SVG}g")}
    assert fills["London"] != fills["Ada"]


def test_names_are_text_and_never_markup(tmp_path):
    picture = FactPicture("<script>", "x & y", [Arrow("<b>", '"&', "a\x00b" * 60)], rows=(("<i>", "r", "o"),),
                          header=("s", "r", "o"))
    ElementTree.fromstring(fact_svg(picture))
    page = tmp_path / "a.html"
    write_fact_picture(page, picture, "tickwise <x>")
    text = page.read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "<i>" not in text
    assert "\x00" not in text
    assert not re.search(r"(?:src|href)=", text)


def test_only_pictures_and_pages_are_written(tmp_path):
    with pytest.raises(ConfigError, match=r"\.svg or \.html"):
        check_ending(tmp_path / "a.png")


def test_spellings_of_a_name_are_one_box():
    image = drawn(("St. Louis", "in", "Missouri"), ("St Louis", "on", "Mississippi"), ("ST LOUIS", "near", "→"))
    assert set(boxes(image)) == {"St. Louis", "Missouri", "Mississippi", "→"}
