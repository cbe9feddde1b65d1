"""Whether a version in a constraints file has a known hole, by the advisories of PyPI (pip-audit).

A hole that is known ends with 1. A machine without a network goes on, and is told in one line.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ANSWERS_WITHIN_S = 15
ALL_WITHIN_S = 300
UNREACHED = re.compile(r"connect|timed? ?out|resolve|unreachable|max retries", re.IGNORECASE)


def judge(said: str, complaint: str) -> tuple[int, str]:
    """pip-audit's JSON, or what it complained of instead, as an exit code and what to print."""
    try:
        audited = json.loads(said)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if UNREACHED.search(complaint):
            return 0, "pip-audit: the advisory service can't be reached; nothing was audited."
        return 1, f"pip-audit failed:\n{complaint}"
    holes = [
        f"pip-audit: {one['name']} {one['version']} has {hole['id']}"
        + (f", mended in {' or '.join(hole['fix_versions'])}" if hole["fix_versions"] else "")
        for one in audited
        for hole in one.get("vulns", [])
    ]
    if holes:
        return 1, "\n".join(holes)
    unknown = [one["name"] for one in audited if "skip_reason" in one]
    if len(unknown) == len(audited):
        return 0, "pip-audit: the advisory service knows none of these; nothing was audited."
    left = f", nothing of {', '.join(unknown)}" if unknown else ""
    return 0, f"pip-audit: no known hole in {len(audited) - len(unknown)} packages{left}."


def main(constraints: str) -> int:
    """Ask, and print what was answered."""
    command = [
        *(str(Path(sys.executable).parent / "pip-audit"), "--requirement", constraints),
        *("--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"),
        *("--timeout", str(ANSWERS_WITHIN_S)),
    ]
    try:
        asked = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=ALL_WITHIN_S, check=False
        )
        said, complaint = asked.stdout, asked.stderr
    except subprocess.TimeoutExpired:
        said, complaint = "", "timed out"
    code, sentence = judge(said, complaint)
    print(sentence)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
