"""Whatever a component does, each way of failing has its own sentence."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SECRET, references, solution
from torch import nn

from autograder import exercise as exercises
from autograder.exercise import Exercise, Returned
from autograder.inputs import Make
from autograder.judge import judge
from autograder.runner import Subject, run
from autograder.verdict import Verdict

SOFTMAX = "attention/softmax"
ATTEND = "attention/scaled_dot_product_attention"
ADDITIVE = "attention/AdditiveAttention"


def verdict(exercise_id: str, component: Any, seconds: float = 5.0) -> Verdict:
    exercise = exercises.find(exercise_id)
    outcomes = run(exercise, component, SECRET, hidden=True, seconds=seconds)
    return judge(outcomes, references(exercise_id))


def raises_deep_down(query: Any, key: Any, value: Any, mask: Any = None) -> Any:
    def helper(left: Any, right: Any) -> Any:
        return left @ right

    return helper(query, value)


def not_written(scores: Any, dim: int = -1) -> Any:
    raise NotImplementedError


WAYS = {
    "wrong number of arguments": (ATTEND, lambda query, key: query, "arguments"),
    "wrong number of values": (ATTEND, lambda q, k, v, mask=None: q, "expected 2 values"),
    "three values": (ATTEND, lambda q, k, v, mask=None: (q, k, v), "3 values"),
    "None": (SOFTMAX, lambda scores, dim=-1: None, "returned None"),
    "a list": (SOFTMAX, lambda scores, dim=-1: scores.tolist(), "expected a torch tensor"),
    "a number": (SOFTMAX, lambda scores, dim=-1: 1.0, "is a float"),
    "numpy": (SOFTMAX, lambda scores, dim=-1: scores.detach().numpy(), "ndarray"),
    "NaN": (SOFTMAX, lambda scores, dim=-1: scores * float("nan"), "NaN"),
    "another dtype": (SOFTMAX, lambda s, dim=-1: solution(SOFTMAX)(s, dim).half(), "float16"),
    "another device": (SOFTMAX, lambda s, dim=-1: s.to("meta"), "meta"),
    "sparse": (SOFTMAX, lambda s, dim=-1: s.detach().to_sparse(), "sparse"),
    "an exception": (ATTEND, raises_deep_down, "RuntimeError"),
    "not written": (SOFTMAX, not_written, "not written yet"),
    "exit": (SOFTMAX, lambda s, dim=-1: sys.exit(3), "SystemExit"),
    "a call": (SOFTMAX, torch.ones(3), "without calling it"),
    "a function for a class": (ADDITIVE, lambda *a: None, "subclass of nn.Module"),
    "an instance": (ADDITIVE, nn.Linear(2, 2), "not the class"),
    "no parameters": (
        ADDITIVE,
        type("Empty", (nn.Module,), {"__init__": lambda self, a, b, c: nn.Module.__init__(self)}),
        "no parameter w_a.weight",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_failing_has_its_words(way: str, capfd: pytest.CaptureFixture[str]) -> None:
    exercise_id, component, words = WAYS[way]
    found = verdict(exercise_id, component)
    assert found.points == 0
    assert words in found.text()
    assert found.next_step
    assert "Traceback" not in found.text()
    assert capfd.readouterr().err == ""


def test_the_trace_shows_the_learners_lines_only() -> None:
    found = verdict(ATTEND, raises_deep_down)
    assert [line.split(":")[0].split(",")[0] for line in found.lines] == [
        "raises_deep_down",
        "helper",
    ]
    assert "return left @ right" in found.lines[-1]


def test_shapes_that_the_check_cannot_use_are_told() -> None:
    found = verdict(ATTEND, lambda q, k, v, mask=None: (q[0, 0, 0], q[0, 0, 0]))
    assert found.points == 0
    assert "shape" in found.text()


def test_a_detached_result_loses_the_gradient_case_with_its_own_words() -> None:
    def detached(scores: Any, dim: int = -1) -> Any:
        return solution(SOFTMAX)(scores.detach(), dim)

    found = verdict(SOFTMAX, detached)
    assert 0 < found.points < 2
    assert found.case == "gradients"
    assert ".detach()" in found.next_step


def test_a_detached_second_result_is_told_by_its_name() -> None:
    def detached(query: Any, key: Any, value: Any, mask: Any = None) -> Any:
        output, weights = solution(ATTEND)(query, key, value, mask)
        return output, weights.detach()

    found = verdict(ATTEND, detached)
    assert "from the weights back to query, key" in found.details[0]


class Frozen(solution(ADDITIVE)):  # type: ignore[misc]
    def __init__(self, *widths: int) -> None:
        super().__init__(*widths)
        self.v_a.weight.requires_grad_(False)


class WrongWidth(solution(ADDITIVE)):  # type: ignore[misc]
    def __init__(self, d_query: int, d_key: int, d_hidden: int) -> None:
        super().__init__(d_query, d_query, d_hidden)


class Backwards(solution(ADDITIVE)):  # type: ignore[misc]
    def __init__(self, d_query: int, d_key: int, d_hidden: int) -> None:
        super().__init__(d_query, d_key, d_hidden)
        self.u_a = nn.Linear(d_hidden, d_key, bias=False)


@pytest.mark.parametrize(
    ("component", "words"),
    [
        (Frozen, "No gradient is asked for at v_a.weight: requires_grad is False."),
        (WrongWidth, "Check the widths of that layer"),
        (Backwards, "Check the order of in_features and out_features"),
    ],
)
def test_what_is_wrong_with_a_parameter_is_told(component: Any, words: str) -> None:
    assert words in verdict(ADDITIVE, component).text()


def lost_axis(scores: Any, dim: int = -1) -> Any:
    return scores.exp() / scores.exp().sum(dim + 0)


def pair_for_maximum(scores: Any, dim: int = -1) -> Any:
    return (scores - scores.max(dim, keepdim=True)).exp()


def in_place_in_the_graph(query: Any, key: Any, value: Any, mask: Any = None) -> Any:
    weights = torch.softmax(query @ key.mT / query.size(-1) ** 0.5, -1)
    if mask is not None:
        weights *= mask
    return weights @ value, weights


def mask_of_numbers(query: Any, key: Any, value: Any, mask: Any = None) -> Any:
    weights = query @ key.mT if mask is None else (query @ key.mT).masked_fill(~mask.float(), 0.0)
    return weights @ value, weights


def three_axes(query: Any, key: Any, value: Any, mask: Any = None) -> Any:
    return torch.bmm(query, key.transpose(1, 2)) @ value, query


HINTS = {
    "lost axis": (SOFTMAX, lost_axis, "a batch, over", "keepdim=True"),
    "max gives two": (SOFTMAX, pair_for_maximum, "three scores", "take .values"),
    "in place": (ATTEND, in_place_in_the_graph, "gradients, with a mask", "x = x - y"),
    "mask of numbers": (ATTEND, mask_of_numbers, "(batch, 1, L_k)", "must be boolean"),
    "three axes": (ATTEND, three_axes, "no batch axis", "from the end"),
}


@pytest.mark.parametrize("way", HINTS)
def test_common_errors_have_a_hint(way: str) -> None:
    exercise_id, component, title, words = HINTS[way]
    outcomes = run(exercises.find(exercise_id), component, SECRET)
    outcome = next(outcome for outcome in outcomes if title in outcome.case)
    assert outcome.failure
    assert words in outcome.failure.next_step


def test_an_endless_loop_costs_one_time_limit() -> None:
    def endless(scores: Any, dim: int = -1) -> Any:
        while True:
            pass

    began = time.monotonic()
    found = verdict(SOFTMAX, endless, seconds=0.5)
    assert found.status == "timeout"
    assert "did not end within 0.5 seconds" in found.text()
    assert time.monotonic() - began < 4 * len(exercises.find(SOFTMAX).cases) * 0.5


def test_an_endless_loop_that_swallows_exceptions_ends() -> None:
    def endless(scores: Any, dim: int = -1) -> Any:
        for _ in range(3):
            try:
                while True:
                    pass
            except BaseException:
                continue

    assert verdict(SOFTMAX, endless, seconds=0.3).points == 0


def test_the_time_limit_holds_outside_the_main_thread() -> None:
    def endless(scores: Any, dim: int = -1) -> Any:
        while True:
            pass

    found: list[Verdict] = []
    thread = threading.Thread(target=lambda: found.append(verdict(SOFTMAX, endless, 0.3)))
    thread.start()
    thread.join(60)
    assert found
    assert found[0].status == "timeout"


def test_state_is_left_as_it_was() -> None:
    def rude(scores: Any, dim: int = -1) -> Any:
        torch.manual_seed(5)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        warnings.simplefilter("error")
        raise KeyError("x")

    torch.manual_seed(1)
    before = torch.get_rng_state()
    filters = list(warnings.filters)
    verdict(SOFTMAX, rude)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert warnings.filters == filters


def test_a_warning_or_a_print_costs_nothing_and_stays_off_stderr(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def chatty(scores: Any, dim: int = -1) -> Any:
        warnings.warn("careful", stacklevel=1)
        print("shape", tuple(scores.shape))
        print("oops", file=sys.stderr)
        return solution(SOFTMAX)(scores, dim)

    assert verdict(SOFTMAX, chatty).points == 2
    assert capfd.readouterr() == ("", "")


DISGUISES = {
    "by name": (SOFTMAX, torch.softmax),
    "functional": (SOFTMAX, lambda s, dim=-1: F.softmax(s, dim)),
    "method": (SOFTMAX, lambda s, dim=-1: s.softmax(dim)),
    "module": (SOFTMAX, lambda s, dim=-1: nn.Softmax(dim)(s)),
    "logarithm": (SOFTMAX, lambda s, dim=-1: F.log_softmax(s, dim).exp()),
    "softmin": (SOFTMAX, lambda s, dim=-1: F.softmin(-s, dim)),
    "special": (SOFTMAX, lambda s, dim=-1: torch.special.softmax(s, dim)),
    "aten": (SOFTMAX, lambda s, dim=-1: torch.ops.aten._softmax(s, dim, False)),
    "attention": (
        ATTEND,
        lambda q, k, v, mask=None: (
            F.scaled_dot_product_attention(q, k, v, mask),
            F.scaled_dot_product_attention(
                q, k, torch.eye(k.size(-2), dtype=k.dtype).expand(*k.shape[:-1], k.size(-2)), mask
            ),
        ),
    ),
    "attention by aten": (
        ATTEND,
        lambda q, k, v, mask=None: (torch.ops.aten.scaled_dot_product_attention(q, k, v, mask), q),
    ),
    "attention, unseen by name": (ATTEND, lambda q, k, v, mask=None: (unseen(q, k, v, mask), q)),
}


def unseen(*arguments: Any) -> Any:
    with torch._C.DisableTorchFunction():
        return F.scaled_dot_product_attention(*arguments)


@pytest.mark.parametrize("way", DISGUISES)
def test_the_built_in_in_disguise_gets_nothing(way: str) -> None:
    exercise_id, component = DISGUISES[way]
    found = verdict(exercise_id, component)
    assert found.points == 0
    assert "built-in" in found.message


def test_softmax_is_allowed_in_attention() -> None:
    assert verdict(ATTEND, solution(ATTEND)).points == 4


def test_the_ready_made_block_gets_nothing_however_it_is_called() -> None:
    from workbook.ready import attention as ready

    for component in (ready.softmax, lambda scores, dim=-1: ready.softmax(scores, dim)):
        found = verdict(SOFTMAX, component)
        assert found.points == 0
        assert "ready-made" in found.message


def test_numpy_in_between_is_told_about_the_gradient() -> None:
    def through_numpy(scores: Any, dim: int = -1) -> Any:
        x = scores.detach().numpy()
        powers = np.exp(x - x.max(axis=dim, keepdims=True))
        return torch.from_numpy(powers / powers.sum(axis=dim, keepdims=True))

    found = verdict(SOFTMAX, through_numpy)
    assert found.points < 2
    assert "gradient" in found.text()


def test_what_torch_loads_at_first_does_not_count_against_a_case() -> None:
    """In a fresh process, all that the watchers need is loaded before the first clock starts."""
    code = """
        import sys
        import torch
        from autograder import exercise, runner

        loaded = []

        def component(length):
            loaded.append(set(sys.modules))
            return torch.ones(length, length, dtype=torch.bool).tril()

        found = exercise.find("attention/causal_mask")
        runner.run(found, component, seed=1)
        print(len(loaded), "torch._dynamo" in loaded[0] or "torch._dynamo" not in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    calls, before = done.stdout.split()
    assert int(calls) > 1
    assert before == "True"


class _Coder(nn.Module):
    """A module whose other methods are part of the exercise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def encode(self, x: torch.Tensor) -> Any:
        return F.softmax(x, -1) if len(x) > 2 else None

    width = 3


@pytest.mark.parametrize(
    ("name", "argument", "words"),
    [
        ("decode", 1, "Coder has no method decode"),
        ("width", 1, "Coder has no method width"),
        ("encode", 2, r"It returned None; expected memory, a tensor of shape \(length\)"),
        ("encode", 3, r"the built-in softmax \(seen: .*which"),
    ],
)
def test_other_methods_of_a_module_are_called_and_watched_as_forward_is(
    name: str, argument: int, words: str
) -> None:
    memory = Returned("memory", "(length)")
    asked = Exercise("tiny/Coder", 1, "Coder()", [memory], without=["layer_norm", "softmax"])
    asked.parameters = lambda: {}
    asked.chapter = "01_attention"

    @asked.case("a method")
    def _(build: Any, make: Any) -> Any:
        return {"memory": make.module(build).method(name, memory)(make.normal(argument))}

    (outcome,) = run(asked, _Coder, SECRET)
    assert outcome.failure
    assert re.search(words, outcome.failure.text)


def test_a_method_gives_what_it_returns() -> None:
    subject = Subject(exercises.find(ADDITIVE), solution(ADDITIVE)(2, 3, 4))
    assert subject.method("extra_repr", Returned("text", type=str))() == ""


def test_a_loss_without_axes_has_gradients_too() -> None:
    make = Make(SECRET)
    x = make.normal(3, grad=True)
    (gradient,) = make.gradients("loss", x.sum(), x=x).values()
    assert gradient.shape == x.shape
    assert len(set(gradient.tolist())) == 1
