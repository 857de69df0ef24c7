"""Tests of the options about files without a manifest."""

from __future__ import annotations

import rich_click as click
from click.testing import CliRunner, Result

from compress.cli.preprocessing import plain_file_options, preprocessing_options
from compress.model_files import Assumptions
from runtimes.preprocessing import Preprocessing


@click.command()
@click.option("--other")
@preprocessing_options
def show(other: str | None, preprocessing: Preprocessing | None) -> None:
    """Show what the command gets."""
    click.echo(repr((other, preprocessing)))


@click.command()
@plain_file_options
def show_assumed(assumed: Assumptions) -> None:
    """Show what the command gets."""
    click.echo(repr(assumed))


def call(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_no_option_is_no_preprocessing() -> None:
    assert call(show).output == "(None, None)\n"
    assert call(show_assumed).output == f"{Assumptions()!r}\n"


def test_one_option_leaves_the_others_at_their_defaults() -> None:
    assert call(show, "--crop", "192", "--other", "x").output == f"{('x', Preprocessing(crop=192))!r}\n"
    expected = Preprocessing(mean=(0.5, 0.5, 0.5), interpolation="bicubic")
    assert call(show, "--mean", "0.5,.5,0.50", "--interpolation", "bicubic").output == f"{(None, expected)!r}\n"
    assert "Preprocessing(resize=300" in call(show_assumed, "--resize", "300", "--labels", "a.txt").output


def test_wrong_values_are_named() -> None:
    assert "--mean: give three numbers" in str(call(show, "--mean", "a").exception)
    assert "preprocessing must have 1 <= crop" in str(call(show, "--crop", "500").exception)


def test_the_options_are_listed_in_order() -> None:
    help_text = call(show_assumed, "--help").output
    places = [help_text.index(option) for option in ("--resize", "--crop", "--std", "--manifest", "--labels")]
    assert places == sorted(places)
