"""A key that identifies a text: equal texts have equal keys, in a corpus and in the files of a task."""

import hashlib
from collections.abc import Iterable


def key(paragraphs: Iterable[str]) -> int:
    """64 bits that identify a document by its text; white space around paragraphs does not count."""
    text = "\n".join(stripped for paragraph in paragraphs if (stripped := paragraph.strip()))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
