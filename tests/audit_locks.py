"""Looks up the locked packages in a database of known vulnerabilities: `make audit`.

    python tests/audit_locks.py PIP_AUDIT LOCK...

Exit status 1 where a locked version has a known vulnerability; 0 where none has, and also where
pip-audit is missing or reaches no database: then nothing was checked, and that is what it says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

LIMIT_S = 300.0


def audit(tool: str, lock: str) -> tuple[list[str] | None, int]:
    """(a line for each vulnerability, number of packages looked up); None where none was.

    Args:
      tool: pip-audit's program.
      lock: file of exact versions with hashes; nothing of it is installed or downloaded.
    """
    command = [tool, "--requirement", lock, "--require-hashes", "--disable-pip", "--format=json",
               "--progress-spinner=off"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        found = json.loads(done.stdout)["dependencies"]
        checked = [package for package in found if "vulns" in package]
        lines = [
            f"{package['name']} {package['version']}: {vuln['id']}, mended in "
            f"{', '.join(vuln.get('fix_versions') or ['no version yet'])}"
            for package in checked
            for vuln in package["vulns"]
        ]
    # Its own words would name the addresses that it tried.
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        return None, 0
    return (lines, len(checked)) if checked else (None, 0)


def main(argv: Sequence[str]) -> int:
    """The command."""
    tool, *locks = argv
    if not os.path.isfile(tool):
        print("audit: skipped, nothing was checked: pip-audit is not installed.")
        return 0
    status = 0
    for lock in locks:
        lines, count = audit(tool, lock)
        if lines is None:
            print(f"audit: {lock}: skipped, nothing was checked: no database was reached.")
        elif lines:
            status = 1
            print(f"audit: {lock}: {len(lines)} known vulnerabilities in {count} packages:")
            print("\n".join(f"  {line}" for line in lines))
        else:
            print(f"audit: {lock}: {count} packages, no known vulnerability.")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
