"""The loss curve of a run as an SVG file."""

import io
from pathlib import Path

from tickwise.core.errors import DataError
from tickwise.core.paths import write_text_atomic
from tickwise.report.metrics import loss_series, read_metrics, smoothed


def loss_svg(metrics_path: Path, out_path: Path) -> None:
    """Draw ``metrics.jsonl`` as ``loss.svg``: training loss per logged step, its average, validation loss.

    The same metrics give the same bytes. ``DataError`` when the file has no losses, ``OutputError`` when
    ``out_path`` cannot be written.
    """
    training, validation = loss_series(read_metrics(metrics_path))
    if not training and not validation:
        raise DataError(f"{metrics_path}: no losses to draw")

    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # A Figure of its own, not pyplot: no global state, no display, usable from any thread.
    with matplotlib.rc_context({"svg.hashsalt": "tickwise", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        if training:
            steps, losses = zip(*training, strict=True)
            axes.plot(steps, losses, color="#9db7d5", linewidth=1, label="training, per logged step",
                      marker="." if len(training) == 1 else None)
            if len(training) >= 20:
                steps, losses = zip(*smoothed(training, window=max(5, len(training) // 20)), strict=True)
                axes.plot(steps, losses, color="#1f5a99", linewidth=2, label="training, moving average")
        if validation:
            steps, losses = zip(*validation, strict=True)
            axes.plot(steps, losses, color="#c8511b", linewidth=2, marker="o", markersize=4, label="validation")
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats per token)")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        picture = io.StringIO()
        # Date=None: otherwise the file would differ from one drawing to the next.
        figure.savefig(picture, format="svg", metadata={"Date": None, "Title": "loss"})
    write_text_atomic(out_path, picture.getvalue())
