"""The digits 0 to 9 as people write them, in over forty languages and a dozen scripts.

Words come from num2words; what it lacks (a second common form, Hindi, Greek) is listed here. A form that
two digits share, also by way of another language, belongs to neither and is left out.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from num2words import num2words

LANGUAGES: Final = (
    "am", "ar", "az", "be", "bn", "ca", "cs", "cy", "da", "de", "en", "eo", "es", "fa", "fi", "fr", "he",
    "hu", "id", "is", "it", "ja", "kn", "ko", "kz", "lt", "lv", "nl", "no", "pl", "pt", "ro", "ru", "sk",
    "sl", "sr", "sv", "te", "th", "tr", "uk", "vi",
)  # fmt: skip

# Further common forms, by digit: gender, older or spoken variants, languages that num2words has not.
_FURTHER: Final[dict[str, tuple[str, ...]]] = {
    "en": ("nought nil", "", "", "", "", "", "", "", "", "niner"),
    "de": ("", "ein eine einer", "zwo", "", "", "", "", "", "", ""),
    "fr": ("", "une", "", "", "", "", "", "", "", ""),
    "es": ("", "un una", "", "", "", "", "", "", "", ""),
    "it": ("", "una", "", "", "", "", "", "", "", ""),
    "pt": ("", "uma", "duas", "", "", "", "meia", "", "", ""),
    "ca": ("", "una", "dues", "", "", "", "", "", "huit", ""),
    "nl": ("", "een", "", "", "", "", "", "", "", ""),
    "sv": ("", "en", "", "", "", "", "", "", "", ""),
    "da": ("", "en", "", "", "", "", "", "", "", ""),
    "no": ("", "ett", "", "", "", "", "", "sju", "", ""),
    "ro": ("", "una", "două", "", "", "", "", "", "", ""),
    "pl": ("", "jedna", "dwie", "", "", "", "", "", "", ""),
    "ru": ("нуль", "одна одно", "две", "", "", "", "", "", "", ""),
    "uk": ("", "одна", "дві", "", "", "", "", "", "", ""),
    "id": ("kosong", "", "", "", "", "", "", "", "lapan", ""),
    "ko": ("공", "하나", "둘", "셋", "넷", "다섯", "여섯", "일곱", "여덟", "아홉"),
    "zh": ("〇", "壹", "两 贰 二", "叁", "肆", "伍", "陆", "柒", "捌", "玖"),
    "hi": ("शून्य", "एक", "दो", "तीन", "चार", "पाँच पांच", "छह छः", "सात", "आठ", "नौ"),
    "el": (
        "μηδέν", "ένα", "δύο δυο", "τρία", "τέσσερα", "πέντε", "έξι", "επτά εφτά", "οκτώ οχτώ", "εννέα εννιά",
    ),
}  # fmt: skip

# Zero of each decimal script in Unicode: the other nine follow it.
_ZEROS: Final = "0٠۰०০೦౦๐０"

CARRIERS: Final = (
    "number {}", "the number {}", "digit {}", "no. {}", "it is {}", "{} please", "Nummer {}", "die Zahl {}",
    "Ziffer {}", "numéro {}", "le chiffre {}", "número {}", "la cifra {}", "numero {}", "nummer {}",
    "число {}", "цифра {}", "数字{}", "رقم {}", "{}.", "{}!", "{}?", "#{}", "({})", "“{}”", "«{}»", " {} ",
)  # fmt: skip


def surface(text: str) -> str:
    """What is left of a string for the tokenizer: compatible characters and case folded together."""
    return unicodedata.normalize("NFKC", text).lower()


def number_words() -> dict[str, int]:
    """Every unambiguous word, in surface form, and its digit."""
    pairs = [
        (word, digit) for digit in range(10) for language in LANGUAGES for word in _words(language, digit)
    ]
    pairs += [
        (word, digit)
        for forms in _FURTHER.values()
        for digit, form in enumerate(forms)
        for word in form.split()
    ]
    pairs += [(_without_accents(word), digit) for word, digit in pairs]
    return unambiguous((surface(word), digit) for word, digit in pairs)


def digit_signs() -> dict[str, int]:
    """`7`, `٧`, `७`, …"""
    return {chr(ord(zero) + digit): digit for zero in _ZEROS for digit in range(10)}


def unambiguous(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Only strings that always mean the same digit, sorted so that draws from them are repeatable."""
    meanings: dict[str, set[int]] = defaultdict(set)
    for text, digit in pairs:
        meanings[text].add(digit)
    return {text: digits.pop() for text, digits in sorted(meanings.items()) if len(digits) == 1}


def _words(language: str, digit: int) -> list[str]:
    """Alternatives, where a language's converter gives several at once."""
    word: str = num2words(digit, lang=language)
    return [part.strip() for part in word.split(",")]


def _without_accents(word: str) -> str:
    """As typed on a keyboard without them: `três` -> `tres`. Latin only: elsewhere marks are letters."""
    if not all(unicodedata.name(letter, "").startswith("LATIN") for letter in word):
        return word
    letters = unicodedata.normalize("NFKD", word)
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
