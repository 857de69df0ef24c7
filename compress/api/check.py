"""`compress.check`: judge a run against an accepted one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from compress.process.table import Table
from compress.recipe.errors import validated
from compress.recipe.strict_yaml import YamlValue
from compress.report import accepted as results
from compress.report.report import Report
from compress.verdict import ci_formats, comparison
from compress.verdict.accepted import Accepted, default_path
from compress.verdict.checks import Verdict
from compress.verdict.comparison import Limits, TargetComparison
from runtimes.errors import InputError
from runtimes.files import Json

Results: TypeAlias = str | Path | Report


@dataclass(frozen=True, repr=False)
class Comparison:
    """A run compared with an accepted one. verdict: the worst of all targets."""

    recipe: str
    verdict: Verdict
    targets: tuple[TargetComparison, ...]

    def table(self) -> Table:
        """Return a row for each target and check."""
        return ci_formats.table(self.targets)

    def details(self) -> list[str]:
        """Return what the table does not show, one line each."""
        return ci_formats.details(self.targets)

    def to_json(self) -> Json:
        """Return a value that JSON can hold."""
        return {"verdict": self.verdict, "targets": [asdict(target) for target in self.targets]}

    def __repr__(self) -> str:
        return "\n".join([*self.table().text(), *self.details(), f"verdict: {self.verdict}"])


def check(new: Results, accepted: Results | None = None, **limits: YamlValue) -> Comparison:
    """Compare a run with an accepted one, image by image; return verdict, checks and details.

    new: a report or a run folder.
    accepted: a report, a run folder or an accepted file; by default recipes/accepted/RECIPE.json.
    limits: fields of `compress.verdict.comparison.Limits`, as in `max_drop_pp=1.0`; `max_slowdown=None` compares no
        latency.

    Raises InputError for results that can't be read or compared.
    """
    checked = validated(Limits, limits)
    after = _read(new)
    compared = comparison.compare(_read(accepted or default_path(after.recipe)), after, checked)
    return Comparison(after.recipe, comparison.verdict(compared), compared)


def _read(source: Results) -> Accepted:
    if not isinstance(source, Report):
        return results.load(Path(source))
    if source.folder is None:
        raise InputError("the report has no run folder; give the folder of the run")
    return results.of_run(source.folder)
