"""`subject` and `grant`: real people enrolled, their permissions issued and withdrawn; decides nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from server.console import Json, emit, report_errors, say, table
from server.deps import open_home


def add_to(app: typer.Typer) -> None:
    subject = typer.Typer(no_args_is_help=True, help="Enrol and erase people.", rich_markup_mode=None)
    subject.command("enrol")(enrol)
    subject.command("erase")(erase)
    app.add_typer(subject, name="subject")
    grant = typer.Typer(no_args_is_help=True, help="Issue and revoke permissions.", rich_markup_mode=None)
    grant.command("issue")(issue)
    grant.command("list")(list_grants)
    grant.command("show")(show)
    grant.command("revoke")(revoke)
    grant.command("receipt")(receipt)
    grant.command("status-list")(status_list)
    grant.command("verify")(verify)
    grant.command("key")(key)
    app.add_typer(grant, name="grant")


@report_errors
def enrol(
    name: Annotated[str, typer.Option(help="The person's name; kept encrypted.")],
    image: Annotated[list[Path], typer.Option(help="Pictures of this one person, three or more are better.")],
    adult_verified: Annotated[
        str, typer.Option(help="How adulthood was verified, e.g. passport, in_person.")
    ],
    adult_verified_on: Annotated[str | None, typer.Option(help="When, YYYY-MM-DD; default: today.")] = None,
    public_figure: Annotated[bool, typer.Option("--public-figure", help="Known to the public.")] = False,
    evidence: Annotated[str | None, typer.Option(help="For a public figure: proof that they agreed.")] = None,
    json_output: Json = False,
) -> None:
    """Enrol a person: a face template and a profile, encrypted under a key of their own."""
    from fusion.media import LIMITS, read_file, read_picture
    from fusion.request import only_face
    from fusion.swap import load_perception
    from provenance import subjects
    from provenance.records import AdultVerified, Profile, PublicFigure

    verified_on = date.today() if adult_verified_on is None else _date(adult_verified_on)
    profile = Profile.make(
        name=name,
        adult_verified=AdultVerified.make(method=adult_verified, date=verified_on),
        public_figure=PublicFigure.make(is_public_figure=public_figure, evidence=evidence),
    )
    with open_home() as home:
        perception = load_perception("cpu")
        pictures = [read_picture(read_file(path, LIMITS.max_bytes)) for path in image]
        embeddings = [only_face(perception.analyse(picture.rgb)).embedding for picture in pictures]
        enrolment = subjects.enrol(home, profile, embeddings, _embedder())
    if json_output:
        emit({"subject": enrolment.subject_id, "num_embeddings": enrolment.num_embeddings})
        return
    say(f"Enrolled {enrolment.subject_id} from {enrolment.num_embeddings} picture(s).")
    for note in enrolment.notes:
        say(note)


@report_errors
def erase(
    subject: Annotated[str, typer.Argument(help="Subject id.")],
    json_output: Json = False,
) -> None:
    """Destroy a person's key, template and profile; the ledger stays intact."""
    from provenance import subjects

    with open_home() as home:
        receipt = subjects.erase(home, subject)
    if json_output:
        emit({"subject": subject, "ledger": {"index": receipt.index, "root": receipt.root}})
    else:
        say(f"Erased {subject}; leaf {receipt.index} says so. Backups hold the old key: destroy them too.")


@report_errors
def issue(
    subject: Annotated[str, typer.Option(help="Subject id.")],
    grantee: Annotated[str, typer.Option(help="Who may use it: the organisation's name.")],
    purpose: Annotated[list[str], typer.Option(help="What for; repeat or list.")],
    scope: Annotated[list[str], typer.Option(help="source and/or target.")],
    media: Annotated[list[str], typer.Option(help="still and/or video.")],
    use: Annotated[list[str], typer.Option(help="internal, publish, dataset.")],
    until: Annotated[str, typer.Option(help="Last day, YYYY-MM-DD.")],
    evidence: Annotated[str, typer.Option(help="Where the signed consent is kept.")],
    jurisdiction: Annotated[list[str] | None, typer.Option(help="Where; default WORLD.")] = None,
    lang: Annotated[str, typer.Option(help="Language of the text that the person reads: en or zh.")] = "en",
    draft: Annotated[bool, typer.Option("--draft", help="Show the text only; issue nothing.")] = False,
    json_output: Json = False,
) -> None:
    """Issue a signed grant of an enrolled person, and show the text they agree to."""
    from provenance import grants
    from provenance.notices import consent_text
    from provenance.records import GrantTerms

    fields: dict[str, Any] = {
        "subject_id": subject,
        "grantee": grantee,
        "purposes": tuple(purpose),
        "scope_roles": tuple(scope),
        "scope_media": tuple(media),
        "uses": tuple(use),
        "not_before": datetime.now(UTC),
        "expires": datetime.combine(_date(until), datetime.max.time(), UTC).replace(microsecond=0),
        "jurisdictions": tuple(jurisdiction or ["WORLD"]),
        "embedder": _embedder(),
        "consent_text_language": lang,
        "evidence": evidence,
    }
    terms = GrantTerms.make(consent_text_sha256="0" * 64, **fields)
    grants.require_span(terms, datetime.now(UTC))
    text = consent_text(terms)
    if draft:
        _show_text(text.text, {"text": text.text, "text_sha256": text.sha256}, json_output)
        return
    with open_home() as home:
        grant = grants.issue(home, GrantTerms.make(consent_text_sha256=text.sha256, **fields))
    told = {"grant": grant.id, "subject": subject, "text": text.text, "ledger_index": grant.issued_index}
    _show_text(
        f"Issued {grant.id}, leaf {grant.issued_index}. The text agreed to:\n{text.text}", told, json_output
    )


@report_errors
def list_grants(json_output: Json = False) -> None:
    """List every grant, in the order of issue."""
    from provenance import grants

    with open_home() as home:
        found = grants.list_grants(home)
    rows = [(grant.id, grant.subject_id, grant.issued_index, grant.revoked_at or "") for grant in found]
    columns = ("grant", "subject", "leaf", "revoked")
    if json_output:
        emit({"grants": [dict(zip(columns, row, strict=True)) for row in rows]})
    else:
        table(columns, rows)


@report_errors
def show(
    grant: Annotated[str, typer.Argument(help="Grant id.")],
    json_output: Json = False,
) -> None:
    """Show the terms of one grant, its signature verified."""
    from provenance import grants

    with open_home() as home:
        stored = grants.find_grant(home, grant)
        terms = grants.open_grant(stored.jws, home.keys).model_dump(mode="json")
    if json_output:
        emit({**terms, "revoked": stored.revoked_at})
    else:
        table(("field", "value"), [*terms.items(), ("revoked", stored.revoked_at or "no")])


@report_errors
def revoke(
    grant: Annotated[str, typer.Argument(help="Grant id.")],
    reason: Annotated[str, typer.Option(help="Why; kept in this database only.")],
    json_output: Json = False,
) -> None:
    """Withdraw a grant for good, effective at once."""
    from provenance import grants

    with open_home() as home:
        receipt = grants.revoke(home, grant, reason)
    if json_output:
        emit({"grant": grant, "ledger": {"index": receipt.index, "root": receipt.root}})
    else:
        say(f"Revoked {grant}; leaf {receipt.index} says so.")


@report_errors
def receipt(
    grant: Annotated[str, typer.Argument(help="Grant id.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    json_output: Json = False,
) -> None:
    """Write the signed receipt of a grant, for the person to keep."""
    from fusion.files import write_file_atomically
    from provenance.receipts import write_receipt

    with open_home() as home:
        text = write_receipt(home, grant)
    write_file_atomically(output, text.encode() + b"\n")
    _show_text(
        f"Wrote the receipt of {grant} to {output}.", {"grant": grant, "output": str(output)}, json_output
    )


@report_errors
def status_list(
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    json_output: Json = False,
) -> None:
    """Write the signed Token Status List of all grants, for others to look up what was revoked."""
    from fusion.files import write_file_atomically
    from provenance import statuslist

    with open_home() as home:
        text = statuslist.publish(home)
    write_file_atomically(output, text.encode() + b"\n")
    _show_text(f"Wrote the status list to {output}.", {"output": str(output)}, json_output)


@report_errors
def verify(
    file: Annotated[Path, typer.Argument(help="A receipt or a status list of this home.")],
    grant: Annotated[str | None, typer.Option(help="With a status list: the grant to look up.")] = None,
    json_output: Json = False,
) -> None:
    """Verify a receipt of consent, or look a grant up in a status list."""
    from fusion.files import read_file
    from provenance import receipts, statuslist
    from provenance.grants import find_grant

    text = read_file(file, 1 << 24).decode("ascii", "replace")
    with open_home() as home:
        if grant is not None:
            claim = statuslist.reference_of(home, find_grant(home, grant).issued_index)["status_list"]
            status = statuslist.open_list(text, home).status(claim["idx"])
            told = {"grant": grant, "index": claim["idx"], "status": "invalid" if status else "valid"}
        else:
            read = receipts.open_receipt(text, home)
            told = {"grant": read.grant.jti, "ledger_index": read.issued_index, "withdrawn": read.withdrawn}
            told |= {"text": read.text}
    _show_text("\n".join(f"{name}: {value}" for name, value in told.items()), told, json_output)


@report_errors
def key(json_output: Json = False) -> None:
    """Print the public keys with which others verify grants, receipts, status lists and checkpoints."""
    from provenance.tokens import public_jwk

    with open_home() as home:
        jwk = public_jwk(home.keys.grant_key.public_key())
        ledger = home.ledger.signer.verifier.text
    if json_output:
        emit({"grant_key": jwk, "ledger_key": ledger})
    else:
        table(("key", "value"), [*jwk.items(), ("ledger", ledger)])


def _show_text(text: str, payload: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit(payload)
    else:
        say(text)


def _date(text: str) -> date:
    from provenance.errors import UsageError

    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError("option.date", f"{text!r} is no date.", "Write it as YYYY-MM-DD.") from None


def _embedder() -> Any:
    from fusion.identity import MATCH_THRESHOLD
    from fusion.weights import IDENTITY
    from provenance.records import Embedder

    return Embedder.make(sha256=IDENTITY.sha256, threshold=MATCH_THRESHOLD)
