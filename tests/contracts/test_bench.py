"""What `python -m bench` says before it measures anything."""

import subprocess
import sys

from app.database import PROJECT


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_benchmarks_are_listed_and_an_unknown_one_is_refused():
    listed = bench("--help")
    assert listed.returncode == 0
    assert "  rounds      Milliseconds from answers to the next round" in listed.stdout
    assert "ablation" not in listed.stdout, "it is run by itself"
    refused = bench("rounds", "nonsense")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("There is no benchmark nonsense; there are dashboard, ")
