"""What this machine has, its measured ceilings, what tickwise will use and why."""

import dataclasses
import json
import platform
from typing import TYPE_CHECKING, Any

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.console import format_bytes, say

if TYPE_CHECKING:
    from rich.table import Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    refresh: bool = False
    """Measure again instead of reading the figures kept from last time (those from a busy machine are kept for ten
    minutes)."""


def run(arguments: Arguments) -> int:
    found = examine(refresh=arguments.refresh)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        _print_tables(found)
    if found["disturbed"]:
        say("note: other programs used the processor during the measurement; the figures may be too low. "
            "Run tickwise doctor --refresh when it is idle.")
    return 0


def examine(refresh: bool = False) -> dict[str, Any]:
    """Everything that doctor knows, JSON-ready; what is not known is ``None``."""
    from tickwise import __version__
    from tickwise.core import allocator
    from tickwise.core.device import resolve_device, usable_cores
    from tickwise.profiling import ceilings as measuring
    from tickwise.profiling import machine
    from tickwise.profiling.choices import accelerators, choose, format_support

    device = resolve_device()
    if refresh or not measuring.is_cached(device):
        say("measuring this machine, about five seconds …")
    ceilings = measuring.ceilings(refresh, device=device)
    total, available = machine.memory_bytes()
    compiler = machine.compiler()
    choices = choose(ceilings, device, compiler)
    return {
        "cores": machine.cores(),
        "memory_bytes": total,
        "memory_available_bytes": available,
        "read_bandwidth_bytes_per_s": ceilings.read_bandwidth_bytes_per_s,
        "flops_per_s": ceilings.flops_per_s,
        "uses": {
            "device": choices.device,
            "dtype": choices.dtype,
            "threads": choices.threads,
            "compile": choices.compile,
            "allocator": allocator.is_tuned(),
            "why": {**choices.why, "allocator": allocator.state()},
        },
        "processor": machine.cpu_name(),
        "cores_allowed": usable_cores(),
        "cpu_quota_cores": machine.cgroup_cpu_quota(),
        "formats": format_support(device),
        "accelerators": accelerators(),
        "compiler": compiler,
        "kind": ceilings.kind,
        "measured_with": ceilings.measured_with,
        "measured_on": ceilings.date,
        "disturbed": ceilings.disturbed,
        "cpu_share": ceilings.cpu_share,
        "fingerprint": ceilings.fingerprint,
        "versions": {"tickwise": __version__, "python": platform.python_version(), "torch": ceilings.torch_version},
    }


def _table(title: str, *columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="fold")
    return table


def _print_tables(found: dict[str, Any]) -> None:
    from rich.console import Console

    has = _table("This machine", "what", "found")
    has.add_row("processor", found["processor"])
    quota = found["cpu_quota_cores"]
    limit = f" (quota of {quota:g} of {found['cores_allowed']} cores)" if quota is not None else ""
    has.add_row("usable cores", f"{found['cores']}{limit}")
    has.add_row("memory", f"{format_bytes(found['memory_bytes'])} total, "
                          f"{format_bytes(found['memory_available_bytes'])} available")
    has.add_row("accelerators", ", ".join(found["accelerators"]) or "none")
    has.add_row("number formats", ", ".join(
        f"{name} ({how})" if how else f"{name} (no hardware support)" for name, how in found["formats"].items()))
    has.add_row("C++ compiler", found["compiler"] or "none")
    has.add_row("versions", ", ".join(f"{name} {version}" for name, version in found["versions"].items()))

    can = _table(f"Ceilings, {found['kind']} on {found['measured_on'].replace('T', ' ')}", "figure", "at best", "with")
    can.add_row("memory read", f"{format_bytes(found['read_bandwidth_bytes_per_s'])}/s",
                found["measured_with"]["read_bandwidth"])
    for name, rate in found["flops_per_s"].items():
        unit = "OP/s" if name.startswith("int") else "FLOP/s"
        can.add_row(f"{name} products", f"{rate / 1e9:,.0f} G{unit}", found["measured_with"][name])

    uses = _table("tickwise will use", "what", "choice", "why")
    for name in ("device", "dtype", "threads", "compile", "allocator"):
        value = found["uses"][name]
        yes = "own pages" if name == "allocator" else "possible"
        shown = {True: yes, False: "no"}[value] if isinstance(value, bool) else str(value)
        label = {"dtype": "dtype for training", "compile": "torch.compile", "allocator": "memory"}.get(name, name)
        uses.add_row(label, shown, found["uses"]["why"][name])

    console = Console(highlight=False)
    for table in (has, can, uses):
        console.print(table)
