"""Shared pieces: a cache of its own for every test session, small texts, tiny models."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tickwise.core import console

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what it runs behind the scenes with Ctrl-C ignored, and programs that tests start inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the user's cache; machine ceilings are measured once per session."""
    os.environ["TICKWISE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _usual_verbosity() -> Iterator[None]:
    """A test that runs a verb with -q leaves the process as quiet for the tests behind it."""
    yield
    console.set_verbosity(console.NORMAL)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, where there is one."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real data sets beside the checkout")
    return SHARED_DATA


@pytest.fixture
def small_text(tmp_path: Path) -> Path:
    """A text of 60 kB with structure that a model can learn: sentences from a small grammar."""
    chooser = random.Random(7)
    nouns, verbs = ["cat", "dog", "bird", "horse", "fish"], ["sees", "likes", "hears", "follows"]
    lines = [f"the {chooser.choice(nouns)} {chooser.choice(verbs)} the {chooser.choice(nouns)}."
             for _ in range(2500)]
    path = tmp_path / "small.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def tickwise_cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs one command line in this process: (exit code, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        from tickwise.cli import main
        from tickwise.core import console

        try:
            code = main([str(w) for w in words])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        finally:
            console.set_verbosity(console.NORMAL)
        out, err = capfd.readouterr()
        return code, out, err

    return call
