"""`ragagent`: the client of a server, and the toolbox of the machine that it runs on. One file per noun beside this."""

from __future__ import annotations

import os

import click

from ragagent import __version__
from ragagent.cli.ask import ask
from ragagent.cli.config import config
from ragagent.cli.drain import drain
from ragagent.cli.ingest import ingest
from ragagent.cli.jobs import jobs
from ragagent.cli.keys import keys
from ragagent.cli.logs import logs
from ragagent.cli.recycle import recycle
from ragagent.cli.reload import reload
from ragagent.cli.scale import scale
from ragagent.cli.search import search
from ragagent.cli.serve import serve
from ragagent.cli.status import status
from ragagent.cli.store import store
from ragagent.cli.top import top


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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


_OPERATE = (serve, status, top, logs, reload, scale, recycle, drain)
_USE = (ingest, search, ask, store, jobs, keys, config)

for command in (*_OPERATE, *_USE):
    cli.add_command(command)


def main() -> None:
    cli(prog_name="ragagent")


if __name__ == "__main__":
    main()
