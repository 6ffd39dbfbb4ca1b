"""How like texts are to each other: a heat map of their cosines, as a picture or a self-contained page.

Shapes: N texts in rows, M in columns.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from tickwise.core.errors import ConfigError
from tickwise.core.paths import atomic_file, write_text_atomic
from tickwise.report.attention import FONTS
from tickwise.report.figure_page import Section, figure_page
from tickwise.report.timeline import readable

ENDINGS = (".html", ".svg", ".png")
MOST_TEXTS = 150
"""Of a side: more have no room for their names."""
_MOST_NUMBERS = 15
_LONGEST = 40


@dataclass(frozen=True)
class SimilarityMap:
    """Cosines (N, M) of the texts of the rows with those of the columns, which may be the same texts."""

    model: str
    rows: Sequence[str]
    columns: Sequence[str]
    cosines: NDArray[numpy.float32]
    command: str

    @property
    def symmetric(self) -> bool:
        """Whether every text is compared with itself too."""
        return list(self.rows) == list(self.columns)


def check_picture(path: Path) -> None:
    """``ConfigError`` for a file that is neither a page nor a picture."""
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"{path}: a heat map is written as a page or a picture; give a name that ends in "
                          f"{', '.join(ENDINGS)}")


def check_size(n_rows: int, n_columns: int) -> None:
    """``ConfigError`` for more texts than a heat map has room for."""
    if max(n_rows, n_columns) > MOST_TEXTS:
        raise ConfigError(f"a heat map of {n_rows:,} by {n_columns:,} texts cannot be read; give at most {MOST_TEXTS} "
                          "of each")


def write_similarity(path: Path, shown: SimilarityMap) -> None:
    """The page (.html) or picture (.svg, .png), by the name's ending. Raises ``OutputError``, and ``ConfigError`` as
    ``check_picture`` and ``check_size``."""
    check_picture(path)
    check_size(*shown.cosines.shape)
    if path.suffix.lower() == ".html":
        write_text_atomic(path, similarity_page(shown))
        return
    with atomic_file(path) as temporary:
        temporary.write_bytes(similarity_picture(shown, path.suffix.lower().removeprefix(".")))


def similarity_page(shown: SimilarityMap) -> str:
    """One HTML file that loads nothing: the heat map, and of each text the likest other one."""
    rows = []
    for text, cosines_M in zip(shown.rows, shown.cosines, strict=True):
        own_M = numpy.array([shown.symmetric and other == text for other in shown.columns])
        others_M = numpy.where(own_M, -numpy.inf, cosines_M)
        best = int(others_M.argmax())
        if numpy.isfinite(others_M[best]):
            rows.append((readable(text), readable(shown.columns[best]), f"{others_M[best]:.3f}"))
    what = (f"{len(shown.rows):,} texts with each other" if shown.symmetric else
            f"{len(shown.rows):,} texts (rows) with {len(shown.columns):,} others (columns)")
    sections = [Section("Heat map", "The cosine of the vectors of each two texts: 1 is the same direction, 0 none in "
                        "common. The colours go from the lowest cosine that occurs to the highest.",
                        similarity_picture(shown, "svg").decode("utf-8")),
                Section("The likest of each", header=("text", "the likest other text" if shown.symmetric else
                                                      "the likest text of the columns", "cosine"), rows=tuple(rows))]
    return figure_page(readable(shown.model), f"How like texts are to each other: {what}.", (), sections,
                       readable(shown.command))


def similarity_picture(shown: SimilarityMap, form: str) -> bytes:
    """SVG or PNG: a cell for each two texts, with its number where there are few."""
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = set(font_manager.get_font_names())
    fonts = [name for name in FONTS if name in known]
    style: Any = {"svg.fonttype": "none", "font.size": 9, "font.family": fonts or ["sans-serif"]}
    n, m = shown.cosines.shape
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(max(6.0, 4.5 + 0.32 * m), max(3.0, 2.6 + 0.26 * n)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        # The diagonal of texts with themselves is always 1, and would leave the others one colour.
        off = shown.cosines[~numpy.eye(n, dtype=bool)] if shown.symmetric and n > 1 else shown.cosines.ravel()
        low, high = float(off.min()), float(off.max())
        image = axes.imshow(shown.cosines, cmap="Blues", aspect="auto", vmin=low, vmax=max(high, low + 1e-3))
        figure.colorbar(image, ax=axes, label="cosine")
        if max(n, m) <= _MOST_NUMBERS:
            middle = (low + high) / 2
            for row in range(n):
                for column in range(m):
                    value = float(shown.cosines[row, column])
                    axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7,
                              color="white" if value > middle else "black")
        axes.set_xticks(range(m), [_label(text) for text in shown.columns], rotation=60, ha="left",
                        rotation_mode="anchor")
        axes.set_yticks(range(n), [_label(text) for text in shown.rows])
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        picture = io.BytesIO()
        title = {"Title": readable(shown.model)}
        figure.savefig(picture, format=form, dpi=110, metadata=title | ({"Date": None} if form == "svg" else {}))
    return picture.getvalue()


def _label(text: str) -> str:
    flat = " ".join(readable(text).split())
    flat = flat if len(flat) <= _LONGEST else flat[: _LONGEST - 2] + " …"
    return flat.replace("$", r"\$")  # a dollar sign would begin a formula
