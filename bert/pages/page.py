"""A page from its template: one file of HTML that holds its styles, its scripts and its data, and asks for no network.

A page's template extends `base.html.j2`. Text is escaped wherever a template puts it. The data of its scripts stands in
a script element of type application/json, where `<` is written as an escape. A content security policy allows the
page's own scripts, by their digests, and no other: text that looks like a script is shown, and not run.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from bert.errors import UserError

if TYPE_CHECKING:
    from markupsafe import Markup

VENDORED = {
    "uplot.js": "vendor/uplot-1.6.32/uPlot.iife.min.js",
    "uplot.css": "vendor/uplot-1.6.32/uPlot.min.css",
}
"""Files of libraries, by the names that pages use for them; all other names are files in static/."""
NO_NETWORK = "'none'"


def render(
    template: str,
    title: str,
    *,
    data: Any = None,
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
    connect: str = NO_NETWORK,
    **values: Any,
) -> str:
    """The HTML of a page.

    `template` is a file in templates/ that extends `base.html.j2`; `values` are its variables. `scripts` and `styles`
    are files in static/, or names in VENDORED, in the order in which the page reads them; those of every page come
    first. `data` is what the scripts read by `pageData()`: anything that JSON can hold, in which numbers that are not
    finite become null. `connect` is what the page may ask for over the network, as a content security policy names
    it: nothing, or 'self' for a page that is served. UserError if Jinja is not installed.
    """
    sources = [_source(name) for name in ("page.js", *scripts)]
    digests = " ".join(f"'sha256-{_digest(source)}'" for source in sources)
    policy = (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    environment = _environment()
    return environment.get_template(template).render(
        title=title,
        policy=policy,
        styles=[_markup(_source(name)) for name in (*styles, "page.css")],
        scripts=[_markup(source) for source in sources],
        data=None if data is None else _markup(script_json(data)),
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=_version(),
        **values,
    )


def script_json(data: Any) -> str:
    """JSON that can stand in a script element: no text in it ends the element."""
    text = json.dumps(_finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _finite(data: Any) -> Any:
    """The data with null for numbers that are not finite."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data


def _environment() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise UserError(
            "pages need Jinja, which is not installed; pip install 'bert-pretraining[report]'"
        ) from None
    environment = Environment(
        loader=PackageLoader("bert.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["number"] = number
    return environment


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: 98,765 · 12.3 million · 0.0123; a dash if there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{value / size:,.{digits}g} {word}"
    if float(value).is_integer() or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def _source(name: str) -> str:
    return files("bert.pages").joinpath(VENDORED.get(name, f"static/{name}")).read_text(encoding="utf-8")


def _digest(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _markup(text: str) -> "Markup":
    from markupsafe import Markup

    return Markup(text)


def _version() -> str:
    try:
        return version("bert-pretraining")
    except PackageNotFoundError:
        return "not installed"
