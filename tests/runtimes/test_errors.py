"""Tests of runtimes.errors: exit codes and hierarchy."""

from __future__ import annotations

import pytest

from runtimes import errors
from runtimes.errors import ArtifactError, CompressError, InputError, UnavailableError


@pytest.mark.parametrize(("kind", "exit_code"), [
    (CompressError, 1), (UnavailableError, 1), (InputError, 2), (ArtifactError, 2),
])  # fmt: skip
def test_exit_codes(kind: type[CompressError], exit_code: int) -> None:
    assert kind("message").exit_code == exit_code
    assert str(kind("message")) == "message"


def test_input_errors_are_not_unavailable_and_artifact_errors_are_input_errors() -> None:
    assert issubclass(ArtifactError, InputError)
    assert not issubclass(UnavailableError, InputError)
    assert not issubclass(InputError, UnavailableError)


def test_the_table_in_the_module_docstring_is_right() -> None:
    table = dict(line.strip(" |-").split()[:2] for line in (errors.__doc__ or "").splitlines() if "Error " in line)
    kinds = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert table == {name: str(kind.exit_code) for name, kind in kinds.items()}
