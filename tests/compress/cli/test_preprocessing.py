"""Tests of the options about files without a manifest."""

from __future__ import annotations

import pytest
import rich_click as click
from click.testing import CliRunner, Result

from compress.cli.preprocessing import plain_file_options, preprocessing_options
from compress.model_files import Assumptions
from export.inputs.options import PreprocessingOptions


@click.command()
@click.option("--other")
@preprocessing_options
def show(other: str | None, preprocessing: PreprocessingOptions) -> None:
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
    assert call(show).output == f"{(None, PreprocessingOptions())!r}\n"
    assert call(show_assumed).output == f"{Assumptions()!r}\n"


def test_one_option_leaves_the_others_open() -> None:
    assert call(show, "--crop", "192", "--other", "x").output == f"{('x', PreprocessingOptions(crop=192))!r}\n"
    expected = PreprocessingOptions(mean=(0.5, 0.5, 0.5), interpolation="bicubic")
    assert call(show, "--mean", "0.5,.5,0.50", "--interpolation", "bicubic").output == f"{(None, expected)!r}\n"
    assert call(show, "--channels", "bgr").output == f"{(None, PreprocessingOptions(channels='bgr'))!r}\n"
    assert "PreprocessingOptions(resize=300" in call(show_assumed, "--resize", "300", "--labels", "a.txt").output


@pytest.mark.parametrize(
    ("text", "crop"), [("224", 224), ("48x192", (48, 192)), ("48X192", (48, 192)), ("64x64", 64), (" 8 x 9", (8, 9))]
)
def test_a_crop_is_a_side_or_height_and_width(text: str, crop: object) -> None:
    assert call(show, "--crop", text).output == f"{(None, PreprocessingOptions(crop=crop))!r}\n"


@pytest.mark.parametrize("text", ["", "x", "48x", "1x2x3", "-3", "4.5", "48*192"])
def test_another_crop_is_refused(text: str) -> None:
    error = str(call(show, "--crop", text).exception)
    assert error == f"--crop: give one side or height and width, as in 224 or 48x192, not {text!r}"


def test_wrong_values_are_named() -> None:
    assert "--mean: give one number, or one for each channel" in str(call(show, "--mean", "a").exception)
    assert call(show, "--channels", "gbr").exit_code == 2


def test_the_options_are_listed_in_order() -> None:
    help_text = call(show_assumed, "--help").output
    places = [help_text.index(option) for option in ("--resize", "--crop", "--std", "--manifest", "--labels")]
    assert places == sorted(places)
