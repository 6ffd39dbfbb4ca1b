"""The page and the pictures of attention maps, without a browser."""

import base64
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy
import pytest

from tickwise.core.errors import ConfigError, OutputError
from tickwise.report.attention import Map, Pictured, attention_page, attention_picture, check_ending, write_attention

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>\x00\u202e&amp;\u2028$x$'


def shown(text="plain"):
    chooser = numpy.random.default_rng(0)
    maps = []
    for name, m, n in (("cross", 3, 4), ("encoder", 4, 4)):
        weights = chooser.random((2, 3, m, n)).astype(numpy.float32)
        weights /= weights.sum(-1, keepdims=True)
        tokens = [f"{text}{i}" for i in range(4)]
        maps.append(Map(name, tokens[:m], tokens[:n], weights))
    single = maps[0].weights[:1, :1]
    maps.insert(0, Map("copy", maps[0].queries, maps[0].keys, single, (0.25, 0.5, 0.123)))
    maps.append(Map("words", maps[1].queries, maps[1].keys, single, pairs="3-0 1-1 0-2"))
    return Pictured(text, [text, text], maps, text)


def embedded(html):
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL).group(1))


def test_the_page_holds_the_weights_and_a_table_of_the_largest():
    data = shown()
    html = attention_page(data)
    for kept, one in zip(embedded(html)["maps"], data.maps, strict=True):
        values = numpy.frombuffer(base64.b64decode(kept["weights"]), "<u2").reshape(one.weights.shape) / 65_535
        numpy.testing.assert_allclose(values, one.weights, atol=1e-5)
        assert (kept["queries"], kept["keys"]) == (list(one.queries), list(one.keys))
    mean = data.maps[1].weights.mean((0, 1))
    assert f"<td>plain{mean[1].argmax()} {mean[1].max():.3f}</td>" in html


def test_the_page_says_what_each_map_is_and_how_much_is_copied():
    html = attention_page(shown())
    copy, cross, _, words = embedded(html)["maps"]
    assert copy["about"].startswith("Pointer: from which token of the source the next token is copied")
    assert copy["copied"] == [0.25, 0.5, 0.123]
    assert '<th scope="row">plain2</th><td>copied: 0.123</td>' in html
    assert (bool(copy["single"]), cross["single"], bool(words["single"])) == (True, None, True)
    assert "what each head of each layer of the decoder takes" in cross["about"]
    assert words["about"].endswith("As pairs of source and target, from 0: 3-0 1-1 0-2")
    svg = attention_picture(shown(), "svg").decode("utf-8")
    assert "plain2  (copied 0.12)" in svg
    assert svg.count("Right: each head, as layer.head.") == 2
    assert svg.count(">2.3<") == 2  # the last head of each map that has several


def test_the_page_loads_nothing_and_hostile_text_stays_text():
    html = attention_page(shown(HOSTILE))
    assert html.count("<script") == 2
    assert "<img" not in html
    assert "\x00" not in html
    assert not re.search(r'@import|url\(|src="|href="', html)
    assert re.search(r"Content-Security-Policy\" content=\"default-src 'none'.*script-src 'sha256-", html)
    assert embedded(html)["maps"][0]["keys"][0].startswith("</script>")


@pytest.mark.filterwarnings("ignore:Glyph")
def test_pictures_are_valid_and_name_the_tokens(tmp_path):
    data = shown("a$b_{")
    svg = attention_picture(data, "svg")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert b"a$b_{2" in svg
    write_attention(tmp_path / "map.PNG", data)
    assert (tmp_path / "map.PNG").read_bytes().startswith(b"\x89PNG")


def test_other_endings_and_folders_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"\.html, \.svg, \.png"):
        check_ending(tmp_path / "map.pdf")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_attention(tmp_path / "file" / "map.html", shown())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
