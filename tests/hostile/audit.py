"""List the installed packages with known vulnerabilities, as reported by pip-audit.

    packages     number of installed packages
    audited      number of those that the index knows
    vulnerable   number of those with a known vulnerability; each is printed with the versions that fix it

Without a network the audit prints the reason and succeeds. The last line is JSON.

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
    """Print the vulnerabilities and the counts as JSON; exit with 1 if there is one."""
    packages, reason = audit()
    vulnerable = [package for package in packages if package.get("vulns")]
    audited = sum("vulns" in package for package in packages)
    for package in vulnerable:
        for vulnerability in package["vulns"]:
            fixes = " or ".join(vulnerability["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixes}")
    if not audited:
        print(f"no package could be audited: {reason}")
    print(json.dumps({"packages": len(packages), "audited": audited, "vulnerable": len(vulnerable)}))
    sys.exit(bool(vulnerable))


def audit() -> tuple[list[dict[str, Any]], str]:
    """Return pip-audit's records of all packages, and the reason if it skipped or could not audit them."""
    try:
        done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=SECONDS)
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return [], f"no answer within {SECONDS} s"
    except json.JSONDecodeError:
        return [], (done.stderr.strip().splitlines() or ["no answer"])[-1]
    return packages, next((package["skip_reason"] for package in packages if "skip_reason" in package), "")


if __name__ == "__main__":
    main()
