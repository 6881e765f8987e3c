"""The second half of chapter 4, schedule, loss and decoding, against what is not ours."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import solution
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
BOS, EOS = 1, 2

# ---- learning rate -------------------------------------------------------------------------


def exact_rate(step: int, d_model: int, warmup: int) -> Decimal:
    """The paper's formula in decimal arithmetic, with roots and no powers: 40 digits."""
    with localcontext(prec=40):
        root = Decimal(step).sqrt()
        rise = Decimal(step) / (Decimal(warmup) * Decimal(warmup).sqrt())
        return min(1 / root, rise) / Decimal(d_model).sqrt()


@given(step=st.integers(1, 10**7), d_model=st.integers(1, 10**4), warmup=st.integers(1, 10**5))
@settings(deadline=None)
def test_learning_rate_equals_decimal_arithmetic(step: int, d_model: int, warmup: int) -> None:
    ours = solution("transformer/noam_learning_rate")(step, d_model, warmup)
    assert type(ours) is float
    assert ours == pytest.approx(float(exact_rate(step, d_model, warmup)), rel=1e-12)


def test_learning_rate_of_the_base_model_peaks_at_step_4000() -> None:
    """1 / sqrt(512 · 4000) is 0.000699 (5.3 of the paper gives the formula and both numbers)."""
    rate = solution("transformer/noam_learning_rate")
    rates = [rate(step, 512) for step in range(1, 12_001)]
    assert max(range(12_000), key=rates.__getitem__) + 1 == 4000
    assert rates[3999] == pytest.approx(0.000698771, abs=5e-10)
    assert rates[0] == pytest.approx(1.7469e-7, rel=1e-4)
    assert rate(100_000, 512) == pytest.approx(1.39754e-4, rel=1e-5)
    # Up in a straight line, then down with the root: four times the step is half the rate.
    assert rates[1999] == pytest.approx(rates[3999] / 2, rel=1e-12)
    assert rate(16_000, 512) == pytest.approx(rates[3999] / 2, rel=1e-12)


@pytest.mark.parametrize("warmup", [1, 7, 400])
def test_learning_rate_drives_torchs_scheduler(warmup: int) -> None:
    """LambdaLR counts from 0; what the optimizer is given at its first step is step 1's rate."""
    rate = solution("transformer/noam_learning_rate")
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: rate(epoch + 1, 64, warmup)
    )
    for step in range(1, 20):
        assert optimizer.param_groups[0]["lr"] == rate(step, 64, warmup)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("step", [0, -1, 0.5])
def test_learning_rate_refuses_steps_below_one(step: float) -> None:
    with pytest.raises(ValueError, match=r"[Ss]tep"):
        solution("transformer/noam_learning_rate")(step, 512)


# ---- label smoothing -----------------------------------------------------------------------


def drawn(dtype: torch.dtype, seed: int, pad_id: int = 0, scale: float = 2.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(4, 6, 9, dtype=torch.float64, generator=generator)
    targets = torch.randint(0, 9, (4, 6), generator=generator)
    lengths = torch.randint(0, 7, (4, 1), generator=generator)
    lengths[0] = 6
    return [
        logits.to(dtype).requires_grad_(),
        targets.masked_fill(torch.arange(6) >= lengths, pad_id),
    ]


def torchs_loss(logits: Tensor, targets: Tensor, smoothing: float, pad_id: int) -> Tensor:
    return F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=pad_id, label_smoothing=smoothing
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.35, 1.0])
@pytest.mark.parametrize("pad_id", [0, 5])
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_smoothed_loss_and_its_gradient_equal_torch(
    device: str, dtype: torch.dtype, smoothing: float, pad_id: int, scale: float
) -> None:
    for seed in range(4):
        logits, targets = drawn(dtype, seed, pad_id, scale)
        x, y = logits.to(device), targets.to(device)
        ours = solution("transformer/label_smoothed_cross_entropy")(x, y, smoothing, pad_id)
        theirs = torchs_loss(x, y, smoothing, pad_id)
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs)
        (a,) = torch.autograd.grad(ours, logits, retain_graph=True)
        (b,) = torch.autograd.grad(theirs, logits)
        torch.testing.assert_close(a, b)
        assert not a[targets == pad_id].any()


def test_smoothed_loss_has_torchs_defaults() -> None:
    logits, targets = drawn(torch.float64, 11)
    ours = solution("transformer/label_smoothed_cross_entropy")(logits, targets)
    torch.testing.assert_close(ours, torchs_loss(logits, targets, 0.1, 0))


def test_smoothed_loss_in_bfloat16_is_near_torchs() -> None:
    logits, targets = drawn(torch.bfloat16, 3)
    ours = solution("transformer/label_smoothed_cross_entropy")(logits, targets)
    theirs = torchs_loss(logits.double(), targets, 0.1, 0)
    assert ours.item() == pytest.approx(theirs.item(), rel=0.02)


def test_smoothed_loss_is_the_mean_over_the_tokens_of_the_whole_batch() -> None:
    logits, targets = drawn(torch.float64, 4)
    loss = solution("transformer/label_smoothed_cross_entropy")
    counts = (targets != 0).sum(dim=1)
    single = [loss(logits[i : i + 1], targets[i : i + 1]) for i in range(4)]
    total = sum(value * count for value, count in zip(single, counts, strict=True))
    torch.testing.assert_close(loss(logits, targets), total / counts.sum())


def test_smoothed_loss_of_padding_alone_is_zero_with_a_clean_gradient() -> None:
    logits = torch.randn(2, 3, 5, requires_grad=True)
    value = solution("transformer/label_smoothed_cross_entropy")(
        logits, torch.full((2, 3), 4), 0.1, 4
    )
    assert value.item() == 0.0
    assert not torch.autograd.grad(value, logits)[0].any()


def test_smoothed_loss_is_least_for_the_smoothed_distribution() -> None:
    """Gibbs: the cross-entropy to q is least at p = q, where it is the entropy of q."""
    vocab, smoothing = 7, 0.2
    q = torch.full((vocab,), smoothing / vocab, dtype=torch.float64)
    q[3] += 1 - smoothing
    loss, target = solution("transformer/label_smoothed_cross_entropy"), torch.tensor([[3]])
    least = loss(q.log()[None, None], target, smoothing)
    torch.testing.assert_close(least, torch.distributions.Categorical(q).entropy())
    for seed in range(20):
        other = torch.randn(1, 1, vocab, generator=torch.Generator().manual_seed(seed)).double()
        assert loss(q.log() + 0.3 * other, target, smoothing) > least


# ---- greedy decoding -----------------------------------------------------------------------


def sentences(generator: torch.Generator, count: int, longest: int = 6) -> Tensor:
    """Random words 3 to 12, padded with 0: (count, longest)."""
    words = torch.randint(3, 13, (count, longest), generator=generator)
    lengths = torch.randint(1, longest + 1, (count, 1), generator=generator)
    return words.masked_fill(torch.arange(longest) >= lengths, 0)


@functools.cache
def trained(seed: int) -> Any:
    """The chapter's own model, in float64, after a few steps of learning to copy.

    With random weights it says one word for ever. Half taught, it makes mistakes of its own, and
    its sentences end at different times, or never.
    """
    torch.manual_seed(seed)
    model = solution("transformer/Transformer")(13, 16, 2, 1, 32, 0.0).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(100):
        source = sentences(generator, 32)
        target = F.pad(source, (1, 1)).index_fill(1, torch.tensor([0]), BOS)
        target[torch.arange(32), (source != 0).sum(dim=1) + 1] = EOS
        logits = model(source, target[:, :-1])
        optimizer.zero_grad()
        F.cross_entropy(logits.transpose(1, 2), target[:, 1:], ignore_index=0).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def one_sequence(model: Any, source: Tensor, max_length: int) -> list[int]:
    """Greedy decoding as it is defined: one sentence, its whole forward pass for each token."""
    ids = [BOS]
    while len(ids) <= max_length and (len(ids) == 1 or ids[-1] != EOS):
        with torch.no_grad():
            logits = model(source[None], torch.tensor([ids], device=source.device))
        ids.append(max(range(logits.size(-1)), key=logits[0, -1].tolist().__getitem__))
    return ids[1:]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(3))
def test_greedy_equals_decoding_one_sentence_at_a_time(seed: int, device: str) -> None:
    model = copy.deepcopy(trained(seed)).to(device)
    source = sentences(torch.Generator().manual_seed(100 + seed), 12).to(device)
    for max_length in (1, 4, 12):
        expected = [one_sequence(model, row, max_length) for row in source]
        longest = max(map(len, expected))
        ids = solution("transformer/greedy_decode")(model, source, BOS, EOS, max_length)
        assert ids.tolist() == [row + [0] * (longest - len(row)) for row in expected]
        assert ids.dtype == torch.int64
        assert ids.device.type == device
        assert not ids.requires_grad
    # Else this could not tell a decoder that never stops from one that does.
    assert len({len(row) for row in expected}) >= 3


class Renumbered(torch.nn.Module):
    """A model whose ids are all moved on by five; it counts its calls."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.vocab = model, 13
        self.encoded = self.decoded = 0

    def encode(self, source: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.encoded += 1
        return self.model.encode((source - 5) % self.vocab)

    def decode(self, target: Tensor, memory: Tensor, source: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.decoded += 1
        logits = self.model.decode((target - 5) % self.vocab, memory, (source - 5) % self.vocab)
        return logits.roll(5, dims=-1)


@pytest.mark.parametrize("seed", range(3))
def test_greedy_of_other_ids_gives_the_same_sentences_in_as_few_calls(seed: int) -> None:
    greedy, renumbered = solution("transformer/greedy_decode"), Renumbered(trained(seed))
    source = sentences(torch.Generator().manual_seed(200 + seed), 5)
    source = source[[len(one_sequence(trained(seed), row, 12)) < 12 for row in source]]
    ids = greedy(trained(seed), source, BOS, EOS, 12)
    moved = greedy(renumbered, (source + 5) % 13, BOS + 5, EOS + 5, 12, 5)
    assert torch.equal(moved, (ids + 5) % 13)
    assert renumbered.encoded == 1
    assert renumbered.decoded == ids.size(1) < 12
    assert torch.is_grad_enabled()
    assert all(parameter.requires_grad for parameter in renumbered.parameters())


# ---- beam search ---------------------------------------------------------------------------

Table = Callable[[Tensor], Tensor]


def table(seed: int, vocab: int, sharpness: float = 2.0, impossible: float = 0.0) -> Table:
    """Log-probabilities that follow from the prefix and the seed; some of them may be -inf."""

    def next_log_probs(prefixes: Tensor) -> Tensor:
        rows = []
        for prefix in prefixes.tolist():
            generator = torch.Generator().manual_seed(hash((seed, *prefix)) % 2**31)
            logits = sharpness * torch.randn(vocab, dtype=torch.float64, generator=generator)
            barred = torch.rand(vocab, generator=generator) < impossible
            barred[EOS] = False
            rows.append(logits.masked_fill(barred, -math.inf).log_softmax(dim=-1))
        return torch.stack(rows)

    return next_log_probs


def total_of(next_log_probs: Table, tokens: Sequence[int]) -> float:
    return sum(
        next_log_probs(torch.tensor([[BOS, *tokens[:at]]]))[0, token].item()
        for at, token in enumerate(tokens)
    )


def penalized(total: float, length: int, penalty: float) -> float:
    """Wu et al. 2016, equation 14, with the coverage term left out."""
    return total / (math.pow(5 + length, penalty) / math.pow(6, penalty))


def best_of_all(
    next_log_probs: Table, vocab: int, max_length: int, penalty: float
) -> tuple[list[int], float]:
    """The highest score over every sequence that ends, and every one of max_length tokens."""
    words = [token for token in range(vocab) if token != EOS]
    sequences = [
        [*beginning, EOS]
        for length in range(max_length)
        for beginning in itertools.product(words, repeat=length)
    ]
    sequences += map(list, itertools.product(words, repeat=max_length))
    scored = [
        (penalized(total_of(next_log_probs, tokens), len(tokens), penalty), tokens)
        for tokens in sequences
    ]
    score, tokens = max(scored)
    return tokens, score


@given(
    seed=st.integers(0, 10**6),
    vocab=st.integers(3, 4),
    max_length=st.integers(1, 4),
    penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0]),
    impossible=st.sampled_from([0.0, 0.4]),
)
@settings(max_examples=60, deadline=None)
def test_wide_beam_equals_exhaustive_search(
    seed: int, vocab: int, max_length: int, penalty: float, impossible: float
) -> None:
    """A beam that holds every sequence loses none: what it returns is the optimum."""
    next_log_probs = table(seed, vocab, impossible=impossible)
    tokens, score = best_of_all(next_log_probs, vocab, max_length, penalty)
    found = solution("transformer/beam_search")(
        next_log_probs, BOS, EOS, vocab**max_length, max_length, penalty
    )
    assert found[0] == tokens
    assert found[1] == pytest.approx(score, rel=1e-9)


@given(seed=st.integers(0, 10**6), vocab=st.integers(4, 9), max_length=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_beam_of_one_is_greedy(seed: int, vocab: int, max_length: int) -> None:
    next_log_probs, tokens = table(seed, vocab), []
    while len(tokens) < max_length and EOS not in tokens:
        tokens.append(int(next_log_probs(torch.tensor([[BOS, *tokens]]))[0].argmax()))
    found, score = solution("transformer/beam_search")(next_log_probs, BOS, EOS, 1, max_length)
    assert found == tokens
    assert score == pytest.approx(penalized(total_of(next_log_probs, found), len(found), 0.6))


@given(
    seed=st.integers(0, 10**6),
    beam_size=st.integers(1, 6),
    penalty=st.sampled_from([0.0, 0.6, 1.3]),
    impossible=st.sampled_from([0.0, 0.5]),
)
@settings(max_examples=60, deadline=None)
def test_score_of_any_beam_is_that_of_its_sequence_and_never_above_the_optimum(
    seed: int, beam_size: int, penalty: float, impossible: float
) -> None:
    next_log_probs = table(seed, 4, impossible=impossible)
    tokens, score = solution("transformer/beam_search")(
        next_log_probs, BOS, EOS, beam_size, 4, penalty
    )
    assert score == pytest.approx(
        penalized(total_of(next_log_probs, tokens), len(tokens), penalty), rel=1e-9
    )
    assert EOS not in tokens[:-1]
    assert tokens[-1] == EOS or len(tokens) == 4
    assert score <= best_of_all(next_log_probs, 4, 4, penalty)[1] + 1e-9


@given(
    seed=st.integers(0, 10**6),
    beam_size=st.integers(1, 4),
    penalty=st.sampled_from([0.0, 0.6, 2.0, 3.0]),
    sharpness=st.sampled_from([1.0, 2.0, 3.0]),
)
@settings(max_examples=200, deadline=None)
def test_beam_is_what_all_sequences_ranked_length_by_length_give(
    seed: int, beam_size: int, penalty: float, sharpness: float
) -> None:
    """Beam search from its other end: sequences are struck out, length by length.

    Of all sequences of a length whose beginnings are still there, the beam_size most probable
    stay. No hypothesis is grown; every sequence there is gets its probability first.
    """
    vocab, max_length = 4, 5
    next_log_probs = table(seed, vocab, sharpness)
    alive, candidates = {()}, []
    for length in range(1, max_length + 1):
        ranked = sorted(
            (
                (total_of(next_log_probs, tokens), tokens)
                for tokens in itertools.product(range(vocab), repeat=length)
                if tokens[:-1] in alive
            ),
            reverse=True,
        )[:beam_size]
        ended = [(total, tokens) for total, tokens in ranked if tokens[-1] == EOS]
        alive = {tokens for _, tokens in ranked if tokens[-1] != EOS}
        candidates += ended if length < max_length else ranked
    best = max(candidates, key=lambda pair: penalized(pair[0], len(pair[1]), penalty))
    found, score = solution("transformer/beam_search")(
        next_log_probs, BOS, EOS, beam_size, max_length, penalty
    )
    assert tuple(found) == best[1]
    assert score == pytest.approx(penalized(best[0], len(best[1]), penalty), rel=1e-9)


def test_beam_asks_only_for_prefixes_that_live() -> None:
    """Each begins with bos, none has ended, none is impossible, and there are never too many."""
    for seed in range(30):
        plain, widths = table(seed, 6, impossible=0.4), []

        def watched(prefixes: Tensor, plain: Table = plain, widths: list[int] = widths) -> Tensor:
            assert prefixes.dtype == torch.int64
            assert bool((prefixes[:, 0] == BOS).all())
            assert not bool((prefixes[:, 1:] == EOS).any())
            assert all(total_of(plain, prefix[1:]) > -math.inf for prefix in prefixes.tolist())
            assert prefixes.size(1) == len(widths) + 1
            widths.append(len(prefixes))
            return plain(prefixes)

        solution("transformer/beam_search")(watched, BOS, EOS, 3, 6)
        assert widths[0] == 1
        assert max(widths) <= 3
        assert len(widths) <= 6


def test_beam_finds_what_greedy_misses() -> None:
    """Worked out on paper: 0.4 · 0.9 = 0.36 is more than 0.5 · 0.4 = 0.2."""
    chances = {(): [0, 0, 0.1, 0.5, 0.4], (3,): [0.3, 0, 0.4, 0.2, 0.1], (4,): [0, 0, 0.9, 0.1, 0]}

    def next_log_probs(prefixes: Tensor) -> Tensor:
        rows = [chances.get(tuple(p[1:]), [0.0, 0.0, 1.0, 0.0, 0.0]) for p in prefixes.tolist()]
        return torch.tensor(rows).log()

    search = solution("transformer/beam_search")
    assert search(next_log_probs, BOS, EOS, 1, 5, 0.0)[0] == [3, EOS]
    tokens, score = search(next_log_probs, BOS, EOS, 2, 5, 0.0)
    assert tokens == [4, EOS]
    assert score == pytest.approx(math.log(0.36), rel=1e-6)


def test_beam_of_one_translates_as_greedy_does() -> None:
    model = trained(1)
    source = sentences(torch.Generator().manual_seed(9), 8)
    for row in source:
        memory = model.encode(row[None]).detach()

        def next_log_probs(prefixes: Tensor, row: Tensor = row, memory: Tensor = memory) -> Tensor:
            size = (len(prefixes), -1)
            with torch.no_grad():
                logits = model.decode(prefixes, memory.expand(*size, -1), row[None].expand(*size))
            return logits[:, -1].log_softmax(dim=-1)

        greedy = solution("transformer/greedy_decode")(model, row[None], BOS, EOS, 10)[0]
        tokens, _ = solution("transformer/beam_search")(next_log_probs, BOS, EOS, 1, 10)
        assert tokens == greedy.tolist()


@pytest.mark.parametrize(("beam_size", "max_length"), [(0, 5), (-1, 5), (2, 0), (2, -3)])
def test_beam_refuses_sizes_below_one(beam_size: int, max_length: int) -> None:
    with pytest.raises(ValueError, match="beam_size"):
        solution("transformer/beam_search")(table(0, 4), BOS, EOS, beam_size, max_length)
