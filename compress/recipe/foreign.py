"""Errors of code that is not part of the toolkit, as one line each."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

from runtimes.errors import CompressError, InputError

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "importlib")  # folders of packages that networks call
TOOLKIT = Path(__file__).parents[1]
# What torch and networks raise for images or settings that do not suit them.
NETWORK_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class one_line:  # noqa: N801  a context manager, named like a function as those of contextlib are
    """Context manager that turns any error of the code inside into an InputError: `what`, the error, and its line."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise the InputError; errors of the toolkit and an interruption by the user pass unchanged."""
        if isinstance(error, (Exception, SystemExit)) and not isinstance(error, CompressError):
            message = " ".join(str(error).split())
            raise InputError(f"{self.what}: {type(error).__name__}: {message}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """Return file and line in brackets: of the syntax error, else of the innermost call in code that is no library's.

    Empty if there is none.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({Path(error.filename).name}, line {error.lineno})"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and not set(LIBRARIES) & set(path.parts) and not path.is_relative_to(TOOLKIT):
            return f" ({path.name}, line {frame.lineno})"
    return ""
