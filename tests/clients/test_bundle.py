"""The bundle: one constant, without code, that Flower itself takes for an app."""

import hashlib
import io
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.config_utils import get_fab_metadata
from flwr.common.config import get_fab_config, get_fused_config_from_fab
from flwr.supercore.run import Run

from coterie.clients.bundle import bundle, bundle_digest

ROOT = Path(__file__).parents[2]
PRINTS = """
import sys
sys.path.insert(0, sys.argv[1])
from coterie.clients.bundle import bundle
sys.stdout.buffer.write(bundle())
"""


@pytest.mark.parametrize(("seed", "zone"), [("0", "UTC"), ("4711", "Pacific/Auckland")])
def test_another_process_elsewhere_makes_the_same_bytes(tmp_path, seed, zone):
    environment = {"PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "1", "PATH": ""}
    command = [sys.executable, "-c", PRINTS, str(ROOT / ".dev")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True, umask=0o077)
    assert done.stdout == bundle()


def test_the_digest_is_the_sha256_of_its_bytes():
    assert bundle_digest() == hashlib.sha256(bundle()).hexdigest()


def test_it_holds_two_texts_and_no_code():
    with zipfile.ZipFile(io.BytesIO(bundle())) as packed:
        assert sorted(packed.namelist()) == [".info/CONTENT", "pyproject.toml"]
        assert packed.testzip() is None
        assert {entry.compress_type for entry in packed.infolist()} == {zipfile.ZIP_STORED}
        project = tomllib.loads(packed.read("pyproject.toml").decode())
    assert project["project"]["dependencies"] == []  # nothing for anybody to install


def test_flower_reads_it_as_an_app_that_names_what_is_installed():
    assert get_fab_metadata(bundle()) == ("coterie/coterie-app", "1.0.0")
    components = get_fab_config(bundle())["tool"]["flwr"]["app"]["components"]
    assert components == {
        "serverapp": "coterie.server.running.deployed:app",
        "clientapp": "coterie.clients.running.worker:app",
    }


def test_its_manifest_is_of_the_form_that_flower_checks():
    with zipfile.ZipFile(io.BytesIO(bundle())) as packed:
        project = packed.read("pyproject.toml")
        name, digest, bits = packed.read(".info/CONTENT").decode().split(",")
    assert (name, digest, int(bits)) == ("pyproject.toml", hashlib.sha256(project).hexdigest(), 8 * len(project))


def test_a_run_may_set_the_plan_and_nothing_else():
    run = Run.create_empty(1)
    run.override_config = {"plan": "sha256:1"}
    assert get_fused_config_from_fab(bundle(), run) == {"plan": "sha256:1"}


def test_flower_starting_the_clients_part_by_itself_runs_no_study():
    from coterie.clients.running.worker import app

    with pytest.raises(RuntimeError, match="coterie partner start"):
        app()
