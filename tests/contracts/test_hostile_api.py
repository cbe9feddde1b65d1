"""The JSON API under generated requests, right and wrong ones, as every role.

No request is answered with a fault, none otherwise than the OpenAPI description says, and nobody
is told what is not theirs. `make hostile` runs it longer (RAREFIND_HOSTILE_REQUESTS), with another
seed each time; RAREFIND_HOSTILE_SEED repeats one.
"""

import os
import secrets
from collections import Counter

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.conftest import open_web
from tests.planting import ASKING, CALM, FIRST_SECRET, SEARCH_SECRET, SECRET, plant

pytestmark = pytest.mark.slow

REQUESTS = int(os.environ.get("RAREFIND_HOSTILE_REQUESTS", "0"))
REQUESTS_A_BATCH = 10_000  # then a new world, before this one is full of what was made in it
SEED = int(os.environ.get("RAREFIND_HOSTILE_SEED", secrets.randbits(31) if REQUESTS else 7))
SHORT = 4  # generated for each operation, valid and not
CHECKS: list[CheckFunction] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# In addresses and bodies; all of them hold image ids where the name does not say.
NUMBERED = {"image_ids": "image_id", "alone": "image_id", "remove_notes": "note_id"}
KEYED = {"answers": "image_id", "reasons": "image_id", "change_note": "note_id"}
NOWHERE = 987_654_321
# What generated text never happens to be, so that something is done at all.
USUAL = {
    "embedder": [None, "hand-made"],
    "strategy": [None, "random", "pf-ma"],
    "round_size": [None, 6],
    "where": [[], ["month=5"], ["given=none"]],
    "name": ["images.csv", "coco.json", "pictures.zip"],
    "gesture_key": [None, "once"],
}


def put_ids(data, ids, whose, value):
    """`value`, with ids of one person's things in it, here and there one of somebody else's."""

    def draw(kind, otherwise):
        there = [number for owned in ids.values() for number in owned[kind]]
        own = ids[whose][kind] if whose else [otherwise]
        picked = data.draw(strategies.sampled_from([own, own, own, own, [NOWHERE, *there]]))
        return data.draw(strategies.sampled_from(picked))

    if not isinstance(value, dict):
        return value
    drawn = {}
    if "target_name" in value:
        value = {"image_ids": [1], "strategy": "", "embedder": ""} | value
    elif "round_id" in value:
        value = {"answers": {"1": "yes"}} | value
    for name, content in value.items():
        if name.endswith("_id"):
            drawn[name] = draw(name, content)
        elif name in NUMBERED and isinstance(content, list):
            drawn[name] = [draw(NUMBERED[name], one) for one in content]
        elif name in KEYED and isinstance(content, dict):
            drawn[name] = {str(draw(KEYED[name], key)): one for key, one in content.items()}
        elif name in USUAL and whose:
            drawn[name] = data.draw(strategies.sampled_from([content, *2 * USUAL[name]]))
        else:
            drawn[name] = content
    return drawn


def send(web, case, headers):
    """The generated request as it goes over the wire, to the application itself."""
    made = case.as_transport_kwargs(base_url=str(web.base_url), headers=headers)
    ready = requests.Request(
        **{name: value for name, value in made.items() if name not in ("timeout", "verify")}
    ).prepare()
    asked = f"{ready.url} {ready.body!r}"
    answer = web.request(ready.method, ready.url, headers=dict(ready.headers), content=ready.body)
    return asked, answer


@pytest.fixture
def planted(settings, own_database_url):
    calm = settings.model_copy(update=CALM)
    with open_web(calm, own_database_url) as web:
        yield plant(web)


@pytest.mark.timeout(7_200 if REQUESTS else 180)
@pytest.mark.parametrize("batch", range(max(1, REQUESTS // REQUESTS_A_BATCH)))
def test_api_answers_as_described_and_tells_nobody_what_is_not_theirs(planted, batch):
    web, ids = planted.web, planted.ids
    schema = schemathesis.openapi.from_dict(web.app.openapi())
    schema.config.generation.with_security_parameters = False
    operations = [found.ok() for found in schema.get_all_operations()]
    most = SHORT
    if REQUESTS:
        most = -(-min(REQUESTS, REQUESTS_A_BATCH) // (2 * len(operations) * len(ASKING)))
    wrong: dict[tuple[str, str, int], str] = {}
    statuses: Counter[tuple[str | None, int]] = Counter()

    def ask_as_everybody(operation, mode):
        @seed(SEED + batch)
        @settings(
            max_examples=most,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), data=strategies.data())
        def ask(case, data):
            given_path, given_body = case.path_parameters, case.body
            whose = data.draw(strategies.sampled_from(["all", "ada", "bob", None]))
            case.path_parameters = put_ids(data, ids, whose, case.path_parameters)
            case.body = put_ids(data, ids, whose, case.body)
            as_made = (given_path, given_body) == (case.path_parameters, case.body)
            checks = [*CHECKS, negative_data_rejection] if as_made else CHECKS
            for name in ASKING:
                asked, answer = send(web, case, planted.headers(name))
                statuses[name, answer.status_code] += 1
                try:
                    case.validate_response(answer, checks=checks)
                except FailureGroup as found:
                    for one in found.exceptions:
                        key = (operation.label, type(one).__name__, answer.status_code)
                        wrong.setdefault(key, f"{name}: {asked}\n{one}\n{answer.text[:500]}")
                if leak := planted.find_leak(name, asked, answer.text):
                    wrong[operation.label, leak, answer.status_code] = f"{name}: {asked}"

        ask()

    for operation in operations:
        for mode in GenerationMode:
            if mode.is_positive or operation.path_parameters or operation.query or operation.body:
                ask_as_everybody(operation, mode)
    print(f"seed {SEED}, batch {batch}: {sum(statuses.values())} requests", dict(statuses))  # noqa: T201
    assert not wrong, "\n\n".join(f"{key}\n{what}" for key, what in wrong.items())
    for name in ASKING[1:]:  # neither all refused nor nothing reached
        assert statuses[name, 200] > 20, statuses
    assert statuses[None, 401] > 50, statuses
    assert statuses["ada", 201] > 0 or not REQUESTS, statuses


def test_who_may_see_it_is_told_it(planted):
    """Else the check above would find nothing because there is nothing."""
    search_id = planted.ids["bob"]["search_id"][0]
    assert search_id > FIRST_SECRET
    headers = planted.headers("bob")
    answer = planted.web.get(f"/api/v1/searches/{search_id}/round", headers=headers)
    assert planted.find_leak("ada", "", answer.text.replace(SECRET, "")) is not None
    assert planted.find_leak("ada", "", answer.text) == SECRET
    answer = planted.web.get("/api/v1/searches", headers=headers)
    assert planted.find_leak("ann", "", answer.text) == SEARCH_SECRET
