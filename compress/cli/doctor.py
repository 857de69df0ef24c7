"""The command `compress doctor`."""

from __future__ import annotations

import rich_click as click

from compress import doctor


@click.command()
def doctor_command() -> None:
    """Show what this machine can run and what is missing.

    Example: compress doctor
    """
    for subject, finding in doctor.examine():
        click.echo(f"{subject:<18} {finding}")
