"""lm-evaluation-harness where it is not installed."""

import subprocess
import sys

BLOCKED = "import sys, runpy; sys.modules['lm_eval'] = None; "


def test_the_command_says_what_to_install():
    code = BLOCKED + "runpy.run_module('tickwise.evaluation.harness', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr == "tickwise: the harness needs the package lm_eval: pip install 'tickwise[lm-eval]'\n"
