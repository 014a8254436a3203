"""The doctor's figures as a page for the terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pretrain.corpus.forecast import bytes_text, duration_text

BAR = 40


def number(value: float) -> str:
    return f"{value:,}"


def share(value: float) -> str:
    return f"{100 * value:.2f} %"


Row = tuple[str, str, Callable[[Any], str]]
"""key of a figure, its name on the page, its format"""
TABLES: dict[str, tuple[str, list[Row]]] = {
    "text": (
        "Text",
        [
            ("documents", "documents", number),
            ("sentences", "sentences", number),
            ("tokens", "tokens", number),
            ("heldout_documents", "held-out documents", number),
            ("heldout_tokens", "held-out tokens", number),
            ("sentences_per_document", "sentences of a document", number),
            ("tokens_per_sentence", "tokens of a sentence", number),
            ("disk_bytes", "store on disk", bytes_text),
        ],
    ),
    "vocabulary": (
        "Vocabulary",
        [
            ("size", "tokens in it", number),
            ("unused_share", "of these, not in the text", share),
            ("unknown_share", "unknown tokens in the text", share),
            ("tokens_per_word", "tokens of a word", number),
            ("unigram_loss", "loss of guessing by frequency (nats)", number),
            ("unigram_accuracy", "accuracy of always guessing the commonest", share),
        ],
    ),
    "examples": (
        "Examples",
        [
            ("examples_per_epoch", "in an epoch", number),
            ("steps_per_epoch", "steps of an epoch", number),
            ("mean_length", "tokens of an example", number),
            ("pairs_share", "with two segments", share),
            ("random_share", "of these, random or swapped", share),
        ],
    ),
    "overfit": (
        "Overfitting to one batch",
        [
            ("first_loss", "loss at first", number),
            ("last_loss", "loss at last", number),
            ("steps", "steps in at most a minute", number),
        ],
    ),
    "forecast": (
        "Forecast for one process of this machine",
        [
            ("parameters", "parameters", number),
            ("steps", "steps", number),
            ("epochs", "epochs", number),
            ("tokens", "tokens", number),
            ("hours", "time, evaluations not counted", lambda hours: duration_text(3600 * hours)),
            ("tokens_per_second", "tokens a second", number),
            ("memory_bytes", "memory", bytes_text),
            ("disk_bytes", "disk, store and checkpoints", bytes_text),
        ],
    ),
}


def show(figures: Mapping[str, Any]) -> None:
    """Print the page."""
    console = Console(highlight=False)

    def section(title: str, table: Table) -> None:
        console.print(f"\n[bold]{title}[/bold]", table, sep="\n")

    def of(check: str) -> None:
        title, rows = TABLES[check]
        values = figures[check]
        section(
            title, _table({name: write(values[key]) for key, name, write in rows if values[key] is not None})
        )

    of("text")
    section("What became of the documents", _table(_preparation(figures["text"]["preparation"])))
    section(
        "Scripts of the letters", _table({name: share(part) for name, part in figures["scripts"].items()})
    )
    of("vocabulary")
    lost = _normalization(figures["normalization"])
    section("Words that are the same to the tokenizer", _table(lost))
    for name, counts in figures["lengths"].items():
        section(f"Length of {name} in tokens", _histogram(counts))
    of("examples")
    section("Length of examples in tokens", _histogram(figures["examples"]["lengths"]))
    packing = figures["packing"]
    padding_fractions = {
        f"padding if {name}": share(part) for name, part in packing["padding_fraction_by_layout"].items()
    }
    micro_batches = {
        "of a step": number(packing["micro_batches"]),
        "padding": share(packing["padding_fraction"]),
    }
    section("Micro-batches", _table(micro_batches | padding_fractions))
    console.print("\n[bold]Three examples of the first step[/bold] (seen→asked)")
    for text in figures["shown"]:
        console.print(f"  {escape(text)}\n")
    of("overfit")
    of("forecast")
    _advice(console, figures["advice"])


MEMORY = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer_state": "optimizer state",
    "weights_in_use": "weights in half precision",
    "activations": "activations of a micro-batch",
    "logits": "of these, scores of words",
    "total": "memory of a GPU",
}
STEP: list[Row] = [
    ("sent_bytes", "a GPU sends in a step", bytes_text),
    ("communication_seconds", "communication", lambda seconds: f"{1000 * seconds:,.2f} ms"),
    ("exposed_seconds", "of it, not behind arithmetic", lambda seconds: f"{1000 * seconds:,.2f} ms"),
    ("seconds_per_step", "a step", lambda seconds: f"{1000 * seconds:,.1f} ms"),
    ("tokens_per_second", "tokens a second, all GPUs", lambda value: number(round(value))),
]


def show_cluster(figures: Mapping[str, Any]) -> None:
    """Print the estimate for many GPUs."""
    console, runs = Console(highlight=False), figures["runs"]
    title = (
        f"Estimate for {figures['gpus']:,} × {figures['machine']} in {number(figures['machines'])} machines"
    )
    console.print(f"\n[bold]{title}[/bold] (not measured; arithmetic at {share(figures['mfu'])} of the peak)")
    console.print(f"  {number(figures['parameters'])} parameters")
    memory = _columns(runs)
    for kind, name in MEMORY.items():
        memory.add_row(f"  {name}", *(bytes_text(run["memory"][kind]) for run in runs.values()))
    fits = ("yes" if run["fits"] else "no" for run in runs.values())
    memory.add_row(f"  fits into {bytes_text(figures['usable_bytes'])}", *fits)
    console.print("\n[bold]Memory of a GPU[/bold]", memory, sep="\n")
    for phase in figures["phases"]:
        console.print(
            f"\n[bold]A step of {number(phase['sequences'])} sequences of {phase['max_length']} tokens[/bold]: "
            f"{number(phase['tokens_per_step'])} tokens, for each GPU {number(phase['micro_batches'])} × "
            f"{number(phase['tokens_of_a_micro_batch'])}"
        )
        table = _columns(runs)
        for key, name, write in STEP:
            table.add_row(f"  {name}", *(write(values[key]) for values in phase["strategies"].values()))
        console.print(table)
    days = ("?" if run["days"] is None else duration_text(86400 * run["days"]) for run in runs.values())
    length = _columns(runs)
    length.add_row("  evaluations and checkpoints not counted", *days)
    console.print("\n[bold]The run[/bold]", length, sep="\n")
    _advice(console, figures["advice"])


def _columns(names: Mapping[str, Any]) -> Table:
    """A table with a column for each name."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    for _ in names:
        table.add_column(justify="right", min_width=10)
    table.add_row("", *names)
    return table


def _advice(console: Console, lines: Sequence[str]) -> None:
    console.print("\n[bold]Advice[/bold]")
    for line in lines or ["nothing out of the ordinary"]:
        console.print(f"  • {escape(line)}")


def _normalization(lost: Mapping[str, Any]) -> dict[str, str]:
    if "unknown" in lost:
        return {"unknown": lost["unknown"]}
    rows = {"distinct words of a sample": number(lost["words"])}
    names = {
        "accents": "differ in accents alone",
        "case": "differ in case alone",
        "other": "differ otherwise",
    }
    for kind, name in names.items():
        found = lost[kind]
        examples = "".join(f"; {word} = {other}" for word, other in found["examples"])
        rows[name] = f"{number(found['words'])}, {share(found['share'])} of the text{examples}"
    return rows


def _preparation(counts: Mapping[str, Any]) -> dict[str, str]:
    skipped = {f"skipped: {reason}": number for reason, number in counts.get("skipped", {}).items()}
    names = {"documents": "documents read", "characters": "characters", "repeated": "dropped as repeated"}
    found = {name: counts[key] for key, name in names.items() if key in counts}
    return {name: number(count) for name, count in (found | skipped).items()}


def _table(values: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for name, value in values.items():
        table.add_row(f"  {escape(name)}", escape(value))
    return table


def _histogram(counts: Mapping[str, int]) -> Table:
    table, most = Table.grid(padding=(0, 2)), max(counts.values(), default=1)
    for justify in ("right", "right", "left"):
        table.add_column(justify=justify)
    for name, count in counts.items():
        table.add_row(f"  {name}", number(count), "█" * round(BAR * count / most) or "▏")
    return table
