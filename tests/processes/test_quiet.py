"""The environment of Flower's processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

from coterie.processes.quiet import quiet_environment

BASE = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/nowhere",
    "LANG": "C.UTF-8",
    "PYTHONSTARTUP": "start.py",
    "HTTPS_PROXY": "http://proxy:3128",
    "http_proxy": "http://proxy:3128",
    "no_proxy": "elsewhere",
    "FLWR_TELEMETRY_ENABLED": "1",
    "FLWR_SUPERGRID_API_URL": "http://elsewhere",
    "OMP_NUM_THREADS": "8",
}


def test_nothing_is_passed_on_that_reaches_out_or_runs_by_itself(tmp_path):
    found = quiet_environment(BASE, tmp_path)
    assert found["LANG"] == "C.UTF-8"
    assert found["HOME"] == "/nowhere"
    assert not {"PYTHONSTARTUP", "FLWR_SUPERGRID_API_URL"} & set(found)
    assert not [name for name in found if name.lower().endswith("_proxy")]
    assert found["FLWR_HOME"] == str(tmp_path)
    assert found["OMP_NUM_THREADS"] == "1"


def test_this_interpreters_programs_come_first_and_once(tmp_path):
    programs = str(Path(sys.executable).parent)
    found = quiet_environment({"PATH": f"/usr/bin:{programs}"}, tmp_path)
    assert found["PATH"].split(os.pathsep) == [programs, "/usr/bin"]
    assert quiet_environment({}, tmp_path)["PATH"].startswith(programs)


# Flower's own functions are asked, not the names of its settings: a renamed one would show.
ASKED = """
import importlib, json, socket, threading
looked = []
def look_up(host, *_, **__):
    looked.append(host)
    raise OSError
socket.getaddrinfo = look_up
from flwr.supercore import telemetry, tracing, update_check, utils
flower_superlink = importlib.import_module("flwr.superlink.cli.flower_superlink")
telemetry.event(telemetry.EventType.PING).result(20)
update_check.warn_if_flwr_update_available("flower-superlink")
for thread in threading.enumerate():
    if thread is not threading.current_thread() and not thread.daemon and "ThreadPool" not in thread.name:
        thread.join(20)
installs = flower_superlink._runtime_dependency_install_default()
print(json.dumps([len(looked), installs, str(utils.get_flwr_home())]))
"""


def ask_flower(environment):
    command = [sys.executable, "-c", ASKED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout.splitlines()[-1])


def test_flower_looks_no_name_up_and_installs_nothing(tmp_path):
    assert ask_flower(quiet_environment({**os.environ, **BASE}, tmp_path)) == [0, False, str(tmp_path)]


def test_left_to_itself_flower_looks_names_up_and_would_install(tmp_path):
    """Without this the test above could not fail."""
    looked, installs, _ = ask_flower({"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FLWR_HOME": str(tmp_path)})
    assert looked >= 2
    assert installs
