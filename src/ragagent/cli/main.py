"""`ragagent`: the client of a server, and the toolbox of the machine that it runs on. One file per noun beside this."""

from __future__ import annotations

import importlib
import keyword
import os

import click

from ragagent import __version__

# Each command is a file of its name. It is loaded when it is called: some bring the index and its libraries along.
_OPERATE = ("serve", "status", "top", "logs", "reload", "scale", "recycle", "drain")
_USE = ("ingest", "search", "ask", "store", "jobs", "keys", "config")
_KEEP = ("cache", "index", "backup", "restore", "export", "import")
_ALL = (*_OPERATE, *_USE, *_KEEP)


class Toolbox(click.Group):
    """A group that knows its commands by name, and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_ALL)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ALL:
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = getattr(importlib.import_module(f"ragagent.cli.{name}"), name)
        return command


@click.group(cls=Toolbox, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="ragagent %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Documents in, verified citations out.

    \b
    ragagent serve                     run the server
    ragagent ingest docs/              load a directory
    ragagent ask "How do I reload?"    answer from it, with citations

    Commands exit with 0 when all went well, 1 when something failed, 2 when they were called wrongly.
    """
    # https://no-color.org: present and not empty. None leaves it to click, which colours terminals only.
    context.color = False if os.environ.get("NO_COLOR") else None


def main() -> None:
    cli(prog_name="ragagent")


if __name__ == "__main__":
    main()
