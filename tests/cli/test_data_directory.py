from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
from click.testing import CliRunner, Result

from ragagent.cli.data_directory import with_data, with_settings
from ragagent.config import Config, Data

Run = Callable[..., Result]


@click.command()
@with_data
def show(data: Data) -> None:
    click.echo(data.dir)


@click.command()
@with_settings
def show_both(settings: Config) -> None:
    click.echo(f"{settings.data.dir} {settings.embedder.model}")


def said(*arguments: str, **env: str) -> str:
    return CliRunner().invoke(show, arguments, env=env).stdout.strip()


def test_the_directory_is_the_servers_unless_one_is_named(tmp_path: Path) -> None:
    config = tmp_path / "r.toml"
    config.write_text('[data]\ndir = "of-the-file"\n')
    assert said() == "./ragagent-data"
    assert said("--config", str(config)) == "of-the-file"
    assert said("--config", str(config), RAGAGENT_DATA__DIR="of-the-environment") == "of-the-environment"
    assert said("--data", "named", RAGAGENT_DATA__DIR="of-the-environment") == "named"


def test_two_answers_to_one_question_are_wrong_usage() -> None:
    assert CliRunner().invoke(show, ["--data", "a", "--config", "b"]).exit_code == 2


def test_of_a_whole_configuration_the_directory_may_be_another(tmp_path: Path) -> None:
    config = tmp_path / "r.toml"
    config.write_text('[data]\ndir = "of-the-file"\n[embedder]\nmodel = "m"\n')
    for arguments, directory in (([], "of-the-file"), (["--data", "named"], "named")):
        result = CliRunner().invoke(show_both, ["--config", str(config), *arguments])
        assert result.stdout.strip() == f"{directory} m", result.output


def test_a_wrong_configuration_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[data]\ndirr = 'x'\n")
    result = run("status", "--config", tmp_path / "r.toml")
    assert result.exit_code == 1
    assert "did you mean 'data.dir'?" in result.stderr
