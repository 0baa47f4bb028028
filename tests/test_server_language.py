"""The catalogues: equal keys and placeholders, nothing untranslated, nothing unused; the choice of a language."""

from __future__ import annotations

import re
import string
from datetime import UTC, datetime

import pytest
from conftest import ROOT

from provenance.requirements import REQUIREMENTS, TITLES
from server.language import FOLDER, LANGUAGES, Translator, choose_language, read_catalogue, translator

KEY = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_]+)+")
SAME_IN_BOTH = frozenset({"page.brand"})
"""Names that no language translates."""
HAN = re.compile(r"[\u4e00-\u9fff]")


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def domains() -> list[str]:
    return sorted(path.name for path in (FOLDER / "en").glob("*.po"))


def written() -> str:
    """Everything that may name a key: code and templates of the server, and codes of statements below it."""
    files = [path for kind in ("*.py", "*.html", "*.js") for path in (ROOT / "server").rglob(kind)]
    files += [path for folder in ("detector", "fusion") for path in (ROOT / folder).glob("*.py")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def test_every_language_has_the_same_catalogues() -> None:
    for lang in LANGUAGES:
        assert sorted(path.name for path in (FOLDER / lang).glob("*.po")) == domains()
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == set(LANGUAGES)


@pytest.mark.parametrize("domain", domains())
def test_keys_and_placeholders_are_equal_and_nothing_is_untranslated(domain: str) -> None:
    english, chinese = (read_catalogue(FOLDER / lang / domain) for lang in ("en", "zh"))
    assert set(english) == set(chinese)
    for key, forms in english.items():
        assert KEY.fullmatch(key), key
        assert all(form.strip() for form in (*forms, *chinese[key])), key
        wanted = placeholders(forms[-1])
        assert all(re.fullmatch(r"[a-z_][a-z0-9_]*", name) for name in wanted), f"{key}: plain names only"
        for form in (*forms, *chinese[key]):
            assert placeholders(form) == wanted, key
        assert key in SAME_IN_BOTH or HAN.search(chinese[key][0]), f"{key} is not Chinese"
        assert not any(HAN.search(form) for form in forms), f"{key} is not English"


def test_no_key_lives_in_two_catalogues_and_translators_agree() -> None:
    assert set(translator("en").texts) == set(translator("zh").texts)


def test_a_key_that_does_not_exist_is_an_error_unless_it_may_be_missing() -> None:
    t = translator("en")
    with pytest.raises(KeyError):
        t("no.such.key")
    with pytest.raises(KeyError):
        t("mark.present", asset_id="x")
    assert t.maybe("no.such.key", "as it is") == "as it is"


def test_every_key_that_the_code_names_exists() -> None:
    known = set(translator("en").texts)
    whole = set(re.findall(r'\bt\(\s*"([^"{}]+[^".{}])"', written()))
    beginnings = set(re.findall(r'\bt(?:\.maybe)?\(\s*f?"([a-z.]+\.)["{]', written()))
    assert len(whole) > 200
    assert whole - known == set()
    assert {each for each in beginnings if not any(key.startswith(each) for key in known)} == set()


def test_no_key_is_left_over() -> None:
    text = written()
    beginnings = tuple(set(re.findall(r'\bt(?:\.maybe)?\(\s*f?"([a-z.]+\.)["{]', text)))
    unused = {
        key for key in translator("en").texts if f'"{key}"' not in text and not key.startswith(beginnings)
    }
    assert unused == set()


def test_plural_forms_follow_the_count() -> None:
    t = Translator("en", {"a.b": ("{count} face", "{count} faces")})
    assert [t("a.b", count=n) for n in (0, 1, 2)] == ["0 faces", "1 face", "2 faces"]
    assert Translator("zh", {"a.b": ("{count} 张脸",)})("a.b", count=1) == "1 张脸"


@pytest.mark.parametrize(
    ("query", "cookie", "header", "lang"),
    [
        ("zh", "en", "en", "zh"),
        (None, "zh", "en", "zh"),
        (None, None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, None, "en;q=0.3, zh-Hans;q=0.9", "zh"),
        (None, None, "fr, zh-TW;q=0.2, en;q=0.1", "zh"),
        (None, None, "zh;q=0, en", "en"),
        (None, None, "zh;q=abc", "en"),
        ("xx", "../../etc", "de", "en"),
        (None, None, None, "en"),
        (None, None, ",;q=,;;" * 500, "en"),
    ],
)
def test_the_language_is_that_of_query_cookie_header_in_this_order(
    query: str | None, cookie: str | None, header: str | None, lang: str
) -> None:
    assert choose_language(query, cookie, header) == lang


def test_dates_and_numbers_read_as_the_language_writes_them() -> None:
    moment = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
    assert translator("zh").date(moment) == "2026年3月4日 05:06 UTC"
    assert translator("en").date(moment) == "4 Mar 2026, 05:06 UTC"
    assert translator("en").number(0.987, "0.0%") == "98.7%"


def test_what_the_law_asks_is_said_as_the_requirements_say_it() -> None:
    t = translator("en")
    assert {key for key in t.texts if key.startswith("asks.")} == {f"asks.{each.id}" for each in REQUIREMENTS}
    said = {each.id: t(f"asks.{each.id}") == each.asks for each in REQUIREMENTS}
    assert [name for name, same in said.items() if not same] == ["cn.explicit_label"]  # it quotes Chinese
    assert all(t(f"standard.{name}") == title for name, title in TITLES.items())


def test_every_reason_of_a_report_has_its_line_on_the_page() -> None:
    t = translator("zh")
    gates = [key for key in t.texts if key.startswith("gate.")]
    assert len(gates) > 8
    assert [key for key in gates if f"reason.{key}" not in t.texts] == []


def test_no_text_says_that_a_picture_is_authentic() -> None:
    for lang, words in (("en", ("authentic", "genuine")), ("zh", ("是真实的", "真品"))):
        for key, forms in translator(lang).texts.items():
            for form in forms:
                said = any(word in form.lower() for word in words)
                assert not said or key.startswith("limits."), key
