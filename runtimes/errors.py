"""Errors that are reported to the user, with their exit codes.

    CompressError            1  the tool failed
    |- UnavailableError      1  a package, provider or device is not on this machine
    |- InputError            2  the user's recipe, file or argument is wrong
       |- ArtifactError      2  an artifact or its manifest is missing, damaged or inconsistent

The message is one sentence: what is wrong, which value, what to do. The command line prints it and exits with
`exit_code`.
"""

from __future__ import annotations


class CompressError(Exception):
    """The tool failed; the message says what to do."""

    exit_code = 1


class UnavailableError(CompressError):
    """This machine lacks a package, execution provider or device."""


class InputError(CompressError):
    """A recipe, file or argument is wrong and must be changed."""

    exit_code = 2


class ArtifactError(InputError):
    """The file or the manifest of an artifact is missing, damaged or inconsistent with the other."""
