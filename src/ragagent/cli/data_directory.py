"""Which data directory: the one that is named, or the one that the server's configuration names."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import click

from ragagent.cli.output import Command
from ragagent.config import Data
from ragagent.config_file import load

data_option = click.option(
    "--data", "directory", type=click.Path(file_okay=False), metavar="DIR", help="The data directory."
)
config_option = click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The server's TOML file."
)


def with_data(command: Command) -> Command:
    """Give the command --data, --config and the `data` section that they lead to."""

    @data_option
    @config_option
    @functools.wraps(command)
    def run(*args: Any, directory: str | None, config: Path | None, **kwargs: Any) -> None:
        if directory is not None and config is not None:
            raise click.UsageError("--data and --config exclude each other.")
        data = Data(dir=directory) if directory is not None else load(config).data
        command(*args, data=data, **kwargs)

    return run


def with_settings(command: Command) -> Command:
    """Give the command --data, --config and the whole configuration, in which --data has the last word."""

    @data_option
    @config_option
    @functools.wraps(command)
    def run(*args: Any, directory: str | None, config: Path | None, **kwargs: Any) -> None:
        settings = load(config)
        if directory is not None:
            settings = dataclasses.replace(settings, data=Data(dir=directory))
        command(*args, settings=settings, **kwargs)

    return run
