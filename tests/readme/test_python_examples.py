"""The Python examples of the guides run as they stand."""

import re
from collections import Counter
from pathlib import Path

import torch

from tickwise.interop.directory import save_model
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.tokenizers.train import char_tokenizer

QUICKSTART = Path(__file__).resolve().parents[2] / "docs" / "quickstart.md"


def test_the_engine_s_example_writes_both_requests_tick_by_tick(tmp_path, monkeypatch, capsys):
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", QUICKSTART.read_text(encoding="utf-8"), re.S)
                  if "tickwise.Engine(" in block]
    tokenizer = char_tokenizer(Counter("Once upon a time hill."), vocab_size=None, end_of_text=False, unknown=False)
    torch.manual_seed(0)
    module = Decoder(DecoderConfig(
        vocab_size=tokenizer.vocab_size, context_length=64, width=16, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=8,
        hidden=32,
    ))
    save_model(tmp_path / "out" / "mine", module, tokenizer)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    lines = [line.split(" ", 3) for line in capsys.readouterr().out.splitlines()]
    assert {line[1] for line in lines} == {"request-1", "request-2"}
    assert sum(line[2] == "Generation" for line in lines) == 2
    assert max(int(line[0]) for line in lines) == 20, "both are written in the same ticks"
