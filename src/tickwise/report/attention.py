"""Attention maps: a self-contained page to explore them, and a picture of them.

Shape legend: L layers, H heads, T queries, S keys.
"""

import base64
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from tickwise.core.errors import ConfigError
from tickwise.core.paths import atomic_file, write_text_atomic
from tickwise.report.charts import embedded_json
from tickwise.report.style import CSS
from tickwise.report.timeline import readable, script_policy

ENDINGS = (".html", ".svg", ".png")
_ABOUT = {
    "copy": "Pointer: from which token of the source the next token is copied, where it is copied. The model's output "
            "mixes this in with the probability that is named as copied for each token; else the token is written as "
            "by any other model.",
    "cross": "Cross-attention: what each head of each layer of the decoder takes of the source's tokens when a token "
             "of the target is written. It is mixed into the decoder's state, and need not be what decides the token.",
    "encoder": "Self-attention of the encoder: what the source's tokens take of each other.",
    "decoder": "Self-attention of the decoder: what each token that was read takes of those before it and of itself.",
    "self": "Self-attention: what each token takes of the others that it may see.",
    "words": "Word alignment: how much each word of the target takes of each word of the source in the mean of all "
             "heads of the decoder's last layer but one (of the only layer, where there is one), after Garg et al. "
             "2019. It is aligned with the word of which it takes most.",
}
_SINGLE = {"copy": "The pointer (the mean of its heads)", "words": "The words"}
"""Maps that have no heads to choose from, and what their only picture is called."""
_TOP = 3
_LINE = 150
_LEAST = 0.0005
"""What is less is shown as 0.000: tokens that may not be seen."""
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "PingFang SC", "SimHei")


@dataclass(frozen=True)
class Map:
    """The weights of one attention; every row of ``weights`` (L, H, T, S) adds up to 1."""

    name: str
    """``cross``, ``encoder``, ``decoder``, ``self``, ``copy`` or ``words``."""
    queries: Sequence[str]
    keys: Sequence[str]
    weights: NDArray[numpy.float32]
    copied: Sequence[float] = ()
    """Of ``copy``, for each of the T tokens the probability that it is copied at all."""
    pairs: str = ""
    """Of ``words``: which words are aligned, as pairs ``i-j`` of source and target, from 0."""

    @property
    def about(self) -> str:
        """What the map shows."""
        pairs = f" As pairs of source and target, from 0: {self.pairs}" if self.pairs else ""
        return _ABOUT.get(self.name, self.name) + pairs


@dataclass(frozen=True)
class Pictured:
    """What is shown: maps, and what they are of."""

    model: str
    texts: Sequence[str]
    """What was read and, of a translation, written."""
    maps: Sequence[Map]
    command: str


def check_ending(path: Path) -> None:
    """``ConfigError`` for a file that is neither a page nor a picture."""
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"{path}: attention is written as a page or a picture; give a name that ends in "
                          f"{', '.join(ENDINGS)}")


def write_attention(path: Path, shown: Pictured) -> None:
    """The page (.html) or picture (.svg, .png), by the name's ending. Raises ``OutputError``, and ``ConfigError`` as
    ``check_ending``."""
    check_ending(path)
    if path.suffix.lower() == ".html":
        write_text_atomic(path, attention_page(shown))
        return
    with atomic_file(path) as temporary:
        temporary.write_bytes(attention_picture(shown, path.suffix.lower().removeprefix(".")))


def attention_page(shown: Pictured) -> str:
    """One HTML file that loads nothing: maps to point at and to walk through by keys."""
    here = files("tickwise.report")
    script = f"(() => {{\n{here.joinpath('attention.js').read_text(encoding='utf-8')}\n}})();"
    data = {"maps": [_embedded(one) for one in shown.maps]}
    return here.joinpath("attention.html").read_text(encoding="utf-8").format(
        policy=script_policy(script), title=escape(readable(shown.model)), command=escape(readable(shown.command)),
        style=CSS + here.joinpath("attention.css").read_text(encoding="utf-8"), data=embedded_json(data), script=script,
        texts="".join(f'<p class="summary" dir="auto">{escape(readable(text))}</p>' for text in shown.texts),
        tables="".join(map(_table, shown.maps)),
    )  # fmt: skip


def _embedded(one: Map) -> dict[str, Any]:
    """Weights as whole numbers of 65,535ths: the page shows three digits of them."""
    layers, heads = one.weights.shape[:2]
    raw = numpy.rint(one.weights * 65_535).astype("<u2").tobytes()
    return {"name": one.name, "about": one.about, "single": _SINGLE.get(one.name), "copied": list(one.copied),
            "queries": [readable(t) for t in one.queries], "keys": [readable(t) for t in one.keys], "layers": layers,
            "heads": heads, "weights": base64.b64encode(raw).decode("ascii")}


def _table(one: Map) -> str:
    mean_TS = one.weights.mean((0, 1))
    rows = []
    for number, (query, weights_S) in enumerate(zip(one.queries, mean_TS, strict=True)):
        best = [key for key in numpy.argsort(-weights_S, kind="stable")[:_TOP] if weights_S[key] >= _LEAST]
        cells = "".join(f"<td>{escape(readable(one.keys[key]))} {weights_S[key]:.3f}</td>" for key in best)
        copied = f"<td>copied: {one.copied[number]:.3f}</td>" if one.copied else ""
        rows.append(f'<tr><th scope="row">{escape(readable(query))}</th>{copied}{cells}</tr>')
    return (f'<h3>{escape(one.about)}</h3><div class="scroll" tabindex="0" role="group" '
            f'aria-label="{escape(one.name)}, table"><table class="most"><tbody>{"".join(rows)}</tbody></table></div>')


def attention_picture(shown: Pictured, form: str) -> bytes:
    """SVG or PNG: for each map the mean of all heads with its tokens, and every head of every layer, where it has
    several."""
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = set(font_manager.get_font_names())
    fonts = [name for name in FONTS if name in known]
    style: Any = {"svg.fonttype": "none", "font.size": 9, "font.family": fonts or ["sans-serif"]}
    with matplotlib.rc_context(style):
        heights = [max(2.4, 0.22 * len(one.queries) + 1.4) for one in shown.maps]
        figure = Figure(figsize=(13, sum(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        rows = figure.subfigures(len(shown.maps), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, one in zip(rows, shown.maps, strict=True):
            layers, heads = one.weights.shape[:2]
            lines = textwrap.wrap(one.about, _LINE)
            if one.name not in _SINGLE:
                lines.append("Left: the mean of all heads of all layers. Right: each head, as layer.head.")
            part.suptitle("\n".join(lines), fontsize=9)
            if one.name in _SINGLE:
                _draw_mean(part.add_subplot(), one)
                continue
            left, right = part.subfigures(1, 2, width_ratios=(1.2, 1))
            _draw_mean(left.add_subplot(), one)
            grid = right.subplots(layers, heads, squeeze=False)
            for layer in range(layers):
                for head in range(heads):
                    axes = grid[layer, head]
                    axes.imshow(one.weights[layer, head], cmap="Blues", aspect="auto", vmin=0)
                    axes.set(xticks=[], yticks=[])
                    axes.set_title(f"{layer + 1}.{head + 1}", fontsize=7, pad=2)
        picture = io.BytesIO()
        title = {"Title": readable(shown.model)}
        figure.savefig(picture, format=form, dpi=110, metadata=title | ({"Date": None} if form == "svg" else {}))
    return picture.getvalue()


def _draw_mean(axes: Any, one: Map) -> None:
    axes.imshow(one.weights.mean((0, 1)), cmap="Blues", aspect="auto", vmin=0)
    # A dollar sign would begin a formula.
    queries, keys = ([readable(text).replace("$", r"\$") for text in tokens] for tokens in (one.queries, one.keys))
    if one.copied:
        queries = [f"{text}  (copied {share:.2f})" for text, share in zip(queries, one.copied, strict=True)]
    axes.set_xticks(range(len(keys)), keys, rotation=60, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(queries)), queries)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
