"""`make lint` fails for a known hole, and only for one."""

import importlib.util
import json
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit.py"
FINE = {"name": "numpy", "version": "2.4.6", "vulns": []}
UNKNOWN = {"name": "faiss-cpu", "skip_reason": "Dependency not found"}
HOLED = {
    "name": "pillow",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"], "aliases": []}],
}


@pytest.mark.parametrize(
    ("said", "complaint", "code", "sentence"),
    [
        ([FINE, UNKNOWN], "", 0, "no known hole in 1 packages, nothing of faiss-cpu"),
        ([UNKNOWN, HOLED, FINE], "", 1, "pillow 1.0 has PYSEC-1, mended in 1.1 or 2.0"),
        ([UNKNOWN, UNKNOWN], "", 0, "nothing was audited"),
        (None, "ConnectionError: Max retries exceeded with url: /pypi", 0, "can't be reached"),
        (None, "Invalid requirement: 'numpy=='", 1, "Invalid requirement"),
    ],
)
def test_known_hole_fails_and_a_machine_without_a_network_goes_on(said, complaint, code, sentence):
    spec = importlib.util.spec_from_file_location("audit", AUDIT)
    audit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audit)
    answer = "" if said is None else json.dumps({"dependencies": said})
    judged = audit.judge(answer, complaint)
    assert judged[0] == code and sentence in judged[1]
