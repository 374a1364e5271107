"""The report of a deployed study: what the coordinator received, and nothing that it never had.

The study is conducted by the deployed app's own function, over a grid in this process.
"""

import dataclasses
import hashlib
import json
import re
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.proto.node_pb2 import NodeInfo

from coterie.models.modelfile import load_model
from coterie.privacy.clock import now
from coterie.privacy.errors import FileFault
from coterie.privacy.release import weights_digest
from coterie.server.books import Books, BooksFault
from coterie.server.office import Office
from coterie.server.registry import Registry
from coterie.server.running.deployed import conduct
from coterie.server.running.grid import FoldingGrid
from coterie.server.running.operator import node_bytes
from coterie.simulations.deployedreport import deployed_report, write_report
from coterie.simulations.engines.ray import node_configs
from coterie.tests.clients.federation import AT_ONCE, NAMES, Federation, Recorder, today
from coterie.tests.server.bookwriters import member

PATIENCE = dataclasses.replace(AT_ONCE, gathering=0.0)  # nobody else is to come online


class Known(Recorder):
    """A grid whose nodes are known by their keys, as the SuperLink knows them."""

    keys = ()

    def get_nodes(self):
        return [
            NodeInfo(node_id=node, public_key=key) for node, key in zip(self.get_node_ids(), self.keys, strict=True)
        ]


def node_key():
    """Return a fresh node key in OpenSSH's form."""
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


class Deployed:
    """A coordinator's folder with a study of three partners in its books."""

    def __init__(self, root, made):
        self.federation = Federation(shutil.copytree(made / "fresh", root / "federation"))
        self.office = Office.create(root / "office", name="coordinator", address="localhost:4711", clock=now)
        self.office.identity_file.unlink()
        self.federation.coordinator.save(self.office.identity_file)
        self.keys = [node_key() for _ in NAMES]
        with Books(self.office.books_url, now) as books:
            books.submit(self.federation.signed)
            for partner, key in zip(self.federation.plan.partners, self.keys, strict=True):
                expires = "2099-01-01T00:00:00+00:00"
                books.admit(member(partner.name, key=partner.key, node=key, expires=expires))
        self.digest = self.federation.digest
        self.grid = Known(folding(self.federation.app()), node_configs(NAMES))
        self.grid.keys = [node_bytes(key) for key in self.keys]

    def conduct(self):
        conduct(FoldingGrid(self.grid), self.office, self.digest, run="5", patience=PATIENCE)

    def books(self):
        return Books(self.office.books_url, now)

    def report(self, ref="spring"):
        return deployed_report(self.office, ref, clock=today)


def folding(app):
    """A partner's app behind the worker's folding."""
    from coterie.clients.running.worker import _answer

    return lambda message, context: _answer(message, context, app)


@pytest.fixture(scope="module")
def finished(made, tmp_path_factory):
    deployed = Deployed(tmp_path_factory.mktemp("deployed"), made)
    deployed.conduct()
    return deployed


@pytest.fixture
def waiting(made, tmp_path):
    return Deployed(tmp_path, made)


# --- the study itself -----------------------------------------------------------------------------------------


def test_the_books_have_the_end_the_rounds_and_the_model(finished):
    progress = Registry(finished.office.study(finished.digest)).resume(finished.digest)
    with finished.books() as books:
        study, rounds, (model,) = books.study("spring"), books.rounds(finished.digest), books.models()
    assert (study.status, study.run, study.reason) == ("finished", "5", "")
    assert [(one.round, one.cohort) for one in rounds] == [(1, NAMES), (2, NAMES)]
    assert rounds[-1].model == model.model == weights_digest(progress.weights)
    assert all(one.sent > 0 and one.received > 0 and one.seconds > 0 for one in rounds)


def test_a_finished_study_is_not_run_again(finished):
    asked = len(finished.grid.passed)
    finished.conduct()
    assert len(finished.grid.passed) == asked


def test_only_admitted_nodes_of_the_plans_partners_are_asked(waiting):
    waiting.grid.keys = [*waiting.grid.keys[:2], node_bytes(node_key())]  # a stranger's node is online
    waiting.conduct()
    with waiting.books() as books:
        assert books.study("spring").status == "finished"
        assert {one.cohort for one in books.rounds(waiting.digest)} == {NAMES[:2]}


def test_a_study_that_too_few_consent_to_ends_with_the_reason_and_who_said_what(waiting):
    for name in NAMES[1:]:
        waiting.federation.policy(name, purposes=["churn"])
    waiting.conduct()
    with waiting.books() as books:
        study, refusals = books.study("spring"), books.refusals(waiting.digest)
    assert study.status == "aborted"
    assert study.reason
    assert {("node 1001", "purpose"), ("node 1002", "purpose")} <= {(one.partner, one.code) for one in refusals}


def test_a_study_that_was_asked_to_stop_is_stopped_and_resumes(waiting):
    with waiting.books() as books:
        books.ask_stop(waiting.digest)
        waiting.conduct()
        assert books.study("spring").status == "stopped"
        books.move(waiting.digest, "queued")
        waiting.conduct()
        assert books.study("spring").status == "finished"


# --- its report -----------------------------------------------------------------------------------------------


def test_the_report_tells_the_released_figures_and_the_guarantee(finished):
    report = finished.report()
    assert report["study"]["name"] == "spring"
    assert [one["round"] for one in report["release"]["rounds"]] == [1, 2]
    assert report["release"]["refusals"] == []
    assert report["guarantee"]["study"]["epsilon"] <= finished.federation.plan.privacy.epsilon
    assert report["made"]["at"] == today().isoformat(timespec="seconds")


def test_nothing_that_only_partners_have_is_in_it(finished):
    report = finished.report()
    assert (report["simulation"], report["budget"]) == (None, [])
    text = json.dumps(report)
    for name in NAMES:
        assert str(finished.federation.folders[name]) not in text
        assert f"{name}-0" not in text  # customers are named so


def test_the_model_that_it_names_is_the_one_that_was_published(finished):
    told = finished.report()["model"]
    file = finished.office.models / told["file"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == told["sha256"]
    with finished.books() as books:
        (model,) = books.models()
    assert weights_digest(load_model(file).weights) == model.model


def test_it_is_found_by_name_and_by_digest(finished):
    assert finished.report(finished.digest[7:19]) == finished.report("spring")


def test_the_page_opens_and_leaves_out_what_a_simulation_alone_can_tell(finished, tmp_path):
    page = tmp_path / "new" / "report.html"
    write_report(finished.report(), page)
    text = page.read_text(encoding="utf-8")
    assert sorted(path.name for path in page.parent.iterdir()) == ["model-card.md", "report.html", "report.json"]
    assert json.loads(page.with_suffix(".json").read_text()) == finished.report()
    assert "spring" in text
    assert 'class="simulation"' not in text
    assert not re.search(r"None|NaN|nan\b", re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL))
    (budget,) = re.findall(r'<section aria-labelledby="budget">(.*?)</section>', text, flags=re.DOTALL)
    assert "which this report has not seen" in budget
    assert not re.search(r"<svg|<table|class=\"meter\"|\d", re.sub(r"<h2.*?</h2>", "", budget))


def test_a_study_without_a_model_has_no_report(waiting):
    with pytest.raises(FileFault) as error:
        waiting.report()
    (fault,) = error.value.faults
    assert (fault.place, fault.rule) == ("spring", "is queued, and has no model")


def test_a_study_that_nobody_submitted_has_none(waiting):
    with pytest.raises(BooksFault):
        waiting.report("autumn")


def test_a_model_that_was_changed_since_is_not_reported(finished, tmp_path):
    copy = Office(shutil.copytree(finished.office.root, tmp_path / "office"))
    (file,) = copy.models.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(FileFault):
        deployed_report(copy, "spring", clock=today)
