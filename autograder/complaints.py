"""What can be said about a component before any numbers are compared."""

from __future__ import annotations

# What is said of a stub; the class report tells by it who has not begun.
NOT_WRITTEN = "It is not written yet (NotImplementedError)."


class Complaint(Exception):
    """A component cannot be used as the exercise states; the text says why, in one sentence.

    Args:
        kind: a short stable word: arguments, arity, none, type, parameters, gradient, forbidden …
        text: the sentence for the learner.
        next_step: what to do about it.
    """

    def __init__(self, kind: str, text: str, next_step: str = "") -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.next_step = next_step


class CaseTimeout(BaseException):
    """A case ran out of time. Not an Exception, so that ``except Exception`` cannot swallow it."""
