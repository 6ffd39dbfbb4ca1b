"""Runs whose laws are known."""

from pathlib import Path

import numpy
import pytest

from known_laws import LAW, losses_of, write_runs


@pytest.fixture
def known_runs(tmp_path: Path) -> Path:
    """A CSV of 60 runs: six budgets of equal compute with ten sizes each, losses with 0.2 % of noise."""
    generator = numpy.random.default_rng(3)
    rows = []
    for flops in numpy.geomspace(1e18, 1e21, 6):
        # The law's own optimum (Hoffmann et al. 2022, equation 4), so that the parabolas have their minimum inside.
        ratio = LAW["alpha"] * LAW["A"] / (LAW["beta"] * LAW["B"])
        best = ratio ** (1 / 0.63) * (flops / 6) ** (LAW["beta"] / 0.63)
        for parameters in best * numpy.geomspace(0.25, 4, 10):
            tokens = flops / (6 * parameters)
            loss = losses_of(parameters, tokens) * numpy.exp(0.002 * generator.standard_normal())
            rows.append((f"{parameters:.6g}", f"{tokens:.6g}", f"{loss:.6f}"))
    return write_runs(tmp_path / "runs.csv", ("parameters", "tokens", "loss"), rows)
