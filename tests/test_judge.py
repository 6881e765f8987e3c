"""The judge is a pure function of outcomes and references; these tests run no component."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autograder.judge import difference_of, judge
from autograder.outcomes import (
    Failure,
    MalformedOutcomes,
    OnDevice,
    Outcome,
    Strange,
    decode,
    encode,
    simplify,
)
from autograder.pack import CaseInfo, KnownError, References

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)
SEEDS = st.integers(0, 2**31)
FAST = settings(max_examples=40, deadline=None)


def values(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def one_case(expected: Any, known: tuple[KnownError, ...] = (), **info: Any) -> References:
    case = CaseInfo(**({"title": "a", "hidden": False, "weight": 1.0, "next_step": ""} | info))
    return References("x/y", 4.0, [case], {"a": Outcome("a", {"value": expected})}, known)


def verdict(expected: Any, got: Any) -> Any:
    return judge([Outcome("a", {"value": got})], one_case(expected))


@FAST
@given(SHAPES, SEEDS, st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64]))
def test_the_same_tensor_passes(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> None:
    tensor = values(shape, seed, dtype)
    assert verdict(tensor, tensor.clone()).status == "passed"


@FAST
@given(SHAPES, SEEDS, st.data())
def test_one_changed_element_is_found_and_named(
    shape: tuple[int, ...], seed: int, data: Any
) -> None:
    expected = values(shape, seed)
    where = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    got = expected.clone()
    got[where] += 0.5
    found = verdict(expected, got)
    assert found.points == 0
    assert str(list(where)) in " ".join(found.details)
    assert "1 of" in found.details[0]


@FAST
@given(SHAPES, SEEDS, st.data())
def test_nan_fails_and_is_counted(shape: tuple[int, ...], seed: int, data: Any) -> None:
    expected = values(shape, seed)
    got = expected.flatten().clone()
    count = data.draw(st.integers(1, got.numel()))
    got[:count] = math.nan
    found = verdict(expected, got.view(shape))
    assert found.status == "failed"
    assert f"{count} of {got.numel()} elements are NaN." in found.details
    assert "NaN" in found.next_step


@FAST
@given(
    st.lists(st.integers(2, 4), min_size=2, max_size=4).map(tuple),
    SEEDS,
    st.data(),
)
def test_permuted_axes_fail_and_are_named(shape: tuple[int, ...], seed: int, data: Any) -> None:
    expected = values(shape, seed)
    order = data.draw(st.permutations(range(len(shape))))
    got = expected.permute(tuple(order)).contiguous()
    found = verdict(expected, got)
    if tuple(order) == tuple(range(len(shape))):
        assert found.status == "passed"
    else:
        assert found.points == 0
        assert "axes" in " ".join(found.details)


@FAST
@given(SHAPES, SEEDS, st.sampled_from([torch.float64, torch.float16, torch.bool, torch.int64]))
def test_another_dtype_fails_and_is_named(
    shape: tuple[int, ...], seed: int, dtype: torch.dtype
) -> None:
    expected = values(shape, seed)
    found = verdict(expected, expected.to(dtype))
    assert found.points == 0
    assert str(dtype).removeprefix("torch.") in found.details[0]


@FAST
@given(SHAPES, SEEDS)
def test_rounding_errors_pass_and_larger_ones_do_not(shape: tuple[int, ...], seed: int) -> None:
    expected = values(shape, seed)
    assert verdict(expected, expected * (1 + 1e-6)).status == "passed"
    assert verdict(expected, expected + 1e-2).status == "failed"


@FAST
@given(SHAPES, SEEDS, st.floats(0.1, 5).filter(lambda f: abs(f - 1) > 0.05))
def test_a_constant_factor_is_named(shape: tuple[int, ...], seed: int, factor: float) -> None:
    expected = values((*shape, 3), seed)
    found = verdict(expected, expected * factor)
    assert found.points == 0
    assert "times the expected one" in " ".join(found.details)


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        (torch.ones(2, 3), torch.ones(3), "has shape (3,); expected (2, 3)"),
        (torch.ones(2), [1.0, 1.0], "a list of 2"),
        (torch.ones(2), None, "None"),
        (torch.ones(2), Strange("numpy.ndarray", "of length 2"), "numpy.ndarray"),
        (torch.ones(2), OnDevice(torch.ones(2), "cuda:0"), "cuda:0"),
        (torch.tensor([math.inf]), torch.tensor([1.0]), "expected inf"),
        (torch.tensor([True, False]), torch.tensor([True, True]), "expected False, got True"),
        (3, 4, "expected 3, got 4"),
        (3, True, "got True"),
        (True, 1, "got 1"),
        (0.5, 0.6, "expected 0.5, got 0.6"),
        ("ValueError", "nothing", "'nothing'"),
        ([1, 2], [1, 3], "value[1]"),
        ([1, 2], [1], "1 items; expected 2"),
    ],
)
def test_each_difference_has_its_words(expected: Any, got: Any, words: str) -> None:
    found = verdict(expected, got)
    assert found.points == 0
    assert words in " ".join(found.details)
    assert words in found.text()


def test_equal_infinities_and_recorded_nan_pass() -> None:
    special = torch.tensor([math.inf, -math.inf, math.nan])
    assert verdict(special, special.clone()).status == "passed"


def two_cases(known: list[KnownError]) -> References:
    cases = [
        CaseInfo("a", False, 1.0, "look at a"),
        CaseInfo("b", False, 3.0, ""),
        CaseInfo("c", True, 1.0, ""),
    ]
    expected = {name: Outcome(name, {"value": torch.zeros(2)}) for name in "abc"}
    return References("x/y", 10.0, cases, expected, known)


def outcomes(a: float, b: float, c: float) -> list[Outcome]:
    return [
        Outcome(name, {"value": torch.full((2,), float(number))})
        for name, number in zip("abc", (a, b, c), strict=True)
    ]


def test_points_follow_the_weights_of_the_cases_that_pass() -> None:
    assert judge(outcomes(0, 0, 0), two_cases([])).points == 10
    assert judge(outcomes(1, 0, 0), two_cases([])).points == 8
    assert judge(outcomes(0, 1, 0), two_cases([])).points == 4
    assert judge(outcomes(1, 1, 1), two_cases([])).points == 0


def test_missing_unknown_and_duplicate_outcomes() -> None:
    assert judge([], two_cases([])).points == 0
    right = outcomes(0, 0, 0)
    assert judge([*right, Outcome("d", {"value": torch.ones(2)})], two_cases([])).points == 10
    # Of two for one case the first counts, whichever is right.
    assert judge([*outcomes(1, 0, 0), *right], two_cases([])).points == 8


def test_a_hidden_case_is_counted_but_not_told() -> None:
    found = judge(outcomes(0, 0, 123456), two_cases([]))
    assert found.points == 8
    assert found.hidden_failed == 1
    assert found.case == ""
    for text in (found.text(), found.html()):
        assert "123456" not in text
        assert "1 case with other inputs failed" in text


def test_the_misconception_that_explains_most_is_named() -> None:
    small = KnownError("small", "mend a", outcomes(5, 0, 0)[:1])
    large = KnownError("large", "mend both", outcomes(5, 6, 0)[:2])
    both = two_cases([small, large])
    assert judge(outcomes(5, 0, 0), both).misconception == "small"
    assert judge(outcomes(5, 6, 0), both).misconception == "large"
    assert judge(outcomes(5, 6, 0), both).next_step == "mend both"
    # Half of what fails is not enough: the other half would be misled.
    assert judge(outcomes(5, 9, 0), both).misconception == ""
    # Nor is it named where the code does not make the mistake in the other cases.
    assert judge(outcomes(0, 6, 0), both).misconception == ""
    # What no misconception gives is not named.
    assert judge(outcomes(8, 0, 0), both).misconception == ""
    assert judge(outcomes(8, 0, 0), both).next_step == "look at a"


def test_a_second_small_mistake_does_not_hide_the_first() -> None:
    titles = "abcdefgh"
    zeros = {title: Outcome(title, {"value": torch.zeros(2)}) for title in titles}
    ones = [Outcome(title, {"value": torch.ones(2)}) for title in titles]
    cases = [CaseInfo(title, False, 1.0, "") for title in titles]
    known = References("x/y", 4.0, cases, zeros, [KnownError("ones", "", ones)])
    twos = [Outcome(title, {"value": torch.full((2,), 2.0)}) for title in titles]
    assert judge([*ones[:6], *twos[6:]], known).misconception == "ones"
    assert judge([*ones[:5], *twos[5:]], known).misconception == ""
    # Cases that were not run say nothing, either way.
    skipped = [Outcome(title, failure=Failure("skipped", "Not run.")) for title in titles]
    assert judge([*ones[:2], *skipped[2:]], known).misconception == "ones"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64])
def test_a_misconception_is_named_in_every_dtype_of_its_kind(dtype: torch.dtype) -> None:
    right, numbers = torch.tensor([True, False]), torch.tensor([1, 0])
    known = KnownError("numbers", "", [Outcome("a", {"value": numbers})])
    references = one_case(right, (known,))
    assert judge([Outcome("a", {"value": numbers.to(dtype)})], references).misconception
    assert not judge([Outcome("a", {"value": numbers.float()})], references).misconception


@pytest.mark.parametrize(
    ("got", "words"),
    [
        (torch.ones(3), "shape behind every line"),
        (torch.zeros(2).double(), "dtype"),
        (OnDevice(torch.zeros(2), "cuda:0"), "device"),
        ([0.0, 0.0], "in torch"),
        (torch.ones(2), "look at a"),
    ],
)
def test_what_a_case_says_about_values_is_not_said_about_the_form(got: Any, words: str) -> None:
    references = one_case(torch.zeros(2), next_step="look at a")
    assert words in judge([Outcome("a", {"value": got})], references).next_step


def test_a_changed_input_has_its_own_next_step() -> None:
    case = CaseInfo("a", False, 1.0, "look at a")
    expected = {"a": Outcome("a", {"the input is unchanged": True})}
    found = judge(
        [Outcome("a", {"the input is unchanged": False})],
        References("x/y", 4.0, [case], expected, []),
    )
    assert "x = x - y" in found.next_step


def test_a_single_number_is_told_without_shape_or_place() -> None:
    found = verdict(torch.tensor(0.0), torch.tensor(2.5))
    assert found.details == ("value: expected 0, got 2.5.",)


def test_nearly_right_values_are_not_told_as_a_factor_of_one() -> None:
    expected = values((4, 3), 1, torch.float64)
    found = verdict(expected, expected * (1 + 1e-7))
    assert "nearly right" in " ".join(found.details)
    assert "times" not in " ".join(found.details)


def test_an_exception_alone_names_no_misconception() -> None:
    known = KnownError("raises too", "", [Outcome("a", failure=Failure("exception", ""))])
    raised = [Outcome(n, failure=Failure("exception", "It raised KeyError.")) for n in "abc"]
    found = judge([raised[0], *outcomes(0, 0, 0)[1:]], two_cases([known]))
    assert found.misconception == ""
    assert found.status == "failed", "it runs in two cases of three"
    assert judge(raised, two_cases([known])).status == "error"


def test_a_forbidden_operation_costs_everything() -> None:
    forbidden = Outcome("b", failure=Failure("forbidden", "It uses the built-in."))
    found = judge([outcomes(0, 0, 0)[0], forbidden], two_cases([]))
    assert found.points == 0
    assert found.message == "It uses the built-in."


# ---- the bytes that cross ------------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3),
    max_leaves=6,
)


@FAST
@given(st.dictionaries(st.text(max_size=8), PLAIN, max_size=4), SHAPES, SEEDS)
def test_outcomes_survive_the_crossing(
    plain: dict[str, Any], shape: tuple[int, ...], seed: int
) -> None:
    tensor = values(shape, seed)
    sent = [
        Outcome("a", plain | {"tensor": tensor, "list": [tensor, Strange("x", "")]}),
        Outcome("b", failure=Failure("exception", "text", "next", ("line",)), printed="hello"),
    ]
    name, received = decode(encode("x/y", sent))
    assert name == "x/y"
    assert received[1] == sent[1]
    assert difference_of(sent[0], received[0]) is None
    assert received[0].outputs.keys() == sent[0].outputs.keys()
    assert repr(received[0].outputs) == repr(sent[0].outputs)


def test_numbers_of_numpy_cross_as_numbers() -> None:
    sent = {"a rate": simplify(np.float64(0.1)), "rates": simplify([np.float64(2.5)])}
    _, received = decode(encode("x/y", [Outcome("a", sent)]))
    assert received[0].outputs == {"a rate": 0.1, "rates": [2.5]}


@FAST
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(MalformedOutcomes):
        decode(data)


@FAST
@given(st.data())
def test_damaged_bytes_never_raise_anything_else(data: Any) -> None:
    whole = bytearray(encode("x/y", outcomes(0, 1, 2)))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        _, received = decode(damaged)
    except MalformedOutcomes:
        return
    assert 0 <= judge(received, two_cases([])).points <= 10


def test_numbers_that_look_alike_are_told_with_more_digits() -> None:
    expected = torch.tensor([0.123456789], dtype=torch.float64)
    found = verdict(expected, expected + 1e-8)
    assert "expected 0.12345679, got 0.1234568" in found.details[1]
