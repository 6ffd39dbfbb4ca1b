"""Known laws are found again, on made-up runs and on those of Chinchilla."""

import dataclasses
import json
from pathlib import Path

import numpy
import pytest

from known_laws import LAW, losses_of, write_runs
from tickwise.core.errors import ConfigError, DataError
from tickwise.scaling.figures import study_figures
from tickwise.scaling.runs import read_runs
from tickwise.scaling.study import as_json, optimal_size, read_law, study, write_law


@pytest.fixture(scope="module")
def chinchilla(shared_data: Path):
    """The 240 runs of Epoch AI's replication."""
    return study(read_runs(shared_data / "chinchilla" / "svg_extracted_data.csv", drop_highest=5), resamples=1000)


def test_runs_without_noise_give_their_law_back(tmp_path):
    grids = numpy.meshgrid(numpy.geomspace(1e7, 1e9, 6), numpy.geomspace(1e9, 1e11, 6))
    sizes, tokens = (grid.ravel() for grid in grids)
    rows = zip(sizes, tokens, losses_of(sizes, tokens), strict=True)
    fit = study(read_runs(write_runs(tmp_path / "runs.csv", ("N", "D", "L"), list(rows))), resamples=0).parametric
    assert fit.objective < 1e-12
    for name, value in LAW.items():
        assert fit.value(name) == pytest.approx(value, rel=2e-3), name
    assert fit.agreeing_starts > 0.3 * fit.n_starts


def test_three_approaches_agree_on_runs_with_noise(known_runs):
    found = study(read_runs(known_runs), resamples=300)
    truth = LAW["beta"] / (LAW["alpha"] + LAW["beta"])
    assert found.envelope is None, "no size was trained twice"
    assert found.iso_flop is not None
    for a, draws in ((found.a, found.a_draws), (found.iso_flop.a, found.iso_flop.a_draws)):
        assert a == pytest.approx(truth, abs=0.05)
        low, high = numpy.quantile(draws, (0.005, 0.995))
        assert low < truth < high
    assert found.warnings == ("approach 1 (envelope): needs at least three sizes with two or more runs each, whose "
                              "curves overlap",)


def test_the_fit_of_chinchilla_is_the_published_one(chinchilla):
    """epoch-research/analyzing-chinchilla, data_analysis.ipynb."""
    fit = chinchilla.parametric
    assert len(chinchilla.runs) == 240
    assert fit.objective <= 1.0183e-3
    assert fit.value("alpha") == pytest.approx(0.3475, abs=0.001)
    assert fit.value("beta") == pytest.approx(0.3665, abs=0.001)
    assert chinchilla.a == pytest.approx(0.5135, abs=0.003)
    assert fit.value("E") == pytest.approx(1.817, abs=0.002)
    assert fit.draws("alpha").std() == pytest.approx(0.0154, rel=0.1)
    assert fit.draws("beta").std() == pytest.approx(0.0206, rel=0.1)
    assert fit.agreeing_starts == fit.n_starts


def test_the_approaches_agree_on_chinchilla(chinchilla):
    """Hoffmann et al. 2022, table 2: 0.50 and 0.49 by approaches 1 and 2."""
    assert chinchilla.envelope.a == pytest.approx(0.50, abs=0.05)
    assert chinchilla.iso_flop.a == pytest.approx(0.49, abs=0.05)


def test_the_single_power_law_of_compute_is_that_of_its_runs(chinchilla):
    """Kaplan et al. 2020 have 0.050 to 0.057 for compute."""
    exponents = {law.of: law.exponent for law in chinchilla.power_laws}
    assert exponents["flops"] == pytest.approx(0.0535, abs=0.004)
    assert exponents["parameters"] > exponents["flops"]


def repeated_runs(path, noise):
    """Losses by Muennighoff et al.'s equations with R*_D = 15.4 and R*_N = 5.3, written out here."""
    generator = numpy.random.default_rng(4)
    ratio = LAW["alpha"] * LAW["A"] / (LAW["beta"] * LAW["B"])
    rows = []
    for size in numpy.geomspace(1e7, 3e9, 7):
        for unique in (1e8, 1e9, 1e10):
            optimal = (ratio * unique ** LAW["beta"]) ** (1 / LAW["alpha"])
            base = min(size, optimal)
            parameters = base * (1 + 5.3 * (1 - numpy.exp(-(size / base - 1) / 5.3)))
            for epochs in (1, 3, 10, 40):
                tokens = unique * (1 + 15.4 * (1 - numpy.exp(-(epochs - 1) / 15.4)))
                loss = losses_of(parameters, tokens) * numpy.exp(noise * generator.standard_normal())
                rows.append((size, unique * epochs, unique, loss))
    return read_runs(write_runs(path / "runs.csv", ("parameters", "tokens", "unique_tokens", "loss"), rows))


def test_repeats_give_both_half_lives_back(tmp_path):
    found = study(repeated_runs(tmp_path, 0.0), resamples=0).data_constrained
    assert found.value("R_D") == pytest.approx(15.4, rel=1e-3)
    assert found.value("R_N") == pytest.approx(5.3, rel=1e-3)
    for name, value in LAW.items():
        assert found.value(name) == pytest.approx(value, rel=1e-3)


def test_half_lives_of_noisy_runs_lie_in_their_intervals(tmp_path):
    found = study(repeated_runs(tmp_path, 0.003), resamples=40).data_constrained
    for name, truth in (("R_D", 15.4), ("R_N", 5.3)):
        low, high = numpy.quantile(found.draws(name), (0.01, 0.99))
        assert low < truth < high
        assert found.value(name) == pytest.approx(truth, rel=0.25)
        assert low < found.value(name) < high


def test_optimum_is_where_the_loss_is_lowest():
    coefficients = numpy.array([LAW[name] for name in ("E", "A", "B", "alpha", "beta")])
    sizes = numpy.geomspace(1e6, 1e11, 200_001)
    lowest = sizes[losses_of(sizes, 1e20 / (6 * sizes)).argmin()]
    assert float(optimal_size(coefficients, 1e20)) == pytest.approx(lowest, rel=1e-3)


@pytest.mark.parametrize(("kept", "named"), [("size", "A and alpha"), ("tokens", "B and beta")])
def test_what_never_varied_is_said_to_be_unidentified(tmp_path, kept, named):
    generator = numpy.random.default_rng(1)
    sizes, tokens = numpy.geomspace(1e7, 1e9, 20), numpy.geomspace(1e9, 1e11, 20)[::-1].copy()
    if kept == "size":
        sizes[:] = 1e8
    else:
        tokens[:] = 1e10
    losses = losses_of(sizes, tokens) * numpy.exp(0.003 * generator.standard_normal(20))
    rows = list(zip(sizes, tokens, losses, strict=True))
    found = study(read_runs(write_runs(tmp_path / "runs.csv", ("parameters", "tokens", "loss"), rows)), resamples=40)
    assert any(f"cannot identify {named}" in line for line in found.warnings)


def test_a_ratio_that_never_varied_is_said_to_be_unidentified(tmp_path):
    sizes = numpy.geomspace(1e7, 1e9, 20)
    losses = losses_of(sizes, 20 * sizes) * numpy.exp(0.002 * numpy.random.default_rng(1).standard_normal(20))
    rows = list(zip(sizes, 20 * sizes, losses, strict=True))
    found = study(read_runs(write_runs(tmp_path / "runs.csv", ("parameters", "tokens", "loss"), rows)), resamples=40)
    assert any("cannot" in line for line in found.warnings)


def test_too_few_runs_are_refused(tmp_path):
    rows = [(1e7, 1e9, 3.0), (1e8, 1e9, 2.9), (1e7, 1e10, 2.8), (1e8, 1e10, 2.7)]
    runs = read_runs(write_runs(tmp_path / "runs.csv", ("parameters", "tokens", "loss"), rows))
    with pytest.raises(DataError, match="4 runs cannot determine the 5 coefficients"):
        study(runs)


def test_a_law_is_written_and_read(known_runs, tmp_path):
    found = study(read_runs(known_runs), resamples=40)
    write_law(tmp_path / "fit.json", as_json(found))
    law = read_law(tmp_path / "fit.json")
    numpy.testing.assert_allclose(law.coefficients, found.parametric.values)
    numpy.testing.assert_allclose(law.draws, found.parametric.resampled, rtol=1e-6)
    (tmp_path / "other.json").write_text(json.dumps({"format": "x"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="not a law"):
        read_law(tmp_path / "other.json")
    kaplan = found.kaplan
    values = numpy.where(numpy.array(kaplan.names) == "N_c", numpy.inf, kaplan.values)
    endless = dataclasses.replace(found, kaplan=dataclasses.replace(kaplan, values=values))
    write_law(tmp_path / "endless.json", as_json(endless))
    read = json.loads((tmp_path / "endless.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert read["kaplan"]["coefficients"]["N_c"]["value"] is None
    assert read["kaplan"]["coefficients"]["D_c"]["value"] > 0


def test_the_same_seed_gives_the_same_intervals(known_runs):
    first, second = (as_json(study(read_runs(known_runs), resamples=40)) for _ in range(2))
    assert first == second


def test_wide_intervals_of_any_law_s_exponent_are_told(tmp_path):
    """Three sizes by four lengths with noise: no groups of equal compute, and little for the other laws to go by."""
    generator = numpy.random.default_rng(4)
    rows = [(n, d, float(losses_of(n, d)) * numpy.exp(0.05 * generator.standard_normal()))
            for n in (1e7, 3e7, 8e7) for d in (1e9, 2e9, 5e9, 1e10)]
    found = study(read_runs(write_runs(tmp_path / "runs.csv", ("N", "D", "L"), rows)), resamples=100)
    wide = [line for line in found.warnings if "cannot identify" in line]
    assert any("cannot identify Kaplan's alpha_" in line for line in wide)
    assert any("cannot identify approach 1's exponent a = " in line for line in wide)
    assert "iso_flop" not in study_figures(found), "no two runs have the same compute"
