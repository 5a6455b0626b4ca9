"""The configuration: precedence, types, ranges, and errors that name the key and the value."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from ragagent import config
from ragagent.config import Config, Profile, keys
from ragagent.config_file import load
from ragagent.errors import ConfigError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ragagent.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(tmp_path: Path, text: str = "", environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text), environ or {})
    return caught.value.message


def test_without_a_file_every_key_has_its_default() -> None:
    assert load(None, {}) == Config()


def test_the_file_lies_over_the_defaults_and_the_environment_over_both(tmp_path: Path) -> None:
    path = written(tmp_path, "[server]\nworkers = 3\nbacklog = 5\n")
    loaded = load(path, {"RAGAGENT_SERVER__WORKERS": "7"})
    assert (loaded.server.workers, loaded.server.backlog, loaded.server.bind) == (7, 5, "127.0.0.1:8000")


def test_a_standard_variable_is_honoured_and_ours_wins_over_it(tmp_path: Path) -> None:
    path = written(tmp_path, "[redis]\nurl = 'redis://file'\n")
    assert load(path, {"REDIS_URL": "redis://standard"}).redis.url == "redis://standard"
    both = {"REDIS_URL": "redis://standard", "RAGAGENT_REDIS__URL": "redis://ours"}
    assert load(path, both).redis.url == load(path, dict(reversed(both.items()))).redis.url == "redis://ours"


def test_an_empty_standard_variable_changes_nothing(tmp_path: Path) -> None:
    assert load(written(tmp_path, "[redis]\nurl = 'redis://file'\n"), {"REDIS_URL": ""}).redis.url == "redis://file"


def test_variables_of_others_are_left_alone() -> None:
    assert load(None, {"RAGAGENT_HOME": "/x", "OTHER__KEY": "1"}) == Config()


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("RAGAGENT_SERVER__ACCESS_LOG", "off", False),
        ("RAGAGENT_SERVER__ACCESS_LOG", "1", True),
        ("RAGAGENT_SERVER__GRACEFUL_SECONDS", "2.5", 2.5),
        ("RAGAGENT_SERVER__LOG_LEVEL", "debug", "debug"),
        ("RAGAGENT_DATA__WELCOME", "a.md, b.md,", ["a.md", "b.md"]),
    ],
)
def test_text_from_the_environment_becomes_the_keys_type(variable: str, text: str, value: object) -> None:
    section, _, key = variable.removeprefix("RAGAGENT_").lower().partition("__")
    assert getattr(getattr(load(None, {variable: text}), section), key) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nworkerz = 2", "Unknown config key 'server.workerz'; did you mean 'server.workers'?"),
        ("[servr]\nworkers = 2", "Unknown config section 'servr'; did you mean 'server'?"),
        ("[profile.a]\nstore = ['x']", "Unknown config key 'profile.a.store'; did you mean 'profile.a.stores'?"),
        ("[server]\nworkers = '2'", "Config key 'server.workers' has value '2'; it must be a whole number."),
        ("[server]\nworkers = true", "Config key 'server.workers' has value 'True'; it must be a whole number."),
        ("[server]\nworkers = -1", "Config key 'server.workers' has value '-1'; it must be at least 0."),
        (
            "[server]\nlog_level = 'loud'",
            "Config key 'server.log_level' has value 'loud'; it must be one of debug, info,",
        ),
        ("[data]\nwelcome = 'a.md'", "Config key 'data.welcome' has value 'a.md'; it must be a list of strings."),
        ("[server]\nhang_seconds = nan", "Config key 'server.hang_seconds' has value 'nan'; it must be at least 1."),
        ("[server]\nbind = '8000'", "Config key 'server.bind' has value '8000'; it must be HOST:PORT."),
        (
            "[server]\nbind = 'localhost:70000'",
            "Config key 'server.bind' has value 'localhost:70000'; it must be HOST:",
        ),
        ("server = 1", "Config section 'server' must be a table, as in [server]."),
        ("profile = 1", "Config section 'profile' must hold tables, as in [profile.support]."),
        ("[profile]\nsupport = 1", "Config section 'profile.support' must be a table, as in [profile.support]."),
        (
            "[retrieval]\ndense_weight = 1.5",
            "Config key 'retrieval.dense_weight' has value '1.5'; it must be at most 1.",
        ),
        (
            "[limits]\nburst_seconds = inf",
            "Config key 'limits.burst_seconds' has value 'inf'; it must be at most 3600.",
        ),
        (
            "[ingest]\nchunk_overlap_tokens = 300",
            "Config key 'ingest.chunk_overlap_tokens' has value '300'; it must be",
        ),
        (
            "[embedders.old]\nmodle = 'x'",
            "Unknown config key 'embedders.old.modle'; did you mean 'embedders.old.model'?",
        ),
        (
            "[embedders.old]\ndimension = 0",
            "Config key 'embedders.old.dimension' has value '0'; it must be at least 1.",
        ),
        ("[embedders]\nold = 1", "Config section 'embedders.old' must be a table, as in [embedders.old]."),
        ("embedders = 1", "Config section 'embedders' must hold tables, as in [embedders.old]."),
        ("[embedders.old]\nprovider = 'openai'", "Config key 'embedders.old.base_url' has value ''; with provider"),
        ("[generator]\nprovider = 'openai'", "Config key 'generator.base_url' has value ''; with provider 'openai'"),
        ("[server", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_value(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path, text)


def test_a_wrong_variable_is_refused_by_name_and_value(tmp_path: Path) -> None:
    assert "'RAGAGENT_SERVER__WORKERZ'" in refusal(tmp_path, "", {"RAGAGENT_SERVER__WORKERZ": "1"})
    assert "did you mean 'server.workers'?" in refusal(tmp_path, "", {"RAGAGENT_SERVER__WORKERZ": "1"})
    assert "'server.workers' has value 'x'" in refusal(tmp_path, "", {"RAGAGENT_SERVER__WORKERS": "x"})
    assert "'server.access_log' has value 'x'" in refusal(tmp_path, "", {"RAGAGENT_SERVER__ACCESS_LOG": "x"})


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml' cannot be read: No such file"):
        load(tmp_path / "nowhere.toml", {})


def test_profiles_replace_the_default_one(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, "[profile.support]\nstores = ['faq']\nresults = 4\n"), {})
    assert dict(loaded.profile) == {"support": Profile(stores=["faq"], results=4)}


def test_named_embedders_have_the_keys_of_the_embedder(tmp_path: Path) -> None:
    text = "[embedders.old]\nprovider = 'openai'\nmodel = 'm'\ndimension = 3\nbase_url = 'http://own/v1'\n"
    environ = {"OPENAI_BASE_URL": "http://standard/v1", "OPENAI_API_KEY": "sk-standard"}
    old = load(written(tmp_path, text), environ).embedders["old"]
    assert (old.model, old.dimension, old.batch) == ("m", 3, 64)
    assert (old.base_url, old.api_key) == ("http://own/v1", "sk-standard"), "what the table says wins over the standard"


@pytest.mark.parametrize(
    ("bind", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:8000", "127.0.0.1", 8000, True),
        ("[::1]:80", "::1", 80, True),
        ("localhost:1", "localhost", 1, True),
        ("0.0.0.0:8000", "0.0.0.0", 8000, False),
        ("example.org:443", "example.org", 443, False),
    ],
)
def test_only_an_address_that_is_surely_loopback_counts_as_it(
    bind: str, host: str, port: int, is_loopback: bool
) -> None:
    server = config.Server(bind=bind)
    assert (server.host, server.port, server.is_loopback) == (host, port, is_loopback)


def test_workers_follow_the_cores_unless_they_are_given() -> None:
    assert 1 <= config.Server().worker_count <= 4
    assert config.Server(workers=9).worker_count == 9


def test_every_key_can_be_set_from_the_environment_and_says_what_a_reload_does() -> None:
    for section, key, item in keys():
        assert item.metadata["reload"] in ("hot", "rolls", "restart")
        if section != "profile":
            current = getattr(getattr(Config(), section), key)
            shown = ",".join(current) if isinstance(current, list) else str(current)
            assert load(None, {f"RAGAGENT_{section}__{key}".upper(): shown}) == Config()


def test_every_number_refuses_nan() -> None:
    for section, key, item in keys():
        if item.type == "float":
            with pytest.raises(ConfigError):
                load(None, {f"RAGAGENT_{section}__{key}".upper(): str(math.nan)})


def test_the_data_directory_names_all_that_lies_in_it() -> None:
    data = config.Data(dir="/d")
    paths = (data.database, data.index, data.pepper, data.doorbell)
    assert {path.parent for path in paths} == {Path("/d")}
    assert len(set(paths)) == len(paths)


def test_sections_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().server.workers = 3  # type: ignore[misc]
