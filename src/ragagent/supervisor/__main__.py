"""`python -m ragagent.supervisor [--config FILE]`: runs everything, in the foreground, until SIGTERM.

SIGHUP          reload config and code; on failure the old release keeps serving
SIGTERM, INT    finish what is in flight, then leave; a second one: at once
SIGTTIN, TTOU   one worker more, one less
SIGUSR1         the log file was moved away: open it anew
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from ragagent.config import Config, load
from ragagent.errors import EXIT_CONFIG, ConfigError
from ragagent.supervisor import log, sockets
from ragagent.supervisor.arbiter import SIGNALS, Arbiter, Options
from ragagent.supervisor.notify import Notifier
from ragagent.supervisor.pidfile import Pidfile
from ragagent.supervisor.prctl import adopt_orphans, name_process
from ragagent.supervisor.process import kill_orphans

PIDFILE = "supervisor.pid"


def main() -> int:
    options = _options()
    # From here on none is lost: the first process of a container is not even killed by one that it does not handle.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    terminal = log.Terminal()
    try:
        config = load(options.config_path)
        return _run(options, config, terminal)
    except ConfigError as exc:
        terminal.say(f"ragagent cannot start: {exc}")
        return EXIT_CONFIG


def _run(options: Options, config: Config, terminal: log.Terminal) -> int:
    if config.server.log_path is not None:
        log.redirect(config.server.log_path)  # Before anything is started, so that everything has it.
    log.configure(config.server.log_level)
    log.remember()
    faulthandler.enable()  # A watchdog that finds this process hanging sends SIGABRT.
    with ExitStack() as stack:
        _make(config.data.path)
        pidfile = Pidfile.acquire(config.data.path / PIDFILE)
        stack.callback(pidfile.release)
        listeners = sockets.activated(os.environ, config.server) or sockets.listen(config.server)
        for listener in listeners:
            stack.callback(listener.close)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Not used yet, and its default is to kill.
        name_process("rag-supervisor")
        adopt_orphans()
        stack.callback(kill_orphans)
        notifier = Notifier.from_environment(os.environ)
        stack.callback(notifier.close)
        return Arbiter(options, config, listeners, terminal, notifier).run()


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"Data directory '{directory}' cannot be created: {exc.strerror}.") from exc


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m ragagent.supervisor", description="Run RAGAgent.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file; without it, defaults and environment")
    parser.add_argument("--worker-module", default=Options.worker_module, help=argparse.SUPPRESS)
    parser.add_argument("--indexer-module", default=Options.indexer_module, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    return Options(arguments.config, arguments.worker_module, arguments.indexer_module)


if __name__ == "__main__":
    sys.exit(main())
