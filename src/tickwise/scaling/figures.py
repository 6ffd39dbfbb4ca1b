"""The pictures of a study as SVG texts: the same study gives the same bytes."""

import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy

from tickwise.scaling.fitting import percentile_interval
from tickwise.scaling.laws import parametric_loss
from tickwise.scaling.minimise import Floats
from tickwise.scaling.runs import FLOPS_PER_PARAMETER_AND_TOKEN
from tickwise.scaling.study import Study, optimal_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, GREY, PURPLE = "#1f5a99", "#c2501b", "#1c7f5e", "#8a9099", "#6f4fa8"
_HARDLY_ANY, _IN_A_THIRD = 100.0, 20.0
"""Times the lowest value of a logarithmic axis up to which it has too few powers of ten to read it by, and room for
more labels; and of an axis that has a third of the width."""
_DOTS = {"s": 20, "linewidths": 0.3, "edgecolors": "white"}


def svg(title: str, draw: Callable[[Any], None], *, width: float = 7.2, height: float = 4.4) -> str:
    """An SVG of what ``draw`` draws into a matplotlib figure."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # A Figure of its own, not pyplot: no global state, no display, usable from any thread.
    with matplotlib.rc_context({"svg.hashsalt": title, "svg.fonttype": "none", "font.size": 10,
                                "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        picture = io.StringIO()
        # Date=None: otherwise the file would differ from one drawing to the next.
        figure.savefig(picture, format="svg", metadata={"Date": None, "Title": title})
    return picture.getvalue()


def study_figures(result: Study) -> dict[str, tuple[str, str]]:
    """Name of the picture → (what it shows, its SVG)."""
    drawn: dict[str, tuple[str, Callable[[Any], None]]] = {
        "frontier": ("Compute-optimal parameters and tokens by each approach, with 95 % bands.",
                     lambda figure: _frontier(figure, result)),
        "loss": ("Loss over compute: every run, coloured by its size, and the loss of the compute-optimal model with "
                 "its 95 % band.", lambda figure: _loss_over_compute(figure, result)),
        "residuals": ("Residuals of the parametric law: log of measured minus predicted loss. A pattern here is "
                      "something that the law leaves out.", lambda figure: _residuals(figure, result)),
    }
    if result.parabolas:
        drawn["iso_flop"] = ("Loss over size at equal compute: runs, their parabolas (dashed) and the parametric law "
                             "(lines).", lambda figure: _iso_flop(figure, result))
    if len(result.parametric.resampled) >= 20:
        drawn["bootstrap"] = ("The two exponents in the bootstrap resamples: how well the runs determine each, and "
                              "whether an error in one goes with an error in the other.",
                              lambda figure: _bootstrap(figure, result))
    if result.power_laws:
        drawn["kaplan"] = ("Power laws through the best runs so far (Kaplan et al. 2020).",
                           lambda figure: _power_laws(figure, result))
    if result.data_constrained is not None:
        drawn["repeats"] = ("What repeated tokens are worth: tokens that would do as much if they were all new.",
                            lambda figure: _repeats(figure, result))
    heights = {"frontier": 3.9, "residuals": 3.6, "kaplan": 3.6, "iso_flop": 5.0}
    wide = {"frontier": 9.6, "residuals": 9.6, "kaplan": 9.6}
    return {name: (text, svg(name, draw, width=wide.get(name, 7.2), height=heights.get(name, 4.4)))
            for name, (text, draw) in drawn.items()}


def _grid(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)


def _budgets(result: Study, beyond: float = 10.0) -> Floats:
    return numpy.geomspace(result.runs.flops.min(), result.runs.flops.max() * beyond, 60)


def _band(draws_SF: Floats) -> tuple[Floats, Floats] | None:
    if len(draws_SF) < 20:
        return None
    known = numpy.where(numpy.isfinite(draws_SF), draws_SF, numpy.nan)
    enough = numpy.isfinite(known).any(axis=0)
    band = numpy.full((2, known.shape[1]), numpy.nan)
    band[:, enough] = numpy.nanquantile(known[:, enough], (0.025, 0.975), axis=0)
    return band[0], band[1]


def _frontier(figure: Any, result: Study) -> None:
    budgets, fit = _budgets(result), result.parametric
    for axes, what in zip(figure.subplots(1, 2), ("parameters", "tokens"), strict=True):
        def shown(sizes: Floats, what: str = what, at: Floats = budgets) -> Floats:
            return sizes if what == "parameters" else at / (FLOPS_PER_PARAMETER_AND_TOKEN * sizes)

        axes.scatter(result.runs.flops, getattr(result.runs, what), color=GREY, alpha=0.45, **_DOTS)
        for found, label, colour, marker in ((result.envelope, "1 envelope", GREEN, "."),
                                             (result.iso_flop, "2 parabolas", ORANGE, "D")):
            if found is None:
                continue
            axes.plot(budgets, shown(found.size(budgets)), color=colour, label=f"{label}: C^{_exponent(found.a, what)}")
            axes.plot(found.flops, shown(found.sizes, at=found.flops), marker, color=colour, markersize=4)
            with numpy.errstate(over="ignore", invalid="ignore"):
                sizes = numpy.exp(found.log_factor_draws[:, None] + found.a_draws[:, None] * numpy.log(budgets))
            _fill(axes, budgets, shown(sizes), colour)
        axes.plot(budgets, shown(optimal_size(fit.values, budgets)), color=BLUE,
                  label=f"3 parametric: C^{_exponent(result.a, what)}")
        _fill(axes, budgets, shown(optimal_size(fit.resampled[:, None], budgets)), BLUE)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _grid(axes, "training compute C = 6·N·D (FLOP)", f"compute-optimal {what}")
        axes.legend(fontsize=8, loc="upper left")


def _exponent(a: float, what: str) -> str:
    return f"{a if what == 'parameters' else 1 - a:.3f}"


def _fill(axes: "Axes", x: Floats, draws_SF: Floats, colour: str) -> None:
    found = _band(draws_SF)
    if found is not None:
        axes.fill_between(x, *found, color=colour, alpha=0.15, linewidth=0)


def _loss_over_compute(figure: Any, result: Study) -> None:
    from matplotlib.colors import LogNorm

    axes, budgets, fit = figure.subplots(), _budgets(result), result.parametric
    dots = axes.scatter(result.runs.flops, result.runs.losses, c=result.runs.parameters, norm=LogNorm(),
                        cmap="viridis", **_DOTS)
    _colour_bar(figure, dots, axes, "parameters")

    def optimal_loss(coefficients: Floats) -> Floats:
        sizes = optimal_size(coefficients, budgets)
        return parametric_loss(coefficients, sizes, budgets / (FLOPS_PER_PARAMETER_AND_TOKEN * sizes))

    axes.plot(budgets, optimal_loss(fit.values), color=ORANGE, label="compute-optimal by the parametric law")
    _fill(axes, budgets, optimal_loss(fit.resampled[:, None]), ORANGE)
    axes.axhline(fit.value("E"), color=GREY, linestyle=":", label=f"E = {fit.value('E'):.3f}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _grid(axes, "training compute C = 6·N·D (FLOP)", "loss (nats per token)")
    _plain_losses(axes)
    axes.legend(fontsize=8)


def _plain_losses(axes: "Axes") -> None:
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in MaxNLocator(7).tick_values(low, high) if tick > 0]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylim(low, high)


def _colour_bar(figure: Any, of: Any, axes: "Axes", label: str) -> None:
    """One of shapes: the picture that it is otherwise has no place in a page without other files."""
    bar = figure.colorbar(of, ax=axes, label=label)
    bar.solids.set_rasterized(False)
    bar.solids.set_edgecolor("face")
    _few_labels(bar.ax.yaxis)


def _few_labels(axis: Any, hardly_any: float = _HARDLY_ANY) -> None:
    """Of a logarithmic axis: powers of ten, and 2 and 5 times those where there are hardly any."""
    from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, NullFormatter

    low, high = axis.get_view_interval()
    if high / low >= hardly_any:
        axis.set_minor_formatter(NullFormatter())
        return
    written = LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(math.inf, math.inf))
    written.set_axis(axis)
    axis.set_minor_formatter(FuncFormatter(lambda value, _: written(value) if f"{value:.0e}"[0] in "25" else ""))


def _iso_flop(figure: Any, result: Study) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    axes, fit = figure.subplots(), result.parametric
    scale = LogNorm(result.runs.flops.min(), result.runs.flops.max())
    for parabola in result.parabolas:
        colour = colormaps["viridis"](scale(parabola.flops))
        members = parabola.members
        sizes = result.runs.parameters[members]
        axes.scatter(sizes, result.runs.losses[members], color=[colour], **_DOTS)
        grid = numpy.geomspace(sizes.min(), sizes.max(), 60)
        z = numpy.log(grid / parabola.centre)
        c0, c1, c2 = parabola.coefficients
        axes.plot(grid, c0 + c1 * z + c2 * z**2, "--", color=colour, linewidth=1)
        law = parametric_loss(fit.values, grid, parabola.flops / (FLOPS_PER_PARAMETER_AND_TOKEN * grid))
        axes.plot(grid, law, color=colour, linewidth=1.2)
        if parabola.inside:
            axes.plot([parabola.best_size], [parabola.best_loss], "D", color=colour, markeredgecolor="black",
                      markersize=5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _grid(axes, "parameters", "loss (nats per token)")
    _few_labels(axes.xaxis)
    _plain_losses(axes)
    _colour_bar(figure, ScalarMappable(scale, "viridis"), axes, "training compute C = 6·N·D (FLOP)")


def _residuals(figure: Any, result: Study) -> None:
    residuals = result.parametric.residuals
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(2, 2, 1.2))
    for axes, x, label in ((left, result.runs.parameters, "parameters"), (middle, result.runs.tokens, "tokens")):
        axes.axhline(0, color=GREY, linewidth=1)
        axes.scatter(x, residuals, color=BLUE, alpha=0.7, **_DOTS)
        axes.set_xscale("log")
        _few_labels(axes.xaxis, _IN_A_THIRD)
        _grid(axes, label, "")
    left.set_ylabel("log residual")
    right.hist(residuals, bins=30, orientation="horizontal", color=BLUE, alpha=0.7)
    _grid(right, "runs", "")


def _bootstrap(figure: Any, result: Study) -> None:
    axes, fit = figure.subplots(), result.parametric
    alpha, beta = fit.draws("alpha"), fit.draws("beta")
    axes.scatter(alpha, beta, color=BLUE, alpha=0.35, s=8, linewidths=0)
    axes.plot([fit.value("alpha")], [fit.value("beta")], "o", color=ORANGE, label="the fit to all runs")
    found_a, found_b = percentile_interval(alpha), percentile_interval(beta)
    assert found_a is not None
    assert found_b is not None
    axes.set_xlim(*_around(found_a))
    axes.set_ylim(*_around(found_b))
    _grid(axes, "α (parameters)", "β (tokens)")
    axes.legend(fontsize=8)


def _around(found: tuple[float, float]) -> tuple[float, float]:
    margin = 0.4 * (found[1] - found[0]) or 0.01
    return found[0] - margin, found[1] + margin


def _power_laws(figure: Any, result: Study) -> None:
    every = figure.subplots(1, len(result.power_laws), sharey=True, squeeze=False)[0]
    for axes, law in zip(every, result.power_laws, strict=True):
        x = getattr(result.runs, law.of)
        axes.scatter(x, result.runs.losses, color=GREY, alpha=0.5, **_DOTS)
        axes.scatter(x[law.used], result.runs.losses[law.used], color=ORANGE, **_DOTS)
        grid = numpy.geomspace(x.min(), x.max(), 30)
        axes.plot(grid, law.loss(grid), color=ORANGE, label=f"exponent {law.exponent:.4f}")
        axes.set_xscale("log")
        axes.set_yscale("log")
        _few_labels(axes.xaxis, _IN_A_THIRD)
        _grid(axes, "FLOP" if law.of == "flops" else law.of, "")
        axes.legend(fontsize=8)
    every[0].set_ylabel("loss (nats per token)")
    _plain_losses(every[0])


def _repeats(figure: Any, result: Study) -> None:
    assert result.data_constrained is not None
    axes, fit = figure.subplots(), result.data_constrained
    epochs = numpy.geomspace(1, 200, 80)

    def worth(half_life: Floats) -> Floats:
        return 1 + half_life * -numpy.expm1(-(epochs - 1) / half_life)

    axes.plot(epochs, epochs, ":", color=GREY, label="new tokens")
    axes.plot(epochs, worth(numpy.array(fit.value("R_D"))), color=BLUE, label=f"R*_D = {fit.value('R_D'):.1f}")
    _fill(axes, epochs, worth(fit.draws("R_D")[:, None]), BLUE)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.9, 60)
    _grid(axes, "epochs", "worth in epochs of new tokens")
    axes.legend(fontsize=8)
