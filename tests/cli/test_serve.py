from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_serve_is_the_supervisor(tmp_path: Path) -> None:
    config = tmp_path / "r.toml"
    config.write_text("[server]\nwokers = 3\n")
    command = [sys.executable, "-m", "ragagent.cli.main", "serve"]
    refused = subprocess.run([*command, "--config", config], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert (
        refused.stderr == "ragagent cannot start: Unknown config key 'server.wokers'; did you mean 'server.workers'?\n"
    )
