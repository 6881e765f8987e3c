"""MyST as plain Markdown: what a learner's notebook shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograder.markdown import Bibliography, plain


@pytest.mark.parametrize(
    ("myst", "markdown"),
    [
        ("Plain text with `code` and $x_i$.", "Plain text with `code` and $x_i$."),
        ("{math}`x^2`", "$x^2$"),
        ("a {term}`query`", "a query"),
        ("a {term}`question <query>`", "a question"),
        ("see {doc}`the guide <../how-to-use>`", "see the guide"),
        ("{kbd}`Shift`", "Shift"),
        ("(label)=\n# Title", "# Title"),
        ("% a comment\ntext", "text"),
        ("```{math}\nx\n```", "$$\nx\n$$"),
        ("```python\n{cite}`a`\n```", "```python\n{cite}`a`\n```"),
        ("```{bibliography}\n```\nend", "end"),
        ("```{code-block} python\nx = 1\n```", "```python\nx = 1\n```"),
        (
            "```{figure} map.svg\n:alt: A map\n\nThe map.\n```",
            "![A map](map.svg)\n\n*The map.*",
        ),
        (
            "```{dropdown} Hint {math}`n`\nTry 2.\n```",
            "<details>\n<summary>Hint $n$</summary>\n\nTry 2.\n\n</details>",
        ),
        (
            ":::{admonition} Spot the error\n:class: warning\nIt is here.\n:::",
            "> **Spot the error**\n>\n> It is here.",
        ),
        ("```{note}\nMind this.\n```", "> **Note**\n>\n> Mind this."),
        ("```{tip} Mind\nthis.\n```", "> **Tip**\n>\n> Mind\n> this."),
        (
            "````{note}\n```python\nx = 1\n```\n````",
            "> **Note**\n>\n> ```python\n> x = 1\n> ```",
        ),
        ("::::{grid}\n:::{card} One\ntext\n:::\n::::", "> **One**\n>\n> text"),
    ],
)
def test_each_form_has_a_plain_one(myst: str, markdown: str) -> None:
    assert plain(myst) == markdown


def test_citations_read_as_names_and_years(tmp_path: Path) -> None:
    path = tmp_path / "references.bib"
    path.write_text(
        "@book{a, author={Ann {van} Aa}, year=2001, title={A}, publisher={P}}\n"
        '@book{b, author={B. B{\\"e}e and C. {Cee}}, year=2002, title={B}, publisher={P}}\n'
        "@book{c, author={D. Dee and E. Eee and F. Eff}, year=2003, title={C}, publisher={P}}\n"
    )
    label = Bibliography(path).label
    assert plain("{cite}`b,c`", label) == "[Bëe and Cee, 2002; Dee et al., 2003]"
    assert plain("{cite:p}`c`", label) == "[Dee et al., 2003]"
    assert plain("{cite:t}`c` say", label) == "Dee et al. (2003) say"
    with pytest.raises(KeyError, match="'d' is cited"):
        plain("{cite}`d`", label)
