"""`make audit` tells a finding, a clean lock and a check that could not be made apart."""

import json
import pathlib
import re
import sys

import audit_locks
import pytest

from neas_tf.common.paths import project_file


def tool(folder, output: str, status: int = 0):
    """A program in the place of pip-audit."""
    path = folder / "pip-audit"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.stderr.write('https://host/ failed')\n"
        f"print({output!r})\nsys.exit({status})\n"
    )
    path.chmod(0o755)
    return str(path)


def report(*vulnerabilities) -> str:
    package = {"name": "a", "version": "1.0", "vulns": list(vulnerabilities)}
    return json.dumps({"dependencies": [package, {"name": "b", "skip_reason": "unknown"}]})


@pytest.mark.parametrize(
    ("output", "status", "expected", "words"),
    [
        (report(), 0, 0, "1 packages, no known vulnerability"),
        (report({"id": "X-1", "fix_versions": ["1.1"]}), 1, 1, "a 1.0: X-1, mended in 1.1"),
        (report({"id": "X-1", "fix_versions": []}), 1, 1, "no version yet"),
        ("", 1, 0, "skipped, nothing was checked: no database"),
        ("[]", 0, 0, "skipped"),
        (json.dumps({"dependencies": []}), 0, 0, "skipped"),
    ],
)
def test_what_pip_audit_says(tmp_path, capsys, output, status, expected, words):
    assert audit_locks.main([tool(tmp_path, output, status), "requirements.lock"]) == expected
    said = capsys.readouterr().out
    assert words in said and "host" not in said


def test_without_pip_audit(tmp_path, capsys):
    assert audit_locks.main([str(tmp_path / "none"), "requirements.lock"]) == 0
    assert "skipped, nothing was checked: pip-audit is not installed" in capsys.readouterr().out


def test_the_locks_are_exact_and_hashed():
    """What pip-audit looks up, and pip installs, is one version with its hashes."""
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = pathlib.Path(project_file(name)).read_text("utf-8").replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert lines
        for line in lines:
            assert re.match(r"[A-Za-z0-9._\[\]-]+==[^\s]+ .*--hash=sha256:[0-9a-f]{64}", line), line
