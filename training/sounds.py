"""Letters of many scripts as Latin ones, by the sounds that Unicode names them after.

Words that languages share look alike only where they are written alike: Russian три, Greek τρία, Hindi तीन
and Spanish tres are nearer to each other than their letters show. A letter becomes the first consonant or two
of its name, or its first vowel; of a syllable only the consonant is kept, as Arabic and Hebrew write. That is
no transcription that anyone would read, but the same one for every script.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_SCRIPTS: Final = frozenset(
    {
        "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "HEBREW", "ARABIC", "ETHIOPIC", "CANADIAN",
        "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM",
        "SINHALA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "HIRAGANA", "KATAKANA", "HANGUL",
    }
)  # fmt: skip
_ALPHABETS: Final = frozenset({"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN"})
_SPELT: Final = re.compile(
    r"(?:LETTER|SYLLABLE|SYLLABICS|CHARACTER|CHOSEONG|JUNGSEONG|JONGSEONG|VOWEL SIGN)"
    r"(?: SARA| SHORT| FINAL| SMALL| DOTLESS| SHARP)* ([A-Z]+)"
)
_BEGINNING: Final = re.compile(r"[^aeiou]{1,2}|[aeiou]")
# Sounds that turn into each other as languages part, and so are compared as one: after the ten classes of
# Dolgopolsky (1964), with vowels as a class of their own. What is in none is alike only to itself.
ALIKE: Final = ("aeiouy", "pbf", "td", "szc", "kgqx", "rl", "vw")

_LAST: Final = 0xFFFF  # beyond are dead scripts, and characters that decompose into these


def letters_by_sound() -> dict[str, str]:
    """Each sound to all the letters that are read so, without case and without accents."""
    found: dict[str, list[str]] = {}
    for code in range(0x80, _LAST + 1):
        letter = chr(code)
        if letter != unicodedata.normalize("NFKD", letter).lower():
            continue  # the normaliser never leaves it
        sound = sound_of(letter)
        if sound is not None:
            found.setdefault(sound, []).append(letter)
    return {sound: "".join(letters) for sound, letters in sorted(found.items())}


def sound_of(letter: str) -> str | None:
    """None for what is no letter of a script that is known here."""
    name = unicodedata.name(letter, "")
    script = name.split(" ")[0].split("-")[0]
    spelt = _SPELT.search(name)
    if script not in _SCRIPTS or spelt is None or unicodedata.category(letter)[0] not in "LM":
        return None
    called = spelt[1].lower()
    if script in _ALPHABETS and len(called) == 2 and called[0] == "e":
        return called[1]  # ef, el, em, en, er, es
    beginning = _BEGINNING.match(called)
    assert beginning is not None, "a name begins with a letter"
    return beginning[0]
