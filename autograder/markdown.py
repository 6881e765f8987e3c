"""MyST text as plain Markdown.

The book understands MyST's directives and roles; JupyterLab, Notebook 7 and Colab do not. There a
hint in a dropdown would stand open as a block of code. A released notebook therefore says the same
in what all of them render: ``<details>``, block quotes, images, plain text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

_OPEN = re.compile(r"^(?P<indent> {0,3})(?P<fence>`{3,}|~{3,}|:{3,})(?P<rest>.*)$")
_DIRECTIVE = re.compile(r"^\{(?P<name>[\w:.-]+)\}\s*(?P<argument>.*)$")
_OPTION = re.compile(r"^:(?P<key>[\w-]+):\s*(?P<value>.*)$")
_ROLE = re.compile(r"(?<![`\\])\{(?P<name>[a-z:.-]+)\}(?P<ticks>`+)(?P<text>.+?)(?P=ticks)(?!`)")
_TITLED = re.compile(r"^(?P<title>.*\S)\s*<(?P<target>[^<>]+)>$", re.DOTALL)
_LABEL = re.compile(r"^\([\w:.-]+\)=\s*$")

_ADMONITIONS = {
    name: name.capitalize()
    for name in ("note", "tip", "hint", "warning", "caution", "important", "danger", "attention")
} | {"seealso": "See also", "error": "Error"}

# Directives that only the book can carry out; a notebook has nothing in their place.
_BOOK_ONLY = {"bibliography", "tableofcontents", "contents", "index", "raw", "only", "include"}


def plain(text: str, cite: Callable[[str], str] = str) -> str:
    """The text without MyST's own syntax.

    Args:
        text: the source of a Markdown cell.
        cite: citation key -> how it reads, as in ``Vaswani et al., 2017``.
    """
    lines = text.split("\n")
    written: list[str] = []
    prose: list[str] = []

    def flush() -> None:
        if prose:
            written.extend(_roles("\n".join(prose), cite).split("\n"))
            prose.clear()

    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        opening = _OPEN.match(line)
        if opening:
            end = _closing(lines, position, opening["fence"])
            body = lines[position:end]
            position = end + 1
            directive = _DIRECTIVE.match(opening["rest"])
            flush()
            if directive:
                written += _directive(directive["name"], directive["argument"], body, cite)
            else:
                written += [line, *body, *lines[end : end + 1]]
        elif not (_LABEL.match(line) or line.startswith("% ")):
            prose.append(line)
    flush()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(written)).strip("\n")


def _closing(lines: list[str], start: int, fence: str) -> int:
    for position in range(start, len(lines)):
        stripped = lines[position].strip()
        if len(stripped) >= len(fence) and set(stripped) == {fence[0]}:
            return position
    return len(lines)


def _directive(name: str, argument: str, body: list[str], cite: Callable[[str], str]) -> list[str]:
    options, body = _options(body)
    if name in _BOOK_ONLY:
        return []
    if name == "math":
        return ["", "$$", *body, "$$", ""]
    if name in ("code", "code-block", "literalinclude"):
        return [f"```{argument}", *body, "```"]
    inner = plain("\n".join(body), cite).split("\n") if body else []
    title = _roles(argument, cite)
    if name in ("figure", "image"):
        return ["", f"![{options.get('alt', '')}]({argument})", "", *_emphasized(inner), ""]
    if name == "dropdown":
        summary = f"<summary>{title or 'More'}</summary>"
        return ["", "<details>", summary, "", *inner, "", "</details>", ""]
    if name in _ADMONITIONS:
        # The first line of a named admonition may stand beside its opening fence.
        return _quoted(_ADMONITIONS[name], [title, *inner] if title else inner)
    if name in ("admonition", "topic", "card", "sidebar"):
        return _quoted(title, inner)
    return ["", *([f"**{title}**", ""] if title else []), *inner, ""]


def _options(body: list[str]) -> tuple[Mapping[str, str], list[str]]:
    options: dict[str, str] = {}
    position = 0
    while position < len(body) and (found := _OPTION.match(body[position].strip())):
        options[found["key"]] = found["value"]
        position += 1
    return options, body[position:]


def _quoted(title: str, inner: list[str]) -> list[str]:
    lines = [f"**{title}**", "", *inner] if title else inner
    return ["", *(f"> {line}".rstrip() for line in lines), ""]


def _emphasized(caption: list[str]) -> list[str]:
    text = " ".join(line.strip() for line in caption).strip()
    return [f"*{text}*"] if text else []


def _roles(text: str, cite: Callable[[str], str]) -> str:
    def role(found: re.Match[str]) -> str:
        name, content = found["name"], " ".join(found["text"].split())
        if name == "cite" or name.startswith("cite:"):
            named = [cite(key.strip()) for key in content.split(",")]
            if name in ("cite:t", "cite:ts"):
                return ", ".join(_textual(label) for label in named)
            return f"[{'; '.join(named)}]"
        if name == "math":
            return f"${content}$"
        titled = _TITLED.match(content)
        return titled["title"] if titled else content.lstrip("~!").strip()

    return _ROLE.sub(role, text)


def _textual(label: str) -> str:
    author, comma, year = label.rpartition(", ")
    return f"{author} ({year})" if comma else label


class Bibliography:
    """The entries of a BibTeX file, as they are named in running text."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._labels: dict[str, str] = {}
        if path.is_file():
            from pybtex.database import parse_file

            for key, entry in parse_file(str(path)).entries.items():
                people = entry.persons.get("author") or entry.persons.get("editor") or []
                # Rich names have LaTeX's accents and braces resolved.
                names = [
                    " ".join(map(str, person.rich_prelast_names + person.rich_last_names))
                    for person in people
                ]
                year = entry.fields.get("year", "n.d.")
                self._labels[key] = f"{_joined(names) or key}, {year}"

    def label(self, key: str) -> str:
        """``Vaswani et al., 2017`` for its key.

        Raises:
            KeyError: the file has no such entry.
        """
        if key not in self._labels:
            raise KeyError(f"{key!r} is cited, but {self.path} has no such entry.")
        return self._labels[key]


def _joined(names: list[str]) -> str:
    if len(names) > 2:
        return f"{names[0]} et al."
    return " and ".join(names)
