"""Makes what a submission shows harmless to whoever opens it.

Outputs and written answers come back in formgrader and on feedback pages, in the browser of an
instructor who may change every grade there. So no script of a submission may reach a page. HTML
and pictures are cut down to a list of elements and attributes that only show something; what
notebooks ordinarily put out (tables, figures, formulas) is on it.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Collection, Mapping
from typing import Any

import bleach
from bleach.css_sanitizer import CSSSanitizer


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ELEMENTS = _words(
    """a abbr b blockquote br caption center code col colgroup dd del details div dl dt em
    figcaption figure h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strong
    sub summary sup table tbody td tfoot th thead tr tt u ul var

    svg g defs path rect circle ellipse line polyline polygon text tspan use clipPath title desc
    linearGradient radialGradient stop marker pattern symbol"""
)
_ATTRIBUTES = _words(
    """align alt aria-hidden aria-label border class clip-path clip-rule colspan cx cy d dir
    dominant-baseline dx dy fill fill-opacity fill-rule font-family font-size font-style
    font-weight gradientTransform gradientUnits height id lang marker-end marker-start
    markerHeight markerWidth offset opacity open orient points preserveAspectRatio r refX refY
    role rowspan rx ry scope span stop-color stop-opacity stroke stroke-dasharray
    stroke-linecap stroke-linejoin stroke-opacity stroke-width style text-anchor title transform
    valign version viewBox width x x1 x2 xmlns y y1 y2"""
)
_PROPERTIES = CSSSanitizer().allowed_css_properties | _words(
    """border border-collapse border-left border-radius display font line-height margin
    margin-left margin-top max-width opacity overflow-x padding stroke-dasharray
    stroke-dashoffset stroke-linejoin text-align white-space"""
)
# Of what an attribute refers to, only what is in the same picture.
_OUTSIDE = re.compile(r"url\s*\((?!\s*[\"']?#)|\\|@|image|expression", re.IGNORECASE)
# These are words for people.
_SAID = {"alt", "aria-label", "title"}
_PICTURE = re.compile(r"data:image/(png|jpeg|gif);base64,[A-Za-z0-9+/=\s]*")
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")
# Markdown that can become more than text: HTML, links, pictures, references, MathJax's own links.
_ACTIVE = re.compile(r"<[a-zA-Z!/?]|\]\s*[\(\[:]|\\(href|url|require|unicode|class|cssId|style)\b")
# What :func:`markdown` makes of such a source.
_SHOWN = re.compile(r"(`{3,})text\n((?!\1).)*\n\1", re.DOTALL)
_MATH_LINK = re.compile(r"\\(href|url|require|class|cssId|style)\b")


def html(text: str) -> str:
    """HTML or SVG in which nothing runs, and nothing is fetched."""
    if "<" not in text:
        return text
    return _cleaner().clean(text)


@functools.cache
def _cleaner() -> bleach.Cleaner:
    return bleach.Cleaner(
        tags=_ELEMENTS,
        attributes=_is_harmless,
        protocols={"http", "https", "mailto", "data"},
        css_sanitizer=CSSSanitizer(allowed_css_properties=_PROPERTIES),
        strip=True,
    )


def _is_harmless(tag: str, name: str, value: str) -> bool:
    if name in ("href", "xlink:href", "src"):
        if tag == "a":
            return value.startswith(("http://", "https://", "mailto:", "#"))
        if tag == "img":
            return bool(_PICTURE.fullmatch(value))
        return value.startswith("#")  # a shape drawn elsewhere in the same picture
    return name in _ATTRIBUTES and not (name not in _SAID and _OUTSIDE.search(value))


def markdown(source: str, attached: Collection[str] = ()) -> str:
    """Markdown whose rendering runs nothing: as it is where it is text, else shown as text.

    Args:
        source: the text.
        attached: the names of the pictures that were pasted into it. A page with one that is not
            there cannot be made at all.
    """
    if not _ACTIVE.search(source) or _SHOWN.fullmatch(source):
        return source
    from nbconvert.filters.markdown_mistune import (
        InvalidNotebook,
        IPythonRenderer,
        MarkdownWithMath,
    )

    pictures = {name: {"image/png": ""} for name in attached}
    renderer = IPythonRenderer(escape=False, attachments=pictures)
    with contextlib.suppress(InvalidNotebook):
        rendered = MarkdownWithMath(renderer=renderer).render(source)
        kept = _elements(rendered) == _elements(html(rendered))
        if kept and not _MATH_LINK.search(source):
            return source
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", source)), default=0))
    return f"{fence}text\n{source}\n{fence}"


def _elements(text: str) -> list[tuple[str, list[str]]]:
    """The elements of HTML with the names of their attributes, as a browser would find them."""
    from bs4 import BeautifulSoup

    found = BeautifulSoup(text, "html.parser").find_all(True)
    return [(element.name, sorted(element.attrs)) for element in found]


def bundle(data: Mapping[str, Any]) -> dict[str, Any]:
    """An output's representations by MIME type: those that only show something.

    Raises:
        TypeError: one is of a type that the notebook format does not know.
    """
    kept: dict[str, Any] = {}
    for mime, value in data.items():
        if mime.endswith("json"):
            continue  # no page shows it; a widget's view is drawn from state that is not kept
        if not isinstance(value, str):
            raise TypeError(f"expected text, got {type(value).__name__}")
        text = value.encode("utf-8", "replace").decode("utf-8")
        if mime == "text/plain":
            kept[mime] = text
        elif mime in ("text/html", "image/svg+xml"):
            kept[mime] = html(text)
        elif mime == "text/markdown":
            kept[mime] = markdown(text)
        elif mime == "text/latex":
            kept[mime] = text if not (_MATH_LINK.search(text) or "<" in text) else ""
        elif mime in ("image/png", "image/jpeg", "image/gif") and _BASE64.fullmatch(text):
            kept[mime] = text
    return kept


def sizes(metadata: Any) -> dict[str, dict[str, int]]:
    """Of an output's metadata the sizes of its pictures; a page shows nothing else."""
    kept: dict[str, dict[str, int]] = {}
    for mime, values in metadata.items() if isinstance(metadata, dict) else ():
        if isinstance(mime, str) and mime.startswith("image/") and isinstance(values, dict):
            found = {k: values[k] for k in ("width", "height") if type(values.get(k)) is int}
            if found:
                kept[mime] = found
    return kept


def attachments(value: Any) -> dict[str, dict[str, str]]:
    """The pictures that were pasted into a written answer."""
    kept: dict[str, dict[str, str]] = {}
    for name, found in value.items() if isinstance(value, dict) else ():
        if not isinstance(found, dict):
            continue
        pictures = {
            mime: data
            for mime, data in found.items()
            if mime in ("image/png", "image/jpeg", "image/gif")
            and isinstance(data, str)
            and _BASE64.fullmatch(data)
        }
        if pictures and isinstance(name, str):
            kept[name] = pictures
    return kept
