"""The container files say what the code knows; tests/containers/prove.py carries them out."""

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

from app.settings import Settings

PROJECT = Path(__file__).parents[2]
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
OURS = [name for name, one in COMPOSE["services"].items() if "rarefind" in one["image"]]
KNOWN = {f"RAREFIND_{name.upper()}" for name in Settings.model_fields} | {"DATABASE_URL"}
OTHERS = {"FORWARDED_ALLOW_IPS", "NVIDIA_DRIVER_CAPABILITIES"}


def test_dockerfile_is_in_order():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [hadolint, PROJECT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_setting_of_the_container_files_exists():
    named = set(re.findall(r"\bRAREFIND_[A-Z_]+(?==)", DOCKERFILE))
    for service in OURS:
        named |= set(COMPOSE["services"][service]["environment"]) - OTHERS
    assert "RAREFIND_DATABASE_PASSWORD_FILE" in named
    assert named <= KNOWN


def test_no_password_stands_in_the_environment():
    secrets = set(COMPOSE["secrets"])
    for service in COMPOSE["services"].values():
        for name, value in service["environment"].items():
            if "PASSWORD" in name:
                assert name.endswith("_FILE") and Path(value).parent == Path("/run/secrets")
                assert Path(value).name in secrets & set(service["secrets"])
        address = service["environment"].get("DATABASE_URL", "postgresql://x@y/z")
        assert ":" not in address.removeprefix("postgresql://").partition("@")[0]


def test_containers_have_time_to_stop_and_volumes_to_keep():
    for service in OURS:
        one = COMPOSE["services"][service]
        default_s = Settings.model_fields["stop_s"].default
        assert int(one["stop_grace_period"].removesuffix("s")) > default_s
        mounted = {volume.removesuffix(":ro").rpartition(":")[2] for volume in one["volumes"]}
        volumes = json.loads(re.search(r"^VOLUME (.*)$", DOCKERFILE, re.MULTILINE)[1])
        assert set(volumes) <= mounted
