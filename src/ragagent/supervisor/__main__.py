"""`python -m ragagent.supervisor [--config FILE]`: runs everything, in the foreground, until SIGTERM.

SIGHUP          reload config and code; on failure the old release keeps serving
SIGTERM, INT    finish what is in flight, then leave; a second one: at once
SIGTTIN, TTOU   one worker more, one less
"""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from ragagent.config import Config, load
from ragagent.errors import EXIT_CONFIG, ConfigError
from ragagent.supervisor import log, sockets
from ragagent.supervisor.arbiter import Arbiter, Options
from ragagent.supervisor.pidfile import Pidfile
from ragagent.supervisor.prctl import adopt_orphans, name_process
from ragagent.supervisor.process import kill_orphans

PIDFILE = "supervisor.pid"


def main() -> int:
    options = _options()
    try:
        config = load(options.config_path)
        return _run(options, config)
    except ConfigError as exc:
        print(f"ragagent cannot start: {exc}", file=sys.stderr)
        return EXIT_CONFIG


def _run(options: Options, config: Config) -> int:
    log.configure(config.server.log_level)
    with ExitStack() as stack:
        _make(config.data.path)
        pidfile = Pidfile.acquire(config.data.path / PIDFILE)
        stack.callback(pidfile.release)
        listeners = sockets.listen(config.server)
        for listener in listeners:
            stack.callback(listener.close)
        # Not used yet, and their default is to kill: a stray log-rotation script must not end the service.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        name_process("rag-supervisor")
        adopt_orphans()
        stack.callback(kill_orphans)
        return Arbiter(options, config, listeners).run()


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
