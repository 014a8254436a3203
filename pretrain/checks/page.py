"""The doctor's figures as a page for the terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

TITLES = {
    "text": "Text",
    "scripts": "Scripts of the letters",
    "vocabulary": "Vocabulary",
    "examples": "Examples",
    "packing": "Micro-batches",
    "overfit": "One batch, learnt by heart",
    "forecast": "Forecast, for one process of this machine",
}
BAR = 40


def show(figures: Mapping[str, Any]) -> None:
    """Print the page."""
    console = Console(highlight=False)
    for check, title in TITLES.items():
        console.print(f"\n[bold]{title}[/bold]")
        console.print(_table(figures[check], shares=check == "scripts"))
    for name, counts in [*figures["lengths"].items(), ("examples", figures["examples"]["lengths"])]:
        console.print(f"\n[bold]Length of {name} in tokens[/bold]")
        console.print(_histogram(counts))
    console.print("\n[bold]Three examples[/bold] (seen→asked)")
    for text in figures["shown"]:
        console.print(f"  {escape(text)}\n")
    console.print("[bold]Advice[/bold]")
    for line in figures["advice"] or ["nothing out of the ordinary"]:
        console.print(f"  • {escape(line)}")


def _table(values: Mapping[str, Any], shares: bool) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in _leaves(values):
        title = name.removesuffix("_bytes").replace("_", " ")
        table.add_row(f"  {escape(title)}", _figure(name, value, shares))
    return table


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and name != "lengths":
            yield from _leaves(value, f"{prefix}{name}: ")
        elif name != "lengths":
            yield prefix + str(name), value


def _figure(name: str, value: Any, share: bool) -> str:
    """A value with its unit, which its name tells unless it is known to be a share."""
    if value is None:
        return "–"
    if name.endswith("bytes"):
        return f"{value / 1e9:,.2f} GB"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float) and (share or any(word in name for word in ("share", "waste", "accuracy"))):
        return f"{100 * value:.2f} %"
    return escape(str(value))


def _histogram(counts: Mapping[str, int]) -> Table:
    table, most = Table.grid(padding=(0, 2)), max(counts.values(), default=1)
    for name, count in counts.items():
        table.add_row(f"  {name}", f"{count:,}", "█" * -(-BAR * count // most))
    return table
