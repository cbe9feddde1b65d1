"""Replays: starting one, how it goes, its report, and two side by side. For evaluators."""

import csv
import io
from dataclasses import asdict
from datetime import UTC, datetime
from math import isnan
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy.orm import Session

from app.access import get_collection
from app.adjusting import DEFAULT_STRATEGY, list_strategies
from app.database import DbSession
from app.errors import BadInput, NotFound
from app.evaluation import RIVAL, USUAL_SIZES, ReplaySettings
from app.filtering import Filter, join_pairs, list_chips, read_filter, take_filter
from app.jobs import find_replay_job, play, stop_job
from app.labelling import count_known
from app.pages.addresses import LARGEST_ID, Id, see_other
from app.pages.filters import FilterFields, describe_filter
from app.pages.rendering import render, wants_fragment
from app.replay_dashboard import (
    find_course,
    find_kept_run,
    judge_rules,
    plot_course,
    tell_course,
    tell_run_moment,
    trace_run,
)
from app.replay_report import compare_replays, describe_report, find_film
from app.replay_summary import FEWEST_TARGETS
from app.replays import (
    find_replay_folder,
    get_replay,
    list_replays,
    list_target_choices,
    name_images,
    read_played,
    resume_replay,
    start_replay,
    stop_replay,
    time_left_s,
)
from app.security import Evaluator
from app.tables import Collection, Person, Replay

MOST_ROUNDS, MOST_SEEDS = 200, 20
EVERY_IMAGE = Filter()
USUAL = {"rounds": 25, "size": 10, "seeds": 3}

Number = Annotated[int, Form()]
Names = Annotated[list[str], Form()]
OtherId = Annotated[int, Query(ge=1, le=LARGEST_ID)]
Seed = Annotated[int | None, Query(ge=0, le=LARGEST_ID)]
RoundNumber = Annotated[int | None, Query(ge=0, le=LARGEST_ID)]

router = APIRouter(prefix="/collections/{collection_id}/replays")


@router.get("")
def replays_page(
    request: Request, session: DbSession, person: Evaluator, collection_id: Id
) -> Response:
    """Past replays of a collection, and the form that starts one."""
    collection = get_collection(session, person, collection_id)
    return render_replays(request, session, person, collection, None)


@router.post("")
def start(
    request: Request,
    session: DbSession,
    person: Evaluator,
    collection_id: Id,
    targets: Names = [],  # noqa: B006 - FastAPI copies it
    strategies: Names = [],  # noqa: B006
    rounds: Number = USUAL["rounds"],
    size: Number = USUAL["size"],
    seeds: Number = USUAL["seeds"],
    pairs: FilterFields = (),
) -> Response:
    """Start a replay, or show what is wrong with the form."""
    collection = get_collection(session, person, collection_id)
    state = request.app.state
    form = {
        "targets": targets,
        "strategies": strategies,
        "rounds": rounds,
        "size": size,
        "seeds": seeds,
    }
    chosen = Filter()
    try:
        # Every evaluator sees what it shows.
        chosen = read_filter(session, collection_id, pairs, person=person, is_common=True)
        plan = ReplaySettings(
            targets=tuple(dict.fromkeys(targets)),
            strategies=tuple(dict.fromkeys(strategies)),
            rounds=rounds,
            size=size,
            seeds=seeds,
            where=join_pairs(chosen),
        )
        if rounds > MOST_ROUNDS or seeds > MOST_SEEDS or size > 100:
            raise BadInput(
                f"At most {MOST_ROUNDS} rounds of 100 images and {MOST_SEEDS} seeds are played."
            )
        made = start_replay(session, collection, person, plan, settings=state.settings)
    except BadInput as error:
        return render_replays(
            request, session, person, collection, form, chosen=chosen, problem=str(error)
        )
    play(session, made, person)
    return see_other(f"/collections/{collection_id}/replays/{made.id}")


@router.get("/compare")
def compare(
    request: Request,
    session: DbSession,
    person: Evaluator,
    collection_id: Id,
    of: Annotated[list[OtherId], Query()] = [],  # noqa: B006
) -> Response:
    """Two replays side by side."""
    collection = get_collection(session, person, collection_id)
    if len(of) != 2:
        sentence = "Tick two replays to compare them."
        return render_replays(request, session, person, collection, None, problem=sentence)
    settings = request.app.state.settings
    # The older one is the one to compare with.
    pair = [get_replay(session, collection_id, replay_id) for replay_id in sorted(of)]
    return render(
        request,
        "replay_compare.html",
        person=person,
        collection=collection,
        pair=pair,
        **compare_replays(*(read_played(settings, one) for one in pair)),
    )


@router.get("/{replay_id}")
def replay_page(
    request: Request,
    session: DbSession,
    person: Evaluator,
    collection_id: Id,
    replay_id: Id,
    target: str | None = None,
    strategy: str | None = None,
    seed: Seed = None,
) -> Response:
    """How a replay goes, or its report with the filmstrip of one run."""
    context = describe(session, person, collection_id, replay_id)
    replay: Replay = context["replay"]
    if replay.state == "done":
        manifest, runs = read_played(request.app.state.settings, replay)
        film = find_film(runs, target, strategy, seed)
        seen = {shot.image_id for shots in film.rounds for shot in shots} | set(film.opening)
        names = name_images(session, seen)
        context |= describe_report(manifest, runs) | {"film": film, "names": names}
    return render(request, "replay.html", **context)


@router.get("/{replay_id}/run")
def run_page(
    request: Request,
    session: DbSession,
    person: Evaluator,
    collection_id: Id,
    replay_id: Id,
    target: str | None = None,
    strategy: str | None = None,
    seed: Seed = None,
    round: RoundNumber = None,  # the word of the address
    whole: bool = False,
) -> Response:
    """One run as its dashboard would have been after a round, beside the truth."""
    context = describe(session, person, collection_id, replay_id)
    context |= open_run(request, context["replay"], target, strategy, seed, round)
    if whole:
        context |= tell_moment(request, session, context) | tell_rounds(request, session, context)
    return render(request, "replay_run.html", whole=whole, **context)


@router.get("/{replay_id}/run/rounds.csv")
def download_course(
    request: Request,
    session: DbSession,
    person: Evaluator,
    collection_id: Id,
    replay_id: Id,
    target: str | None = None,
    strategy: str | None = None,
    seed: Seed = None,
) -> Response:
    """What would have been said after each round of a run, and what was true, as a table."""
    context = describe(session, person, collection_id, replay_id)
    context |= open_run(request, context["replay"], target, strategy, seed, None)
    rows = [asdict(row) for row in tell_rounds(request, session, context)["course"].rows]
    lines = io.StringIO()
    writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {name: "" if isnan(value) else round(value, 6) for name, value in row.items()}
        )
    name = f"replay-{replay_id}-run.csv"
    return Response(
        lines.getvalue(),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get("/{replay_id}/run/{part}")
def run_part(
    request: Request,
    session: DbSession,
    person: Evaluator,
    collection_id: Id,
    replay_id: Id,
    part: Literal["moment", "rounds"],
    target: str | None = None,
    strategy: str | None = None,
    seed: Seed = None,
    round: RoundNumber = None,
) -> Response:
    """A part of that page that takes longer."""
    if not wants_fragment(request):
        query = f"{request.url.query}&whole=1" if request.url.query else "whole=1"
        return see_other(f"/collections/{collection_id}/replays/{replay_id}/run?{query}#{part}")
    context = describe(session, person, collection_id, replay_id)
    context |= open_run(request, context["replay"], target, strategy, seed, round)
    tell = tell_moment if part == "moment" else tell_rounds
    context |= tell(request, session, context)
    return render(request, f"_replay_run_{part}.html", **context)


@router.get("/{replay_id}/progress")
def progress(
    request: Request, session: DbSession, person: Evaluator, collection_id: Id, replay_id: Id
) -> Response:
    """How far a replay is; when it has ended, the page is loaded again as a whole."""
    context = describe(session, person, collection_id, replay_id)
    if not wants_fragment(request):
        return see_other(f"/collections/{collection_id}/replays/{replay_id}")
    goes_on = context["replay"].state in ("waiting", "running")
    headers = None if goes_on else {"HX-Refresh": "true"}
    return render(request, "_replay_progress.html", headers=headers, **context)


@router.post("/{replay_id}/stop")
def stop(session: DbSession, person: Evaluator, collection_id: Id, replay_id: Id) -> Response:  # noqa: ARG001
    """Stop after the run that is played now."""
    replay = get_replay(session, collection_id, replay_id)
    stop_replay(session, replay)
    job = find_replay_job(session, replay.id)
    if job is not None:
        stop_job(session, job)
    return see_other(f"/collections/{collection_id}/replays/{replay_id}")


@router.post("/{replay_id}/resume")
def resume(
    session: DbSession,
    person: Evaluator,
    collection_id: Id,
    replay_id: Id,
) -> Response:
    """Go on with what was stopped or failed."""
    replay = get_replay(session, collection_id, replay_id)
    if resume_replay(session, replay):
        play(session, replay, person)
    return see_other(f"/collections/{collection_id}/replays/{replay_id}")


@router.get("/{replay_id}/{name}")
def download(
    request: Request,
    session: DbSession,
    person: Evaluator,  # noqa: ARG001
    collection_id: Id,
    replay_id: Id,
    name: Literal["report.html", "rounds.csv", "held_out.csv", "summary.csv", "manifest.json"],
) -> Response:
    """One of a replay's files, to keep."""
    replay = get_replay(session, collection_id, replay_id)
    if replay.state != "done":
        raise NotFound("This replay has not ended, so there is no such file yet.")
    file = find_replay_folder(request.app.state.settings, replay.id) / name
    if not file.exists():
        raise NotFound("This replay has no such file: it was played before they were written.")
    return FileResponse(file, filename=f"replay-{replay.id}-{name}")


def describe(
    session: Session, person: Person, collection_id: int, replay_id: int
) -> dict[str, Any]:
    """What every page of one replay shows."""
    replay = get_replay(session, collection_id, replay_id)
    return {
        "person": person,
        "collection": get_collection(session, person, collection_id),
        "replay": replay,
        "left_s": time_left_s(replay, now=datetime.now(UTC)),
    }


def tell_where(session: Session, replay: Replay) -> list[str]:
    """What a replay's filter says, in words."""
    chosen = take_filter(replay.settings.get("where", ()))
    return [chip.words for chip in list_chips(session, chosen)]


def open_run(
    request: Request,
    replay: Replay,
    target: str | None,
    strategy: str | None,
    seed: int | None,
    round_number: int | None,
) -> dict[str, Any]:
    """The run that is asked for, and the round of it: without one the last."""
    settings = request.app.state.settings
    kept = find_kept_run(settings, replay, target=target, strategy=strategy, seed=seed)
    last = len(kept.rounds)
    after = last if round_number is None else round_number
    if not 1 <= after <= last:
        raise NotFound(f"This run has {last} rounds. Choose one of them.")
    run = kept.run
    named = {"target": run.target, "strategy": run.strategy, "seed": run.seed}
    return {"kept": kept, "after": after, "run_query": urlencode(named)}


def tell_moment(request: Request, session: Session, context: dict[str, Any]) -> dict[str, Any]:
    """What would have been said at the round."""
    after = context["after"]
    traced = trace_run(
        session,
        context["replay"],
        context["kept"],
        indexes=request.app.state.indexes,
        rounds=after + 1,  # the next one too: it is what the forecast is of
    )
    told = tell_run_moment(traced, after)
    seen = {image_id for gap in told.gaps for image_id in gap.image_ids}
    return {"told": told, "names": name_images(session, seen)}


def tell_rounds(request: Request, session: Session, context: dict[str, Any]) -> dict[str, Any]:
    """What would have been said over all rounds, and by the stop rules until this one."""
    kept = context["kept"]
    course = find_course(kept)
    if course is None:
        traced = trace_run(session, context["replay"], kept, indexes=request.app.state.indexes)
        course = tell_course(traced)
    return {
        "course": course,
        "plots": plot_course(course, kept.rounds[0].n_target),
        "rules": judge_rules(course, context["after"]),
    }


def render_replays(
    request: Request,
    session: Session,
    person: Person,
    collection: Collection,
    form: dict[str, Any] | None,
    *,
    chosen: Filter = EVERY_IMAGE,
    problem: str | None = None,
) -> Response:
    """The list and the form, as it was filled in; without, as the command line would play."""
    past = list_replays(session, collection.id)
    choices = list_target_choices(session, collection.id)
    usual = {
        **USUAL,
        "targets": [one.name for one in choices if one.size == "usual"],
        "strategies": [RIVAL, DEFAULT_STRATEGY],
    }
    return render(
        request,
        "replays.html",
        status=422 if problem else 200,
        person=person,
        collection=collection,
        replays=past,
        choices=choices,
        usual_sizes=USUAL_SIZES,
        fewest_targets=FEWEST_TARGETS,
        strategies=list_strategies(session, collection.id, request.app.state.indexes),
        form=form or usual,
        **describe_filter(session, person, collection.id, chosen, with_offer=True),
        filters_of={one.id: tell_where(session, one) for one in past},
        most_rounds=MOST_ROUNDS,
        most_seeds=MOST_SEEDS,
        problem=problem,
        known_count=count_known(session, collection.id),
    )
