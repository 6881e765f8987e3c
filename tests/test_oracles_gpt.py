"""Chapter 6 against implementations that are not ours.

Hugging Face's GPT-2 with the same parameters, its samplers and its cache, torch's attention, and
the library ``tokenizers``. Parameters are renamed here anew, not by ``workbook.pretrained``.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.loss.loss_utils import ForCausalLMLoss

from workbook.ready.attention import causal_mask
from workbook.ready.gpt import (
    GPT,
    CachedAttention,
    apply_bpe,
    filter_logits,
    generate,
    learn_bpe,
    next_token_loss,
)
from workbook.ready.multi_head import MultiHeadAttention

DTYPES = [torch.float32, torch.float64]
TOLERANCE: dict[torch.dtype, dict[str, float]] = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
}

# ---- byte-pair encoding --------------------------------------------------------------------

# Few letters, so that pairs overlap and repeat; one that needs two units in UTF-16, and a blank.
LETTERS = "abc𝄞 "
WORDS = st.text(LETTERS, max_size=12)
COUNTED = st.dictionaries(WORDS.filter(bool), st.integers(1, 9), max_size=6)


def library(characters: str, merges: list[tuple[str, str]]) -> Tokenizer:
    """The library's encoder with the same merges, and nothing done to the text before."""
    pieces = dict.fromkeys([*characters, *(left + right for left, right in merges)])
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return Tokenizer(models.BPE(vocab=vocabulary, merges=merges))


@given(counted=COUNTED, number=st.integers(0, 25), new=st.lists(WORDS, min_size=1, max_size=5))
@example(counted={"aaaa": 3, "aaa": 1}, number=9, new=["a" * n for n in range(12)])
@example(counted={"ran": 5, "rang": 3, "sang": 6, "sand": 2}, number=7, new=["grand", ""])
@settings(deadline=None, max_examples=300)
def test_words_are_split_as_the_library_splits_them(
    counted: dict[str, int], number: int, new: list[str]
) -> None:
    merges = learn_bpe(counted, number)
    theirs = library(LETTERS + "nrsgd", merges)
    for word in [*new, *counted]:
        assert apply_bpe(word, merges) == theirs.encode(word).tokens


@given(word=st.text(min_size=1, max_size=20), counted=COUNTED)
@settings(deadline=None)
def test_characters_that_were_never_seen_stay_by_themselves(
    word: str, counted: dict[str, int]
) -> None:
    merges = learn_bpe(counted, 10)
    assert apply_bpe(word, merges) == library(LETTERS + word, merges).encode(word).tokens


def joined(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    found: list[str] = []
    rest = list(pieces)
    while rest:
        width = 2 if tuple(rest[:2]) == pair else 1
        found.append("".join(rest[:width]))
        del rest[:width]
    return found


def alike(counted: Mapping[str, int], merges: list[tuple[str, str]]) -> Iterator[bool]:
    """For each merge, whether the library's rule for ties takes the same pair as ours.

    Among equally frequent pairs the library takes the one with the lowest ids, and gives ids to
    characters in their order, then to pieces as they are joined. Ours compares the pieces.
    """
    ids = {character: i for i, character in enumerate(sorted(set("".join(counted))))}
    split = {word: list(word) for word in counted}
    for merge in merges:
        counts = Counter[tuple[str, str]]()
        for word, pieces in split.items():
            for pair in pairwise(pieces):
                counts[pair] += counted[word]
        most = max(counts.values())
        tied = [pair for pair, count in counts.items() if count == most]
        yield min(tied) == min(tied, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        ids.setdefault("".join(merge), len(ids))
        split = {word: joined(pieces, merge) for word, pieces in split.items()}


def library_learns(counted: Mapping[str, int], number: int) -> list[tuple[str, str]]:
    """The merges of the library's trainer."""
    theirs = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=len(set("".join(counted))) + number, show_progress=False, special_tokens=[]
    )
    theirs.train_from_iterator([word for word, n in counted.items() for _ in range(n)], trainer)
    # Only its file tells them.
    return [(left, right) for left, right in json.loads(theirs.to_str())["model"]["merges"]]


def compare_merges(counted: Mapping[str, int], number: int) -> int:
    """Compares them up to the first tie that the rules break differently. Returns how many."""
    ours, theirs = learn_bpe(counted, number), library_learns(counted, number)
    assert len(ours) <= len(theirs)
    for index, same in enumerate(alike(counted, ours)):
        if not same:
            return index
        assert ours[index] == theirs[index]
    # The library counts pieces, not merges: one that is joined in two ways costs it one step more.
    assert len(ours) == number or len(theirs) == len(ours)
    return len(ours)


@given(
    counted=st.dictionaries(st.text("abcd", min_size=1, max_size=8), st.integers(1, 40), max_size=8)
)
@example(counted={"ran": 5, "rang": 3, "sang": 6, "sand": 2})
@example(counted={"aaaaa": 4, "aab": 3})
@settings(deadline=None, max_examples=200)
def test_merges_are_those_that_the_library_learns(counted: dict[str, int]) -> None:
    compare_merges(counted, 12)


@pytest.mark.parametrize("seed", range(4))
def test_many_merges_are_those_that_the_library_learns(seed: int) -> None:
    """Different counts for many short words: it takes long until two pairs are as frequent."""
    draw = random.Random(seed)
    letters = "abcdefgh"
    words = {"".join(draw.choices(letters, k=draw.randint(2, 6))) for _ in range(300)}
    assert compare_merges({word: draw.randint(1, 999) for word in sorted(words)}, 200) >= 30


# ---- the model -----------------------------------------------------------------------------


def their_names(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters, or their gradients, under GPT-2's names and in its shapes."""
    theirs = {
        "transformer.wte.weight": ours["token.weight"],
        "transformer.wpe.weight": ours["position.weight"],
        "transformer.ln_f.weight": ours["norm.weight"],
        "transformer.ln_f.bias": ours["norm.bias"],
        "lm_head.weight": ours["token.weight"],
    }
    for i in range(sum(name.endswith("norm1.bias") for name in ours)):
        mine, other = f"blocks.{i}.", f"transformer.h.{i}."
        for kind in ("weight", "bias"):
            # Theirs multiplies from the right by a matrix (inputs, outputs).
            turned = {
                "attn.c_attn": torch.cat(
                    [ours[f"{mine}self_attn.w_{letter}.{kind}"] for letter in "qkv"]
                ),
                "attn.c_proj": ours[f"{mine}self_attn.w_o.{kind}"],
                "mlp.c_fc": ours[f"{mine}w_1.{kind}"],
                "mlp.c_proj": ours[f"{mine}w_2.{kind}"],
            }
            for name, tensor in turned.items():
                theirs[f"{other}{name}.{kind}"] = tensor.T if kind == "weight" else tensor
            theirs[f"{other}ln_1.{kind}"] = ours[f"{mine}norm1.{kind}"]
            theirs[f"{other}ln_2.{kind}"] = ours[f"{mine}norm2.{kind}"]
    return theirs


def models_of(
    sizes: tuple[int, int, int, int, int] = (61, 20, 24, 3, 4),
    dtype: torch.dtype = torch.float32,
    attention: str = "eager",
) -> tuple[GPT, GPT2LMHeadModel]:
    """Our model and theirs with the same random parameters, none of them 0 or 1 by chance."""
    torch.manual_seed(sum(sizes))
    ours = GPT(*sizes).to(dtype).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    vocab_size, context, width, layers, heads = sizes
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        bos_token_id=None,
        eos_token_id=None,  # nothing ends a text: both write as much as is asked for
        pad_token_id=0,
        attn_implementation=attention,
    )
    theirs = GPT2LMHeadModel(config).to(dtype).eval()
    state = their_names(ours.state_dict())
    assert state.keys() == theirs.state_dict().keys()
    theirs.load_state_dict(state)
    return ours, theirs


def ids_of(batch: int, length: int, vocab_size: int = 61, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (batch, length), generator=generator)


SIZES = [(61, 20, 24, 3, 4), (7, 5, 6, 1, 1), (30, 12, 15, 2, 5)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("sizes", SIZES)
def test_logits_and_what_each_block_returns_equal_gpt2(
    dtype: torch.dtype, attention: str, sizes: tuple[int, int, int, int, int]
) -> None:
    ours, theirs = models_of(sizes, dtype, attention)
    blocks: list[Tensor] = []
    for block in ours.blocks:
        block.register_forward_hook(lambda module, inputs, output: blocks.append(output))
    for batch, length in ((3, sizes[1]), (1, 1), (2, 3)):
        blocks.clear()
        ids = ids_of(batch, length, sizes[0])
        with torch.no_grad():
            logits, expected = ours(ids), theirs(ids, output_hidden_states=True)
        assert logits.dtype == dtype
        torch.testing.assert_close(logits, expected.logits, **TOLERANCE[dtype])
        # Theirs begin with the embeddings, and the last has been normalized.
        hidden = [*blocks[:-1], ours.norm(blocks[-1])]
        torch.testing.assert_close(hidden, list(expected.hidden_states[1:]), **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES)
def test_gradients_of_the_loss_equal_gpt2s(
    dtype: torch.dtype, sizes: tuple[int, int, int, int, int]
) -> None:
    ours, theirs = models_of(sizes, dtype)
    ids = ids_of(3, sizes[1], sizes[0])
    loss = next_token_loss(ours(ids), ids)
    expected = theirs(ids, labels=ids).loss
    assert loss.dtype == dtype
    # Theirs leaves float64 for float32 before it computes the loss.
    torch.testing.assert_close(loss.float(), expected.float(), rtol=1e-6, atol=1e-6)
    if dtype == torch.float64:
        steps = theirs(ids).logits[:, :-1].log_softmax(dim=-1)
        expected = -steps.gather(-1, ids[:, 1:, None]).mean()
        torch.testing.assert_close(loss, expected, **TOLERANCE[dtype])
    loss.backward()
    expected.backward()
    found = their_names({name: parameter.grad for name, parameter in ours.named_parameters()})
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    del found["lm_head.weight"]  # the same matrix as wte
    torch.testing.assert_close(found, wanted, **TOLERANCE[dtype])


@given(
    batch=st.integers(1, 4),
    length=st.integers(2, 6),
    vocab_size=st.integers(1, 7),
    scale=st.sampled_from([1.0, 50.0]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=50)
def test_loss_is_the_mean_of_what_a_loop_over_tokens_adds_up(
    batch: int, length: int, vocab_size: int, scale: float, seed: int
) -> None:
    """As Hugging Face's models compute it from logits and labels, and by hand."""
    torch.manual_seed(seed)
    logits = scale * torch.randn(batch, length, vocab_size, dtype=torch.float64)
    ids = ids_of(batch, length, vocab_size, seed)
    terms = []
    for row, words in zip(logits.tolist(), ids.tolist(), strict=True):
        for scores, word in zip(row[:-1], words[1:], strict=True):
            top = max(scores)
            normal = top + math.log(math.fsum(math.exp(s - top) for s in scores))
            terms.append(normal - scores[word])
    loss = next_token_loss(logits, ids)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(math.fsum(terms) / len(terms), rel=1e-12, abs=1e-12)
    theirs = ForCausalLMLoss(logits, ids, vocab_size)
    torch.testing.assert_close(loss.float(), theirs, rtol=1e-6, atol=1e-6)


# ---- writing -------------------------------------------------------------------------------

TEXT = (
    "The sea was calm and the ship was small. The captain of the small ship saw the sea, "
    "and the sea saw the captain. Nobody saw the whale. "
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, as GPT-2's, with pieces of a few sentences."""
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    model.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=model)


def their_text(theirs: GPT2LMHeadModel, ids: Tensor, number: int, **knobs: Any) -> Tensor:
    knobs = {"do_sample": False, "max_new_tokens": number, "pad_token_id": 0} | knobs
    return theirs.generate(ids, attention_mask=torch.ones_like(ids), **knobs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_greedy_tokens_and_decoded_text_are_those_of_gpt2(
    tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype
) -> None:
    """Prompts of different lengths one by one, up to the whole context; then a batch."""
    ours, theirs = models_of((len(tokenizer), 40, 24, 2, 4), dtype)
    prompts = ["The captain", "Nobody saw the", "é🙂", " "]
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        mine = generate(ours, ids, 40 - ids.shape[1], temperature=0)
        expected = their_text(theirs, ids, 40 - ids.shape[1])
        assert mine.tolist() == expected.tolist()
        text = tokenizer.decode(mine[0])
        assert text == tokenizer.decode(expected[0])
        assert text.startswith(prompt)
    batch = ids_of(5, 6, len(tokenizer))
    mine, expected = generate(ours, batch, 34, temperature=0), their_text(theirs, batch, 34)
    assert mine.tolist() == expected.tolist()
    assert len({tuple(row) for row in mine[:, 6:].tolist()}) == 5
    assert tokenizer.batch_decode(mine) == tokenizer.batch_decode(expected)


@pytest.mark.parametrize("length", [3, 9, 10, 11, 25])
def test_past_the_context_each_token_is_what_gpt2_adds_to_the_last_ones(
    tokenizer: PreTrainedTokenizerFast, length: int
) -> None:
    """GPT-2 itself stops at its context: it is asked for one token at a time, and given the last.

    So the text can be compared where prompt and result are longer than the context, too.
    """
    ours, theirs = models_of((len(tokenizer), 10, 24, 2, 4))
    prompts = tokenizer([TEXT, TEXT[5:], TEXT[11:]]).input_ids
    ids = torch.tensor([prompt[:length] for prompt in prompts])
    expected = ids
    for _ in range(14):
        grown = their_text(theirs, expected[:, -10:], 1)
        expected = torch.cat([expected, grown[:, -1:]], dim=1)
    mine = generate(ours, ids, 14, temperature=0)
    assert mine.tolist() == expected.tolist()
    assert tokenizer.batch_decode(mine) == tokenizer.batch_decode(expected)


KNOBS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.6, "top_k": 7},
    {"top_p": 0.8},
    {"temperature": 1.3, "top_k": 25, "top_p": 0.9},
    {"top_k": 1},
    {"top_p": 1e-6},
    {"top_k": 999, "top_p": 1.0},
]


def warp(scores: Tensor, knobs: Mapping[str, Any]) -> Tensor:
    """Hugging Face's samplers, in the order in which its models apply them."""
    ids = torch.zeros(len(scores), 1, dtype=torch.int64)  # what was written; they do not read it
    scores = TemperatureLogitsWarper(float(knobs.get("temperature", 1.0)))(ids, scores)
    if (top_k := knobs.get("top_k")) is not None:
        scores = TopKLogitsWarper(top_k)(ids, scores)
    if (top_p := knobs.get("top_p")) is not None and top_p < 1:
        scores = TopPLogitsWarper(top_p)(ids, scores)
    return scores


@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_drawn_tokens_are_those_of_a_loop_with_hugging_faces_samplers(
    knobs: dict[str, Any],
) -> None:
    ours, theirs = models_of((61, 12, 24, 2, 4))
    ids = ids_of(4, 5)
    mine = generate(ours, ids, 20, torch.Generator().manual_seed(3), **knobs)
    generator, expected = torch.Generator().manual_seed(3), ids
    with torch.no_grad():
        for _ in range(20):
            scores = warp(theirs(expected[:, -12:]).logits[:, -1], knobs)
            drawn = torch.multinomial(scores.softmax(dim=-1), 1, generator=generator)
            expected = torch.cat([expected, drawn], dim=1)
    assert mine.tolist() == expected.tolist()


@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_drawn_tokens_and_text_are_those_that_gpt2_itself_draws(
    tokenizer: PreTrainedTokenizerFast, knobs: dict[str, Any]
) -> None:
    """Without a generator both draw from torch's own."""
    ours, theirs = models_of((len(tokenizer), 30, 24, 2, 4))
    ids = tokenizer(["The sea was", "The sea saw"], return_tensors="pt").input_ids
    number = 30 - ids.shape[1]
    torch.manual_seed(4)
    mine = generate(ours, ids, number, **knobs)
    torch.manual_seed(4)
    # Unless told, theirs cuts at the 50th.
    expected = their_text(theirs, ids, number, do_sample=True, **({"top_k": 0} | knobs))
    assert mine.tolist() == expected.tolist()
    assert tokenizer.batch_decode(mine) == tokenizer.batch_decode(expected)


# ---- filtering -----------------------------------------------------------------------------

TEMPERATURES = st.sampled_from([1.0, 0.5, 0.3, 2.0, 7.5])
TOP_K = st.none() | st.integers(1, 40)
TOP_P = st.none() | st.floats(1e-3, 1.0)


def gap_at(scores: Tensor, top_p: float) -> float:
    """How far from top_p the nearest sum of most probable tokens is."""
    sums = scores.double().softmax(dim=-1).sort(dim=-1, descending=True).values.cumsum(dim=-1)
    return (sums - top_p).abs().min().item()


@given(
    shape=st.sampled_from([(1, 1), (1, 9), (4, 30), (3, 200)]),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.1, 1.0, 4.0]),
    temperature=TEMPERATURES,
    top_k=TOP_K,
    top_p=TOP_P,
    dtype=st.sampled_from(DTYPES),
)
@settings(deadline=None, max_examples=300)
def test_filtered_logits_equal_hugging_faces_samplers(
    shape: tuple[int, int],
    seed: int,
    spread: float,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(shape, generator=generator, dtype=dtype)
    before = {"temperature": temperature, "top_k": top_k}
    if top_p is not None and top_p < 1:
        # They sum from the other end, and in float32: at the boundary itself rounding decides.
        assume(gap_at(warp(logits, before), top_p) > 1e-5)
    expected = warp(logits, before | {"top_p": top_p})
    found = filter_logits(logits, temperature, top_k, top_p)
    assert found.dtype == dtype
    assert torch.equal(found, expected)
    # Other leading axes: theirs know none.
    assert torch.equal(filter_logits(logits[0], temperature, top_k, top_p), expected[0])
    cube = logits.expand(2, *shape)
    assert torch.equal(filter_logits(cube, temperature, top_k, top_p), expected.expand_as(cube))


@given(
    levels=st.lists(st.integers(-3, 3), min_size=1, max_size=16),
    temperature=st.sampled_from([1.0, 0.5, 2.0]),
    top_k=TOP_K,
    top_p=TOP_P,
)
@settings(deadline=None, max_examples=300)
def test_among_equal_logits_as_many_are_kept_and_the_lowest_ids(
    levels: list[int], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    """Hugging Face keeps all that equal the k-th, as we do. With top-p it keeps as many as we do,
    but which ones of equal tokens is left to a sort that promises no order.
    """
    logits = torch.tensor([levels], dtype=torch.float64)
    before = {"temperature": temperature, "top_k": top_k}
    assert torch.equal(filter_logits(logits, **before), warp(logits, before))
    if top_p is None:
        return
    if top_p < 1:
        assume(gap_at(warp(logits, before), top_p) > 1e-9)
    found = filter_logits(logits, temperature, top_k, top_p)[0]
    expected = warp(logits, before | {"top_p": top_p})[0]
    assert torch.equal(found.sort().values, expected.sort().values)
    kept = found.isfinite().tolist()
    for level in set(levels):
        own = [kept[i] for i in range(len(levels)) if levels[i] == level]
        assert own == sorted(own, reverse=True)


@pytest.mark.parametrize(("top_p", "kept"), [(0.25, 1), (0.5, 2), (0.75, 3), (0.7500001, 4)])
def test_a_sum_that_reaches_top_p_exactly_is_enough(top_p: float, kept: int) -> None:
    logits = torch.zeros(1, 4)
    assert filter_logits(logits, top_p=top_p).isfinite().sum() == kept
    assert warp(logits, {"top_p": top_p}).isfinite().sum() == kept


# ---- the cache -----------------------------------------------------------------------------


def attentions(
    width: int, heads: int, dtype: torch.dtype
) -> tuple[CachedAttention, nn.MultiheadAttention]:
    """Ours and torch's, with the same random parameters."""
    torch.manual_seed(5)
    ours = CachedAttention(width, heads).to(dtype)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=1 / math.sqrt(width))
    theirs = nn.MultiheadAttention(width, heads, batch_first=True, dtype=dtype)
    state = ours.state_dict()
    theirs.load_state_dict(
        {f"out_proj.{kind}": state[f"w_o.{kind}"] for kind in ("weight", "bias")}
        | {
            f"in_proj_{kind}": torch.cat([state[f"w_{letter}.{kind}"] for letter in "qkv"])
            for kind in ("weight", "bias")
        }
    )
    return ours, theirs


def in_portions(
    attention: CachedAttention, x: Tensor, portions: list[int]
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    cache, outputs = None, []
    for portion in x.split(portions, dim=1):
        output, cache = attention(portion, cache)
        outputs.append(output)
    assert cache is not None
    return torch.cat(outputs, dim=1), cache


SPLITS = st.lists(st.integers(1, 5), min_size=1, max_size=6)


@given(
    portions=SPLITS,
    batch=st.integers(1, 3),
    sizes=st.sampled_from([(6, 1), (6, 6), (8, 2), (12, 3)]),
    dtype=st.sampled_from(DTYPES),
)
@settings(deadline=None, max_examples=100)
def test_portions_and_their_gradients_equal_one_pass_of_torchs_attention(
    portions: list[int], batch: int, sizes: tuple[int, int], dtype: torch.dtype
) -> None:
    ours, theirs = attentions(*sizes, dtype)
    length = sum(portions)
    x = torch.randn(batch, length, sizes[0], dtype=dtype).requires_grad_()
    found, (keys, values) = in_portions(ours, x, portions)
    barred = torch.ones(length, length, dtype=torch.bool).triu(1)
    expected, _ = theirs(x, x, x, attn_mask=barred, need_weights=False)
    torch.testing.assert_close(found, expected, **TOLERANCE[dtype])

    # The same on the fused kernel, from the keys and values that were kept.
    def heads_of(y: Tensor) -> Tensor:
        return y.view(batch, length, sizes[1], -1).transpose(1, 2)

    torch.testing.assert_close(keys, heads_of(ours.w_k(x)), **TOLERANCE[dtype])
    torch.testing.assert_close(values, heads_of(ours.w_v(x)), **TOLERANCE[dtype])
    read = F.scaled_dot_product_attention(heads_of(ours.w_q(x)), keys, values, is_causal=True)
    merged = read.transpose(1, 2).reshape(batch, length, -1)
    torch.testing.assert_close(found, ours.w_o(merged), **TOLERANCE[dtype])

    gradients = [
        torch.autograd.grad(output.sin().sum(), [x, module.weight, module.bias])
        for output, module in ((found, ours.w_o), (expected, theirs.out_proj))
    ]
    torch.testing.assert_close(*gradients, **TOLERANCE[dtype])


@given(portions=SPLITS)
@settings(deadline=None, max_examples=30)
def test_a_cache_can_be_continued_in_two_ways(portions: list[int]) -> None:
    ours, _ = attentions(8, 2, torch.float64)
    past, first, second = (torch.randn(2, sum(portions), 8, dtype=torch.float64) for _ in range(3))
    with torch.no_grad():
        _, cache = in_portions(ours, past, portions)
        kept = [tensor.clone() for tensor in cache]
        for new in (first, second, first):
            output, _ = ours(new, cache)
            whole, _ = ours(torch.cat([past, new], dim=1))
            torch.testing.assert_close(output, whole[:, sum(portions) :], **TOLERANCE[output.dtype])
            assert all(map(torch.equal, cache, kept))


@given(portions=SPLITS, attention=st.sampled_from(["eager", "sdpa"]), dtype=st.sampled_from(DTYPES))
@settings(deadline=None, max_examples=30)
def test_outputs_and_cache_equal_those_of_each_layer_of_gpt2(
    portions: list[int], attention: str, dtype: torch.dtype
) -> None:
    """Both are given the portions one after the other, GPT-2 with its own past_key_values."""
    model, theirs = models_of((61, 30, 24, 2, 4), dtype, attention)
    layers = []
    for block in model.blocks:
        cached = CachedAttention(24, 4).to(dtype)
        cached.load_state_dict(block.self_attn.state_dict())
        layers.append(cached)
    seen: list[tuple[Tensor, Tensor]] = []  # what each layer of theirs was given and returned
    for block in theirs.transformer.h:
        block.attn.register_forward_hook(
            lambda module, inputs, output: seen.append((inputs[0], output[0]))
        )
    ids = ids_of(2, sum(portions))
    caches: list[Any] = [None] * len(layers)
    logits, past = [], None
    with torch.no_grad():
        for portion in ids.split(portions, dim=1):
            seen.clear()
            result = theirs(portion, past_key_values=past, use_cache=True)
            past = result.past_key_values
            logits.append(result.logits)
            for i, (layer, (given_x, returned)) in enumerate(zip(layers, seen, strict=True)):
                output, caches[i] = layer(given_x, caches[i])
                torch.testing.assert_close(output, returned, **TOLERANCE[dtype])
                theirs_kept = past.layers[i].keys, past.layers[i].values
                torch.testing.assert_close(caches[i], theirs_kept, **TOLERANCE[dtype])
        # And in portions GPT-2 says what our model says all at once.
        torch.testing.assert_close(torch.cat(logits, dim=1), model(ids), **TOLERANCE[dtype])


# ---- operations ----------------------------------------------------------------------------


def operations(module: nn.Module, *inputs: Any) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops()


def differences(numbers: list[int]) -> list[int]:
    return [after - before for before, after in pairwise(numbers)]


@pytest.mark.parametrize(("width", "heads"), [(16, 2), (24, 3), (8, 8)])
def test_operations_for_one_more_token_grow_in_proportion_with_a_cache(
    width: int, heads: int
) -> None:
    with torch.device("meta"):
        attention = CachedAttention(width, heads)
        counts = []
        for length in range(1, 25):
            past = torch.empty(2, 1, heads, length, width // heads).unbind()
            counts.append(operations(attention, torch.empty(1, 1, width), past))
    # A key's dot product and a value's share of the sum: 2 · 2 · width operations for each token.
    assert set(differences(counts)) == {4 * width}
    assert counts[0] == 8 * width**2 + 4 * 2 * width


def test_operations_for_one_more_token_grow_with_the_square_without_a_cache() -> None:
    with torch.device("meta"):
        attention, model = MultiHeadAttention(16, 2), GPT(50, 15, 16, 3, 2)
        alone, whole = [], []
        for length in range(1, 16):
            x = torch.empty(1, length, 16)
            alone.append(operations(attention, x, x, x, causal_mask(length).to("meta")))
            whole.append(operations(model, torch.empty(1, length, dtype=torch.int64)))
    for counts, layers in ((alone, 1), (whole, 3)):
        second = differences(differences(counts))
        assert set(second) == {2 * 4 * 16 * layers}


def test_operations_for_a_whole_text_grow_with_the_cube_or_with_the_square() -> None:
    """Once the projections are few beside the products of queries with keys."""
    with torch.device("meta"):
        full, cached = MultiHeadAttention(2, 1), CachedAttention(2, 1)
        again, kept, cache = [0], [0], None
        for length in range(1, 129):
            x = torch.empty(1, length, 2)
            again.append(again[-1] + operations(full, x, x, x))
            kept.append(kept[-1] + operations(cached, x[:, -1:], cache))
            cache = torch.empty(2, 1, 1, length, 2).unbind()
    assert math.log2(again[128] / again[64]) == pytest.approx(3, abs=0.1)
    assert math.log2(kept[128] / kept[64]) == pytest.approx(2, abs=0.1)
