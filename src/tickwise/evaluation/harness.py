"""Models of tickwise in EleutherAI's lm-evaluation-harness (``pip install 'tickwise[lm-eval]'``).

The harness's own command line knows the model "tickwise" when this module starts it:

    python -m tickwise.evaluation.harness run --model tickwise --model_args pretrained=DIRECTORY --tasks blimp

From Python, give ``TickwiseLM(DIRECTORY)`` to ``lm_eval.simple_evaluate``. Texts are read after the token that stands
for a beginning (``likelihood.start_ids``).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from tickwise.core.console import progress
from tickwise.core.errors import ConfigError
from tickwise.engine.language_model import LanguageModel, load
from tickwise.evaluation.likelihood import TokenRow, score_rows, start_ids

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ModuleNotFoundError as missing:
    _PACKAGE = (missing.name or "lm_eval").partition(".")[0]
    _NEEDED = f"the harness needs the package {_PACKAGE}: pip install 'tickwise[lm-eval]'"
    if __name__ == "__main__":
        print(f"tickwise: {_NEEDED}", file=sys.stderr)
        sys.exit(2)
    raise ModuleNotFoundError(_NEEDED, name=missing.name) from None

_MAX_NEW_TOKENS = 256
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


@register_model("tickwise")
class TickwiseLM(LM):
    """``pretrained``: a language model, or its model or run directory. Batches are chosen by their tokens, so the
    harness's ``batch_size`` has no effect."""

    def __init__(self, pretrained: str | Path | LanguageModel, device: str | None = None, dtype: str = "fp32",
                 max_gen_toks: int = _MAX_NEW_TOKENS, batch_size: Any = None, max_batch_size: Any = None) -> None:
        super().__init__()
        if not isinstance(pretrained, LanguageModel):
            # The harness's command line says cuda:0 to every model unless its user says something else.
            if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
                device = "auto"
            pretrained = load(pretrained, device, dtype)
        self.model = pretrained
        self.max_gen_toks = int(max_gen_toks)
        self._start = start_ids(self.model.tokenizer)
        if not self._start:
            raise ConfigError("the harness scores texts from their first token on, and this model's tokenizer has "
                              "neither a token for the beginning or end of a text nor a line feed")

    @property
    def tokenizer_name(self) -> str:
        """What the harness keeps cached requests apart by."""
        return self.model.tokenizer.fingerprint

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy decoding would write it) of each continuation of a context."""
        rows = [self._row(*request.args) for request in requests]
        with progress("log-likelihood", len(rows), "requests") as bar:
            scores = score_rows(self.model, rows, greedy=True, on_scored=bar.advance)
        return [(score.log_probability, score.greedy) for score in scores]

    def _row(self, context: str, continuation: str) -> TokenRow:
        # Spaces between the two belong to the continuation's first token.
        bare = context.rstrip()
        context, continuation = bare, context[len(bare) :] + continuation
        before = self.model.tokenizer.encode(context) if context else []
        whole = self.model.tokenizer.encode(context + continuation)
        return TokenRow([*self._start, *whole], len(self._start) + min(len(before), len(whole) - 1))

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each text, in windows as long as the context that score every token once."""
        rows: list[TokenRow] = []
        owners: list[int] = []
        for owner, request in enumerate(requests):
            windows = get_rolling_token_windows(
                token_list=self.model.tokenizer.encode(request.args[0]), prefix_token=self._start[0],
                max_seq_len=self.model.config.context_length, context_len=1)
            for context, scored in map(make_disjoint_window, windows):
                rows.append(TokenRow([*context, *scored], len(context)))
                owners.append(owner)
        with progress("rolling log-likelihood", len(rows), "windows") as bar:
            scores = score_rows(self.model, rows, on_scored=bar.advance)
        totals = numpy.zeros(len(requests))
        numpy.add.at(totals, owners, [score.log_probability for score in scores])
        return [float(total) for total in totals]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text that is written after each context, up to the first of the ``until`` strings."""
        texts = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(index)
        with progress("generate", len(requests), "requests") as bar:
            for indices in groups.values():
                settings = self._settings(requests[indices[0]].args[1])
                prompts = [requests[index].args[0] for index in indices]
                for answer in self.model.generate_batch(prompts, **settings):
                    texts[indices[answer.index]] = answer.text
                    bar.advance(1)
        return texts

    def _settings(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The harness's generation arguments, which are those of transformers, as ours."""
        until = asked.get("until") or ()
        settings: dict[str, Any] = {name: asked[name] for name in _SAMPLING if asked.get(name) is not None}
        if not asked.get("do_sample", settings.get("temperature", 0) > 0):
            settings["temperature"] = 0.0
        most = asked.get("max_gen_toks", asked.get("max_new_tokens", self.max_gen_toks))
        return settings | {"max_tokens": int(most), "seed": int(asked.get("seed", 0)),
                           "stop": (until,) if isinstance(until, str) else tuple(until)}


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
