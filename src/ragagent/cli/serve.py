"""`ragagent serve`: become the supervisor."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ragagent.cli.data_directory import config_option


@click.command()
@config_option
def serve(config: Path | None) -> None:
    """Run the server in the foreground.

    Until SIGTERM or Ctrl-C; the same as python -m ragagent.supervisor.
    """
    arguments = [sys.executable, "-m", "ragagent.supervisor"]
    if config is not None:
        arguments += ["--config", str(config)]
    # Exec, not a child: whoever started us signals and waits for the supervisor itself.
    os.execv(sys.executable, arguments)
