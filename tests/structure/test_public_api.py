"""The public names, and what importing and asking for help may cost."""

import subprocess
import sys
import time

import tickwise


def test_public_names_are_pinned():
    assert tickwise.__all__ == [
        "Engine", "GenerationSettings", "LanguageModel", "Request", "TrainConfig", "UserError", "evaluate", "load",
        "train",
    ]
    for name in tickwise.__all__:
        assert getattr(tickwise, name).__doc__


def test_help_answers_fast_and_without_torch():
    code = "import sys, tickwise.cli; tickwise.cli.main(['--help']); sys.exit('torch' in sys.modules)"
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5


def test_help_names_every_verb_and_version_is_the_package_s():
    from importlib.metadata import version

    from tickwise.cli import VERBS, overview

    assert all(f"  {verb} " in overview() for verb in VERBS)
    shown = [line for line in overview().splitlines() if any(line.startswith(f"  {verb} ") for verb in VERBS)]
    starts = {line.index(description) for (_, description), line in zip(VERBS.values(), shown, strict=True)}
    assert len(starts) == 1, "the descriptions stand in one column"
    assert tickwise.__version__ == version("tickwise")


def test_every_verb_has_help(tickwise_cli):
    from tickwise.cli import VERBS

    for verb in VERBS:
        code, out, _ = tickwise_cli(*verb.split(), "--help")
        assert code == 0, verb
        assert f"tickwise {verb}" in out
        assert "--json" in out


def test_an_unknown_verb_is_one_line_with_a_suggestion(tickwise_cli):
    for words, hint in ((["trian"], "train"), (["data"], "prepare"), (["data", "chekc"], "check")):
        code, out, err = tickwise_cli(*words)
        assert (code, out) == (2, "")
        assert len(err.strip().splitlines()) == 1
        assert hint in err
