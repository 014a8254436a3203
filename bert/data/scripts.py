"""Scripts without spaces between words: which characters are words by themselves, and which letters are parts of words
whose borders nothing shows."""

import unicodedata

_ALONE = (
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Chinese characters
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x1AFF0, 0x1B16F),  # further kana
    (0x20000, 0x3FFFF),  # further Chinese characters
)
ALONE = "".join(f"{chr(first)}-{chr(last)}" for first, last in _ALONE)
"""the characters that `stands_alone` finds, as ranges within the brackets of a regular expression"""
_OF_WORDS = ("THAI", "LAO", "KHMER", "MYANMAR")
"""first words of the Unicode names of letters in scripts without spaces, whose words have several letters"""


def stands_alone(character: str) -> bool:
    """Whether a character is read as a word by itself: kana and Chinese characters."""
    code = ord(character)
    return any(first <= code <= last for first, last in _ALONE)


def is_unspaced(character: str) -> bool:
    """Whether a character is a letter of a script without spaces between words, such as Chinese or Thai."""
    named = stands_alone(character) or unicodedata.name(character, "").startswith(_OF_WORDS)
    return character.isalpha() and named
