"""A data folder that was one machine's, into the store of several: `rarefind fill-store`."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from sqlalchemy import select

from app.backing_up import list_files
from app.database import Database
from app.errors import BadInput
from app.exports.files import export_path
from app.settings import Settings
from app.store import check_store, put_files, put_folder
from app.tables import ExportFile, Upload, UploadedFile
from app.uploads import make_place

AT_A_TIME = 200  # files, between words on how far it is
FOLDERS = ("indexes", "replays")  # parts of the data folder that are put a folder at a time


def fill_store(
    database: Database, settings: Settings, *, progress: Callable[[int, int], None]
) -> int:
    """Put all files of the data folder that rows name into the store; how many were put.

    What is there is put again: cut off, it is done again from its beginning.
    """
    if settings.store is None:
        raise BadInput("There is no store to fill. Name it in RAREFIND_STORE.")
    check_store(settings)
    home = settings.home
    with database.session() as session:
        paths = {home / name for name, _ in list_files(session, settings)}
        paths |= {
            export_path(settings, export)
            for export in session.scalars(
                select(ExportFile).where(ExportFile.ready_at.is_not(None))
            )
        }
        arrived = select(Upload, UploadedFile).join(
            UploadedFile, UploadedFile.upload_id == Upload.id
        )
        for upload, file in session.execute(arrived.where(UploadedFile.has_arrived)):
            paths.add(make_place(upload, file, settings).whole)
    here = sorted(path for path in paths if path.is_file())
    folders: dict[Path, int] = {}
    files: list[Path] = []
    for path in here:
        place = PurePosixPath(path.relative_to(home))
        if place.parts[0] in FOLDERS:
            folder = home / place.parts[0] / place.parts[1]
            folders[folder] = folders.get(folder, 0) + 1
        else:
            files.append(path)
    done = 0
    for start in range(0, len(files), AT_A_TIME):
        progress(done, len(here))
        some = files[start : start + AT_A_TIME]
        put_files(settings, some)
        done += len(some)
    for folder, count in folders.items():
        progress(done, len(here))
        put_folder(settings, folder)
        done += count
    progress(done, len(here))
    return done
