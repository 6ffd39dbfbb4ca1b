"""Where the time goes: a timer that code can carry, and hooks that time a module which carries none.

Every nanosecond between the start and the end of a measured stretch belongs to exactly one row, and what
belongs to no stage is the row ``host``, so the rows add up to the wall clock by construction.
"""

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator

import torch

from tickwise.core.stages import Stage


@dataclasses.dataclass(frozen=True)
class StageTime:
    """Time of one stage of one layer (``None``: the stage is not part of a layer)."""

    stage: Stage
    layer: int | None
    duration_ns: int


class StageTimer:
    """Splits the time between ``start`` and ``stop`` into stages.

    >>> timer = StageTimer()
    >>> timer.start()
    >>> with timer.stage(Stage.ATTENTION, layer=3):
    ...     _ = sum(range(1000))
    >>> timer.stop()
    >>> sum(row.duration_ns for row in timer.rows()) == timer.wall_ns
    True

    Stages may nest; the time of an inner one is not counted again in the outer one. On an accelerator,
    which works behind the program's back, every mark waits for it to finish.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device if device is not None and device.type != "cpu" else None
        self._durations: dict[tuple[Stage, int | None], int] = {}
        self._stack: list[tuple[Stage, int | None]] = []
        self._last_ns = 0
        self.wall_ns = 0

    def synchronize(self) -> None:
        """Wait for the accelerator, where there is one."""
        if self._device is not None:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            elif self._device.type == "mps":
                torch.mps.synchronize()

    def _now(self) -> int:
        self.synchronize()
        return time.perf_counter_ns()

    def _charge(self) -> None:
        """Give the time since the last change to the innermost stage."""
        now = self._now()
        key = self._stack[-1]
        self._durations[key] = self._durations.get(key, 0) + now - self._last_ns
        self._last_ns = now

    def start(self) -> None:
        """Forget everything and begin."""
        self._durations = {}
        self._stack = [(Stage.HOST, None)]
        self._last_ns = self._start_ns = self._now()

    def stop(self) -> None:
        """End the stretch; ``rows`` and ``wall_ns`` are valid from here on."""
        assert len(self._stack) == 1, "a stage was left open"
        self._charge()
        self.wall_ns = self._last_ns - self._start_ns

    def enter(self, stage: Stage, layer: int | None = None) -> None:
        """Begin a stage inside the current one; ``leave`` ends it."""
        self._charge()
        self._stack.append((stage, layer))

    def leave(self) -> None:
        self._charge()
        self._stack.pop()

    def mark(self, stage: Stage, layer: int | None = None) -> None:
        """From here on time belongs to ``stage``, until the next mark or the end of the enclosing stage.

        For straight-line code: a mark costs less than a ``with``.
        """
        self._charge()
        self._stack[-1] = (stage, layer)

    @contextlib.contextmanager
    def stage(self, stage: Stage, layer: int | None = None) -> Iterator[None]:
        """Time inside the block belongs to ``stage``."""
        self.enter(stage, layer)
        try:
            yield
        finally:
            self.leave()

    def reassign_since(self, mark_ns: int, stage: Stage) -> None:
        """Move what ``host`` got since ``mark_ns`` (a value of ``last_change_ns``) to ``stage``."""
        self._charge()
        moved = self._last_ns - mark_ns
        host = (Stage.HOST, None)
        assert 0 <= moved <= self._durations[host], "only host time can be moved"
        self._durations[host] -= moved
        self._durations[stage, None] = self._durations.get((stage, None), 0) + moved

    @property
    def last_change_ns(self) -> int:
        """When the current stage began."""
        return self._last_ns

    def rows(self) -> list[StageTime]:
        """One row per stage and layer in the order of first use, ``host`` last; they sum to ``wall_ns``."""
        host = (Stage.HOST, None)
        keys = [key for key in self._durations if key != host] + [host]
        return [StageTime(*key, self._durations.get(key, 0)) for key in keys]


_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|block|blocks)\.(\d+)(?=\.|$)")
_STAGES_BY_NAME = (
    (Stage.EMBED, re.compile(r"^(embed_(tokens|positions|in)|(word_|tok_)?embeddings?|wte|wpe|shared)$")),
    (Stage.NORM, re.compile(r"(norm|layernorm|layer_norm)$|^ln_")),
    (Stage.CROSS_ATTENTION, re.compile(r"^(cross_attn|crossattention|encoder_attn|encdecattention)$")),
    # What mixes tokens in another way than attention stands in its place.
    (Stage.ATTENTION, re.compile(r"^((self_|linear_)?attn|(self_?)?attention|mixer|mamba|ssm)$")),
    (Stage.FFN, re.compile(r"^(mlp|ffn|feed_forward|densereludense|intermediate|fc[12]|lin[12])$")),
    (Stage.HEAD, re.compile(r"^((generator_)?lm_head|head|output|embed_out|cls|classifier|score|pooler|qa_outputs|"
                            r"generator_predictions|vocab_transform|vocab_projector)$")),
)


def layer_of(name: str) -> int | None:
    """The layer that a submodule is part of."""
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def stage_of(name: str) -> tuple[Stage, int | None] | None:
    """Stage and layer of a submodule by its dotted name, as in Llama, Qwen, GPT-2, T5 and BERT.

    >>> stage_of("model.layers.3.self_attn")
    (<Stage.ATTENTION: 'attention'>, 3)
    """
    last = name.rsplit(".", 1)[-1].lower()
    for stage, pattern in _STAGES_BY_NAME:
        if pattern.search(last):
            layer = layer_of(name)
            if layer is not None and last == "output":  # the second half of BERT's feed-forward block
                stage = Stage.FFN
            return stage, layer
    return None


_PARTS_OF_ATTENTION = (
    (Stage.QKV, re.compile(r"^([qkv]|w[qkv]|qkv|([qkv]|qkv|in)_proj|[qkv]_lin|c_attn|query|key|value|query_key_value|"
                           r"(q|kv)_[ab]_proj(_with_mqa)?)$")),
    (Stage.ROPE, re.compile(r"^(rotary_emb|rope|[qk]_norm|[qk]_layernorm)$")),
    (Stage.NORM, _STAGES_BY_NAME[1][1]),
    (Stage.OUT, re.compile(r"^(o|wo|(o|out|c)_proj|out_lin|dense|output)$")),
)
_PARTS_OF_FFN = ((Stage.NORM, _STAGES_BY_NAME[1][1]),)


def place_of(name: str) -> tuple[Stage, int | None] | None:
    """Stage and layer of the code of a submodule: that of its outermost stage, with attention in its parts.

    >>> place_of("model.layers.3.self_attn.q_proj")
    (<Stage.QKV: 'qkv'>, 3)
    """
    path = name.split(".")
    for n in range(1, len(path) + 1):
        outermost = stage_of(".".join(path[:n]))
        if outermost is None:
            continue
        stage, layer = outermost
        parts = {Stage.ATTENTION: _PARTS_OF_ATTENTION, Stage.FFN: _PARTS_OF_FFN}.get(stage, ())
        for part in reversed(path[n:]):
            for inner, pattern in parts:
                if pattern.search(part.lower()):
                    return inner, layer
        return stage, layer
    return None


def places_of(module: torch.nn.Module) -> dict[str, tuple[Stage, int | None]]:
    """Stage and layer of the code of every submodule that has a place of its own.

    One with parameters whose name says nothing is ``Stage.FORWARD``; the others (containers of stages, dropout) have
    no place: their code goes on with the stage before.
    """
    places: dict[str, tuple[Stage, int | None]] = {}
    containers = {""}
    unknown = []
    for name, child in module.named_modules():
        found = place_of(name)
        if found is not None:
            places[name] = found
            parts = name.split(".")
            containers.update(".".join(parts[:n]) for n in range(1, len(parts)))
        elif next(child.parameters(), None) is not None:
            unknown.append(name)
    return places | {name: (Stage.FORWARD, layer_of(name)) for name in unknown if name not in containers}


def staged_modules(module: torch.nn.Module) -> dict[str, tuple[torch.nn.Module, Stage, int | None]]:
    """The outermost submodules that are stages: a norm inside an attention block belongs to attention."""
    found: dict[str, tuple[torch.nn.Module, Stage, int | None]] = {}
    for name, child in module.named_modules():
        ancestors = name.split(".")
        if any(".".join(ancestors[:n]) in found for n in range(1, len(ancestors))):
            continue
        place = stage_of(name) if name else None
        if place is not None:
            found[name] = (child, *place)
    return found
