"""The other servers, newest versions, in an environment of their own: nothing of theirs is a dependency of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DIRECTORY = Path(__file__).parent / ".peers"
PYTHON = DIRECTORY / "bin" / "python"
PACKAGES = ("uvicorn", "httptools", "gunicorn", "granian", "hypercorn", "h2", "starlette")


def install() -> bool:
    """Install them, if they are not there yet; False, with the reason on standard error, when that cannot be done."""
    if versions():
        return True
    print(f"Installing {', '.join(PACKAGES)} into {DIRECTORY} ...", file=sys.stderr)
    try:
        _run(sys.executable, "-m", "venv", DIRECTORY)
        _run(PYTHON, "-m", "pip", "install", *PACKAGES)
    except subprocess.CalledProcessError as exc:
        print(f"The other servers cannot be installed, so only ours is measured:\n{exc.stderr}", file=sys.stderr)
        return False
    return True


def versions() -> dict[str, str]:
    """Return the version of each package that is installed; empty when one is missing."""
    code = f"from importlib.metadata import version; print(*map(version, {PACKAGES!r}))"
    try:
        found = _run(PYTHON, "-c", code).split()
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(zip(PACKAGES, found, strict=True))


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
