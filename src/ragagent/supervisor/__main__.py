"""`python -m ragagent.supervisor [--config FILE]`: runs everything, in the foreground, until SIGTERM.

SIGHUP          reload config and code; on failure the old release keeps serving
SIGTERM, INT    finish what is in flight, then leave; a second one: at once
SIGTTIN, TTOU   one worker more, one less
SIGUSR1         the log file was moved away: open it anew
SIGUSR2         replace this very program by the one on disk, then reload; children and sockets stay
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ragagent.config import Config
from ragagent.config_file import load
from ragagent.errors import EXIT_CONFIG, EXIT_OK, ConfigError
from ragagent.supervisor import log, sockets, upgrade
from ragagent.supervisor.arbiter import SIGNALS, Arbiter, Options
from ragagent.supervisor.handover import Estate
from ragagent.supervisor.notify import Notifier
from ragagent.supervisor.pidfile import Pidfile
from ragagent.supervisor.prctl import adopt_orphans, name_process
from ragagent.supervisor.process import kill_orphans

PIDFILE = "supervisor.pid"


def main() -> int:
    arguments = _arguments()
    options = Options(arguments.config, arguments.worker_module, arguments.indexer_module)
    # From here on none is lost: the first process of a container is not even killed by one that it does not handle.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    terminal = log.Terminal()
    try:
        if arguments.rehearse is not None:
            upgrade.perform(arguments.rehearse)
            return EXIT_OK
        if arguments.adopt is not None:
            return _go_on(options, upgrade.adopted(arguments.adopt), terminal)
        return _begin(options, load(options.config_path), terminal)
    except ConfigError as exc:
        terminal.say(f"ragagent cannot start: {exc}")
        return EXIT_CONFIG


def _begin(options: Options, config: Config, terminal: log.Terminal) -> int:
    if config.server.log_path is not None:
        log.redirect(config.server.log_path)  # Before anything is started, so that everything has it.
    log.configure(config.server.log_level)
    _make(config.data.path)
    with ExitStack() as stack:
        pidfile = Pidfile.acquire(config.data.path / PIDFILE)
        stack.callback(pidfile.release)
        _discard(config.data.warm)  # What a server that was killed has left.
        listeners = sockets.activated(os.environ, config.server) or sockets.listen(config.server)
        return _supervise(stack, options, config, listeners, pidfile, terminal, None)


def _go_on(options: Options, estate: Estate, terminal: log.Terminal) -> int:
    """Be what an upgrade has made of this process: all that can be inherited has been."""
    log.configure(estate.config.server.log_level)
    with ExitStack() as stack:
        pidfile = Pidfile.adopt(estate.config.data.path / PIDFILE, estate.pidfile)
        stack.callback(pidfile.release)
        listeners = [sockets.inherited(fd) for fd in estate.listeners]
        return _supervise(stack, options, estate.config, listeners, pidfile, terminal, estate)


def _supervise(
    stack: ExitStack,
    options: Options,
    config: Config,
    listeners: Sequence[socket.socket],
    pidfile: Pidfile,
    terminal: log.Terminal,
    estate: Estate | None,
) -> int:
    for listener in listeners:
        stack.callback(listener.close)
    recent = log.remember()
    faulthandler.enable()  # A watchdog that finds this process hanging sends SIGABRT.
    name_process("rag-supervisor")
    adopt_orphans()
    stack.callback(_discard, config.data.warm)
    stack.callback(kill_orphans)
    notifier = Notifier.from_environment(os.environ)
    stack.callback(notifier.close)
    return Arbiter(options, config, listeners, pidfile.fileno(), recent, terminal, notifier, estate).run()


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"Data directory '{directory}' cannot be created: {exc.strerror}.") from exc


def _discard(warm: Path) -> None:
    """Remove what workers leave for those that take their place: nobody of this server does any more."""
    shutil.rmtree(warm, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ragagent.supervisor", description="Run RAGAgent.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file; without it, defaults and environment")
    parser.add_argument("--worker-module", default=Options.worker_module, help=argparse.SUPPRESS)
    parser.add_argument("--indexer-module", default=Options.indexer_module, help=argparse.SUPPRESS)
    parser.add_argument(upgrade.ADOPT, type=int, help=argparse.SUPPRESS)
    parser.add_argument(upgrade.REHEARSE, type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
