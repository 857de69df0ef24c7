"""Does a run that dies end as if nothing had been, once it is started again?

    kills         -9 at a moment drawn over all parts of a real run, up to six to each run
    recovered     kills whose run ended rightly after a restart
    different     runs that ended with other weights, plans, files or answers than the undisturbed one
    half_written  files under the name of a result that can't be read as what they are, looked for after every kill

Then the accidents of accidents.py, a line each. The last line is JSON; the exit code is 1 if anything went wrong.

    make test-faults [KILLS=100]
    python tests/faults/faults.py full_disks signals    # these accidents alone
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
    """Print what became of each run, then the counts as JSON."""
    known = {accident.__name__: accident for accident in ACCIDENTS}
    with tempfile.TemporaryDirectory(prefix="compress-faults-") as name:
        folder = Path(name)
        whole = runs.undisturbed(folder / "undisturbed")
        print(f"undisturbed: {sum(whole.parts_s.values()):.0f} s, {len(whole.results)} results to compare", flush=True)
        wrong = 0
        for accident in names or known:
            for told in known[accident](folder, whole):
                print(f"{told.what}: {'; '.join(told.wrong) or 'as it should'}", flush=True)
                wrong += bool(told.wrong)
        counts = kill(folder, whole, 0 if names else KILLS)
    print(json.dumps(counts))
    expected = {"kills": counts["kills"], "recovered": counts["kills"], "different": 0, "half_written": 0}
    sys.exit(bool(wrong) or counts != expected)


if __name__ == "__main__":
    main(sys.argv[1:])
