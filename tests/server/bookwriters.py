"""What writes the coordinator's books in tests: signed plans, and processes of their own."""

import datetime
import multiprocessing
import os
import signal

from coterie.privacy.identity import Identity
from coterie.privacy.signed import sign
from coterie.server.books import Absence, Books, BooksFault, Member, Round
from coterie.tests.clients.federation import study

FORK = multiprocessing.get_context("fork")
START = datetime.datetime(2031, 5, 4, 12, tzinfo=datetime.UTC)
COORDINATOR = Identity.create()
ROUNDS = 20


class Clock:
    """A clock that goes on by a second whenever it is read."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> datetime.datetime:
        self.at += datetime.timedelta(seconds=1)
        return self.at


def signed(name="spring", day=31):
    """A signed plan; the day of its end makes its digest another."""
    return sign(study(name=name, expires=datetime.date(2031, 12, day)), COORDINATOR)


def member(name="amber", **changes):
    fields = {"key": f"ed25519:{name}", "node": f"ecdsa {name}", "admitted": "2031-05-04", "expires": "2032-05-04"}
    return Member(name, **fields | changes)


def a_round(plan, number, **changes):
    told = {"model": f"sha256:{number:064x}", "cohort": ("amber", "birch"), "seconds": 1.5, "sent": 10, "received": 20}
    return Round(study=plan.plan.digest(), round=number, **told | changes)


def together(work, arguments):
    """Run a function once for each argument, in as many processes at once; return what each answered, or "failed"."""
    answers, start = FORK.Queue(), FORK.Barrier(len(arguments))

    def child(argument):
        answer = "failed"
        try:
            start.wait(60)
            answer = work(argument)
        finally:
            answers.put((argument, answer))  # of one that fails, too, so that nobody waits for it

    children = [FORK.Process(target=child, args=(argument,)) for argument in arguments]
    for process in children:
        process.start()
    found = dict(answers.get(timeout=60) for _ in children)
    for process in children:
        process.join(timeout=60)
    return found


def work_on_a_study(url, day):
    """File a study of a name that others file too, with all that comes of it; return the model's version."""
    plan = signed(day=day)
    digest = plan.plan.digest()
    with Books(url, Clock()) as books:
        books.submit(plan)
        books.move(digest, "running")
        for number in range(1, ROUNDS + 1):
            books.note_round(a_round(plan, number))
            books.note_refusals(digest, [Absence("cedar", "train", number, "silent")])
        model = books.publish_model(digest, model=f"sha256:{day}", record="sha256:r")
        books.move(digest, "finished")
    return model.version


def admit_with(url, name, node):
    """Admit a partner; return whether the books took it."""
    with Books(url, Clock()) as books:
        try:
            books.admit(member(name, node=node))
        except BooksFault:
            return False
    return True


def until_killed(url, plan, first, say):
    """File rounds without end, and say the number of each when it is acknowledged."""
    with Books(url, Clock()) as books:
        books.submit(plan)
        for number in range(first, 1_000_000):
            books.note_round(a_round(plan, number))
            os.write(say, f"{number}\n".encode())


def struck(work, *arguments, enough):
    """Run a function in a process that is killed once it said so many bytes; return what it said."""
    hear, say = os.pipe()
    child = FORK.Process(target=work, args=(*arguments, say))
    child.start()
    os.close(say)
    told = b""
    while len(told) < enough:
        data = os.read(hear, 4096)
        if not data:
            break
        told += data
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    while data := os.read(hear, 4096):
        told += data
    os.close(hear)
    return [int(line) for line in told.decode().splitlines(keepends=True) if line.endswith("\n")]
