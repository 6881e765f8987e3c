"""The training loop, and the fused attention that a long run trains with."""

import math
import os

import pytest
import torch
from conftest import solution
from torch import nn

from workbook import fused, training
from workbook.training import History, count_parameters, train


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for variable in ("WORKBOOK_BUDGET", "WORKBOOK_STATIC", "WORKBOOK_GRADING"):
        monkeypatch.delenv(variable, raising=False)


def line_batch(generator):
    x = torch.randn(16, 1, generator=generator)
    return x, 3 * x + 1


def squared_error(model, x, y):
    return ((model(x) - y) ** 2).mean()


def fit(steps=60, **options):
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    return model, train(model, line_batch, squared_error, steps=steps, learning_rate=0.1, **options)


def test_training_fits_a_line():
    model, history = fit(steps=200)
    assert len(history.loss) == 200
    assert history.seconds > 0
    assert history.loss[-1] < 1e-3 < history.loss[0]
    assert model.weight.item() == pytest.approx(3, abs=0.05)
    assert not model.training


def test_the_same_seed_gives_the_same_curve_and_another_one_does_not():
    assert fit(seed=1)[1].loss == fit(seed=1)[1].loss
    assert fit(seed=1)[1].loss != fit(seed=2)[1].loss


def test_training_shows_progress_and_keeps_stderr_empty(capfd):
    fit(title="a line")
    out, err = capfd.readouterr()
    assert "a line" in out
    assert "60/60" in out
    assert err == ""


@pytest.mark.parametrize("variable", ["WORKBOOK_STATIC", "WORKBOOK_GRADING"])
def test_a_page_that_nobody_watches_gets_one_line(monkeypatch, capfd, variable):
    monkeypatch.setenv(variable, "1")
    _, history = fit(title="a line")
    out, err = capfd.readouterr()
    assert out.count("\n") == 1
    assert "\r" not in out
    assert f"{history.loss[-1]:.3f}" in out
    assert err == ""


def test_a_loss_that_is_not_a_number_stops_training_at_its_step():
    calls = []

    def breaks_at_three(model, x, y):
        calls.append(1)
        return squared_error(model, x, y) * (float("nan") if len(calls) == 3 else 1)

    with pytest.raises(FloatingPointError, match="nan at step 3 of 10"):
        train(nn.Linear(1, 1), line_batch, breaks_at_three, steps=10)


def test_a_loss_with_axes_is_refused_with_its_shape():
    with pytest.raises(ValueError, match=r"\(16, 1\).*mean"):
        train(nn.Linear(1, 1), line_batch, lambda model, x, y: (model(x) - y) ** 2, steps=1)


def test_smoothing_averages_over_what_has_been_seen():
    assert History([4.0, 2.0, 0.0, 6.0]).smooth(window=2) == [4.0, 3.0, 1.0, 3.0]
    assert History([]).smooth() == []


def test_only_what_is_trained_is_counted():
    model = nn.Linear(4, 3)
    assert count_parameters(model) == 15
    model.bias.requires_grad_(False)
    assert count_parameters(model) == 12


# Schedules, clipping, evaluation


def test_a_schedule_is_asked_for_every_step():
    _, history = fit_with(learning_rate=lambda step: 1.0 / step, steps=4)
    assert history.learning_rate == [1.0, 1 / 2, 1 / 3, 1 / 4]


def fit_with(steps=30, model=None, **options):
    torch.manual_seed(0)
    model = model or nn.Linear(1, 1)
    return model, train(model, line_batch, squared_error, steps=steps, **options)


def test_another_optimizer_moves_as_it_should():
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    squared_error(model, *line_batch(torch.Generator().manual_seed(3))).backward()
    steps = {name: p.grad * 0.25 for name, p in model.named_parameters()}
    model.zero_grad()
    train(
        model,
        line_batch,
        squared_error,
        steps=1,
        seed=3,
        learning_rate=0.25,
        optimizer=torch.optim.SGD,
    )
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] - steps[name])


def test_clipping_shortens_what_is_longer_and_nothing_else():
    def moved(clip):
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        start = torch.cat([p.detach().flatten() for p in model.parameters()])
        history = train(
            model,
            line_batch,
            squared_error,
            steps=1,
            learning_rate=1.0,
            clip=clip,
            optimizer=torch.optim.SGD,
        )
        end = torch.cat([p.detach().flatten() for p in model.parameters()])
        return (end - start).norm().item(), history.gradient_norm[0]

    plain, norm = moved(None)
    assert plain == pytest.approx(norm, rel=1e-5)
    assert moved(norm / 3) == (pytest.approx(norm / 3, rel=1e-4), pytest.approx(norm))
    assert moved(norm * 3)[0] == pytest.approx(norm, rel=1e-5)


def test_evaluation_is_asked_now_and_then_and_at_the_end():
    modes = []

    def evaluate(model):
        modes.append((model.training, torch.is_grad_enabled()))
        return {"weight": model.weight.item()}

    model, history = fit_with(steps=25, evaluate=evaluate, every=10)
    assert [step for step, _ in history.evaluations] == [10, 20, 25]
    assert modes == [(False, False)] * 3
    assert history.evaluations[-1][1] == {"weight": model.weight.item()}
    assert [step for step, _ in fit_with(steps=5, evaluate=evaluate)[1].evaluations] == [5]


@pytest.mark.parametrize(
    ("card", "precision"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_a_card_that_only_imitates_bfloat16_computes_in_float32(monkeypatch, card, precision):
    """A T4, free on Colab, has compute capability 7.5."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: card)
    assert training._precision(torch.device("cuda")) == precision
    assert training._precision(torch.device("cpu")) == torch.float32


def test_bfloat16_is_used_where_it_is_asked_for():
    seen = []

    def loss(model, x, y):
        seen.append(model(x).dtype)
        return squared_error(model, x, y).float()

    model = nn.Linear(1, 1)
    train(model, line_batch, loss, steps=2, precision=torch.bfloat16)
    train(model, line_batch, loss, steps=2)
    assert seen == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert model.weight.dtype == torch.float32


def test_a_parameter_that_broke_is_named():
    # The first step throws the weights out of what float32 holds; the second one meets it.
    with pytest.raises(FloatingPointError, match=r"step 2 of 5.*parameter weight is no longer"):
        fit_with(steps=5, learning_rate=math.inf, optimizer=torch.optim.SGD)


# Checkpoints


class Noisy(nn.Module):
    """A model whose training draws global random numbers."""

    def __init__(self):
        super().__init__()
        self.line, self.drop = nn.Linear(1, 1), nn.Dropout(0.5)

    def forward(self, x):
        return self.line(self.drop(x))


class Killed(Exception):
    pass


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(tmp_path):
    torch.manual_seed(0)
    whole, uninterrupted = fit_with(steps=30, model=Noisy(), learning_rate=lambda s: 0.1 / s)
    calls = []

    def dies(model, x, y):
        calls.append(1)
        if len(calls) == 18:
            raise Killed
        return squared_error(model, x, y)

    file = tmp_path / "deep" / "run.pt"
    options = {"steps": 30, "learning_rate": lambda s: 0.1 / s, "checkpoint": file, "every": 5}
    torch.manual_seed(0)
    with pytest.raises(Killed):
        train(Noisy(), line_batch, dies, **options)
    model = Noisy()
    history = train(model, line_batch, squared_error, **options)
    assert history.loss == uninterrupted.loss
    assert history.learning_rate == uninterrupted.learning_rate
    assert torch.equal(model.line.weight, whole.line.weight)
    # Done is done: another call trains no further.
    again = train(Noisy(), line_batch, squared_error, **options)
    assert again.loss == history.loss
    assert os.listdir(file.parent) == ["run.pt"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_checkpoint_that_does_not_fit_says_what_to_do(tmp_path, content):
    file = tmp_path / "run.pt"
    if content is None:
        train(
            nn.Linear(2, 2),
            lambda g: (torch.ones(1, 2),) * 2,
            squared_error,
            steps=1,
            checkpoint=file,
        )
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"run\.pt does not fit.*Delete it to begin anew"):
        fit_with(checkpoint=file)
    assert file.read_bytes() == before


# Fused attention

MASKS = {
    "none": None,
    "causal": torch.ones(5, 5, dtype=torch.bool).tril(),
    "padding": torch.tensor([[[True, True, True, False, False]], [[True] * 5]]),
    "nothing": torch.tensor([[[True] * 5] * 4 + [[False] * 5], [[False] * 5] * 5]),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_fused_heads_equal_those_of_chapter_2(mask):
    torch.manual_seed(0)
    written = solution("multi_head/MultiHeadAttention")(12, 3).double()
    replaced = fused.MultiHeadAttention(12, 3).double()
    replaced.load_state_dict(written.state_dict())
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 5, 12, dtype=torch.float64)
    expected, _ = written(x, y, y, mask)
    output, weights = replaced(x, y, y, mask)
    assert weights is None
    torch.testing.assert_close(output, expected)
    upstream = torch.randn_like(output)
    (ours,) = torch.autograd.grad((output * upstream).sum(), x)
    (theirs,) = torch.autograd.grad((expected * upstream).sum(), x)
    torch.testing.assert_close(ours, theirs)


def test_fusing_keeps_parameters_names_and_mode():
    written = solution("multi_head/MultiHeadAttention")
    model = nn.ModuleDict({"one": written(8, 2), "more": nn.ModuleList([written(8, 2)])}).eval()
    before = dict(model.named_parameters())
    assert fused.fuse(model, 2, dropout=0.5) is model
    after = dict(model.named_parameters())
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    assert isinstance(model["more"][0], fused.MultiHeadAttention)
    x = torch.randn(1, 3, 8)
    output, _ = model["one"](x, x, x)
    assert torch.equal(output, model["one"](x, x, x)[0])  # no dropout in evaluation mode
    model.train()
    assert not torch.equal(model["one"](x, x, x)[0], model["one"](x, x, x)[0])


def test_a_model_without_attention_cannot_be_fused():
    with pytest.raises(ValueError, match="w_q, w_k, w_v, w_o"):
        fused.fuse(nn.Linear(2, 2), 1)
    with pytest.raises(ValueError, match="10 cannot be split into 4"):
        fused.MultiHeadAttention(10, 4)
