"""The bench of pre-training: what labels it uses, and that both models are chosen alike."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "pretraining_gain.py"
spec = importlib.util.spec_from_file_location("pretraining_gain", BENCH)
gain = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gain)


@pytest.fixture
def given(tmp_path):
    """Flags, with files of 300 and 10 labelled texts, of which they have three in common."""
    for name, numbers in (("train", range(300)), ("test", range(297, 307))):
        rows = [{"text": f"text number {n}", "label": "ab"[n % 2]} for n in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return gain.parser().parse_args(["encoder", "--train", str(tmp_path / "train.jsonl"), "--test",
                                     str(tmp_path / "test.jsonl"), "--rows", "100"])


def rows_in(folder):
    return [[json.loads(line)["text"] for line in (folder / f"{part}.jsonl").read_text().splitlines()]
            for part in gain.PARTS]


def test_the_rows_include_those_that_settings_are_chosen_by(given, tmp_path):
    drawn = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        gain.draw(given, folder, seed)
        train, dev = rows_in(folder)
        assert len(train) + len(dev) == len({*train, *dev}) == 100
        assert 8 <= len(dev) <= 35
        assert not {*train, *dev} & {f"text number {n}" for n in range(297, 307)}
        drawn.append({*train, *dev})
    assert drawn[0] != drawn[1]


def test_both_models_choose_from_the_same_grid_by_the_development_part_alone(given, tmp_path, monkeypatch):
    assert len(given.rates) >= 4
    assert given.epochs == [8, 16, 32]
    runs = []

    def fake(given, folder, seed, fresh, lr, epochs, final):
        runs.append((fresh, lr, epochs, final))
        loss = abs(lr - 1e-3) + abs(epochs - (16 if fresh else 8)) / 100
        test = SimpleNamespace(metrics={"acc": SimpleNamespace(value=0.75)}) if final else None
        return SimpleNamespace(trained=SimpleNamespace(validation_loss=loss), test=test)

    monkeypatch.setattr(gain, "run", fake)
    found = {fresh: gain.one_seed(given, tmp_path, 1, fresh) for fresh in (False, True)}
    assert [(found[fresh]["lr"], found[fresh]["epochs"]) for fresh in (False, True)] == [(1e-3, 8), (1e-3, 16)]
    tried = {fresh: {own[1:3] for own in runs if own[0] is fresh and not own[3]} for fresh in (False, True)}
    assert tried[False] == tried[True]
    assert len(tried[True]) == 12
    assert sum(final for *_, final in runs) == 2
