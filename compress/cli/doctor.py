"""The command `compress doctor`."""

from __future__ import annotations

import json

import rich_click as click

from compress import doctor


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor_command(as_json: bool) -> None:
    """Show what this machine can run and what is missing.

    Example: compress doctor
    """
    findings = doctor.examine()
    if as_json:
        click.echo(json.dumps(dict(findings)))
        return
    for subject, finding in findings:
        click.echo(f"{subject:<18} {finding}")
