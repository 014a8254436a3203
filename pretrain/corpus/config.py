"""The sections corpus, tokenizer and prepare of the configuration."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le

from bert.config import NonNegativeInt, PositiveInt, Probability

Format = Literal[
    "auto",
    "text",
    "paragraphs",
    "lines",
    "jsonl",
    "csv",
    "tsv",
    "parquet",
    "wiki",
    "dataset",
    "documentation",
]
DOCUMENTATION = "package-documentation"


Weight = Annotated[float, Ge(0.001), Le(1000)]
_MOST_SOURCES = 256  # a source number is a byte in the store


@dataclass(frozen=True)
class SourceConfig:
    """One source of a mixture."""

    files: list[str]
    """files, folders, globs or URLs, as corpus.files"""
    format: Format = "auto"
    """how the files hold documents, as corpus.format"""
    text_column: str = "text"
    """column or key that holds the text, as corpus.text_column"""
    weight: Weight = 1.0
    """how often an epoch visits this source's documents: 1 = once each, 2.5 = two and a half times"""
    name: str | None = None
    """a name for evaluations: the held-out text of a named source is also measured alone"""


@dataclass(frozen=True)
class CorpusConfig:
    files: list[str] = field(default_factory=lambda: [DOCUMENTATION])
    """files, folders, globs, URLs (hf://, s3://, https://), compressed or not; or package-documentation"""
    format: Format = "auto"
    """text: one document a file; paragraphs: blank lines between them; lines: one a line; auto: by name and look"""
    text_column: str = "text"
    """column or key of the text (a string or a list of paragraphs) in jsonl, csv, tsv, parquet and dataset"""
    sources: list[SourceConfig] = field(default_factory=list)
    """a weighted mixture instead of files: a list of {files, format, text_column, weight}"""
    heldout_share: Probability = 0.01
    """share of the documents held out for validation; a hash of a document's text decides, so they stay the same"""
    sentences: Literal["auto", "lines", "none"] = "auto"
    """auto finds sentences in any script; lines: one sentence on each line; none: a paragraph counts as one"""
    normalize: bool = True
    """normalise Unicode to its composed form (NFC) and drop control characters"""
    ftfy: bool = False
    """repair broken encodings such as â€™ with ftfy first (slow; needs the package ftfy)"""

    def __post_init__(self) -> None:
        if self.sources and self.files != [DOCUMENTATION]:
            raise ValueError("sources: a mixture names its own files; leave corpus.files out")
        if len(self.sources) > _MOST_SOURCES:
            raise ValueError(
                f"sources: {len(self.sources)} are more than {_MOST_SOURCES}; put files of one weight together"
            )

    @property
    def names(self) -> list[tuple[str, str]]:
        """The names of sources, each behind the key that gives it."""
        named = ((f"corpus.sources.{n}.name", source.name) for n, source in enumerate(self.sources))
        return [(key, name) for key, name in named if name is not None]


@dataclass(frozen=True)
class TokenizerConfig:
    RECIPES = "tokenizer"

    path: str | None = None
    """folder of the tokenizer; by default RUN_DIR/tokenizer"""
    from_: str | None = None
    """use this tokenizer instead of training one: a vocab.txt, a tokenizer.json, a Hugging Face folder or a run"""
    algorithm: Literal["wordpiece", "bpe", "unigram"] = "wordpiece"
    """how the vocabulary is learnt; bpe works on bytes and has no unknown token"""
    vocab_size: PositiveInt = 30522
    """number of tokens, the special ones included"""
    lowercase: bool = True
    """uncased: lower case without accents"""
    strip_accents: bool | None = None
    """drop accents (é → e, ü → u); by default where lowercase does"""
    cjk_spacing: bool = True
    """every Chinese character is a word of its own (wordpiece)"""
    min_frequency: PositiveInt = 2
    """a piece must occur this often to enter the vocabulary"""
    character_coverage: Probability = 0.9999
    """share of the text whose characters must be in the vocabulary; the rarest characters become unknown"""
    sample_bytes: PositiveInt = 100_000_000
    """train on at most this much text, drawn from all files"""


@dataclass(frozen=True)
class PrepareConfig:
    store: str | None = None
    """folder of the tokenised documents; by default RUN_DIR/store"""
    workers: NonNegativeInt = 0
    """processes; 0: one for each CPU core"""
    scheduler: str | None = None
    """Dask scheduler (tcp://host:8786) whose workers share this file system; by default local processes"""
    deduplicate: Literal["off", "exact", "near"] = "exact"
    """drop documents that repeat another one: word for word (exact), or almost (near; needs datasketch)"""
    near_threshold: Probability = 0.8
    """near: two documents that share this much of their word sequences count as the same"""
