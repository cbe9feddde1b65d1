"""The `rarefind` commands as a person types them: what they print, what they end with."""

import csv
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from inspect import signature
from urllib.parse import urlsplit

import PIL.Image
import pytest
import typer
from sqlalchemy import select, text
from typer.testing import CliRunner, Result

from app import evaluation, searching
from app.cli import app
from app.cli.collections import collection_metadata
from app.cli.searches import EXPORTS, MOST_HELD_OUT
from app.detecting import USUAL_THRESHOLD
from app.evaluation import USUAL_SIZES, choose_strategies
from app.exports.offers import FORMATS
from app.importing import list_names
from app.indexing import DEFAULT_EMBEDDER, LoadedEmbedders, OpenIndexes
from app.jobs import add_job
from app.labelling import keep_labels, plan_labels
from app.open_sets import bring_set
from app.security import get_local_person
from app.settings import Settings
from app.tables import (
    ApiToken,
    AuditEvent,
    Collection,
    Image,
    ImageIndex,
    Job,
    OracleLabel,
    Person,
    Search,
)
from app.workers import Readers
from tests.factories import make_collection, make_image_file, make_images, make_index, make_person
from tests.stand_ins import HashEmbedder, make_tiny_clip, register


@pytest.fixture
def rarefind(monkeypatch, settings, own_database_url):
    """Runs `rarefind …` on a data folder and a database of the test's own."""
    monkeypatch.setenv("RAREFIND_HOME", str(settings.home))
    monkeypatch.setenv("DATABASE_URL", own_database_url)
    monkeypatch.setenv("RAREFIND_WORKERS", "1")
    register(monkeypatch, HashEmbedder())

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def photos(tmp_path):
    """Three photos of newts and toads, one of them twice, and a file that is no image."""
    folder = tmp_path / "photos"
    make_image_file(folder / "newt" / "1.jpg", 1)
    make_image_file(folder / "newt" / "2.jpg", 2)
    make_image_file(folder / "toad" / "3.jpg", 3)
    make_image_file(folder / "toad" / "copy.jpg", 3)
    (folder / "notes.txt").write_text("rain")
    return folder


def table_of(result: Result) -> dict[str, str]:
    """The lines that end in a number, by what stands before it."""
    rows = (line.rsplit(maxsplit=1) for line in result.stdout.splitlines() if line.strip())
    return {row[0].strip(): row[1] for row in rows if len(row) == 2}


def add(rarefind, *arguments: object) -> Result:
    return rarefind("collection", "add", *arguments, "--embedder", "hash")


# --- collection add -----------------------------------------------------------------------------


def test_images_are_added_once(rarefind, photos, own_database):
    first = add(rarefind, "Pond", photos, "--labels", "folders")
    assert first.exit_code == 0, first.output
    counts = table_of(first)
    assert (counts["imported"], counts["known already"], counts["duplicates"]) == ("3", "0", "1")
    assert counts["refused: not an image"] == "1"
    assert "refused notes.txt: " in first.stdout
    assert counts["labelled (for evaluators)"] == "3"
    with own_database.session() as session:
        (collection,) = session.scalars(select(Collection))
        assert sorted(session.scalars(select(OracleLabel.label))) == ["newt", "newt", "toad"]
        assert collection.name == "Pond"

    again = add(rarefind, "Pond", photos)
    assert again.exit_code == 1
    counts = table_of(again)
    assert (counts["imported"], counts["duplicates"]) == ("0", "0")
    assert counts["known already"] == "4"

    make_image_file(photos / "newt" / "4.jpg", 4)
    more = add(rarefind, "Pond", photos)
    assert more.exit_code == 0
    assert table_of(more)["imported"] == "1"


def test_what_is_next_is_said_once_images_were_added(rarefind, photos):
    first = add(rarefind, "Pond", photos)
    lacks, following = first.stdout.splitlines()[-2:]
    assert lacks.startswith("3 of 3 images have no time") and "collection metadata" in lacks
    assert following == "“rarefind serve” opens it, to search."
    assert "rarefind serve" not in add(rarefind, "Pond", photos).stdout  # nothing new


def test_known_labels_come_later_are_told_first_and_written_again(
    rarefind, photos, own_database, tmp_path
):
    assert add(rarefind, "Pond", photos).exit_code == 0
    shown = table_of(rarefind("collection", "labels", "Pond"))
    assert (shown["images"], shown["with a known label"], shown["without"]) == ("3", "0", "3")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\nnewt/1.jpg,newt\n2.jpg,\nlost.jpg,newt\n")
    refused = rarefind("collection", "labels", "Pond", labels, "--yes")
    assert refused.exit_code == 1 and "Nothing was changed" in refused.stderr
    assert "line 4, “lost.jpg”: the collection has no such image" in refused.stdout
    assert rarefind("collection", "labels", "Pond", labels, "--leave-out").exit_code == 1  # not yes
    with own_database.session() as session:
        assert session.scalar(select(OracleLabel)) is None
    kept = rarefind("collection", "labels", "Pond", labels, "--leave-out", "--yes")
    assert kept.exit_code == 0, kept.output
    assert table_of(kept)["images that had no label"] == "2"
    assert table_of(kept)["of them showing no target"] == "1"
    assert "1 image without a known label: “toad/3.jpg”" in " ".join(kept.stdout.split())
    labels.write_text("file,label\n3.jpg,toad\n1.jpg,frog\n")
    written = tmp_path / "known.csv"
    kept = rarefind("collection", "labels", "Pond", labels, "--yes", "--out", written)
    assert "newt/1.jpg: newt → frog" in kept.stdout and "frog: 0 → 1 images" in kept.stdout
    lines = ["file,label", "newt/1.jpg,frog", "newt/2.jpg,", "toad/3.jpg,toad"]
    assert written.read_text().splitlines() == lines
    broken = rarefind("collection", "labels", "Pond", photos / "notes.txt")
    assert broken.exit_code == 1 and "has no column file" in broken.stderr


@pytest.mark.parametrize("meanwhile", [None, "frog"])
def test_nobody_waits_while_it_is_asked_whether_labels_are_kept(
    rarefind, photos, own_database, tmp_path, monkeypatch, meanwhile
):
    assert add(rarefind, "Pond", photos).exit_code == 0
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\nnewt/1.jpg,newt\n")

    def agree(question, *, abort):
        with own_database.session() as session:
            session.execute(text("SET LOCAL lock_timeout = '2s'"))
            collection = session.scalars(select(Collection)).one()
            other = (
                f"file,label\nnewt/1.jpg,{meanwhile}\n" if meanwhile else "file,label\n1.jpg,x\n"
            )
            plan = plan_labels(session, collection, name="other.csv", data=other.encode())
            if meanwhile:
                keep_labels(session, collection, plan, person=None)

    monkeypatch.setattr(typer, "confirm", agree)
    done = rarefind("collection", "labels", "Pond", labels)
    if meanwhile:
        assert done.exit_code == 1 and "changed meanwhile. Nothing was kept" in done.stderr
    else:
        assert done.exit_code == 0, done.output
    with own_database.session() as session:
        assert session.scalars(select(OracleLabel.label)).all() == [meanwhile or "newt"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--strategy", "best"), "There is no strategy “best”"),
        (("--out", "/etc/passwd"), "/etc/passwd is a file"),
        (("--out", "/etc/passwd/replay"), "can't be made"),
        (("--stop", "luck"), "There is no stop rule “luck”"),
        (("--where", "month=7"), "keeps no image of “Pond”"),
        ((), "1 image without a known label: “toad/3.jpg”"),
    ],
)
def test_what_is_cheap_to_check_is_told_before_what_the_labels_lack(
    rarefind, photos, tmp_path, options, sentence
):
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\n1.jpg,newt\n2.jpg,newt\n")
    added = add(rarefind, "Pond", photos, "--labels", labels)
    assert "1 image without a known label" in added.stdout
    out = () if "--out" in options else ("--out", tmp_path / "replay")
    refused = rarefind("replay", "Pond", "--target", "newt", *out, *options)
    assert refused.exit_code == 1 and sentence in refused.stderr
    assert not (tmp_path / "replay").exists()


def test_collection_of_uploads_stays_one_whatever_is_added(rarefind, photos, own_database):
    with own_database.session() as session:
        make_collection(session, name="Pond").source = ""
    add(rarefind, "Pond", photos)
    listed = " ".join(rarefind("collection", "list").stdout.split())
    assert "uploaded from a browser" in listed and "photos" not in listed


def test_missing_source_makes_no_collection(rarefind, tmp_path, own_database):
    result = add(rarefind, "Pond", tmp_path / "[/nowhere]")
    assert result.exit_code == 1
    assert f"There is no folder or zip file at {tmp_path}/[/nowhere]." in result.stderr
    assert result.stdout == ""
    with own_database.session() as session:
        assert session.scalar(select(Collection)) is None


def test_unknown_embedder_is_refused_before_anything_is_imported(rarefind, photos, own_database):
    result = rarefind("collection", "add", "Pond", photos, "--embedder", "eagle-eye")
    assert result.exit_code == 1
    assert "There is no embedder eagle-eye. There are: " in result.stderr
    with own_database.session() as session:
        assert session.scalar(select(Collection)) is None


def test_embedders_are_listed_with_what_they_take(rarefind, settings, no_hub):
    def rows() -> dict[str, str]:
        lines = rarefind("embedders").stdout.splitlines()
        starts = [number for number, line in enumerate(lines) if line[:1].isalnum()]
        ends = [*starts[1:], len(lines)]
        joined = {
            lines[a].split()[0]: " ".join(lines[a:b]) for a, b in zip(starts, ends, strict=True)
        }
        return {name: " ".join(text.split()) for name, text in joined.items()}

    known = rows()
    assert re.search(r"no 1,280 included", known["efficientnet-lite0"])
    assert re.search(r"yes 512 to fetch.*605 MB", known["clip-b32"])
    assert re.search(r"no 384 to fetch.*not.*measured", known["dinov3-s16"])
    listed = rarefind("embedders").stdout
    assert f"{settings.weights_folder}:" in listed
    file = "timm/vit_small_patch16_dinov3.lvd1689m/model.safetensors"
    assert f"  {file}\n" in listed
    (settings.weights_folder / file).parent.mkdir(parents=True)
    (settings.weights_folder / file).touch()
    assert re.search(r"no 384 on disk", rows()["dinov3-s16"])
    assert f"  {file}\n" not in rarefind("embedders").stdout


def test_missing_weights_stop_it_before_anything_is_imported(
    rarefind, photos, own_database, settings, no_hub
):
    result = rarefind("collection", "add", "Pond", photos, "--embedder", "bioclip-2")
    assert result.exit_code == 1
    assert result.stderr.startswith("That embedder can't be used: bioclip-2 needs open_clip_model")
    assert f"put it into {settings.weights_folder}/imageomics/bioclip-2." in result.stderr
    with own_database.session() as session:
        assert session.scalar(select(Collection)) is None


def test_collection_is_prepared_with_a_model_by_its_place(rarefind, photos, own_database, tmp_path):
    name = make_tiny_clip(tmp_path / "tiny")
    result = rarefind("collection", "add", "Pond", photos, "--embedder", name)
    assert result.exit_code == 0, result.output
    with own_database.session() as session:
        [index] = session.scalars(select(ImageIndex))
    assert (index.embedder, index.state, index.knows_words) == (name, "ready", True)


def test_collections_are_listed_with_their_state(rarefind, photos):
    assert "There is no collection yet" in rarefind("collection", "list").stdout
    add(rarefind, "Pond [north]", photos)
    listed = rarefind("collection", "list").stdout
    assert re.search(r"^\s*1\s+Pond \[north\]\s+3\s+ready\s+\S", listed, re.M)


def test_collections_are_called_by_name_or_number_and_listed_where_there_is_no_such(
    rarefind, photos, own_database, tmp_path
):
    listed, table = tmp_path / "list.txt", tmp_path / "table.csv"
    listed.write_text("toad/3.jpg\n")
    table.write_text("file,age\ntoad/3.jpg,2\n")
    calls = {
        ("collection", "metadata"): (table,),
        ("collection", "group"): (),
        ("collection", "remove-images"): ("--list", listed, "--yes"),
        ("collection", "put-back"): ("--list", listed),
        ("index", "build"): ("--embedder", "hash"),
        ("replay",): ("--out", tmp_path / "out"),
    }

    def call(command: tuple[str, ...], called: str) -> Result:
        return rarefind(*command, called, *calls[command])

    first = "There is no collection “Pond”: there is none yet. Add one: rarefind collection add"
    for command in calls:
        none = call(command, "Pond")
        assert none.exit_code == 1 and first in none.stderr
    add(rarefind, "Pond", photos)
    for command in calls:
        unknown = call(command, "2")
        assert unknown.exit_code == 1
        assert "There is no collection “2”. There are: 1 Pond." in unknown.stderr
    for command in list(calls)[:-1]:
        assert call(command, "1").exit_code == 0, command
    assert "3 images without a known label" in call(("replay",), " 1 ").stderr
    with own_database.session() as session:
        for number in range(2, 14):
            make_collection(session, name=f"Site {number}")
    many = call(("collection", "group"), "Lake").stderr
    assert "1 Pond, 2 Site 2, " in many and many.endswith("10 Site 10, and 3 more.\n")


def test_a_name_of_digits_goes_before_a_number_and_is_no_number_to_what_adds(
    rarefind, photos, own_database
):
    assert "Adding to" not in add(rarefind, "Pond", photos / "newt").stdout
    added = add(rarefind, "1", photos / "toad")  # the name of a site, not the first collection
    assert "Adding to" not in added.stdout and table_of(added)["imported"] == "1"
    with own_database.session() as session:
        assert list_names(session, get_local_person(session)) == {1: "Pond", 2: "1"}
    again = add(rarefind, "1", photos)
    assert "Adding to collection 2, “1”." in again.stdout and table_of(again)["imported"] == "2"
    unlabelled = rarefind("replay", "1", "--out", "out").stderr
    assert "3 images without a known label" in unlabelled, "those of “1”, Pond has 2"


# A fresh interpreter that runs commands, one a line, and then names what heavy things it imported.
STARTS = """
import shlex, sys
from typer.testing import CliRunner
from app.cli import app

for line in sys.stdin:
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == int(sys.argv[1]), line + result.output
print(*{"faiss", "scipy", "sklearn", "sqlalchemy", "fastapi", "torch"} & sys.modules.keys())
"""


def import_for(commands: list[str], *, exit_code: int) -> set[str]:
    """The heavy things that are imported for these commands."""
    done = subprocess.run(
        [sys.executable, "-c", STARTS, str(exit_code)],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def list_commands(command=None, called: tuple[str, ...] = ()) -> dict:
    """Every command there is, by what is typed after `rarefind`."""
    command = command or typer.main.get_command(app)
    commands = {" ".join(called): command}
    for name, part in getattr(command, "commands", {}).items():
        commands |= list_commands(part, (*called, name))
    return commands


def test_help_of_every_command_imports_nothing_heavy():
    commands = list_commands()
    assert {"", "serve", "collection add", "search import"} <= commands.keys()
    assert import_for([f"{one} --help" for one in commands], exit_code=0) == set()


def test_what_is_wrong_with_what_was_typed_is_said_before_anything_heavy_is_imported():
    wrong = [
        "bird",
        "export",
        "export 99 --format xyz",
        "collection add Pond",
        "collection add torchvision:MNIST --labels folders",
        "collection group Pond --none --gap 5",
        "collection metadata Pond table.csv --threshold 3",
        "replay --out out",
        "replay Pond --out out --rounds many",
    ]
    assert import_for(wrong, exit_code=2) == set()


def test_commands_that_ask_the_database_alone_import_no_models(rarefind, tmp_path):
    commands = ["collection list", "user list", "token list", "link", "embedders"]
    commands.append(f"backup {tmp_path / 'backup'}")
    assert import_for(commands, exit_code=0) == {"fastapi", "sqlalchemy"}


def test_help_says_in_a_sentence_what_everything_is_and_in_capitals_what_to_give(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    literal = r"(folders|faiss|milvus:|\.json|\.npy)"
    for called, command in list_commands().items():
        if command.hidden:
            continue
        shown = CliRunner().invoke(app, [*called.split(), "--help"]).stdout
        assert not re.search(r"<[a-z]|…|\.\.\.", shown.replace("COMMAND [ARGS]...", "")), shown
        assert command.help[-1] == "."
        for one in command.params:
            where = f"{called}: {one.name}"
            assert re.fullmatch(r"([A-Z“]|csv).*[^.]\.", one.help), where
            if getattr(one, "is_flag", False):
                assert one.metavar is None, where
            else:
                assert re.fullmatch(r"[A-Z|:=\[\] ]+", re.sub(literal, "", one.metavar)), where


def test_what_help_says_of_usual_values_is_so(rarefind):
    def shown(*command: str) -> str:
        return " ".join(rarefind(*command, "--help").stdout.split())

    assert signature(collection_metadata).parameters["threshold"].default == USUAL_THRESHOLD
    assert DEFAULT_EMBEDDER in shown("collection", "add")
    usual = {name: field.default for name, field in Settings.model_fields.items()}
    for name in ("host", "port", "processes"):
        assert f"RAREFIND_{name.upper()}, else {usual[name]}" in shown("serve")
    assert MOST_HELD_OUT == evaluation.MOST_HELD_OUT
    assert f"from {USUAL_SIZES[0]} to {USUAL_SIZES[1]}." in shown("replay")
    assert f"without it {' and '.join(choose_strategies(()))}." in shown("replay")


def test_version_is_said(rarefind):
    assert re.fullmatch(r"rarefind \d+\.\d+\.\d+\n", rarefind("--version").stdout)


def test_folder_of_bad_files_alone_ends_as_a_failure(rarefind, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.txt").write_text("rain")
    (tmp_path / "bad" / "b.jpg").touch()
    result = add(rarefind, "Pond", tmp_path / "bad")
    assert result.exit_code == 1
    counts = table_of(result)
    assert counts["imported"] == "0"
    assert sum(int(n) for what, n in counts.items() if what.startswith("refused: ")) == 2


# --- export -------------------------------------------------------------------------------------


@pytest.fixture
def searched(own_database, settings):
    """Two searches, one of the local person and one of somebody else; the answers of the first."""
    with own_database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 20)
        make_index(session, settings, images)
        mine, theirs = (
            searching.open_search(
                session,
                person=person,
                collection_id=collection.id,
                target_name="Grey heron",
                round_size=6,
                image_ids=[images[0].id],
                photo_ids=[],
                indexes=OpenIndexes(settings),
                embedders=LoadedEmbedders(settings, Readers(settings)),
                settings=settings,
            )
            for person in (
                get_local_person(session),
                make_person(session, name="somebody else", role="ecologist"),
            )
        )
        values = {images[1].id: "no", images[2].id: "unsure"}
        searching.correct_answers(session, mine, person=mine.owner, values=values, gesture_key=None)
        answers = {images[0].path: "yes", images[1].path: "no", images[2].path: "unsure"}
        return mine.id, theirs.id, answers


def test_export_writes_every_answer(rarefind, searched, tmp_path):
    mine, _, answers = searched
    as_csv = rarefind("export", mine)
    assert as_csv.exit_code == 0, as_csv.output
    rows = list(csv.DictReader(io.StringIO(as_csv.stdout)))
    assert {row["path"]: row["answer"] for row in rows} == answers
    assert len(rows) == 3
    as_lines = rarefind("export", mine, "--format", "jsonl")
    rows = [json.loads(line) for line in as_lines.stdout.splitlines()]
    assert [(row["path"], row["answer"]) for row in rows] == sorted(answers.items())
    assert {row["target"] for row in rows} == {"Grey heron"}

    for file_format, expected in (("csv", as_csv.stdout_bytes), ("jsonl", as_lines.stdout_bytes)):
        out = tmp_path / f"answers.{file_format}"
        written = rarefind("export", mine, "--format", file_format, "--out", out)
        assert (written.exit_code, written.output) == (0, "")
        assert out.read_bytes() == expected


def test_export_of_no_search_of_mine_is_refused(rarefind, searched, tmp_path):
    mine, theirs, _ = searched
    for search_id in (theirs, mine + theirs):
        result = rarefind("export", search_id, "--out", tmp_path / "answers.csv")
        assert result.exit_code == 1
        assert f"There is no search “{search_id}” that you see." in result.stderr
        assert f"There are: {mine} Grey heron (in Pond)." in result.stderr
        assert not (tmp_path / "answers.csv").exists()


def test_export_takes_a_name_and_says_what_there_is(rarefind, searched, own_database):
    mine, _, _ = searched
    assert rarefind("export", "grey HERON").stdout == rarefind("export", mine).stdout
    unknown = rarefind("export", "stork")
    assert unknown.exit_code == 1
    assert f"There is no search “stork” that you see. There are: {mine} Grey" in unknown.stderr
    with own_database.session() as session:
        theirs = session.scalar(select(Search).where(Search.id != mine))
        theirs.open_to_view = True
    several = rarefind("export", "Grey heron")
    assert several.exit_code == 1
    assert "Several searches are called “Grey heron”" in several.stderr
    assert rarefind("export", theirs.id).exit_code == 0


def test_a_wrong_format_is_said_whatever_the_search(rarefind, searched):
    mine, theirs, _ = searched
    for search_id in (mine, mine + theirs):
        wrong = rarefind("export", search_id, "--format", "xyz")
        assert wrong.exit_code == 2
        assert "There is no format “xyz”. There are: csv, jsonl, images.csv, " in wrong.stderr
        assert "There is no search" not in wrong.stderr
    for name in ("csv", "answers.csv"):
        assert rarefind("export", mine, "--format", name).stdout.startswith("target,")


def test_formats_of_the_command_are_those_that_there_are(rarefind):
    assert tuple(FORMATS) == EXPORTS
    shown = rarefind("export", "--help").stdout
    assert all(name.removeprefix("answers.") in shown for name in EXPORTS[:-1])


def test_whole_search_goes_out_and_comes_in(rarefind, searched, tmp_path):
    mine, theirs, _ = searched
    file = tmp_path / "heron.rarefind"
    assert rarefind("search", "export", theirs, "--out", file).exit_code == 1
    assert rarefind("search", "export", mine, "--out", file).exit_code == 0
    [(collection_id, _)] = re.findall(r"(\d+) +(Pond)", rarefind("collection", "list").stdout)
    came = rarefind("search", "import", file, collection_id)
    number = max(mine, theirs) + 1
    assert came.stdout == (
        f"Imported “Grey heron” as search {number}. Of its 1 rounds 1 come out with the same "
        "images when they are proposed again.\n"
    )
    assert rarefind("export", number).stdout == rarefind("export", mine).stdout
    refused = rarefind("search", "import", file, "Marsh")
    assert refused.exit_code == 1
    assert f"There are: {collection_id} Pond." in refused.stderr


def test_head_is_applied_to_a_collection_of_its_embedder_alone(
    rarefind, searched, own_database, settings, tmp_path
):
    mine, _, _ = searched
    early = rarefind("export", mine, "--format", "head.json")
    assert (early.exit_code, early.stdout) == (1, "")
    assert "Nothing is learnt yet" in early.stderr
    with own_database.session() as session:
        search = session.get_one(Search, mine)
        searching.submit_answers(
            session,
            search,
            person=search.owner,
            round_id=search.current_round_id,
            values={},
            rest_are_no=True,
            gesture_key=None,
            indexes=OpenIndexes(settings),
        )
        other = make_collection(session, name="Marsh")
        make_index(session, settings, make_images(session, other, 20), embedder="other")
    head, scores = tmp_path / "head.json", tmp_path / "scores.csv"
    assert rarefind("export", mine, "--format", "head.json", "--out", head).exit_code == 0
    assert rarefind("apply", head, "Pond", "--out", scores).exit_code == 0
    rows = list(csv.DictReader(io.StringIO(scores.read_text())))
    assert len(rows) == 20
    assert rows[0]["path"] == "site/IMG_0000.jpg"  # the one positive
    refused = rarefind("apply", head, "Marsh")
    assert refused.exit_code == 1
    assert "not prepared with hand-made. It is prepared with other." in refused.stderr


def test_export_says_by_which_option_to_give_what_only_people_know(rarefind, searched, tmp_path):
    mine, _, _ = searched
    out = tmp_path / "heron.zip"

    def export(*options):
        return rarefind("export", mine, "--format", "darwin-core.zip", "--out", out, *options)

    refused = export()
    assert refused.exit_code == 1
    told = " ".join(refused.stderr.split())
    assert "It needs the scientific name." in told and "Here give --scientific-name." in told
    assert "below" not in told
    wrong = export("--licence", "mine")
    assert "“mine” is no licence. Choose one of these: CC0-1.0, CC-BY-4.0" in wrong.stderr
    assert export("--scientific-name", "Ardea cinerea").exit_code == 0
    with zipfile.ZipFile(out) as archive:
        assert "Ardea cinerea" in archive.read("occurrence.csv").decode()
    assert export("--licence", "CC0-1.0").exit_code == 0  # the name is kept with the search


def test_export_to_a_place_that_cannot_be_written_says_so(rarefind, searched, tmp_path):
    mine, _, _ = searched
    for out, reason in (
        (tmp_path / "gone" / "answers.csv", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        result = rarefind("export", mine, "--out", out)
        assert result.exit_code == 1
        assert result.stderr.strip() == f"Can't go on: {out}: {reason}."


# --- Signing in ---------------------------------------------------------------------------------


def test_link_signs_in_once(rarefind, web):
    result = rarefind("link")
    assert result.exit_code == 0, result.output
    link = urlsplit(result.stdout.strip())
    assert (link.scheme, link.netloc) == ("http", "127.0.0.1:8321")
    assert web.get("/collections/1", headers={"Accept": "text/html"}).status_code == 401
    assert web.get(result.stdout.strip()).status_code == 200
    assert web.get("/collections/1").status_code == 404  # signed in: it is only not there
    web.cookies.clear()
    assert web.get(result.stdout.strip()).status_code == 403


def write_pets(root):
    """OxfordIIITPet as torchvision finds it on a disk: two kinds, four images."""
    pets = root / "oxford-iiit-pet"
    (pets / "annotations" / "trimaps").mkdir(parents=True)
    for number, image in enumerate(("Birman_1", "Birman_2", "great_pyrenees_1", "Birman_3")):
        make_image_file(pets / "images" / f"{image}.jpg", number)
        make_image_file(pets / "annotations" / "trimaps" / f"{image}.png", 9, file_format="PNG")
    lines = "Birman_1 1 1 1\nBirman_2 1 1 1\ngreat_pyrenees_1 2 2 1\n"
    (pets / "annotations" / "trainval.txt").write_text(lines)
    (pets / "annotations" / "test.txt").write_text("Birman_3 1 1 1\n")


def test_set_of_arrays_is_laid_out_as_pictures(settings):
    raw = settings.home / "open-sets" / "FashionMNIST" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 3), ("t10k", 1)):
        pixels = bytes(range(count)) * 784
        images = struct.pack(">IIII", 0x803, count, 28, 28) + pixels
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">II", 0x801, count) + bytes(range(7, 7 + count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    ready = bring_set("FashionMNIST", settings)
    rows = list(csv.reader(ready.labels.read_text().splitlines()))
    assert rows == [
        ["file", "label"],
        ["train/000000.png", "Sneaker"],
        ["train/000001.png", "Bag"],
        ["train/000002.png", "Ankle boot"],
        ["test/000000.png", "Sneaker"],
    ]
    with PIL.Image.open(ready.folder / "train" / "000001.png") as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((28, 28), 784 % 3)


def test_labelled_set_of_torchvision_becomes_a_collection(
    rarefind, settings, own_database, monkeypatch
):
    for name in ("http_proxy", "https_proxy"):  # no network: nobody listens there
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    away = rarefind("collection", "add", "torchvision:OxfordIIITPet", "--embedder", "hash")
    said = " ".join(away.output.split())
    assert away.exit_code == 1 and "is not on this machine and can't be fetched" in said
    assert "needs a network" in said and "OxfordIIITPet, and run this again" in said
    unknown = rarefind("collection", "add", "torchvision:Ponds")
    assert unknown.exit_code == 1 and "OxfordIIITPet" in unknown.output
    write_pets(settings.home / "open-sets" / "OxfordIIITPet")
    added = rarefind("collection", "add", "torchvision:OxfordIIITPet", "--embedder", "hash")
    assert added.exit_code == 0, added.output
    with own_database.session() as session:
        (collection,) = session.scalars(select(Collection))
        assert collection.name == "OxfordIIITPet"
        known = dict(
            session.execute(
                select(Image.path, OracleLabel.label).join(
                    OracleLabel, OracleLabel.image_id == Image.id
                )
            ).all()
        )
        # The masks are no images of it, and no name says what is seen.
        assert known == {
            "trainval/000000.jpg": "Birman",
            "trainval/000001.jpg": "Birman",
            "trainval/000002.jpg": "Great Pyrenees",
            "test/000000.jpg": "Birman",
        }
    again = rarefind("collection", "add", "Pets", "torchvision:oxfordiiitpet")
    assert again.exit_code == 0, again.output


def test_link_leads_to_where_the_server_listens(rarefind, settings):
    settings.home.mkdir()
    (settings.home / "address.txt").write_text("http://127.0.0.1:4567")
    assert rarefind("link").stdout.startswith("http://127.0.0.1:4567/sign-in?token=")


def test_tokens_are_added_listed_and_revoked(rarefind, own_database):
    assert rarefind("token", "list").stdout == ""
    made = rarefind("token", "add", "camera trap")
    assert made.exit_code == 0
    assert len(made.stdout.strip()) == 43  # 32 bytes, shown this once
    with own_database.session() as session:
        assert session.scalar(select(ApiToken.name)) == "camera trap"
    listed = rarefind("token", "list").stdout
    assert listed.startswith("camera trap  ") and made.stdout.strip() not in listed

    twice = rarefind("token", "add", "camera trap")
    assert twice.exit_code == 1 and "called “camera trap” already" in twice.stderr
    assert rarefind("token", "revoke", "camera trap").exit_code == 0
    assert rarefind("token", "list").stdout == ""
    gone = rarefind("token", "revoke", "camera trap")
    assert gone.exit_code == 1 and "No token is called “camera trap”" in gone.stderr


# --- What stands in the way of a start ----------------------------------------------------------


def test_port_that_is_taken_is_said(rarefind):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = rarefind("serve", "--port", port)
    assert result.exit_code == 1
    assert f"Can't listen on 127.0.0.1:{port} (Address already in use)" in result.stderr
    assert "rarefind link" in result.stderr


@pytest.mark.parametrize("command", [("serve",), ("link",), ("export", "1")])
def test_setting_that_cannot_be_used_is_said(rarefind, monkeypatch, command):
    monkeypatch.setenv("RAREFIND_PORT", "harbour")
    result = rarefind(*command)
    assert result.exit_code == 1
    assert (
        "A setting can't be used: RAREFIND_PORT: give a whole number from 0 to 65535, not “harbour”"
    ) in result.stderr
    assert "docs/operations.md" in result.stderr


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("AUTH", "nobody", "give accounts or local, not “nobody”"),
        ("DEVICE", "gpu", "a device is auto, cpu,"),
        ("LOG_LEVEL", "debug", "give info, warning or error, not “debug”"),
        ("MAX_PHOTO_MB", "0", "give a number above 0, not “0”"),
        ("REMOTE_USER_HEADER", "", "it is empty"),
        ("RUN_JOBS", "perhaps", "give true or false, not “perhaps”"),
        ("STOP_S", "1", "give a number of at least 3, not “1”"),
        ("WORKERS", "1.5", "give a whole number of at least 0, not “1.5”"),
    ],
)
def test_what_would_do_in_place_of_a_setting_is_said(
    rarefind, monkeypatch, variable, value, sentence
):
    monkeypatch.setenv(f"RAREFIND_{variable}", value)
    result = rarefind("link")
    assert result.exit_code == 1
    assert f"RAREFIND_{variable}: {sentence}" in result.stderr


@pytest.mark.parametrize(
    ("command", "option", "sentence"),
    [
        ("serve --port 99999", "--port", "Give a whole number from 0 to 65535, not “99999”."),
        ("demo --port x", "--port", "Give a whole number from 0 to 65535, not “x”."),
        ("serve --processes 0", "--processes", "Give a whole number from 1 to 64, not “0”."),
        ("replay P --rounds x", "--rounds", "Give a whole number of at least 1, not “x”."),
        ("replay P --size 0", "--size", "Give a whole number of at least 1, not “0”."),
        ("replay P --seeds 1.5", "--seeds", "Give a whole number of at least 1, not “1.5”."),
        ("replay P --workers 0", "--workers", "Give a whole number of at least 1, not “0”."),
        ("replay P --open-with 0", "--open-with", "Give a whole number of at least 1, not “0”."),
        ("replay P --holdout 2", "--holdout", "Give a number from 0 to 0.9, not “2”."),
        ("replay P --oracle-error nan", "--oracle-error", "Give a number from 0 to 1, not “nan”."),
        ("replay P --targets-between 9 2", "--targets-between", "the smaller number first: 2 9."),
        ("replay P --targets-between a 2", "--targets-between", "whole number of at least 1, not"),
        ("replay P --server pond", "--server", "Give an address such as http://host:8321, not"),
        ("collection metadata P f --threshold 3", "--threshold", "Give a number from 0 to 1, not"),
        ("collection group P --gap x", "--gap", "of seconds, from 1 to 86,400; not “x”."),
        ("collection group P --near-duplicates 3", "--near-duplicates", "from 0.5 to 1; not “3”."),
    ],
)
def test_wrong_number_is_said_of_its_option_with_those_that_would_do(
    rarefind, command, option, sentence
):
    result = rarefind(*command.split())
    assert result.exit_code == 2
    assert f"Invalid value for '{option}': " in result.stderr and sentence in result.stderr
    assert "RAREFIND_" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("DATABASE_URL", "postgresql://a:secret@127.0.0.1:9/b", "a:***@127.0.0.1:9/b does not"),
        ("DATABASE_URL", "mysql://a:secret@127.0.0.1/b", "DATABASE_URL: only PostgreSQL will do"),
        ("RAREFIND_HOME", __file__, "test_cli.py: File exists."),
    ],
)
def test_server_that_can_not_start_says_why(variable, value, sentence, tmp_path):
    # A process of its own: a browser's test may have left a loop of events in this one.
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--port", "0"],
        env=os.environ | {"RAREFIND_HOME": str(tmp_path), variable: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "secret" not in done.stderr and "Traceback" not in done.stderr


def test_database_that_does_not_answer_is_said(rarefind, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("DATABASE_URL", f"postgresql://me:secret@127.0.0.1:{port}/none")
    result = rarefind("token", "list")
    assert result.exit_code == 1
    assert "Check DATABASE_URL" in result.stderr
    assert "secret" not in result.output


def test_people_are_added_listed_changed_and_reset(rarefind, own_database):
    made = rarefind("user", "add", "Ada Lovelace", "--role", "viewer")
    assert made.stdout.startswith("http://127.0.0.1:8321/password?token=")
    assert "waits for a password" in rarefind("user", "list").stdout
    for wrong, what in (
        (("Ada lovelace",), "Somebody is called"),
        (("B", "--role", "king"), "king"),
    ):
        refused = rarefind("user", "add", *wrong)
        assert refused.exit_code == 1 and what in refused.stderr
    assert rarefind("user", "role", "ada lovelace", "evaluator").exit_code == 0
    again = rarefind("user", "reset", "ADA LOVELACE")
    assert again.stdout.startswith("http://127.0.0.1:8321/password?token=")
    assert again.stdout != made.stdout
    assert rarefind("user", "reset", "Nobody").exit_code == 1
    with own_database.session() as session:
        people = dict(session.execute(select(Person.name, Person.role)).all())
        assert people == {get_local_person(session).name: "admin", "Ada Lovelace": "evaluator"}
        said = session.scalars(select(AuditEvent.sentence).filter_by(kind="account")).all()
        assert "Changed Ada Lovelace from viewer to evaluator" in said
    last = rarefind("user", "role", get_name(own_database), "viewer")
    assert last.exit_code == 1 and "only admin" in last.stderr
    assert rarefind("token", "add", "x", "--user", "ada lovelace", "--scope", "read").exit_code == 0
    assert "x  read" in rarefind("token", "list", "--user", "ada lovelace").stdout


def test_gc_says_what_it_would_remove_and_removes_it_when_told(rarefind, tmp_path):
    assert "There is nothing to remove" in rarefind("gc").stdout
    left = tmp_path / "home" / "exports" / "7" / "images.csv"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(2_000_000))
    told = rarefind("gc").stdout
    assert "1 files  2.0 MB" in told and "rarefind gc --yes" in told and left.exists()
    assert "Removed: 2.0 MB" in rarefind("gc", "--yes").stdout and not left.exists()


def get_name(database):
    with database.session() as session:
        return get_local_person(session).name


def test_local_mode_is_refused_where_others_could_reach_it(rarefind, monkeypatch):
    monkeypatch.setenv("RAREFIND_AUTH", "local")
    refused = rarefind("serve", "--host", "0.0.0.0")
    assert refused.exit_code == 1
    assert "lets anybody in without signing in" in refused.stderr


# --- worker -------------------------------------------------------------------------------------


def test_worker_imports_what_waits_until_it_is_told_to_stop(rarefind, photos, own_database):
    """Two sources of one collection and one more, asked for while nobody worked."""
    with own_database.session() as session:
        person = make_person(session)
        for name, folders in (("Pond", ("newt", "toad")), ("Lake", ("toad",))):
            collection = make_collection(session, name=name)
            for folder in folders:
                add_job(
                    session,
                    "import",
                    collection_id=collection.id,
                    person=person,
                    source=str(photos / folder),
                    copy=False,
                    labels=None,
                    embedder="hash",
                )

    def stop_when_done() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with own_database.session() as session:
                if set(session.scalars(select(Job.state))) == {"done"}:
                    break
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stopping = threading.Thread(target=stop_when_done)
    stopping.start()
    result = rarefind("worker")
    stopping.join()
    for (
        thread
    ) in threading.enumerate():  # what ends a worker's process in time, here the tests' own
        if isinstance(thread, threading.Timer):
            thread.cancel()
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])
    assert result.exit_code == 0 and "Waiting for work" in result.output
    with own_database.session() as session:
        assert list(session.scalars(select(Job.state))) == ["done"] * 3
        counts = dict(
            session.execute(
                select(Collection.name, ImageIndex.image_count)
                .join(ImageIndex, ImageIndex.collection_id == Collection.id)
                .order_by(ImageIndex.id)
            ).all()
        )
    assert counts == {"Pond": 3, "Lake": 1}


def test_images_are_grouped_and_what_is_wrong_is_said(rarefind, photos):
    add(rarefind, "Pond", photos)
    by_itself = rarefind("collection", "group", "Pond").stdout
    assert "look nearly the same" in by_itself and "No two images" in by_itself
    grouped = rarefind("collection", "group", "Pond", "--near-duplicates", "0.5")
    assert grouped.exit_code == 0 and "0.5" in grouped.stdout
    assert "stands by itself" in rarefind("collection", "group", "Pond", "--none").stdout
    two = rarefind("collection", "group", "Pond", "--none", "--gap", "5")
    assert two.exit_code == 2 and "one way" in two.stderr
    wrong = rarefind("collection", "group", "Pond", "--column", "track")
    assert wrong.exit_code == 1 and "has a column “track”" in wrong.stderr


def test_a_table_is_removed_when_agreed_and_those_there_are_named(rarefind, photos, tmp_path):
    add(rarefind, "Pond", photos)
    table = tmp_path / "depths.csv"
    table.write_text("file,depth\nnewt/1.jpg,3\nnewt/2.jpg,4\n")
    assert rarefind("collection", "metadata", "Pond", table).exit_code == 0
    wrong = rarefind("collection", "remove-table", "Pond", "depth.csv")
    assert wrong.exit_code == 1 and "Those that were: “depths.csv”." in wrong.stderr
    asked = rarefind("collection", "remove-table", "Pond", "depths.csv")
    assert asked.exit_code == 1, "nobody agreed"
    assert "“depths.csv” speaks of 2 images." in asked.stdout and "“depth”" in asked.stdout
    done = rarefind("collection", "remove-table", "Pond", "depths.csv", "--yes")
    assert done.exit_code == 0 and "Removed." in done.stdout
    again = rarefind("collection", "remove-table", "Pond", "depths.csv", "--yes")
    assert "Those that were: none." in again.stderr


def test_what_columns_are_taken_for_is_said_and_can_be_changed(rarefind, photos, tmp_path):
    add(rarefind, "Pond", photos)
    table = tmp_path / "frames.csv"
    table.write_text(
        "file,date,site\nnewt/1.jpg,03/04/2026 11:27,A\nnewt/2.jpg,03/04/2026 11:28,A\n"
    )
    said = rarefind("collection", "metadata", "Pond", table).stdout
    assert "deployment from “site”" in said and "time from" not in said
    assert "such as 03/04/2026 11:27" in said and "--dates day-first" in said
    said = rarefind("collection", "columns", "Pond", "--dates", "day-first").stdout
    assert "time from “date” (day first)" in said
    said = rarefind("collection", "columns", "Pond", "--take", "deployment=none").stdout
    assert "time from “date”" in said and "deployment" not in said
    assert rarefind("collection", "columns", "Pond").stdout == said
    more = rarefind("collection", "metadata", "Pond", table, "--take", "deployment=found")
    assert "deployment from “site”" in more.stdout
    for option, value, why in (
        ("--take", "time", "says no column"),
        ("--take", "time=when", "no column “when”"),
        ("--take", "camera=date", None),
        ("--dates", "year-first", "day-first or month-first"),
    ):
        wrong = rarefind("collection", "columns", "Pond", option, value)
        assert (wrong.exit_code == 0) is (why is None) and (why or "") in wrong.stderr
    rarefind("collection", "remove-table", "Pond", "frames.csv", "--yes")
    said = rarefind("collection", "columns", "Pond").stdout
    assert "No column is taken for time, place, camera or deployment." in said


# --- backup, restore, doctor --------------------------------------------------------------------


def test_backup_restore_and_doctor_say_what_they_did_and_what_to_do(
    rarefind, photos, tmp_path, monkeypatch, empty_database_url
):
    monkeypatch.setenv("RAREFIND_KEEP_FREE_GB", "0.001")
    assert add(rarefind, "Pond", photos).exit_code == 0
    made = rarefind("backup", tmp_path / "[backup]")
    assert made.exit_code == 0, made.output
    assert table_of(made)["images"] == "3"
    assert "3 originals lie outside the data folder" in made.stdout
    refused = rarefind("restore", tmp_path / "[backup]")
    assert refused.exit_code == 1 and "is not empty" in refused.stderr
    monkeypatch.setenv("RAREFIND_HOME", str(tmp_path / "new"))
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    restored = rarefind("restore", tmp_path / "[backup]")
    assert restored.exit_code == 0, restored.output
    assert table_of(rarefind("collection", "list"))
    well = rarefind("doctor")
    assert well.exit_code == 0, well.output
    assert "✓ indexes: 1, all as their checksums say." in well.stdout
    (photos / "newt" / "1.jpg").unlink()
    ill = rarefind("doctor")
    assert ill.exit_code == 1
    assert "✗ originals: 1 of 3 of “Pond” are gone" in ill.stdout and "To mend: 1" in ill.stdout
