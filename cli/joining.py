"""`coterie coordinator` and `coterie partner`: how a partner joins, renews and leaves."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli.coordinator import app as coordinator
from coterie.cli.partner import app as partner
from coterie.cli.show import print_table
from coterie.privacy.errors import Fault, FileFault

if TYPE_CHECKING:
    import datetime

    from coterie.server.bookrows import Member
    from coterie.server.certified import OwnCertificate
    from coterie.server.office import Office

__all__: list[str] = []

_OFFICE = typer.Argument(help="The coordinator's folder.")
_WORKSPACE = typer.Argument(help="The partner's workspace.")
_FINGERPRINT = typer.Option(help="What was read out by telephone; asked for on a terminal where it is missing.")
_CERTIFICATE = typer.Option(help="PEM file of a server certificate of your own, with what stands above it.")
_KEY = typer.Option(help="PEM file of its key, without a passphrase.")
_AUTHORITY = typer.Option(help="PEM file of the authority that partners are to know it by.")


@coordinator.command("init")
def open_office(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    name: Annotated[str, typer.Option(help="The coordinator's name.")],
    address: Annotated[str, typer.Option(help="host:port where partners connect.")],
    listen: Annotated[str, typer.Option(help="host:port where the gateway listens, if it is another.")] = "",
    certificate: Annotated[Path | None, _CERTIFICATE] = None,
    key: Annotated[Path | None, _KEY] = None,
    authority: Annotated[Path | None, _AUTHORITY] = None,
) -> None:
    """Make a coordinator's folder with fresh keys and a TLS certificate.

    Example: coterie coordinator init ./coordinator --name ministry --address studies.example:443
    """
    from coterie.privacy.clock import now
    from coterie.privacy.joining.admission import endpoint
    from coterie.privacy.joining.forms import fingerprint
    from coterie.server.certified import check_own, take
    from coterie.server.office import Office

    own = _own(certificate, key, authority)
    host, _ = endpoint(address)
    if own is not None:
        check_own(own, host, now())  # before anything is made
    office = Office.create(folder, name=name, address=address, clock=now, listen=listen)
    if own is not None:
        take(office, own, now())
    public = office.identity.public
    typer.echo(f"folder:      {folder}\npublic key:  {public}\nfingerprint: {fingerprint(public)}")
    typer.echo(_until(office))
    typer.echo("next: give partners the public key for their policy.toml, and admit their requests")


@coordinator.command()
def admit(
    folder: Annotated[Path, _OFFICE],
    request: Annotated[Path, typer.Argument(help="What the partner's `coterie partner request` wrote.")],
    fingerprint: Annotated[str, _FINGERPRINT] = "",
    days: Annotated[int, typer.Option(min=1, max=3650, help="For how long.")] = 365,
    output: Annotated[Path, typer.Option(help="Admission to write.")] = Path("admission.json"),
) -> None:
    """Let a partner in: compare its fingerprint by telephone, sign, file it in the books.

    Example: coterie coordinator admit ./coordinator request.json --output admission.json
    """
    from coterie.clients.bundle import bundle_digest
    from coterie.privacy.clock import now
    from coterie.privacy.durable import write_durably
    from coterie.privacy.joining.forms import fingerprint as shown_as
    from coterie.server import admitting
    from coterie.server.office import Office

    office = Office(folder)
    asked = admitting.consider(office, _content(request), clock=now)
    found = asked.request
    typer.echo(f"partner:     {_plain(found.name)} (coterie {_plain(found.version)}), request of {found.at}")
    typer.echo(f"public key:  {found.key}\nfingerprint: {found.fingerprint}")
    if asked.known:
        typer.echo("these keys were admitted before; there is nothing new to compare")
    else:
        _compare(fingerprint, found.fingerprint, whose=found.name)
    signed = admitting.admit(office, asked, bundle=f"sha256:{bundle_digest()}", days=days, clock=now)
    write_durably(output, signed)
    typer.echo(f"{output}: send it to {_plain(found.name)}, who will ask you for your own fingerprint:")
    typer.echo(f"fingerprint: {shown_as(office.identity.public)}")


@coordinator.command()
def partners(
    folder: Annotated[Path, _OFFICE],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """List the partners that were admitted, with their keys and until when.

    Example: coterie coordinator partners ./coordinator
    """
    from coterie.privacy.clock import now
    from coterie.server.books import Books
    from coterie.server.office import Office

    with Books(Office(folder).books_url, now) as books:
        rows = [_row(member, now()) for member in books.members()]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    columns = ("partner", "state", "admitted", "expires", "fingerprint")
    print_table("Partners", columns, [[_plain(row[name]) for name in ("name", *columns[1:])] for row in rows])


@coordinator.command()
def revoke(
    folder: Annotated[Path, _OFFICE],
    name: Annotated[str, typer.Argument(help="The partner's name.")],
) -> None:
    """Take a partner's admission back; its node's key is never taken again.

    Example: coterie coordinator revoke ./coordinator bank
    """
    from coterie.privacy.clock import now
    from coterie.server.books import Books
    from coterie.server.office import Office

    with Books(Office(folder).books_url, now) as books:
        books.revoke(name)
    typer.echo(f"{name} is revoked; the running coordinator lets it connect no more")


@coordinator.command()
def renew(
    folder: Annotated[Path, _OFFICE],
    certificate: Annotated[Path | None, _CERTIFICATE] = None,
    key: Annotated[Path | None, _KEY] = None,
    authority: Annotated[Path | None, _AUTHORITY] = None,
    fresh: Annotated[bool, typer.Option("--fresh-authority", help="Replace our own authority, too.")] = False,
) -> None:
    """Renew the server's TLS certificate; partners need nothing new while the authority stays.

    Example: coterie coordinator renew ./coordinator
    """
    from coterie.privacy.clock import now
    from coterie.server import certified
    from coterie.server.office import Office

    office, own = Office(folder), _own(certificate, key, authority)
    if own is None and office.has_own_certificate and not fresh:
        fix = "give the next one with --certificate, --key and --authority"
        raise FileFault(Fault(str(folder), "shows a certificate of your own", fix))
    changed = own is not None and certified.take(office, own, now())
    again = certified.renew_authority if fresh else certified.renew
    again(office, now())  # with a certificate of the operator's own, these are for loopback alone
    typer.echo(f"{_until(office)}\nnext: restart the coordinator")
    if changed or (fresh and not office.has_own_certificate):
        typer.echo("partners know the server by another authority now: admit each of them again")


@partner.command()
def request(
    folder: Annotated[Path, _WORKSPACE],
    output: Annotated[Path, typer.Option(help="Request to write.")] = Path("request.json"),
    renew: Annotated[bool, typer.Option("--renew", help="Ask for a new key of the node.")] = False,
) -> None:
    """Write a request to join a coordinator, signed with keys that stay here.

    Example: coterie partner request ./bank --output request.json
    """
    from importlib.metadata import version

    from coterie.clients.joined import first_request, renewed_request
    from coterie.clients.workspace import Workspace
    from coterie.privacy.clock import now
    from coterie.privacy.durable import write_durably
    from coterie.privacy.joining.request import read_request

    make = renewed_request if renew else first_request
    data = make(Workspace(folder), version=version("coterie"), now=now())
    write_durably(output, data)
    typer.echo(f"{output}: send it to the coordinator, who will ask you for the fingerprint by telephone:")
    typer.echo(f"fingerprint: {read_request(data).fingerprint}")


@partner.command()
def install(
    folder: Annotated[Path, _WORKSPACE],
    admission: Annotated[Path, typer.Argument(help="What the coordinator sent.")],
    fingerprint: Annotated[str, _FINGERPRINT] = "",
) -> None:
    """Put the coordinator's admission in force, after comparing its fingerprint by telephone.

    Example: coterie partner install ./bank admission.json
    """
    from coterie.clients import joined
    from coterie.clients.bundle import bundle_digest
    from coterie.clients.workspace import Workspace
    from coterie.privacy.clock import now
    from coterie.privacy.joining.admission import read_admission

    workspace, data = Workspace(folder), _content(admission)
    found = read_admission(data)
    typer.echo(f"coordinator: {_plain(found.coordinator)} at {found.address}\nfingerprint: {found.fingerprint}")
    if fingerprint or joined.known_coordinator(workspace) != found.coordinator:
        _compare(fingerprint, found.fingerprint, whose="the coordinator")
    joined.install(workspace, data, bundle=f"sha256:{bundle_digest()}", now=now())
    typer.echo(f"installed; in force until {found.expires}. A running partner takes it at its next start")


def _compare(said: str, shown: str, *, whose: str) -> None:
    from coterie.privacy.joining.forms import compare

    if not said and not sys.stdin.isatty():
        fix = "call them, and give what they read out"
        raise FileFault(Fault("--fingerprint", "is missing, and there is no terminal to ask on", fix))
    compare(
        said or typer.prompt(f"Call {_plain(whose)} and type the fingerprint that they read out"), shown, whose=whose
    )


def _own(certificate: Path | None, key: Path | None, authority: Path | None) -> "OwnCertificate | None":
    from coterie.server.certified import OwnCertificate

    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None or authority is None:
        rule = "must be given together"
        raise FileFault(Fault("--certificate, --key and --authority", rule, "give all three, or none"))
    return OwnCertificate(certificate, key, authority)


def _until(office: "Office") -> str:
    from coterie.privacy.joining.certificates import expiry

    return f"certificate: valid until {expiry(office.certificate.read_bytes()):%Y-%m-%d}"


def _row(member: "Member", now: "datetime.datetime") -> dict[str, str]:
    import datetime

    from coterie.privacy.joining.forms import fingerprint

    state = "expired" if datetime.datetime.fromisoformat(member.expires) <= now else "admitted"
    return {
        "name": member.name,
        "state": state if member.revoked is None else "revoked",
        "admitted": member.admitted,
        "expires": member.expires,
        "revoked": member.revoked or "",
        "fingerprint": fingerprint(f"{member.key}\n{member.node}"),
        "key": member.key,
        "node": member.node,
    }


def _plain(text: str) -> str:
    from coterie.privacy.plain import plain

    return plain(text)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 20)  # longer than any form: what is cut off is refused as malformed
    except OSError as error:
        raise FileFault(Fault(str(path), f"cannot be read ({error.strerror})", "check the path")) from None
