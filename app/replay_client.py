"""Replays through the JSON API of a server: the oracle plays like any other client.

What is measured is the product: the same images as offline for the same seed, and how long a person
waits for each grid. A live search shows every image of its collection, so nothing is held out, and
a client has no vectors, so coverage and F1 stay empty: play the same seeds offline for those.
"""

import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import numpy as np

from app.engine.loop import Value
from app.engine.metrics import recall
from app.engine.replay import ask_oracle
from app.errors import BadInput, RarefindError
from app.evaluation import (
    LETTERS,
    PlayedRun,
    Progress,
    ReplaySettings,
    ServerRoundRow,
    band_of,
    check_replay,
    describe_replay,
    draw_opening,
    finish_replay,
    list_runs,
    open_folder,
    run_file,
    write_run,
)
from app.importing import pick_collection
from app.oracle import Oracle, make_oracle, read_labels_file

WORDS = {int(Value.YES): "yes", int(Value.NO): "no", int(Value.UNSURE): "unsure"}
ERROR_NUMBER = re.compile(r"^\[Errno -?[0-9]+\] ")
UNKNOWN = float("nan")
TIMEOUT_S = 120.0
Client = httpx2.Client


class ServerRefused(RarefindError):
    """The server of a replay does not answer, or refuses."""

    status = 502
    title = "The server can't be asked"


@contextmanager
def connect(server: str, token: str) -> Iterator[Client]:
    """A client of a server's API."""
    headers = {"Authorization": f"Bearer {token}"}
    with Client(base_url=server, headers=headers, timeout=TIMEOUT_S) as client:
        yield client


def read_oracle_on_server(
    client: Client, called: str, labels: Path, *, where: Sequence[str] = ()
) -> tuple[Oracle, int]:
    """The oracle of a collection of the server, from a labels file; and the collection's id.

    The collection is `called` by its name or its number.
    With a filter (`where`, as KEY=VALUE) it knows of the images alone that the filter keeps.
    """
    collections = _ask(client, "GET", "/api/v1/collections")
    known = {one["collection_id"]: one["name"] for one in collections}
    collection_id = pick_collection(known, called)
    paths = _read_paths(client, collection_id, ())
    labelled, _ = read_labels_file(labels, {path: i for i, path in paths.items()}, None)
    image_ids = np.array(sorted(paths), dtype=np.int64)
    names = [paths[image_id] for image_id in image_ids.tolist()]
    kept_rows = None
    if where:
        kept = _read_paths(client, collection_id, where)
        kept_rows = np.flatnonzero(np.isin(image_ids, list(kept)))
    oracle = make_oracle(known[collection_id], image_ids, names, labelled, {}, kept_rows)
    return oracle, collection_id


def run_replays_on_server(
    client: Client,
    collection_id: int,
    oracle: Oracle,
    settings: ReplaySettings,
    out: Path,
    *,
    progress: Progress | None = None,
) -> list[PlayedRun]:
    """Play every run that is not finished yet as a search of its own; writes rounds.csv."""
    check_replay(oracle, settings)
    if settings.holdout:
        raise BadInput("A server's searches show every image: a replay there has no holdout.")
    if settings.stops:
        raise BadInput("Stop rules need the vectors: play the same seeds without --server.")
    server = str(client.base_url)
    open_folder(out, describe_replay(oracle, settings, index=None, server=server))
    runs = list(list_runs(settings))
    for done, run in enumerate(runs):
        if progress:
            progress(done, len(runs))
        if not run_file(out, *run).exists():
            write_run(out, play_run_on_server(client, collection_id, oracle, settings, *run))
    if progress:
        progress(len(runs), len(runs))
    return finish_replay(out, settings)


def play_run_on_server(
    client: Client,
    collection_id: int,
    oracle: Oracle,
    settings: ReplaySettings,
    target: str,
    strategy: str,
    seed: int,
) -> PlayedRun:
    """Open one search on the server and answer its rounds."""
    target_ids = oracle.image_ids[oracle.rows_of[target]]
    opening = draw_opening(target_ids, settings.open_with, seed).tolist()
    opened = {
        "target_name": f"{target} (replay, seed {seed})",
        "image_ids": opening,
        "strategy": strategy,
        "round_size": settings.size,
        "seed": seed,
        "where": list(settings.where),
    }
    started = time.perf_counter()
    search = _ask(client, "POST", f"/api/v1/collections/{collection_id}/searches", opened)
    wait_ms = 1_000 * (time.perf_counter() - started)
    # A server looks anew at each opening, and images, tables and clocks may have changed meanwhile.
    known = len(oracle.image_ids if oracle.kept_rows is None else oracle.kept_rows)
    if search["image_count"] != known:
        raise ServerRefused(
            f"A search on {client.base_url} looks at {search['image_count']:,} images now, and at "
            f"{known:,} when this began: the collection has changed. Finished runs are kept; undo "
            "the change to go on, or begin again in another folder."
        )
    grid = search["round"]
    played = PlayedRun(target, strategy, seed, opening, [], [], [])
    positives = set(opening)
    for number in range(1, settings.rounds + 1):
        shown = [image["image_id"] for image in grid["images"]]
        along = {image["image_id"]: image["event_ids"] for image in grid["images"]}
        if not shown:
            break
        values = ask_oracle(
            np.isin(shown, target_ids),
            error=settings.oracle_error,
            unsure=settings.oracle_unsure,
            seed=seed,
            round_number=number,
        ).tolist()
        yes = {image for image, value in zip(shown, values, strict=True) if value == Value.YES}
        # An answer is for the whole event, as the server knows it.
        positives |= yes.union(*(along[image] for image in yes))
        played.shown.append(shown)
        played.values.append("".join(LETTERS[value] for value in values))
        played.rows.append(
            ServerRoundRow(
                collection=oracle.collection,
                target=target,
                n_target=len(target_ids),
                band=band_of(len(target_ids)),
                strategy=strategy,
                seed=seed,
                round=number,
                answers=sum(map(len, played.shown)),
                positives=len(positives),
                yes_in_round=len(yes),
                recall=recall(len(positives & set(target_ids.tolist())), len(target_ids)),
                coverage=UNKNOWN,
                mode_coverage=UNKNOWN,
                f1=UNKNOWN,
                average_precision=UNKNOWN,
                fit_ms=UNKNOWN,
                select_ms=UNKNOWN,
                proposing_ms=grid["proposing_ms"],
                wait_ms=wait_ms,
            )
        )
        answers = {str(image): WORDS[value] for image, value in zip(shown, values, strict=True)}
        body = {"round_id": grid["round_id"], "answers": answers, "gesture_key": uuid.uuid4().hex}
        started = time.perf_counter()
        submitted = _ask(client, "POST", f"/api/v1/searches/{search['search_id']}/submit", body)
        wait_ms = 1_000 * (time.perf_counter() - started)
        grid = submitted["round"]
    return played


def _read_paths(client: Client, collection_id: int, where: Sequence[str]) -> dict[int, str]:
    """The path of every image that a filter keeps, by its number."""
    paths: dict[int, str] = {}
    address = f"/api/v1/collections/{collection_id}/images"
    while True:
        query = [("after", max(paths, default=0)), *(("where", one) for one in where)]
        images = _ask(client, "GET", f"{address}?{urlencode(query)}")
        if not images:
            return paths
        # Folders that may be labels are told beside the path, and only to who may see labels.
        paths |= {image["image_id"]: image["full_path"] or image["path"] for image in images}


def _ask(client: Client, method: str, address: str, body: dict[str, Any] | None = None) -> Any:
    try:
        response = client.request(method, address, json=body)
        while response.status_code == 429:  # it says when to go on
            time.sleep(int(response.headers.get("retry-after", "1")))
            response = client.request(method, address, json=body)
    except httpx2.HTTPError as error:
        why = ERROR_NUMBER.sub("", str(error))
        raise ServerRefused(f"{client.base_url} does not answer: {why}.") from error
    try:
        answer = response.json()
    except ValueError as error:
        raise ServerRefused(f"{client.base_url} is no Rarefind server, it seems.") from error
    if response.is_error:
        raise ServerRefused(f"{answer.get('title')}: {answer.get('detail')}")
    return answer
