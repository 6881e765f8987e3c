"""What a chapter measured, said once: in its notebook, and on the page of all results."""

from collections.abc import Sequence
from typing import Any

from workbook import budget, journal
from workbook.showing import display

# A page picks these up from the executed notebooks; Jupyter shows the plain text.
MIME = "application/vnd.workbook.result+json"


class Result:
    """One measured figure: mean and range of a value for each seed, and what stands beside it."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts

    def __repr__(self) -> str:
        facts = self.facts
        text = f"{facts['name']}: {facts['text']}"
        return text + (f" (published: {facts['published']})" if facts["published"] else "")

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return {"text/plain": repr(self), MIME: self.facts}


def report(
    name: str,
    values: float | Sequence[float],
    unit: str = "",
    *,
    digits: int = 1,
    published: str = "",
    differs: str = "",
) -> None:
    """Display a figure that this chapter measured, and keep it for the page of results.

    Args:
        name: what was measured, on which data: "accuracy on 360 held-out digits".
        values: the figure, or one for each seed; the mean and the range are shown.
        unit: "%", "nats per character", "BLEU".
        digits: decimals that are shown.
        published: the figure of a paper or a well-known implementation, with its name and source.
        differs: what differs between the two, in a sentence: data, size, steps.

    Raises:
        ValueError: there is no value.
    """
    found = [float(values)] if isinstance(values, (int, float)) else [float(v) for v in values]
    if not found:
        raise ValueError("Give at least one value, as in report('loss', 1.35, 'nats').")
    if budget.grading():
        return
    facts = {
        "name": name,
        "values": found,
        "unit": unit,
        "digits": digits,
        "text": in_words(found, unit, digits),
        "published": published,
        "differs": differs,
        "budget": budget.name(),
    }
    journal.note("figure", **facts)
    display(Result(facts))


def in_words(values: Sequence[float], unit: str, digits: int) -> str:
    """Return the mean with its unit, and the range where there are several seeds."""
    text = f"{sum(values) / len(values):.{digits}f}" + (f" {unit}" if unit else "")
    if len(values) > 1:
        text += f" ({min(values):.{digits}f} to {max(values):.{digits}f}, {len(values)} seeds)"
    return text
