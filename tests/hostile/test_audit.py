from __future__ import annotations

import json
import sys
from typing import Any

import audit
import pytest

VULNERABILITY = {"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"]}


@pytest.mark.parametrize(
    ("packages", "printed", "counts", "code"),
    [
        ([{"name": "a", "version": "1.0", "vulns": []}, {"name": "b", "skip_reason": "not on the index"}], "",
         {"packages": 2, "audited": 1, "vulnerable": 0}, 0),
        ([{"name": "a", "version": "1.0", "vulns": [VULNERABILITY]}], "a 1.0: PYSEC-1, fixed in 1.1 or 2.0\n",
         {"packages": 1, "audited": 1, "vulnerable": 1}, 1),
        ([{"name": "b", "skip_reason": "not on the index"}], "no package could be audited: not on the index\n",
         {"packages": 1, "audited": 0, "vulnerable": 0}, 0),
    ],
)  # fmt: skip
def test_vulnerabilities_are_printed_with_their_fixes(
    packages: list[dict[str, Any]], printed: str, counts: dict[str, int], code: int, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    said = json.dumps({"dependencies": packages})
    monkeypatch.setattr(audit, "COMMAND", [sys.executable, "-c", f"print({said!r}); raise SystemExit({code})"])
    with pytest.raises(SystemExit) as ended:
        audit.main()
    assert ended.value.code == code
    assert capsys.readouterr().out == printed + json.dumps(counts) + "\n"


def test_without_a_network_the_reason_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "COMMAND", [sys.executable, "-c", "raise SystemExit('no route to host')"])
    with pytest.raises(SystemExit) as ended:
        audit.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("no package could be audited: no route to host\n")
