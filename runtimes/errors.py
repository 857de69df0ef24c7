"""Every error that the toolkit raises on purpose.

    CompressError            1  the tool could not do it
    |- UnavailableError      1  a package, provider or device is not on this machine
    |- InputError            2  the user's recipe, file or argument is wrong
       |- ArtifactError      2  an artifact and its manifest are missing, damaged or don't fit

The message is one sentence: what, which value, what would work. The command line prints it and exits with `exit_code`.
"""

from __future__ import annotations


class CompressError(Exception):
    """Something that the toolkit could not do; the message says what would work."""

    exit_code = 1


class UnavailableError(CompressError):
    """A package, execution provider or device that this machine does not have."""


class InputError(CompressError):
    """A recipe, file or argument that the user has to change."""

    exit_code = 2


class ArtifactError(InputError):
    """An artifact whose file and manifest are missing, damaged or don't belong together."""
