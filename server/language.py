"""The words of the suite in English and Simplified Chinese: keys in, text out; decides nothing and shows nothing.

Use, in any module of `server`:

    t = translator("zh")                      # or translator(choose_language(query, cookie, accept_language))
    t("witness.mark")                         # text of a key; KeyError for a key that no catalogue has
    t("detector.faces", count=3)              # placeholders are named; the plural form follows `count`
    t.maybe(f"rule.{code}", fallback=code)    # for keys made of codes that may be newer than the catalogue
    t.date(moment), t.number(0.987, "0.0%")   # dates and numbers as the language writes them
    t.lang, t.tag                             # "zh", and "zh-Hans" for <html lang>

The catalogues are gettext files, `locale/<lang>/<domain>.po`, read at start without compiling (some 10 ms). `msgid` is
a key such as `verdict.tampered.title`, never English text, so that a wording may change without losing its
translation. Several domains keep apart what different parts own; a key lives in one of them. Both languages have
equal keys and equal placeholders (tests/test_server_language.py), so nothing falls back from one to the other.

It does not know wordings that people consented to: those are bound by hash (provenance/notices.py).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

from babel import Locale
from babel.dates import format_datetime
from babel.messages.pofile import read_po
from babel.numbers import format_decimal

Lang = Literal["en", "zh"]

LANGUAGES: Mapping[Lang, str] = {"en": "English", "zh": "简体中文"}
"""Each language by its own name."""
TAGS: Mapping[Lang, str] = {"en": "en", "zh": "zh-Hans"}
"""BCP 47, for `lang` attributes."""
DEFAULT: Lang = "en"
_MOMENT: Mapping[Lang, str] = {"en": "d MMM y, HH:mm 'UTC'", "zh": "y年M月d日 HH:mm 'UTC'"}
FOLDER = Path(__file__).parent / "locale"


@dataclass(frozen=True)
class Translator:
    """The texts of one language by their keys."""

    lang: Lang
    texts: Mapping[str, tuple[str, ...]]

    @property
    def tag(self) -> str:
        """BCP 47 tag of the language."""
        return TAGS[self.lang]

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key with its placeholders filled; KeyError where there is no such key or value."""
        forms = self.texts[key]
        return forms[self._form(forms, values.get("count"))].format_map(values)

    def maybe(self, key: str, fallback: str, **values: object) -> str:
        """The text of a key, or the fallback as it is where no catalogue has the key."""
        return self(key, **values) if key in self.texts else fallback

    def date(self, moment: datetime) -> str:
        """Day and time to the minute in UTC, as the language writes them, with the zone."""
        return format_datetime(moment.astimezone(UTC), _MOMENT[self.lang], locale=_locale(self.lang))

    def date_of(self, stamp: str) -> str:
        """The same of an RFC 3339 text; a text that is none stays as it is."""
        try:
            return self.date(datetime.fromisoformat(stamp))
        except ValueError:
            return stamp

    def number(self, value: float, pattern: str | None = None) -> str:
        """A number as the language writes it; `pattern` as in Unicode TR 35, such as `0.0%`."""
        return format_decimal(value, format=pattern, locale=_locale(self.lang))

    def _form(self, forms: tuple[str, ...], count: object) -> int:
        """Which plural form a count takes (CLDR through Babel's rule of the language)."""
        if len(forms) == 1 or not isinstance(count, int):
            return 0
        return 0 if _locale(self.lang).plural_form(count) == "one" else 1


@functools.cache
def translator(lang: Lang) -> Translator:
    """The translator of a language; ValueError where a catalogue names a key twice."""
    texts: dict[str, tuple[str, ...]] = {}
    for path in sorted((FOLDER / lang).glob("*.po")):
        for key, forms in read_catalogue(path).items():
            if key in texts:
                raise ValueError(f"{path.name} names {key}, which another catalogue has")
            texts[key] = forms
    return Translator(lang, texts)


def read_catalogue(path: Path) -> dict[str, tuple[str, ...]]:
    """Key → text, or its plural forms (one, other), of a .po file."""
    with path.open("rb") as file:
        catalogue = read_po(file, abort_invalid=True)
    return {_first(message.id): _forms(message.string) for message in catalogue if message.id}


def choose_language(query: str | None, cookie: str | None, accept_language: str | None) -> Lang:
    """The language of an answer: `?lang=`, else the cookie, else the best of Accept-Language, else English."""
    for asked in (query, cookie):
        if asked and (known := _known(asked)):
            return known
    return next((known for tag in _by_preference(accept_language or "") if (known := _known(tag))), DEFAULT)


def _by_preference(header: str) -> list[str]:
    """The tags of an Accept-Language header (RFC 9110 section 12.5.4), best first; malformed ones are left out."""
    weighted: list[tuple[float, int, str]] = []
    for part in header[:1000].split(","):
        tag, _, weight = part.strip().partition(";")
        try:
            q = float(weight.strip().removeprefix("q=")) if weight else 1.0
        except ValueError:
            continue
        if tag and q > 0:
            weighted.append((-q, len(weighted), tag.strip()))
    return [tag for _, _, tag in sorted(weighted)]


def _known(tag: str) -> Lang | None:
    """Our language for a tag: `zh-CN`, `zh-Hant` and `zh_HK` read Chinese, `en-GB` English."""
    primary = tag.replace("_", "-").split("-")[0].strip().lower()
    return cast(Lang, primary) if primary in LANGUAGES else None


def _forms(text: object) -> tuple[str, ...]:
    """One text as one form, several as they are."""
    return tuple(map(str, text)) if isinstance(text, list | tuple) else (str(text or ""),)


def _first(text: object) -> str:
    return _forms(text)[0]


@functools.cache
def _locale(lang: Lang) -> Locale:
    return Locale.parse(TAGS[lang], sep="-")
