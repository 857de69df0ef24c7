"""Kill runs at random moments, resume them, and compare the results with those of an undisturbed run.

    kills         number of SIGKILLs, at random moments in all parts of a run, up to six per run
    recovered     number of kills whose run ended with the right results after a restart
    different     number of runs with other weights, plans, files or predictions than the undisturbed run
    half_written  number of result files that could not be read after a kill

The accidents of accidents.py come first, one line each. The last line is JSON; the exit code is 1 after any problem.

    make test-faults [KILLS=100]
    python tests/faults/faults.py full_disks signals    # only these accidents
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import runs
from accidents import ACCIDENTS
from kills import kill

KILLS = int(os.environ.get("KILLS") or 100)


def main(names: list[str]) -> None:
    """Print the outcome of each run, then the counts as JSON."""
    known = {accident.__name__: accident for accident in ACCIDENTS}
    with tempfile.TemporaryDirectory(prefix="compress-faults-") as name:
        folder = Path(name)
        whole = runs.undisturbed(folder / "undisturbed")
        print(f"undisturbed: {sum(whole.parts_s.values()):.0f} s, {len(whole.results)} results to compare", flush=True)
        failures = 0
        for accident in names or known:
            for outcome in known[accident](folder, whole):
                print(f"{outcome.accident}: {'; '.join(outcome.problems) or 'no problem'}", flush=True)
                failures += bool(outcome.problems)
        counts = kill(folder, whole, 0 if names else KILLS)
    print(json.dumps(counts))
    expected = {"kills": counts["kills"], "recovered": counts["kills"], "different": 0, "half_written": 0}
    sys.exit(bool(failures) or counts != expected)


if __name__ == "__main__":
    main(sys.argv[1:])
