"""A copy that lost its manifest gets it back through content hash or mark, and nothing else is handed out."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Studio
from test_provenance_fsck import tamper
from test_provenance_jumbf import store_of_two

from fusion.face import UInt8Array
from fusion.media import Format, encode_picture, read_picture
from provenance import fsck, watermark
from provenance.claim import MARK_ALGORITHM, SAMPLE_SOURCE_TYPE
from provenance.container import c2pa_store, join_parts, split_parts, without_c2pa_store
from provenance.errors import InputError, LedgerError
from provenance.hashes import content_sha256
from provenance.home import Home
from provenance.jumbf import active_manifest, manifests_of
from provenance.looks import Look
from provenance.resolution import Copy, Evidence, Recovered, Resolver, recover
from provenance.signing import read_detached, read_manifest
from server.cli import build_app


@pytest.fixture(scope="module")
def home(studio: Studio) -> Iterator[Home]:
    with Home.open(studio.home_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def resolver(home: Home) -> Resolver:
    return Resolver(home)


def recover_bytes(resolver: Resolver, data: bytes, home: Home) -> Recovered:
    picture = read_picture(data)
    mark = watermark.extract(picture.rgb, home.keys.mark_key)
    seen = Evidence(content_sha256(data), mark, [Look.of(picture.rgb)])
    return recover(resolver, Copy(data, picture.format.mime, seen), home.keys.trust)


def drawn(seed: int) -> UInt8Array:
    rng = np.random.default_rng(seed)
    return np.asarray(
        np.kron(rng.integers(0, 256, (8, 8, 3), np.uint8), np.ones((64, 64, 1), np.uint8)), np.uint8
    )


def test_a_stripped_and_recoded_copy_gets_its_manifest_back(
    studio: Studio, home: Home, resolver: Resolver
) -> None:
    signed = studio.people[0].path.read_bytes()
    copy = encode_picture(read_picture(signed).rgb, Format.JPEG)
    assert read_manifest(copy, "image/jpeg", home.keys.trust).state == "none"
    found = recover_bytes(resolver, copy, home)
    assert found.store == c2pa_store(split_parts(signed))
    assert (found.match.found_by, found.match.asset_id) == ("mark", studio.people[0].asset_id)
    assert (found.reading.state, found.reading.ours, found.fits) == ("valid", True, False)
    assert found.reading.source_type == SAMPLE_SOURCE_TYPE
    assert found.reading.asset_id == studio.people[0].asset_id
    assert found.same_picture is True


def test_a_copy_that_lost_only_its_manifest_is_found_by_its_content(
    studio: Studio, home: Home, resolver: Resolver
) -> None:
    bare = join_parts(without_c2pa_store(split_parts(studio.people[1].path.read_bytes())))
    found = recover_bytes(resolver, bare, home)
    assert (found.match.found_by, found.match.asset_id) == ("content", studio.people[1].asset_id)
    assert found.same_picture is True


def test_a_mark_copied_to_another_picture_is_told_from_the_picture(
    studio: Studio, home: Home, resolver: Resolver
) -> None:
    moved = watermark.embed(drawn(3), bytes.fromhex(studio.people[0].asset_id), home.keys.mark_key)
    found = recover_bytes(resolver, encode_picture(moved, Format.PNG), home)
    assert found.match.asset_id == studio.people[0].asset_id
    assert found.same_picture is False
    assert (found.match.perceptual_distance or 0) >= 24


def test_what_was_never_ours_leads_nowhere(home: Home, resolver: Resolver) -> None:
    with pytest.raises(InputError, match=r"recover\.no_mark"):
        recover_bytes(resolver, encode_picture(drawn(4), Format.PNG), home)
    stray = watermark.embed(drawn(4), bytes(7) + b"\x09", home.keys.mark_key)
    with pytest.raises(InputError, match=r"recover\.not_recorded"):
        recover_bytes(resolver, encode_picture(stray, Format.PNG), home)


def test_the_four_calls_of_the_resolution_api(studio: Studio, home: Home, resolver: Resolver) -> None:
    person = studio.people[2]
    assert resolver.supported_algorithms()["watermarks"] == [{"alg": MARK_ALGORITHM}]
    raw = base64.b64encode(bytes.fromhex(person.asset_id)).decode()
    text = base64.b64encode(person.asset_id.encode()).decode()
    (match,) = resolver.by_binding(MARK_ALGORITHM, raw)
    assert resolver.by_binding(MARK_ALGORITHM, text) == [match]
    assert match.as_dict() == {"manifestId": match.manifest_id}
    signed = person.path.read_bytes()
    matches, mark = resolver.by_content(read_picture(signed).rgb, content_sha256(signed))
    assert ([each.manifest_id for each in matches], mark.asset_id) == ([match.manifest_id], person.asset_id)
    assert matches[0].as_dict()["similarityScore"] == 100
    store = resolver.manifest(match.manifest_id)
    assert store == c2pa_store(split_parts(signed))
    reading, fits = read_detached(store, signed, "image/png", home.keys.trust)
    assert (reading.state, fits, reading.label) == ("valid", True, match.manifest_id)


@pytest.mark.parametrize(
    ("alg", "value", "code"),
    [
        ("org.example.mark", "AAAAAAAAAAA=", "resolution.algorithm"),
        (MARK_ALGORITHM, "AAAA", "resolution.value"),
        (MARK_ALGORITHM, "no base64!", "resolution.value"),
        (MARK_ALGORITHM, "", "resolution.value"),
    ],
)
def test_queries_out_of_form_are_refused(resolver: Resolver, alg: str, value: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        resolver.by_binding(alg, value)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["../../keys/root.key.pem", "urn:c2pa:x", "", "urn:uuid:" + "0" * 36])
def test_an_id_out_of_form_reaches_no_store(resolver: Resolver, name: str) -> None:
    with pytest.raises(InputError) as caught:
        resolver.manifest(name)
    assert caught.value.code == "manifest.id"


def test_an_unknown_id_is_unknown(resolver: Resolver) -> None:
    with pytest.raises(InputError) as caught:
        resolver.manifest("urn:c2pa:00000000-0000-4000-8000-000000000000")
    assert caught.value.code == "manifest.unknown"


def test_a_store_with_an_ingredient_gives_its_active_manifest_alone(
    studio: Studio, resolver: Resolver
) -> None:
    store = store_of_two()
    alone = active_manifest(store)
    assert [each.label for each in manifests_of(alone)] == [manifests_of(store)[-1].label]
    (match,) = resolver.by_binding(
        MARK_ALGORITHM, base64.b64encode(bytes.fromhex(studio.people[0].asset_id)).decode()
    )
    assert resolver.manifest(match.manifest_id, active_only=True) == resolver.manifest(match.manifest_id)


def tampered_home(studio: Studio, folder: Path, statement: str) -> Home:
    """A copy of the studio's home in which somebody with the file changed the kept manifests."""
    shutil.copytree(studio.home_path, folder)
    tamper(folder / "ledger.db", statement)
    return Home.open(folder)


def codes(home: Home) -> set[tuple[str, int | None]]:
    return {(problem.code, problem.index) for problem in fsck.verify(home).problems}


def test_an_altered_manifest_is_not_handed_out_and_fsck_names_it(
    studio: Studio, home: Home, resolver: Resolver, tmp_path: Path
) -> None:
    assert fsck.verify(home).ok
    value = base64.b64encode(bytes.fromhex(studio.people[0].asset_id)).decode()
    (match,) = resolver.by_binding(MARK_ALGORITHM, value)
    change = f"UPDATE manifests SET store = store || x'00' WHERE leaf_index = {match.ledger_index}"
    with tampered_home(studio, tmp_path / "home", change) as other:
        with pytest.raises(LedgerError, match=r"ledger\.manifest"):
            Resolver(other).manifest(match.manifest_id)
        assert codes(other) == {("ledger.manifest", match.ledger_index)}


def test_a_lost_manifest_is_unknown_and_fsck_names_it(studio: Studio, home: Home, tmp_path: Path) -> None:
    with tampered_home(studio, tmp_path / "home", "DELETE FROM manifests WHERE leaf_index = 1") as other:
        assert codes(other) == {("ledger.manifest", 1)}
        body = home.ledger.entry(1).body
        with pytest.raises(InputError, match=r"manifest\.unknown"):
            Resolver(other).manifest(body["manifest_id"])


def test_the_command_writes_the_store_or_a_report(
    studio: Studio, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACSIMILE_HOME", str(studio.home_path))
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(encode_picture(read_picture(studio.people[0].path.read_bytes()).rgb, Format.JPEG))

    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as ended:
            build_app()(args=[str(argument) for argument in arguments])
        return int(ended.value.code or 0)

    assert run("recover", copy, "-o", tmp_path / "m.c2pa", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["asset_id"], told["manifest"]["state"]) == (studio.people[0].asset_id, "valid")
    store = c2pa_store(split_parts(studio.people[0].path.read_bytes()))
    assert (tmp_path / "m.c2pa").read_bytes() == store
    assert run("recover", copy, "-o", tmp_path / "m.json") == 0
    report = json.loads((tmp_path / "m.json").read_text())
    assert report["tree"]["active_manifest"] == report["manifest_id"]
    assert run("recover", copy, "-o", tmp_path / "m.txt") == 2
    assert "recover.format" in capsys.readouterr().err
