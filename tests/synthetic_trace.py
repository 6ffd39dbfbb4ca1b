"""A trace such as a small decoder leaves on two cores: made from a cost model with noise and a few bad moments, always
the same for the same seed."""

import random

BANDWIDTH = 20e9
PEAKS = {"fp32": 90e9, "bf16": 110e9}
WIDTH, HIDDEN, VOCABULARY = 512, 1536, 32_000
WORDS = [" the", " program", " reads", " a", " line", ",", " and", " then", " writes", " it", " to", " file", ".", "\n",
         "Memory", " 内存", " 带宽", " café", "ing", " of", " every", " token", " 🙂", " (", ")", " 3.14"]  # fmt: skip
_WEIGHT_BYTES = 2


def _costs(new, cached, rows):
    """FLOPs, bytes read and bytes written of one layer's stages for ``new`` tokens over ``cached`` ones."""
    activations = new * WIDTH * _WEIGHT_BYTES

    def linear(n_in, n_out):
        return 2 * new * n_in * n_out, (n_in * n_out + new * n_in) * _WEIGHT_BYTES, new * n_out * _WEIGHT_BYTES

    return {
        "norm": (8 * new * WIDTH, 2 * activations, 2 * activations),
        "qkv": linear(WIDTH, 3 * WIDTH),
        "rope": (6 * new * WIDTH, 2 * activations, 2 * activations),
        "attention": (4 * new * (cached + new) * WIDTH, 2 * rows * (cached + new) * WIDTH * _WEIGHT_BYTES, activations),
        "out": linear(WIDTH, WIDTH),
        "ffn": linear(WIDTH, 3 * HIDDEN),
    }


def _row(chooser, flops, read, written, pause=0):
    """Duration, bound and share of the ceiling: the ideal time, a cost per operation, noise."""
    computing, moving = flops / PEAKS["bf16"], (read + written) / BANDWIDTH
    ideal = max(computing, moving) * 1e9
    duration = int((ideal * 1.25 + 11_000) * chooser.uniform(0.94, 1.12)) + pause
    share = ideal / duration
    bound = "overhead" if share < 0.5 else "compute" if computing > moving else "memory"
    return duration, bound, round(share, 4)


class Trace:
    """Collects rows; ``page()`` is what ``timeline_page`` takes."""

    def __init__(self, seed=7, n_layers=6, energy="modelled"):
        self.chooser, self.n_layers, self.energy = random.Random(seed), n_layers, energy
        self.ledger, self.tokens, self.clock, self.number = [], [], 1_000_000_000, 0

    def tick(self, phase, requests, new, cached, said=(), pauses=None, extra=None):
        """One tick: ``said`` are ``(request, position, text)``; ``pauses`` adds ns to a stage of the tick; ``extra`` is
        a stage that only this tick has."""
        pauses, chooser = dict(pauses or {}), self.chooser
        rows = max(1, len(requests))
        stages = [("schedule", None, None), ("embed", None, (0, new * WIDTH * 2, new * WIDTH * 2))]
        for layer in range(self.n_layers):
            stages += [(stage, layer, cost) for stage, cost in _costs(new, cached, rows).items()]
        head = rows if phase != "train" else new
        stages.append(("head", None, (2 * head * WIDTH * VOCABULARY, WIDTH * VOCABULARY * 2, head * VOCABULARY * 2)))
        if phase == "train":
            stages.append(("loss", None, (5 * new * VOCABULARY, new * VOCABULARY * 4, 8)))
            stages += [("backward", None, (40 * new * WIDTH * HIDDEN * self.n_layers, 80_000_000, 60_000_000)),
                       ("optimizer", None, (12 * 30_000_000, 360_000_000, 240_000_000))]
        else:
            stages += [("sample", None, None), ("detokenize", None, None)]
        stages += [("host", None, None), *([(extra, None, None)] if extra else [])]
        for stage, layer, cost in stages:
            if cost is None:
                usual = (60_000 if stage == "host" else 20_000) * rows**0.5
                duration = int(chooser.uniform(0.8, 1.3) * usual) + pauses.pop(stage, 0)
                bound, share, cost = "overhead", None, (None, None, None)
            else:
                duration, bound, share = _row(chooser, *cost, pauses.pop(stage, 0))
            self.ledger.append({
                "run": "r1", "tick": self.number, "request_ids": list(requests), "batch": rows, "phase": phase,
                "layer": layer, "stage": stage, "start_ns": self.clock, "duration_ns": duration, "flops": cost[0],
                "bytes_read": cost[1], "bytes_written": cost[2], "kv_tokens": cached, "bound": bound,
                "roofline_share": share, "energy_j": None if self.energy == "none" else duration * 12e-9,
                "energy_source": self.energy,
            })  # fmt: skip
            self.clock += duration
        for request, position, text in said:
            self.tokens.append({"tick": self.number, "request_id": request, "position": position,
                                "token_id": 100 + len(text), "text": text})  # fmt: skip
        self.number += 1

    def page(self, **meta):
        listing = [
            {"stage": stage, "layer": layer, "op": op, "shapes": [[1, 1, WIDTH], [WIDTH, WIDTH]], "flops": cost[0],
             "bytes_read": cost[1], "bytes_written": cost[2]}
            for layer in range(self.n_layers) for stage, cost in _costs(1, 100, 1).items()
            for op in (("aten.mm", "aten.add") if stage in ("qkv", "out", "ffn") else (f"aten.{stage}",))
        ]  # fmt: skip
        return {
            "ledger": self.ledger, "tokens": self.tokens, "listing": listing,
            "meta": {"version": 1, "command": "tickwise trace runs/small/model --prompt 'The program'",
                     "model": "small-decoder", "dtype": "bf16", "started": "2026-01-01T00:00:00+00:00",
                     "ceilings": {"read_bandwidth_bytes_per_s": BANDWIDTH, "flops_per_s": PEAKS},
                     "machine": {"device_name": "a processor with two cores", "cores": 2}, **meta},
        }  # fmt: skip


def conversation(n_requests=3, n_tokens=60, n_layers=6, seed=7, energy="modelled"):
    """Requests that join one after another and answer together; token 17 of the second meets a pause of the host."""
    trace = Trace(seed, n_layers, energy)
    names = [f"request-{index + 1}" for index in range(n_requests)]
    join, prompts = 6, {name: 40 + 60 * index for index, name in enumerate(names)}
    position = dict.fromkeys(names, -1)
    while any(position[name] < n_tokens - 1 for name in names):
        waiting = [name for index, name in enumerate(names) if position[name] < 0 and trace.number >= index * join]
        if waiting:
            name = waiting[0]
            position[name] = 0
            trace.tick("prefill", [name], prompts[name], 0, [(name, 0, WORDS[trace.number % len(WORDS)])])
            continue
        running = [name for name in names if 0 <= position[name] < n_tokens - 1]
        said = []
        for name in running:
            position[name] += 1
            said.append((name, position[name], WORDS[trace.chooser.randrange(len(WORDS))]))
        pause = {"host": 9_000_000} if n_requests > 1 and position[names[1]] == 17 else None
        cached = sum(prompts[name] + position[name] for name in running)
        trace.tick("decode", running, len(running), cached, said, pause)
    return trace


def training(n_steps=40, seed=3):
    """Training steps: no requests, no tokens; step 25 waits for its data."""
    trace = Trace(seed)
    for step in range(n_steps):
        trace.tick("train", [], 256, 0, pauses={"host": 200_000_000} if step == 25 else None)
    return trace
