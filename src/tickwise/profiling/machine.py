"""What this machine has: processor, cores, memory, caches, limits set by the container."""

import math
import os
import platform
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_SELF_CGROUP = Path("/proc/self/cgroup")
_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
# cgroup v1 writes "no limit" as the largest page-aligned 63-bit number.
_NO_LIMIT_BYTES = 1 << 60


def cpu_name() -> str:
    """The processor's own name for itself; the architecture when it gives none."""
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        import subprocess

        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0 and asked.stdout.strip():
            return asked.stdout.strip()
    return platform.processor() or platform.machine() or "unknown processor"


def _cgroup_folders(controller: str, root: Path, membership: Path) -> list[Path]:
    """This process's control group folder and its parents; limits of any of them apply."""
    folders = []
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        # Inside a container the path is often that of the host; then the root itself holds the limits.
        folder = base / path.lstrip("/")
        while True:
            if folder.is_dir():
                folders.append(folder)
            if folder == base or base not in folder.parents:
                break
            folder = folder.parent
    return folders


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def cgroup_memory(root: Path = _CGROUP_ROOT, membership: Path = _SELF_CGROUP) -> tuple[int, int] | None:
    """``(limit_bytes, used_bytes)`` of the tightest control group around this process, ``None`` without one.

    Reads cgroup v2 (``memory.max``, ``memory.current``) and v1 (``memory.limit_in_bytes``); page cache that
    the kernel would give back (``inactive_file``) does not count as used.
    """
    tightest: tuple[int, int] | None = None
    for folder in _cgroup_folders("memory", root, membership):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = _read_number(folder / limit_name)
            if limit is None or limit >= _NO_LIMIT_BYTES:
                continue
            used = _read_number(folder / used_name) or 0
            reclaimable = 0
            try:
                for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines():
                    name, _, value = line.partition(" ")
                    if name in ("inactive_file", "total_inactive_file"):
                        reclaimable = int(value)
            except (OSError, ValueError):
                pass
            used = max(0, used - reclaimable)
            if tightest is None or limit - used < tightest[0] - tightest[1]:
                tightest = (limit, used)
    return tightest


def cgroup_cpu_quota(root: Path = _CGROUP_ROOT, membership: Path = _SELF_CGROUP) -> float | None:
    """Cores' worth of time per second that the control group grants, ``None`` when it sets no quota."""
    quotas = []
    for folder in _cgroup_folders("cpu", root, membership):
        try:
            words = (folder / "cpu.max").read_text(encoding="utf-8").split()
        except OSError:
            words = []
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]) > 0:
            quotas.append(int(words[0]) / int(words[1]))
        quota, period = _read_number(folder / "cpu.cfs_quota_us"), _read_number(folder / "cpu.cfs_period_us")
        if quota and period:
            quotas.append(quota / period)
    return min(quotas) if quotas else None


def memory_bytes() -> tuple[int, int]:
    """``(total, available)`` main memory for this process: the machine's, or the container's if smaller."""
    import psutil

    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    group = cgroup_memory()
    if group is not None:
        limit, used = group
        total = min(total, limit)
        available = min(available, max(0, limit - used))
    return total, available


def cores() -> int:
    """Cores this process can keep busy: its affinity mask, cut by a container's CPU quota (rounded up)."""
    from tickwise.core.device import usable_cores

    allowed = usable_cores()
    quota = cgroup_cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def use_cores() -> int:
    """Let torch compute with as many threads as this process has cores (``OMP_NUM_THREADS`` wins); returns it."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores())
    return torch.get_num_threads()


def last_level_cache_bytes() -> int | None:
    """Size of the largest cache of the first core, ``None`` where the system does not tell."""
    sizes = []
    for path in _CACHES.glob("index*/size"):
        text = path.read_text(encoding="utf-8").strip()
        unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:])
        if unit and text[:-1].isdigit():
            sizes.append(int(text[:-1]) * unit)
    return max(sizes, default=None)


def compiler() -> str | None:
    """The C++ compiler that torch.compile would call on this machine, ``None`` when there is none."""
    import shutil

    named = os.environ.get("CXX")
    for candidate in ([named] if named else []) + ["g++", "clang++", "c++"]:
        found = shutil.which(candidate)
        if found:
            return found
    return None
