"""The judge: outcomes and references in, a verdict out. It runs no learner code and needs none."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autograder.outcomes import Failure, OnDevice, Outcome, Strange
from autograder.pack import KnownError, References
from autograder.verdict import Verdict

# Relative and absolute tolerance by dtype. Wide enough for another order of summation, narrow
# enough that a forgotten 1e-6 in a denominator shows.
_TOLERANCES = {
    torch.float64: (1e-9, 1e-11),
    torch.float32: (1e-4, 1e-5),
    torch.float16: (1e-2, 2e-3),
    torch.bfloat16: (5e-2, 1e-2),
}


@dataclass(frozen=True)
class Difference:
    """How one output differs.

    Attributes:
        sentence: what differs.
        lines: further lines about it.
        next_step: what to do about it.
        of_form: whether type, device, shape or dtype differ, or an input was changed. What a
            case has to say is about values.
    """

    sentence: str
    lines: tuple[str, ...] = ()
    next_step: str = ""
    of_form: bool = False


def judge(outcomes: Sequence[Outcome], references: References) -> Verdict:
    """Compares what a component gave with what was recorded.

    Args:
        outcomes: one per case, as :func:`autograder.runner.run` gives them. Missing cases fail,
            unknown ones are ignored, and of two for one case the first counts.
        references: the recorded side.

    Returns:
        The verdict: points by the weights of the cases that pass, the first difference in words,
        and the misconception whose recorded outcomes are the same, where there is one.
    """
    given: dict[str, Outcome] = {}
    for outcome in outcomes:
        given.setdefault(outcome.case, outcome)
    got = [
        given.get(case.title, Outcome(case.title, failure=_NOT_RUN)) for case in references.cases
    ]
    differences = [difference_of(references.expected[outcome.case], outcome) for outcome in got]
    rows = list(zip(references.cases, got, differences, strict=True))
    failing = [index for index, difference in enumerate(differences) if difference]
    shown_passed = tuple(
        case.title for case, _, difference in rows if not difference and not case.hidden
    )
    common: dict[str, Any] = {
        "exercise": references.exercise,
        "max_points": references.points,
        "passed": shown_passed,
        "total": len(rows),
        "passed_count": len(rows) - len(failing),
    }
    if not failing:
        return Verdict(
            points=references.points,
            status="passed",
            message=f"All {len(rows)} cases pass.",
            **common,
        )

    forbidden = next((o.failure for o in got if o.failure and o.failure.kind == "forbidden"), None)
    if forbidden:
        return Verdict(
            points=0.0,
            status="failed",
            message=forbidden.text,
            next_step=forbidden.next_step,
            **(common | {"passed": (), "passed_count": 0}),
        )

    whole = sum(case.weight for case in references.cases)
    earned = sum(case.weight for case, _, difference in rows if not difference)
    known = _known_error(got, failing, references)
    hidden_failed = sum(references.cases[index].hidden for index in failing)
    common |= {
        "points": round(references.points * earned / whole, 2),
        "status": _status([got[index] for index in failing], len(rows)),
        "hidden_failed": hidden_failed,
        "misconception": known.sentence if known else "",
    }
    visible = [index for index in failing if not references.cases[index].hidden]
    if not visible:
        return Verdict(
            message=known.sentence if known else "It is right only for the inputs of the notebook.",
            next_step=(known.next_step if known else "")
            or "Test your code on inputs and shapes of your own, and compute every value from the "
            "arguments.",
            **common,
        )
    case, outcome, difference = rows[visible[0]]
    assert difference is not None
    failure = outcome.failure
    return Verdict(
        message=known.sentence if known else f"{case.title}: {difference.sentence}",
        case=case.title,
        details=(difference.sentence, *difference.lines),
        lines=failure.lines if failure else (),
        printed=outcome.printed,
        next_step=(known.next_step if known else "")
        or (failure.next_step if failure else "")
        or (difference.next_step if difference.of_form else "")
        or case.next_step
        or difference.next_step
        or "Call your code with inputs like those of this case, and look at each step.",
        **common,
    )


_NOT_RUN = Failure("missing", "This case was not run.")
_NOT_RUN_KINDS = ("missing", "skipped")


def _status(failing: Sequence[Outcome], total: int) -> str:
    kinds = [outcome.failure.kind if outcome.failure else "" for outcome in failing]
    if "timeout" in kinds:
        return "timeout"
    # Code that runs in some cases is wrong; code that runs in none does not run.
    broken = all(kind in ("exception", "arguments", "component") for kind in kinds)
    return "error" if broken and len(failing) == total else "failed"


def _known_error(
    got: Sequence[Outcome], failing: Sequence[int], references: References
) -> KnownError | None:
    """The misconception that explains the failing cases, the first of them included.

    A case counts as explained where the misconception gets it wrong in the same way. An exception
    alone names nothing: at least one explained case must have values. A name that is wrong
    misleads more than none, so at most a quarter of the failing cases may stay unexplained (a
    second, small mistake), and at most a quarter of what the misconception gets wrong may be right
    here. Cases that were not run say nothing.
    """
    failed = {got[index].case: got[index] for index in failing}
    ran = [o for o in failed.values() if not (o.failure and o.failure.kind in _NOT_RUN_KINDS)]
    if not ran:
        return None
    best, best_rank = None, (0, 0)
    for known in references.known_errors:
        wrong = {outcome.case: outcome for outcome in known.outcomes}
        if ran[0].case not in wrong or not _alike(wrong[ran[0].case], ran[0]):
            continue
        explained = [
            ran[0],
            *(o for o in ran[1:] if o.case in wrong and _alike(wrong[o.case], o)),
        ]
        if all(outcome.failure for outcome in explained):
            continue
        unexplained, right_here = len(ran) - len(explained), len(wrong.keys() - failed.keys())
        if 4 * unexplained > len(ran) or 4 * right_here > len(wrong):
            continue
        # Of two that explain as much, the one that is wrong in fewer other cases.
        rank = (len(explained), len(explained) - len(wrong))
        if best is None or rank > best_rank:
            best, best_rank = known, rank
    return best


def _alike(recorded: Outcome, got: Outcome) -> bool:
    if recorded.failure or got.failure:
        return bool(recorded.failure and got.failure and recorded.failure.kind == got.failure.kind)
    got = _in_the_dtypes_of(recorded, got)
    for name, wanted in recorded.outputs.items():
        value = got.outputs.get(name)
        tensors = isinstance(wanted, Tensor) and isinstance(value, Tensor)
        # Most are not alike, and to say how they differ takes longer than to see that they do.
        if tensors and (wanted.shape != value.shape or not bool(_agree(wanted, value)[2].all())):
            return False
    return difference_of(recorded, got) is None


def _in_the_dtypes_of(recorded: Outcome, got: Outcome) -> Outcome:
    """The outcome with its tensors in the recorded dtypes, where both are of one kind.

    A mask of ones and zeros is the same mistake in uint8 and in int64.
    """

    def like(name: str, value: Any) -> Any:
        wanted = recorded.outputs.get(name)
        both = isinstance(wanted, Tensor) and isinstance(value, Tensor)
        return value.to(wanted.dtype) if both and _kind(wanted) == _kind(value) else value

    return Outcome(got.case, {name: like(name, value) for name, value in got.outputs.items()})


def _kind(tensor: Tensor) -> str:
    if tensor.dtype == torch.bool:
        return "bool"
    if tensor.is_complex():
        return "complex"
    return "floating" if tensor.is_floating_point() else "whole"


def difference_of(expected: Outcome, got: Outcome) -> Difference | None:
    """How one case's outcome differs from the recorded one, or None."""
    if got.failure:
        return Difference(got.failure.text, (), got.failure.next_step)
    for name, value in expected.outputs.items():
        if name not in got.outputs:
            return Difference(f"The output {name} is missing.", of_form=True)
        difference = _compare(name, value, got.outputs[name])
        if difference:
            return difference
    return None


def _compare(name: str, expected: Any, got: Any) -> Difference | None:
    if isinstance(expected, Tensor):
        return _compare_tensors(name, expected, got)
    if isinstance(expected, list):
        if not isinstance(got, list):
            return Difference(
                f"{name} is {_shown(got)}; expected a list of {len(expected)}.", of_form=True
            )
        if len(got) != len(expected):
            return Difference(f"{name} has {len(got)} items; expected {len(expected)}.")
        for index, pair in enumerate(zip(expected, got, strict=True)):
            difference = _compare(f"{name}[{index}]", *pair)
            if difference:
                return difference
        return None
    if isinstance(expected, float) and isinstance(got, float | int) and type(got) is not bool:
        close = got == expected or math.isclose(got, expected, rel_tol=1e-4, abs_tol=1e-6)
        if close or (math.isnan(got) and math.isnan(expected)):
            return None
    elif type(expected) is type(got) and expected == got:
        return None
    elif "unchanged" in name:
        # So a case calls what Make.unchanged tells; what else it says is about its values.
        return Difference(
            f"{name}: expected {_shown(expected)}, got {_shown(got)}.",
            next_step="A line changes what the caller passed in, such as x -= y, x[...] = y or "
            "x.masked_fill_(...). Make a new tensor: x = x - y.",
            of_form=True,
        )
    return Difference(f"{name}: expected {_shown(expected)}, got {_shown(got)}.")


def _compare_tensors(name: str, expected: Tensor, got: Any) -> Difference | None:
    if isinstance(got, OnDevice):
        return Difference(
            f"{name} is on {got.device}; the inputs are on the CPU.",
            next_step="Create new tensors on the inputs' device, with device=x.device.",
            of_form=True,
        )
    if not isinstance(got, Tensor):
        return Difference(
            f"{name} is {_shown(got)}; expected a tensor of shape {tuple(expected.shape)}.",
            next_step="Keep the whole computation in torch, and return tensors.",
            of_form=True,
        )
    if got.shape != expected.shape:
        return Difference(
            f"{name} has shape {tuple(got.shape)}; expected {tuple(expected.shape)}.",
            _rearranged(expected, got),
            "Write the shape behind every line as a comment, and compare.",
            of_form=True,
        )
    if got.dtype != expected.dtype:
        return Difference(
            f"{name} has dtype {_dtype(got)}; expected {_dtype(expected)}.",
            next_step="A mask is boolean: return the result of a comparison, or dtype=torch.bool."
            if expected.dtype == torch.bool
            else "Let the result have the dtype that the exercise states; new tensors take it "
            "with dtype=x.dtype.",
            of_form=True,
        )
    if expected.numel() == 0:
        return None
    a, b, right = _agree(expected, got)
    if bool(right.all()):
        return None
    wrong = int((~right).sum())
    lines = []
    where = _worst(a, b, right)
    wanted, found = _numbers(a[where], b[where])
    unwanted = int((b != b).sum()) - int((a != a).sum()) if b.is_floating_point() else 0
    if unwanted > 0:
        lines.append(f"{int((b != b).sum())} of {b.numel()} elements are NaN.")
    sentence = f"{name}: expected {wanted}, got {found}."
    if expected.ndim:
        sentence = (
            f"{name} has the right shape {tuple(got.shape)} and dtype, but {wrong} of "
            f"{got.numel()} value{'s' * (got.numel() != 1)} {'are' if wrong != 1 else 'is'} wrong."
        )
        lines.append(f"Worst at {list(where)}: expected {wanted}, got {found}.")
        lines += _rearranged(expected, got)
    return Difference(
        sentence,
        tuple(lines),
        "NaN comes from 0/0 or inf − inf: look for a softmax over a row that is −inf throughout."
        if unwanted > 0
        else "Compute that element by hand on a 2 × 2 example, and print each step.",
    )


def _worst(a: Tensor, b: Tensor, right: Tensor) -> tuple[int, ...]:
    """The index of the largest error; a NaN or a wrong infinity counts as the largest."""
    if a.dtype == torch.bool:
        size = (~right).double()
    else:
        size = (a - b).abs().double()
        size = torch.where(size == size, size, torch.full_like(size, math.inf))
        size = torch.where(right, torch.full_like(size, -1.0), size)
    flat = int(size.argmax())
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), tuple(a.shape)))


def _rearranged(expected: Tensor, got: Tensor) -> tuple[str, ...]:
    """Says so where the values are right but stand in another order, or are scaled by a factor."""
    wide_expected, wide_got = expected.double(), got.double()
    if sorted(got.shape) == sorted(expected.shape) and 2 <= expected.ndim <= 4:
        for order in itertools.permutations(range(expected.ndim)):
            if order == tuple(range(expected.ndim)):
                continue
            turned = wide_got.permute(order)
            if turned.shape == expected.shape and _close(wide_expected, turned):
                return (f"The values are right but the axes are not: permute them by {order}.",)
    if got.shape == expected.shape and expected.is_floating_point():
        mask = wide_expected.abs() > 1e-6
        if int(mask.sum()) > 1:
            ratios = wide_got[mask] / wide_expected[mask]
            factor = float(ratios.median())
            scaled = math.isfinite(factor) and factor != 0
            if scaled and _close(wide_expected * factor, wide_got):
                if abs(factor - 1) > 1e-3:
                    return (f"Every value is {factor:.4g} times the expected one.",)
                return ("All are nearly right: a shorter dtype or a small constant got in.",)
    return ()


def _agree(expected: Tensor, got: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both in the type they are compared in, and where they agree within the tolerance."""
    if not (expected.is_floating_point() or expected.is_complex()):
        return expected, got, expected == got
    relative, absolute = _TOLERANCES.get(expected.dtype, (1e-4, 1e-5))
    wide = torch.complex128 if expected.is_complex() else torch.float64
    a, b = expected.to(wide), got.to(wide)
    return a, b, torch.isclose(b, a, rtol=relative, atol=absolute, equal_nan=True)


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.isclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True).all())


def _numbers(expected: Tensor, got: Tensor) -> tuple[str, str]:
    """Two numbers with as many digits as it takes to tell them apart."""
    a, b = expected.item(), got.item()
    if not (isinstance(a, float) and isinstance(b, float)):
        return str(a), str(b)
    for digits in (5, 8, 12, 17):
        if f"{a:.{digits}g}" != f"{b:.{digits}g}":
            break
    return f"{a:.{digits}g}", f"{b:.{digits}g}"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _shown(value: Any) -> str:
    match value:
        case Tensor():
            return f"a {_dtype(value)} tensor of shape {tuple(value.shape)}"
        case OnDevice(tensor, device):
            return f"a tensor of shape {tuple(tensor.shape)} on {device}"
        case Strange(type_, shown):
            return f"a {type_} {shown}".strip()
        case list():
            return f"a list of {len(value)}"
        case float():
            return f"{value:.6g}"
        case str():
            return repr(value[:80])
    return str(value)
