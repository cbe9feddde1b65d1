"""Browsing a collection, its examples tray, and opening a search with them."""

import re
import secrets
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from pydantic import Field
from sqlalchemy.orm import Session

from app.access import (
    check_sees_people,
    get_collection,
    get_own_search,
    get_photo,
    get_search,
)
from app.adjusting import (
    DEFAULT_ROUND_SIZE,
    DEFAULT_STRATEGY,
    MAX_COUNTS_LENGTH,
    MAX_NAME_LENGTH,
    ROUND_SIZES,
    list_strategies,
    read_search_filter,
)
from app.browsing import (
    IMAGES_PER_PAGE,
    add_image_to_tray,
    add_photo_to_tray,
    describe_image,
    find_by_name,
    find_by_words,
    find_page_of,
    find_similar,
    get_image,
    list_images,
    list_orders,
    list_subfolders,
    list_tray,
    remove_from_tray,
    sample_images,
    suggest_names,
)
from app.collecting import describe_preparation
from app.database import DbSession
from app.deploying import MOST_FOLDERS, may_folders_be_labels, may_see_folders
from app.errors import BadInput, EmbedderMismatch, NotFound, NoWords, RefusedPhoto
from app.filtering import GRID, Filter, Pairs, count_kept, pick_pairs, read_filter
from app.finds import list_found_as
from app.indexes import MAX_WORDS_LENGTH, list_collections_with_words, list_indexes
from app.pages.addresses import (
    LARGEST_ID,
    Id,
    OptionalId,
    PageNumber,
    here,
    local_path,
    own_path,
    see_other,
)
from app.pages.filters import FilterFields, describe_filter
from app.pages.indexes import describe_indexes
from app.pages.remarks import describe_remarks
from app.pages.rendering import (
    file_name,
    find_page_before,
    number,
    render,
    shown_path,
    wants_fragment,
)
from app.reporting import list_examples
from app.searching import find_opened, open_search
from app.security import Searcher, SignedIn
from app.sensitive import read_sight
from app.settings import Settings
from app.tables import Collection, Image, Person, Photo, Search, TrayItem
from app.workers import Readers

SEEDS = 1_000_000
ORDER_WORDS = {
    "path": "By folder and file",
    "name": "By file name",
    "taken": "By time taken",
    "added": "Newest added first",
}
SEARCH_PAGE = re.compile(r"/searches/([0-9]{1,18})(?=/|$)")

FormId = Annotated[int | None, Form(ge=1, le=LARGEST_ID)]
FormIds = Annotated[list[Annotated[int, Field(ge=1, le=LARGEST_ID)]] | None, Form()]
QueryIds = Annotated[list[Annotated[int, Field(ge=1, le=LARGEST_ID)]] | None, Query()]
Photos = Annotated[list[UploadFile], File()]

router = APIRouter(prefix="/collections/{collection_id}")


@router.get("/browse")
def browse(
    request: Request,
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    page: PageNumber = 1,
    sample: Annotated[int | None, Query(ge=0, lt=SEEDS)] = None,
    name: str | None = None,
    like: OptionalId = None,
    photo: OptionalId = None,
    words: Annotated[str, Query(max_length=MAX_WORDS_LENGTH)] = "",
    choose: bool = False,
    filters: bool = False,
    folders: bool = False,
    order: Annotated[str, Query(max_length=10)] = "",
) -> Response:
    """A page of images: in an order, at random, by name, by likeness, or by words.

    A filter's keys and values stand in the address too; with `filters` its form is open, with
    `folders` the list of folders. With `choose` an admin ticks those to remove.
    """
    words = words.strip()
    collection = get_collection(session, person, collection_id)
    query = request.query_params.multi_items()
    typed = tuple(pick_pairs(query))
    chosen, problem = Filter(), None
    try:
        chosen = read_filter(session, collection_id, typed, person=person)
    except BadInput as error:
        problem = str(error)
    with_folders = may_see_folders(session, person, collection_id)
    orders, order = choose_order(session, collection_id, order, with_folders=with_folders)
    listing = list_images(session, collection_id, page=page, chosen=chosen, order=order)
    context: dict[str, Any] = {"mode": "pages", "images": listing.images}
    which = "Filtered images" if chosen else "All images"
    context["heading"] = f"{which}, page {listing.page}"
    if like is not None or photo is not None:
        liked: Image | Photo
        if like is not None:
            check_sees_people(session, person, like)
            liked = get_image(session, like, collection_id=collection_id)
        else:
            liked = get_photo(session, person, photo or 0)
        found = find_similar(
            session,
            collection_id,
            liked,
            chosen=chosen,
            indexes=request.app.state.indexes,
            embedders=request.app.state.embedders,
            settings=request.app.state.settings,
        )
        shown = describe_picture(liked, collection_id, with_folders)
        context |= {"mode": "like", "like": shown, "heading": f"Images like {shown['name']}"}
        context |= {"images": [image for image, _ in found], "similarities": [s for _, s in found]}
    elif name is not None:
        if not with_folders:
            name = file_name(name)
        matches = find_by_name(session, collection_id, name)
        if matches.kind == "exact" and matches.total == 1:
            place = find_page_of(session, matches.images[0], order=orders[0])
            anchor = f"#image-{matches.images[0].id}"
            return see_other(f"/collections/{collection_id}/browse?page={place}{anchor}")
        context |= {"mode": "name", "images": matches.images, "matches": matches}
        context["heading"] = f"File name: {name}"
        if matches.kind == "nearest":
            context["nearest_page"] = find_page_of(session, matches.images[0], order=orders[0])
    elif words:
        context |= {"mode": "words", "heading": f"Images that fit “{words}”", "images": []}
        try:
            fitting = find_by_words(
                session,
                collection_id,
                words,
                page=page,
                chosen=chosen,
                indexes=request.app.state.indexes,
                embedders=request.app.state.embedders,
            )
        except NoWords as error:
            context["no_words"] = str(error)
        else:
            context |= {"fitting": fitting, "images": fitting.images}
            context["similarities"] = fitting.similarities
    elif sample is not None:
        images = sample_images(session, collection_id, seed=sample, chosen=chosen)
        context |= {"mode": "sample", "images": images, "heading": "Images at random"}
    return render(
        request,
        "browse.html",
        status=422 if problem else 200,
        person=person,
        collection=collection,
        listing=listing,
        problem=problem,
        **describe_filter(
            session,
            person,
            collection_id,
            chosen,
            with_offer=filters or problem is not None,
            typed=typed if problem else None,
        ),
        **describe_orders(orders, order),
        **describe_folders(session, collection_id, chosen, order, is_open=folders and with_folders),
        per_page=IMAGES_PER_PAGE,
        name=name or "",
        words=words,
        words_query=urlencode({"words": words}),
        knows_words=any(one.knows_words for one in list_indexes(session, collection_id)),
        max_words_length=MAX_WORDS_LENGTH,
        next_seed=secrets.randbelow(SEEDS),
        choosing=choose and person.role == "admin",
        choose_query=urlencode(
            [(key, value) for key, value in request.query_params.multi_items() if key != "choose"]
        ),
        preparation=describe_preparation(session, collection, now=datetime.now(UTC)),
        **({"similarities": []} | context),
        **describe_tray(session, person, collection, here(request)),
    )


def choose_order(
    session: Session, collection_id: int, order: str, *, with_folders: bool
) -> tuple[list[str], str]:
    """The orders to choose among, and the one that is asked for, else the usual one."""
    orders = list_orders(session, collection_id, with_folders=with_folders)
    return orders, order if order in orders else orders[0]


def describe_orders(orders: list[str], order: str) -> dict[str, Any]:
    """The orders to choose among; the usual one does not stand in addresses."""
    return {
        "orders": {one: ORDER_WORDS[one] for one in orders},
        "order": order,
        "order_query": "" if order == orders[0] else urlencode({"order": order}),
    }


def describe_folders(
    session: Session, collection_id: int, chosen: Filter, order: str, *, is_open: bool
) -> dict[str, Any]:
    """The folders inside the one that is looked at, and those that it lies in, with addresses."""
    others = [*chosen.without("folder", GRID), ("order", order), ("folders", "1")]

    def address(folder: str) -> str:
        return urlencode([*others, *([("folder", folder)] if folder else [])])

    if not is_open:
        return {"folders": None, "folders_query": address(chosen.first("folder"))}
    here = chosen.first("folder")
    parts = here.split("/") if here else []
    rest = Filter(chosen.without("folder"))
    inside = list_subfolders(session, collection_id, here, chosen=rest)
    return {
        "folders": [
            (name, count, address(f"{here}/{name}" if here else name)) for name, count in inside
        ],
        "folders_above": [
            (part, address("/".join(parts[: place + 1]))) for place, part in enumerate(parts)
        ],
        "folders_query": address(""),
        "most_folders": MOST_FOLDERS,
    }


@router.get("/names")
def names(
    request: Request, session: DbSession, person: SignedIn, collection_id: Id, name: str = ""
) -> Response:
    """Suggestions while a file name is typed."""
    if may_see_folders(session, person, collection_id):
        suggestions = suggest_names(session, collection_id, name)
    else:
        paths = suggest_names(session, collection_id, file_name(name))
        suggestions = list(dict.fromkeys(file_name(path) for path in paths))
    return render(request, "_names.html", suggestions=suggestions)


@router.get("/images/{image_id}")
def image_page(
    request: Request,
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    image_id: Id,
    search: OptionalId = None,
    order: Annotated[str, Query(max_length=10)] = "",
) -> Response:
    """One image, large, with what is known of it.

    Who comes from a `search` is led back there, and sees no folders that may tell the answer.
    """
    collection = get_collection(session, person, collection_id)
    came_from = None if search is None else get_search(session, person, search)
    if came_from is not None and came_from.collection_id != collection_id:
        raise NotFound("There is no such image in that search's collection.")
    pairs = pick_pairs(request.query_params.multi_items())
    chosen = read_filter(session, collection_id, pairs, person=person)
    with_folders = may_see_folders(session, person, collection_id)
    orders, order = choose_order(session, collection_id, order, with_folders=with_folders)
    details = describe_image(session, collection_id, image_id, chosen=chosen, order=order)
    kept = [*chosen.without(GRID), *([("order", order)] if order != orders[0] else [])]
    tray = describe_tray(session, person, collection, here(request))
    if came_from is not None:
        tray["with_folders"] = not may_folders_be_labels(session, collection_id)
    return render(
        request,
        "collection_image.html",
        person=person,
        collection=collection,
        details=details,
        found_as=list_found_as(session, person, details.image),
        search=came_from,
        sight=read_sight(session, person, collection_id),
        filter_query=urlencode(kept),
        kept_query=urlencode([*kept, *([("search", search)] if search else [])]),
        **describe_remarks(
            session,
            person,
            details.image,
            may_write=person.role != "viewer",
            return_to=here(request),
        ),
        **tray,
    )


@router.post("/tray")
def add_to_tray(
    request: Request,
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    image_id: FormId = None,
    photo: Photos = [],  # noqa: B006 - FastAPI copies it
    return_to: Annotated[str, Form()] = "",
    part: str = "tray",
    image_ids: FormIds = None,
    photo_ids: FormIds = None,
    opening_key: Annotated[str | None, Form(max_length=64)] = None,
) -> Response:
    """Pick an image, or keep photos from disk, as examples. Answers with the tray.

    With `part=examples` it answers with the examples of the page that opens a search (the form with
    that `opening_key`); the ticked ones (`image_ids`, `photo_ids`) stay ticked.
    """
    collection = get_collection(session, person, collection_id)
    if image_id is not None:
        add_image_to_tray(session, person, collection_id, image_id)
    state = request.app.state
    added = keep_photos(
        session, person, collection_id, photo, state.settings, state.readers, opening_key
    )
    if not wants_fragment(request):
        return back(collection_id, return_to, image_id)
    if part == "examples":
        ticked = {("image", one) for one in image_ids or []}
        ticked |= {("photo", one) for one in [*(photo_ids or []), *added]}
        examples = list_example_choices(session, person, collection_id, ticked)
        return render(request, "_examples.html", collection=collection, examples=examples, wrong={})
    changed = [image_id] if image_id else []
    return render_tray(request, session, person, collection, return_to, changed)


@router.post("/tray/remove")
def take_from_tray(
    request: Request,
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    image_id: FormId = None,
    photo_id: FormId = None,
    everything: Annotated[str, Form(alias="all")] = "",
    return_to: Annotated[str, Form()] = "",
) -> Response:
    """Take one example out, or all of them."""
    collection = get_collection(session, person, collection_id)
    image_ids = [image_id] if image_id else []
    photo_ids = [photo_id] if photo_id else []
    if everything:
        tray = list_tray(session, person, collection_id)
        image_ids = [item.image_id for item in tray if item.image_id]
        photo_ids = [item.photo_id for item in tray if item.photo_id]
    remove_from_tray(session, person, collection_id, image_ids=image_ids, photo_ids=photo_ids)
    if wants_fragment(request):
        return render_tray(request, session, person, collection, return_to, image_ids)
    return back(collection_id, return_to, image_id)


@router.get("/searches/new")
def new_search(
    request: Request,
    session: DbSession,
    person: Searcher,
    collection_id: Id,
    image: OptionalId = None,
    photo: QueryIds = None,
    words: Annotated[str, Query(max_length=MAX_WORDS_LENGTH)] = "",
    opening_key: Annotated[str, Query(max_length=64)] = "",
    like: OptionalId = None,
) -> Response:
    """The page that opens a search: with this image, these words, or what is in the tray.

    A photo that was added in such a form is ticked there, and in others that name it (`photo`).

    The form's key stands in its address: who comes back by the browser's Back from the search that
    it opened finds no empty one, which would open a second search, but one filled in like that
    search (`like`), with the way to it.
    """
    collection = get_collection(session, person, collection_id)
    opened = find_opened(session, person, opening_key)
    if opened is not None or not opening_key:
        return see_other(address_new_form(request, opened))
    if like is not None:
        known = session.get(Search, like)
        if known is not None and known.owner_id == person.id and known.deleted_at is not None:
            return see_other(request.url.path)  # nothing is left to go on with
        return render_form_again(request, session, person, collection, opening_key, like)
    tray = list_tray(session, person, collection_id)
    ticked = {key_of(item) for item in tray if item.opening_key == opening_key}
    if image is not None:
        check_sees_people(session, person, image)
        get_image(session, image, collection_id=collection_id)
        ticked.add(("image", image))
    else:
        named = photo or []
        ticked |= {
            key_of(item) for item in tray if item.opening_key is None or item.photo_id in named
        }
    pairs = pick_pairs(request.query_params.multi_items())
    chosen = read_filter(session, collection_id, pairs, person=person)
    form = {
        "target_name": words,
        "words": words,
        "counts_as_yes": "",
        "round_size": DEFAULT_ROUND_SIZE,
        "strategy": DEFAULT_STRATEGY,
        "embedder": "",
    }
    return render_new_search(
        request,
        session,
        person,
        collection,
        opening_key,
        ticked=ticked,
        form=form,
        chosen=chosen,
    )


@router.post("/searches")
def add_search(
    request: Request,
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    target_name: Annotated[str, Form()] = "",
    words: Annotated[str, Form()] = "",
    counts_as_yes: Annotated[str, Form()] = "",
    round_size: Annotated[str, Form()] = "",
    strategy: Annotated[str, Form()] = DEFAULT_STRATEGY,
    embedder: Annotated[str, Form()] = "",
    image_ids: FormIds = None,
    photo_ids: FormIds = None,
    photo: Photos = [],  # noqa: B006 - FastAPI copies it
    opening_key: Annotated[str | None, Form(max_length=64)] = None,
    came_from: Annotated[str, Form(max_length=2000)] = "",
    pairs: FilterFields = (),
) -> Response:
    """Open the search, or show the form again with what was typed and what is wrong with it."""
    collection = get_collection(session, person, collection_id)
    settings = request.app.state.settings
    wrong: dict[str, str] = {}
    problem = None
    photo_ids = list(photo_ids or [])
    try:
        photo_ids += keep_photos(
            session,
            person,
            collection_id,
            photo,
            settings,
            request.app.state.readers,
            opening_key,
        )
    except RefusedPhoto as error:
        wrong["examples"] = str(error)
    if not target_name.strip():
        wrong["target_name"] = "Give it a name, so that you find this search again."
    if not (image_ids or photo_ids or words.strip() or wrong):
        wrong["examples"] = (
            "Tick or add at least one example: a search begins with one. Where the collection "
            "knows words, they do as well."
        )
    if not (round_size.isdecimal() and int(round_size[:9]) in ROUND_SIZES):
        wrong["round_size"] = f"A whole number from {ROUND_SIZES[0]} to {ROUND_SIZES[-1]}."
    chosen = Filter()
    try:
        chosen = read_filter(session, collection_id, pairs, person=person)
        if chosen and not count_kept(session, collection_id, chosen).count:
            wrong["filter"] = "No image is left with this filter. Take a part of it away."
    except BadInput as error:
        wrong["filter"] = str(error)
    if not wrong:
        try:
            with session.begin_nested():  # nothing of a search that could not be opened stays
                search = open_search(
                    session,
                    person=person,
                    collection_id=collection_id,
                    target_name=target_name,
                    counts_as_yes=counts_as_yes,
                    strategy=strategy,
                    round_size=int(round_size),
                    words=words,
                    image_ids=image_ids or [],
                    photo_ids=photo_ids,
                    embedder=embedder or None,
                    chosen=chosen,
                    indexes=request.app.state.indexes,
                    embedders=request.app.state.embedders,
                    settings=settings,
                    opening_key=opening_key,
                )
            return see_other(f"/searches/{search.id}")
        except NoWords as error:
            wrong["words"] = str(error)
        except (BadInput, EmbedderMismatch) as error:
            problem = str(error)
    form = {
        "target_name": target_name,
        "words": words,
        "counts_as_yes": counts_as_yes,
        "round_size": round_size,
        "strategy": strategy,
        "embedder": embedder,
    }
    ticked = {("image", one) for one in image_ids or []} | {("photo", one) for one in photo_ids}
    return render_new_search(
        request,
        session,
        person,
        collection,
        opening_key or uuid.uuid4().hex,
        ticked=ticked,
        form=form,
        chosen=chosen,
        typed=pairs if "filter" in wrong else None,
        came_from=came_from,
        wrong=wrong,
        problem=problem,
        status=422,
    )


def address_new_form(request: Request, opened: Search | None) -> str:
    """The address of a form with a key of its own, filled in like the search that was opened."""
    asked = [pair for pair in request.query_params.multi_items() if pair[0] != "opening_key"]
    if opened is not None and opened.deleted_at is None:
        asked = [("like", str(opened.id))]
    return f"{request.url.path}?{urlencode([*asked, ('opening_key', uuid.uuid4().hex)])}"


def render_form_again(
    request: Request,
    session: Session,
    person: Person,
    collection: Collection,
    opening_key: str,
    search_id: int,
) -> Response:
    """The form filled in like a search that it opened."""
    search = get_own_search(session, person, search_id)
    if search.collection_id != collection.id:
        raise NotFound("There is no such search in this collection.")
    examples = list_examples(session, search)
    form = {
        "target_name": search.target_name,
        "words": "".join(one.words for one in examples if one.words),
        "counts_as_yes": search.counts_as_yes,
        "round_size": search.round_size,
        "strategy": search.strategy,
        "embedder": search.embedder,
    }
    images = {("image", one.image_id) for one in examples if one.image_id}
    photos = {("photo", one.photo_id) for one in examples if one.photo_id}
    return render_new_search(
        request,
        session,
        person,
        collection,
        opening_key,
        ticked=images | photos,
        form=form,
        chosen=read_search_filter(search),
        opened=search,
    )


def render_new_search(
    request: Request,
    session: Session,
    person: Person,
    collection: Collection,
    opening_key: str,
    *,
    ticked: set[tuple[str, int]],
    form: dict[str, Any],
    chosen: Filter,
    typed: Pairs | None = None,
    came_from: str | None = None,
    wrong: dict[str, str] | None = None,
    problem: str | None = None,
    opened: Search | None = None,
    status: int = 200,
) -> Response:
    """The form as it was filled in, with what is wrong beside each field."""
    strategies = list_strategies(session, collection.id, request.app.state.indexes)
    others = [choice for choice in strategies if choice.name != DEFAULT_STRATEGY]
    known = describe_indexes(session, collection, request.app.state.settings)
    able = [choice for choice in known["indexes"] if choice.knows_words]
    usual = (able or known["indexes"])[:1]
    return render(
        request,
        "search_new.html",
        status=status,
        person=person,
        collection=collection,
        **describe_filter(session, person, collection.id, chosen, with_offer=True, typed=typed),
        preparation=describe_preparation(session, collection, now=datetime.now(UTC)),
        examples=list_example_choices(session, person, collection.id, ticked),
        strategies=strategies,
        more_strategies=[choice for choice in others if not choice.for_evaluators],
        evaluator_strategies=[choice for choice in others if choice.for_evaluators],
        default_strategy=DEFAULT_STRATEGY,
        round_sizes=ROUND_SIZES,
        max_name_length=MAX_NAME_LENGTH,
        max_counts_length=MAX_COUNTS_LENGTH,
        max_words_length=MAX_WORDS_LENGTH,
        form=form | {"embedder": form["embedder"] or "".join(one.embedder for one in usual)},
        knows_words=bool(able),
        collections_with_words=[] if able else list_collections_with_words(session, person),
        **known,
        wrong=wrong or {},
        problem=problem,
        opening_key=opening_key,
        opened=opened,
        cancel=find_way_back(
            session, person, collection.id, came_from or find_page_before(request)
        ),
    )


def find_way_back(
    session: Session, person: Person, collection_id: int, came_from: str | None
) -> str:
    """The page of this collection, or of a search in it, that led to the form; else its own."""
    own = f"/collections/{collection_id}"
    path = local_path(came_from or "").partition("?")[0]
    if path in (f"{own}/searches", f"{own}/searches/new"):
        return own  # the form itself
    if path == own or path.startswith(f"{own}/"):
        return came_from or own
    if found := SEARCH_PAGE.match(path):
        try:
            search = get_search(session, person, int(found[1]))
        except NotFound:
            return own
        if search.collection_id == collection_id:
            return came_from or own
    return own


def list_example_choices(
    session: Session, person: Person, collection_id: int, ticked: set[tuple[str, int]]
) -> list[dict[str, Any]]:
    """The ticked images and photos, then the rest of the tray."""
    tray: dict[tuple[str, int], Image | Photo] = {}
    for item in list_tray(session, person, collection_id):
        if item.image:
            tray["image", item.image.id] = item.image
        elif item.photo:
            tray["photo", item.photo.id] = item.photo
    outside: dict[tuple[str, int], Image | Photo] = {}
    for kind, own_id in sorted(ticked - set(tray)):
        if kind == "image":
            outside[kind, own_id] = get_image(session, own_id, collection_id=collection_id)
        else:
            outside[kind, own_id] = get_photo(session, person, own_id)
    with_folders = may_see_folders(session, person, collection_id)
    return [
        describe_picture(picture, collection_id, with_folders) | {"ticked": key in ticked}
        for key, picture in (outside | tray).items()
    ]


def key_of(item: TrayItem) -> tuple[str, int]:
    """An example of the tray as the forms name it."""
    return ("image", item.image_id) if item.image_id else ("photo", item.photo_id or 0)


def describe_picture(
    picture: Image | Photo, collection_id: int, with_folders: bool
) -> dict[str, Any]:
    """What a template needs to show an image or a photo alike."""
    size = {"width": picture.width, "height": picture.height}
    if isinstance(picture, Photo):
        href = f"/photos/{picture.id}/large"
        small = f"/photos/{picture.id}/small"
        ids = {"image_id": None, "photo_id": picture.id}
        return {**size, **ids, "name": picture.name, "href": href, "small": small}
    href = f"/collections/{collection_id}/images/{picture.id}"
    small = f"/images/{picture.id}/small"
    ids = {"image_id": picture.id, "photo_id": None}
    name = shown_path(picture.path, with_folders)
    return {**size, **ids, "name": name, "href": href, "small": small}


def describe_tray(
    session: Session, person: Person, collection: Collection, return_to: str
) -> dict[str, Any]:
    """What the tray at the bottom of a page needs."""
    tray: list[TrayItem] = list_tray(session, person, collection.id)
    return {
        "tray": tray,
        "with_folders": may_see_folders(session, person, collection.id),
        "picked_ids": {item.image_id for item in tray if item.image_id},
        "changed_image_ids": [],
        "return_to": return_to,
    }


def render_tray(
    request: Request,
    session: Session,
    person: Person,
    collection: Collection,
    return_to: str,
    changed_image_ids: list[int],
) -> Response:
    """The tray, and the pick buttons that it changes elsewhere on the page."""
    context = describe_tray(session, person, collection, return_to)
    context["changed_image_ids"] = changed_image_ids
    return render(request, "_tray.html", person=person, collection=collection, **context)


def keep_photos(
    session: Session,
    person: Person,
    collection_id: int,
    photos: list[UploadFile],
    settings: Settings,
    readers: Readers,
    opening_key: str | None = None,
) -> list[int]:
    """Put uploaded photos into the tray; their ids. A form without a file sends an empty one."""
    kept = []
    for upload in photos:
        if upload.filename:
            name = upload.filename.replace("\\", "/").rsplit("/", 1)[-1].replace("\x00", "")
            if (upload.size or 0) > settings.max_photo_mb * 1e6:  # before it is read into memory
                limit = f"{number(settings.max_photo_mb)} MB"
                raise RefusedPhoto(f"{name} is larger than {limit}. Save it smaller and try again.")
            data = upload.file.read()
            photo = add_photo_to_tray(
                session,
                person,
                collection_id,
                name=name,
                data=data,
                settings=settings,
                readers=readers,
                opening_key=opening_key,
            )
            kept.append(photo.id)
    return kept


def back(collection_id: int, return_to: str, image_id: int | None) -> Response:
    """Back to the page the form stood on, at the image it was about."""
    own = f"/collections/{collection_id}/"
    anchor = f"#image-{image_id}" if image_id else ""
    return see_other(own_path(return_to, own, f"{own}browse") + anchor)
