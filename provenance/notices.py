"""The texts that people agree to, in English and Simplified Chinese; signs nothing and asks nobody.

A grant holds the language and the SHA-256 of the text that was shown. A text follows from the terms and a numbered
wording alone, so it can be written out again from the signed grant and compared. A wording that was ever used stays
here unchanged: a correction is a new number. `find_text` gives None where no wording of ours has the grant's hash;
then the text was another one, and only its hash is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from provenance.errors import InputError
from provenance.records import Grant, GrantTerms

Lang = Literal["en", "zh"]
NEWEST = 2
"""The wording that is shown today."""


@dataclass(frozen=True)
class ConsentText:
    """A text, the wording it follows and its language."""

    text: str
    wording: int
    lang: str

    @property
    def sha256(self) -> str:
        """Hash of the text in UTF-8, as a grant holds it."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def consent_text(terms: GrantTerms, wording: int = NEWEST) -> ConsentText:
    """What a person is to read before they agree to these terms, in `terms.consent_text_language`.

    InputError where there is no wording in that language.
    """
    span = int(terms.not_before.timestamp()), int(terms.expires.timestamp())
    return _write(terms, span, terms.consent_text_language, wording)


def find_text(grant: Grant) -> ConsentText | None:
    """The text that a signed grant's hash stands for; None where it is none of ours."""
    span = grant.nbf, grant.exp
    for wording, texts in _WORDINGS.items():
        if grant.consent_text_language in texts:
            found = _write(grant, span, grant.consent_text_language, wording)
            if found.sha256 == grant.consent_text_sha256:
                return found
    return None


def languages(wording: int = NEWEST) -> tuple[str, ...]:
    """The languages in which a wording exists."""
    return tuple(_WORDINGS[wording])


def _write(terms: Grant | GrantTerms, span: tuple[int, int], lang: str, wording: int) -> ConsentText:
    texts = _WORDINGS[wording]
    if lang not in texts:
        raise InputError(
            "consent.language",
            f"There is no consent text in the language {lang!r}.",
            f"Choose one of {', '.join(texts)}, which the person understands.",
        )
    words, joint = (_WORDS, _JOINTS) if wording > 1 else (_FIRST_WORDS, _FIRST_JOINTS)
    fields = {
        "grantee": terms.grantee,
        "roles": joint[lang]["roles"].join(words[lang][role] for role in terms.scope_roles),
        "media": joint[lang]["media"].join(words[lang].get(kind, kind) for kind in terms.scope_media),
        "uses": joint[lang]["list"].join(words[lang].get(use, use) for use in terms.uses),
        "purposes": joint[lang]["list"].join(terms.purposes),
        "jurisdictions": joint[lang]["list"].join(words[lang].get(j, j) for j in terms.jurisdictions),
        "start": _moment(span[0], wording),
        "end": _moment(span[1], wording),
    }
    return ConsentText(texts[lang].format_map(fields), wording, lang)


def _moment(seconds: int, wording: int) -> str:
    time = datetime.fromtimestamp(seconds, UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ" if wording == 1 else "%Y-%m-%d %H:%M UTC")


_FIRST = {
    "en": (
        "I allow {grantee} {roles}, in {media} form, for: {purposes}; use: {uses}; where: {jurisdictions}; "
        "from {start} until {end}. I can withdraw this at any time, and have my face template destroyed."
    )
}
_FIRST_WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {"source": "to give my face to a picture", "target": "to have my picture altered"}
}
_FIRST_JOINTS = {"en": {"roles": " and ", "media": " and ", "list": ", "}}

_SECOND = {
    "en": """\
Consent to the use of my face

I allow {grantee} to use my face as follows, and in no other way.

What may be done:
{roles}
In which form: {media}.
What for: {purposes}.
How results may be used: {uses}.
Where: {jurisdictions}.
From {start} until {end}.

What is kept about me: my name, how it was verified that I am an adult, and a face template (512 numbers \
computed from my pictures, which are biometric data), all encrypted under a key of my own. The pictures that I hand \
in are not kept. A record that cannot be changed notes that I agreed, without my name and without my face.

What happens with results: each one carries an imperceptible mark and a signed declaration that it is \
synthetic, and each is recorded.

My rights: I agree freely, and I am an adult. I can withdraw at any time, without giving a reason and without \
disadvantage. From that moment nothing new is made of my face. Results that were handed out before cannot be called \
back by this program. I can have my name and my face template destroyed, I can have a signed receipt of this text, \
and I can complain to a data-protection authority.
""",
    "zh": """\
关于使用本人面部的同意书

本人允许 {grantee} 仅按以下方式使用本人的面部，不得作其他用途。

可以进行的处理：
{roles}
形式：{media}。
目的：{purposes}。
结果的用途：{uses}。
地域：{jurisdictions}。
期限：自 {start} 起，至 {end} 止。

保存哪些信息：本人姓名、成年核验的方式，以及面部模板（由本人照片计算出的 512 个数字，属于生物识别信息）。\
这些内容均以专属于本人的密钥加密。本人提交的照片不会被保存。另有一份不可更改的记录，只载明本人已经同意，不含姓名和面部信息。

结果如何处理：每个结果都带有不可察觉的水印和“合成内容”的签名声明，并逐一记录在案。

本人的权利：本人已成年，自愿同意。本人可随时撤回同意，无需说明理由，也不会因此受到不利对待。自撤回之时起，不再使用本人面部生成\
任何新内容；此前已经交付的结果，本程序无法收回。本人可要求销毁姓名和面部模板，可索取本文本的签名回执，也可向个人信息保护主管部门投诉。
""",
}
_WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "source": "- My face may be put onto another person's picture.",
        "target": "- My picture may be altered: another face may be put onto mine.",
        "still": "still pictures",
        "video": "videos",
        "internal": "inside the organisation only",
        "publish": "published",
        "dataset": "as part of a data set",
        "WORLD": "anywhere in the world",
    },
    "zh": {
        "source": "- 可将本人的面部置于他人的图像上。",
        "target": "- 可修改本人的图像：将他人的面部置于本人图像上。",
        "still": "静态图像",
        "video": "视频",
        "internal": "仅限机构内部使用",
        "publish": "公开发布",
        "dataset": "作为数据集的一部分",
        "WORLD": "世界任何地方",
    },
}
_JOINTS = {
    "en": {"roles": "\n", "media": " and ", "list": ", "},
    "zh": {"roles": "\n", "media": "和", "list": "、"},
}
_WORDINGS: Mapping[int, Mapping[str, str]] = {1: _FIRST, 2: _SECOND}
