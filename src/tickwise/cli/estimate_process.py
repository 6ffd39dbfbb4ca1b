"""A training of the smallest model from the command line: what its process holds is what any training's holds besides
its model."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

_TEXT = "abcdefgh ijklmnop qrstuvwx\n" * 400
_PREPARE = """
import sys
from pathlib import Path
from tickwise.data.config import PrepareConfig
from tickwise.data.prepare import prepare
prepare(PrepareConfig(sources=(sys.argv[1],), out=Path(sys.argv[2]), tokenizer="char"))
"""


def train_smallest(dtype: str) -> int:
    """Resident bytes at the last step of ``tickwise train`` on prepared data, with a validation, as the run says.

    All of it, since a run opens data, estimates itself and writes events, and what these import is some 25 MB. What
    the drawing of its loss takes comes when the memory of the steps has been given back. Another process prepares the
    text: what that imports and leaves behind is some 20 MB, and no part of a run on prepared data.
    """
    from tickwise.cli import main

    with TemporaryDirectory() as folder:
        source, data, out = (Path(folder) / name for name in ("text.txt", "data", "run"))
        source.write_text(_TEXT, encoding="utf-8")
        subprocess.run([sys.executable, "-c", _PREPARE, source, data], check=True, capture_output=True)
        words = ["train", str(data), "--depth", "1", "--model.width", "32", "--context", "64", "--batch-size", "1",
                 "--max-steps", "4", "--evaluate-every", "2", "--log-every", "1", "--dtype", dtype, "--compile", "off",
                 "--out", str(out), "--quiet"]
        if main(words) != 0:
            raise RuntimeError("the smallest training failed")
        last = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        return int(json.loads(last)["memory_bytes"])
