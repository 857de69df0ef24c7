"""Has a package that is installed here a fault that is known? Asks the index's list of them, by pip-audit.

    packages     those installed
    audited      those that the list knows
    vulnerable   those with a known fault; each is printed, with the versions that mend it

Without a network nothing can be asked: that is said, and is no failure. The last line is JSON.

    make audit
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SECONDS = 300
OPTIONS = ["--local", "--skip-editable", "--progress-spinner", "off", "--format", "json"]
COMMAND = [sys.executable, "-m", "pip_audit", *OPTIONS]


def main() -> None:
    """Print the faults and the counts as JSON; exit with 1 where there is one."""
    found, why = asked()
    vulnerable = [one for one in found if one.get("vulns")]
    audited = sum("vulns" in one for one in found)
    for one in vulnerable:
        for fault in one["vulns"]:
            cure = " or ".join(fault["fix_versions"]) or "no version yet"
            print(f"{one['name']} {one['version']}: {fault['id']}, mended in {cure}")
    if not audited:
        print(f"no package could be audited: {why}")
    print(json.dumps({"packages": len(found), "audited": audited, "vulnerable": len(vulnerable)}))
    sys.exit(bool(vulnerable))


def asked() -> tuple[list[dict[str, Any]], str]:
    """Return what is said of each package, and why nothing is where nothing is."""
    try:
        done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=SECONDS)
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return [], f"no answer within {SECONDS} s"
    except json.JSONDecodeError:
        return [], (done.stderr.strip().splitlines() or ["no answer"])[-1]
    return found, next((one["skip_reason"] for one in found if "skip_reason" in one), "")


if __name__ == "__main__":
    main()
