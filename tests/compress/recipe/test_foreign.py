"""Errors of code that is not the toolkit's become one line."""

from __future__ import annotations

import re
import sys
from importlib import metadata

import pytest

from compress.recipe import foreign
from runtimes.errors import InputError, UnavailableError


def test_an_error_becomes_one_line_with_its_place() -> None:
    with pytest.raises(InputError, match=r"^net: ValueError: two lines \(test_foreign\.py, line \d+\)$"):  # noqa: SIM117
        with foreign.one_line("net"):
            raise ValueError("two\n  lines")


def test_a_program_that_exits_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^net: SystemExit: 3"), foreign.one_line("net"):
        sys.exit(3)


def test_a_syntax_error_has_the_line_of_the_mistake() -> None:
    with pytest.raises(InputError, match=re.escape("(my_net.py, line 2)")), foreign.one_line("net"):
        compile("a = 1\nb = (", "/folder/my_net.py", "exec")


@pytest.mark.parametrize("error", [InputError("mine"), UnavailableError("mine"), KeyboardInterrupt("mine")])
def test_errors_of_the_toolkit_and_interruptions_pass(error: BaseException) -> None:
    with pytest.raises(type(error), match=r"^mine$"), foreign.one_line("net"):
        raise error


def test_the_place_is_not_in_the_libraries() -> None:
    with pytest.raises(InputError, match=r"No module named 'no_such_module' \(test_foreign"), foreign.one_line("net"):
        metadata.EntryPoint("net", "no_such_module", "compress.models").load()
