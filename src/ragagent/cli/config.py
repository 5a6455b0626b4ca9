"""`ragagent config`: is the configuration right, and where does each value come from?"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ragagent.cli.data_directory import config_option
from ragagent.cli.output import Output, reporting, table
from ragagent.config import Config
from ragagent.config import keys as config_keys
from ragagent.config_file import load

HIDDEN = "[redacted]"

# What stands in a URL before its host, and in query parameters that carry secrets.
_URL_SECRET = re.compile(r"(?<=://)[^/@\s]+(?=@)|(?<=[?&]password=)[^&#]+|(?<=[?&]token=)[^&#]+")


@click.group()
def config() -> None:
    """Check and show the server's configuration."""


@config.command("check")
@config_option
@reporting
def check(config: Path | None, out: Output) -> None:
    """Check the file and the environment as the server would; exit with 1 and the reason when they are wrong."""
    load(config)
    if out.as_json:
        out.document({"ok": True})
    else:
        out.line("The configuration is valid.")


@config.command("show")
@config_option
@reporting
def show(config: Path | None, out: Output) -> None:
    """Show every key with its effective value and where that comes from. Secrets are not shown."""
    settings = list(_settings(config, os.environ))
    if out.as_json:
        out.document({setting.key: setting.shown() for setting in settings})
        return
    rows = [(s.key, json.dumps(s.value, ensure_ascii=False), s.source, s.reload) for s in settings]
    out.line(table(("KEY", "VALUE", "FROM", "RELOAD"), rows))


@dataclass(frozen=True, slots=True)
class Setting:
    key: str
    value: Any
    source: str  # "default", the file's name, or the environment variable's
    reload: str

    def shown(self) -> dict[str, Any]:
        return {"value": self.value, "source": self.source, "reload": self.reload}


def _settings(path: Path | None, environ: Mapping[str, str]) -> Iterator[Setting]:
    loaded = load(path, environ)
    document = tomllib.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    variables = {name.lower(): name for name in environ if name.startswith("RAGAGENT_")}
    for section, key, item in config_keys():
        if section == "profile":
            continue
        value = getattr(getattr(loaded, section), key)
        variable = variables.get(f"ragagent_{section}__{key}")
        if variable is None and item.metadata["env"] and environ.get(item.metadata["env"]):
            variable = item.metadata["env"]
        source = "default"
        if variable is not None:
            source = variable
        elif key in document.get(section, {}):
            source = str(path)
        yield Setting(f"{section}.{key}", _redacted(key, value), source, item.metadata["reload"])
    yield from _embedders(loaded, document, path)
    yield from _profiles(loaded, document, path)


def _embedders(loaded: Config, document: Mapping[str, Any], path: Path | None) -> Iterator[Setting]:
    for name, embedder in loaded.embedders.items():
        given = document.get("embedders", {}).get(name, {})
        for section, key, item in config_keys():
            if section == "embedder":
                value = _redacted(key, getattr(embedder, key))
                source = str(path) if key in given else "default"
                yield Setting(f"embedders.{name}.{key}", value, source, item.metadata["reload"])


def _profiles(loaded: Config, document: Mapping[str, Any], path: Path | None) -> Iterator[Setting]:
    for name, profile in loaded.profile.items():
        given = document.get("profile", {}).get(name, {})
        for section, key, item in config_keys():
            if section == "profile":
                source = str(path) if key in given else "default"
                yield Setting(f"profile.{name}.{key}", getattr(profile, key), source, item.metadata["reload"])


def _redacted(key: str, value: Any) -> Any:
    if key == "api_key":
        return HIDDEN if value else ""
    return _URL_SECRET.sub(HIDDEN, value) if isinstance(value, str) else value
