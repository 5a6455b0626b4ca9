"""What a process really costs: its proportional share, in which shared pages count once over all that share them."""

from __future__ import annotations

from pathlib import Path


def pss_bytes(pid: int) -> int | None:
    """Return the proportional set size; None where the process is gone or the kernel does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)
