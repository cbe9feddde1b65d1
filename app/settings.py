"""Every setting of Rarefind, read from the environment; docs/operations.md lists the same names."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path
from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DATABASE_URL = re.compile(r"postgres(ql)?(\+psycopg)?://", re.IGNORECASE)
STORE_URL = re.compile(r"[a-z][a-z0-9+.-]*://.", re.IGNORECASE)
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?|cuda:\d+(,cuda:\d+)+")
PUBLIC_URL = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?/?", re.IGNORECASE)


class Settings(BaseSettings):
    """Typed settings: the unit stands in the name, the default's reason in the description."""

    model_config = SettingsConfigDict(
        env_prefix="RAREFIND_", validate_by_name=True, extra="ignore", frozen=True
    )

    home: Path = Field(
        default_factory=lambda: user_data_path("rarefind"),
        description="Data folder: database, thumbnails, indexes, unpacked originals. "
        "The platform's place for a person's data, so that no root is needed.",
    )
    store: str | None = Field(
        default=None,
        description="Where what lasts is kept if machines share no folder: s3://bucket/prefix "
        "or any other address that fsspec opens. The data folder is then this machine's cache.",
    )
    cache_gb: float = Field(
        default=100.0,
        gt=0,
        description="With a store: what may lie in the data folder of indexes, thumbnails and "
        "originals, in gigabytes; the least recently used go. A dozen indexes of a million images.",
    )
    database_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("DATABASE_URL", "RAREFIND_DATABASE_URL"),
        description="PostgreSQL to use instead of the embedded server, which serves one machine.",
    )
    database_password_file: Path | None = Field(
        default=None,
        description="File that holds the password for DATABASE_URL, which then names none: files "
        "are what secrets of containers come as, and the environment is read by many.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. Loopback: nothing is offered to the network unasked.",
    )
    port: int = Field(
        default=8321,
        ge=0,
        le=65535,
        description="Port to listen on; 0 takes a free one. Away from the usual 8000 and 8080.",
    )
    public_url: str | None = Field(
        default=None,
        description="Where people reach the server if not at its own address, such as "
        "https://rarefind.example.org behind a proxy: links begin with it.",
    )
    changes_a_minute: int = Field(
        default=3_000,
        ge=0,
        description="Most requests of one person that change something in a minute, 0 for no end: "
        "20 times what fast hands do.",
    )
    costly_a_minute: int = Field(
        default=120,
        ge=0,
        description="Most searches opened, exports, imports and the like of one person in a "
        "minute, 0 for no end.",
    )
    max_megapixels: float = Field(
        default=100.0,
        gt=0,
        description="Larger images are refused: decoding one takes about 3 bytes a pixel.",
    )
    max_decoding_s: float = Field(
        default=60.0,
        gt=0,
        description="Longest that one file may be decoded, in seconds of a processor, many times "
        "what the largest photo takes; a disk may hold it up five times as long.",
    )
    max_photo_mb: float = Field(
        default=50.0,
        gt=0,
        description="Largest example photo taken from a browser, in megabytes (10^6 bytes).",
    )
    max_zip_entry_mb: float = Field(
        default=500.0,
        gt=0,
        description="Largest unpacked file taken from a zip, and largest labels file, in megabytes "
        "(10^6 bytes): far above any photo.",
    )
    max_zip_total_gb: float = Field(
        default=200.0,
        gt=0,
        description="Most that one zip may unpack to, in gigabytes (10^9 bytes).",
    )
    max_zip_ratio: float = Field(
        default=200.0,
        gt=1,
        description="Largest unpacked / packed size of a zip entry over 1 MB; photos stay below 2, "
        "bombs above 1,000.",
    )
    upload_quota_gb: float = Field(
        default=200.0,
        gt=0,
        description="Most that one person may upload from a browser, in gigabytes (10^9 bytes): "
        "some 60,000 photos of a camera trap.",
    )
    upload_days: float = Field(
        default=7.0,
        gt=0,
        description="How long an upload that nobody goes on with is kept: over a week in the field "
        "without a network.",
    )
    export_days: float = Field(
        default=7.0,
        gt=0,
        description="How long the file of an export that took long is kept for download: a week's "
        "leave.",
    )
    keep_free_gb: float = Field(
        default=1.0,
        ge=0,
        description="Room that uploads and exports leave on the disk, in gigabytes, so that the "
        "database can go on.",
    )
    workers: int = Field(
        default=0,
        ge=0,
        description="Processes that decode images; 0 means one for each processor core.",
    )
    processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes of the server, on one port. One process of Python uses little more "
        "than one core: as many as there are cores serve fifty people at once.",
    )
    connections: int = Field(
        default=40,
        ge=4,
        description="Most connections to PostgreSQL for requests, over all processes, five for "
        "each of them at most: each request that is worked on has one, others wait. Embedding, "
        "imports and the queue have their own.",
    )
    most_waiting: int = Field(
        default=400,
        ge=4,
        description="Most requests that wait in a process, a quarter of them of one person; more "
        "are asked to come again. In ten seconds a process answers about so many.",
    )
    longest_statement_s: float = Field(
        default=60.0,
        gt=0,
        description="Longest that the database may be at one statement of a request, in seconds: "
        "then it is stopped and a page says so. No page that works takes a tenth of it.",
    )
    longest_lock_s: float = Field(
        default=10.0,
        gt=0,
        description="Longest that a request waits for somebody else's in the database, in seconds: "
        "two people in one search wait for tenths.",
    )
    run_jobs: bool = Field(
        default=True,
        description="Whether the server does long work itself: one command is then all it takes. "
        "False where `rarefind worker` does it.",
    )
    device: str = Field(
        default="auto",
        description="Where models run: auto takes every GPU there is; cuda:0,cuda:2 takes these.",
    )
    weights: Path | None = Field(
        default=None,
        description="Folder of embedders' weights, laid out as OWNER/NAME/FILE like on the hub; "
        "without it `weights` in the data folder. Looked at first, so that no network is needed.",
    )
    auth: Literal["accounts", "local"] = Field(
        default="accounts",
        description="Who may come in: people with accounts, or with local anybody on this machine "
        "without signing in, which is refused on any other host than loopback.",
    )
    remote_user_secret_file: Path | None = Field(
        default=None,
        description="File that holds the secret below, in place of the secret itself.",
    )
    remote_user_secret: SecretStr | None = Field(
        default=None,
        validate_default=True,
        description="What a proxy that signs people in sends as X-Rarefind-Secret; without it the "
        "header with a person's name is ignored.",
    )
    remote_user_header: str = Field(
        default="Remote-User",
        min_length=1,
        description="The header in which such a proxy names the person: what most of them send.",
    )
    remote_user_role: Literal["ecologist", "viewer"] = Field(
        default="ecologist",
        description="Role of a person whom such a proxy names for the first time.",
    )
    sign_in_link_hours: float = Field(
        default=24.0,
        gt=0,
        description="How long a printed sign-in link works: a working day, should the terminal be "
        "left open.",
    )
    password_link_days: float = Field(
        default=7.0,
        gt=0,
        description="How long a link works by which a person sets a password: over a week's leave.",
    )
    login_days: float = Field(
        default=30.0,
        gt=0,
        description="How long a browser stays signed in: longer than a field campaign's pause.",
    )
    open_indexes_gb: float = Field(
        default=8.0,
        gt=0,
        description="Vectors kept open at once, in gigabytes; the least recently used are closed.",
    )

    milvus_token_file: Path | None = Field(
        default=None,
        description="File that holds what a Milvus cluster lets in by, user:password or a key: in "
        "a URL it would stand in tables and logs.",
    )

    log_format: Literal["lines", "json"] = Field(
        default="lines",
        description="How what happens is logged: lines for people, or JSON for programs.",
    )
    log_level: Literal["info", "warning", "error"] = Field(
        default="warning",
        description="From what on it is logged: a terminal needs what somebody has to look at; "
        "info logs each request and job, too.",
    )
    stop_s: float = Field(
        default=30.0,
        ge=3,
        description="How long a server or worker that is told to stop may take, in seconds: "
        "requests and the chunk under way end by themselves until then.",
    )

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, database_url: str | None) -> str | None:
        """Nothing else will do, and what is no URL has no clearer error later."""
        if database_url is not None and not DATABASE_URL.match(database_url):
            raise ValueError("only PostgreSQL will do: postgresql://user:password@host/name")
        return database_url

    @field_validator("store")
    @classmethod
    def _is_a_store(cls, store: str | None) -> str | None:
        """An address with a scheme: a bare path would be a folder, which RAREFIND_HOME names."""
        if not store:
            return None
        if not STORE_URL.match(store):
            raise ValueError("a store is such as s3://bucket/prefix or file:///mnt/rarefind")
        return store.rstrip("/")

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        """Known before a model is asked to run there."""
        if not DEVICE.fullmatch(device):
            raise ValueError(
                "a device is auto, cpu, mps, cuda or cuda:0; several are cuda:0,cuda:2"
            )
        return device

    @field_validator("public_url")
    @classmethod
    def _is_an_address(cls, public_url: str | None) -> str | None:
        """A scheme and a host, perhaps a port: Rarefind has its host to itself."""
        if not public_url:
            return None
        if not PUBLIC_URL.fullmatch(public_url):
            raise ValueError("an address is such as https://rarefind.example.org, without a path")
        return public_url.rstrip("/").lower()

    @field_validator("auth")
    @classmethod
    def _local_only_on_loopback(cls, auth: str, info: ValidationInfo) -> str:
        """Without accounts, whoever reaches the server may do everything."""
        if auth == "local" and not is_loopback(info.data.get("host", "")):
            raise ValueError(
                "RAREFIND_AUTH=local lets anybody in without signing in, so it works only on "
                "this machine's own address. Listen on 127.0.0.1, or set RAREFIND_AUTH=accounts"
            )
        return auth

    @field_validator("remote_user_secret")
    @classmethod
    def _take_secret_of_file(
        cls, given: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        """What the file holds, where one is named."""
        file = info.data.get("remote_user_secret_file")
        return given if file is None else SecretStr(read_secret(file))

    @field_validator("database_password_file", "milvus_token_file")
    @classmethod
    def _try_password_file(cls, file: Path | None) -> Path | None:
        """Tell at once that it can't be read."""
        if file is not None:
            read_secret(file)
        return file

    @property
    def milvus_token(self) -> SecretStr | None:
        """What a Milvus cluster lets in by."""
        file = self.milvus_token_file
        return None if file is None else SecretStr(read_secret(file))

    @property
    def weights_folder(self) -> Path:
        """Where weights are looked for first."""
        return self.weights or self.home / "weights"


def read_secret(file: Path) -> str:
    """What a file of a secret holds, without the line break that editors add."""
    try:
        secret = file.read_text().strip()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise ValueError(f"{file} can't be read: {why}") from error
    if not secret:
        raise ValueError(f"{file} is empty. Put the password or secret into it")
    return secret


def is_loopback(host: str) -> bool:
    """Whether a host names this machine and no other can reach it."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
