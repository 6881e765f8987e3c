"""Chapter 5 against Hugging Face's BERT, its tokenizer and its masking, and against statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertTokenizer,
    DataCollatorForLanguageModeling,
)
from transformers import BertModel as TheirModel
from transformers.models.bert import modeling_bert as theirs_of

from workbook.ready.bert import (
    BertEmbeddings,
    BertModel,
    MaskedLanguageModelHead,
    NextSentenceHead,
    mask_tokens,
    pack_pair,
)

# Absolute: hidden states are normed, logits are a few units large.
CLOSE: dict[torch.dtype, dict[str, float]] = {
    torch.float32: {"rtol": 0, "atol": 1e-5},
    torch.float64: {"rtol": 0, "atol": 1e-10},
}
DTYPES = list(CLOSE)

# ---- the same weights in both --------------------------------------------------------------

# Hugging Face's names and ours, written down apart from workbook/pretrained.py.
EMBEDDINGS = {
    "word_embeddings.weight": "token.weight",
    "position_embeddings.weight": "position.weight",
    "token_type_embeddings.weight": "segment.weight",
    "LayerNorm.weight": "norm.weight",
    "LayerNorm.bias": "norm.bias",
}
LAYER = {
    "attention.self.query": "self_attn.w_q",
    "attention.self.key": "self_attn.w_k",
    "attention.self.value": "self_attn.w_v",
    "attention.output.dense": "self_attn.w_o",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "w_1",
    "output.dense": "w_2",
    "output.LayerNorm": "norm2",
}
HEAD = {
    "transform.dense.weight": "dense.weight",
    "transform.dense.bias": "dense.bias",
    "transform.LayerNorm.weight": "norm.weight",
    "transform.LayerNorm.bias": "norm.bias",
    "bias": "bias",
}


class Ours(nn.Module):
    """Our three modules as one, so that a name says which of them a parameter is in."""

    def __init__(self, vocab: int, width: int, **sizes: Any) -> None:
        super().__init__()
        self.model = BertModel(vocab, width, **sizes)
        self.head = MaskedLanguageModelHead(width, vocab)
        self.following = NextSentenceHead(width)

    def forward(self, ids: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        hidden, pooled = self.model(ids, segments)
        logits = self.head(hidden, self.model.embeddings.token.weight)
        return pooled, logits, self.following(pooled)


def names(layers: int) -> dict[str, str]:
    """Their parameter's name to ours, for BertForPreTraining."""
    found = {f"bert.embeddings.{a}": f"model.embeddings.{b}" for a, b in EMBEDDINGS.items()}
    for i in range(layers):
        for kind in ("weight", "bias"):
            found |= {
                f"bert.encoder.layer.{i}.{a}.{kind}": f"model.layers.{i}.{b}.{kind}"
                for a, b in LAYER.items()
            }
    for kind in ("weight", "bias"):
        found[f"bert.pooler.dense.{kind}"] = f"model.pooler.{kind}"
        found[f"cls.seq_relationship.{kind}"] = f"following.classifier.{kind}"
    return found | {f"cls.predictions.{a}": f"head.{b}" for a, b in HEAD.items()}


def scramble(module: nn.Module) -> None:
    """Random numbers in all parameters: none may be 0 or 1 by accident, those of norms too."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 1)


def copy(source: nn.Module, target: nn.Module, known: dict[str, str]) -> None:
    """Gives ``target`` the weights of ``source``; no parameter of either may be left over."""
    given, taken = (dict(module.named_parameters()) for module in (source, target))
    assert given.keys() == known.keys()
    assert sorted(taken) == sorted(known.values())
    with torch.no_grad():
        for name, other in known.items():
            assert given[name].shape == taken[other].shape
            taken[other].copy_(given[name])


@dataclass(frozen=True)
class Sizes:
    """A model and a batch for it; ``padding`` says where in a sequence the padding stands."""

    batch: int
    length: int
    layers: int
    heads: int
    width: int
    d_ff: int
    vocab: int
    positions: int = 40
    segments: int = 2
    pad_id: int = 0
    padding: str = ""
    dropout: float = 0.1


SIZES = {
    "one of each": Sizes(1, 1, layers=1, heads=1, width=4, d_ff=6, vocab=11),
    "batch of one": Sizes(1, 9, layers=2, heads=4, width=16, d_ff=40, vocab=31),
    "at the end": Sizes(4, 8, layers=2, heads=2, width=12, d_ff=30, vocab=53, padding="end"),
    "in the middle": Sizes(3, 11, layers=3, heads=3, width=24, d_ff=20, vocab=29, padding="middle"),
    "at the start": Sizes(3, 7, layers=1, heads=6, width=18, d_ff=18, vocab=40, padding="start"),
    "another pad_id": Sizes(
        3, 6, layers=2, heads=2, width=8, d_ff=64, vocab=23, padding="end", pad_id=7
    ),
    "five deep": Sizes(2, 5, layers=5, heads=8, width=32, d_ff=12, vocab=97),
    "three segments": Sizes(
        5, 10, layers=2, heads=1, width=10, d_ff=7, vocab=17, padding="end", segments=3
    ),
    "all positions": Sizes(2, 16, layers=1, heads=2, width=6, d_ff=24, vocab=19, positions=16),
}


class Pair:
    """Both implementations with the same random weights, and a batch for both."""

    def __init__(self, dtype: torch.dtype, sizes: Sizes) -> None:
        batch, length, vocab, pad_id = sizes.batch, sizes.length, sizes.vocab, sizes.pad_id
        torch.manual_seed(length + 100 * vocab)
        config = BertConfig(
            vocab_size=vocab,
            hidden_size=sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=sizes.d_ff,
            max_position_embeddings=sizes.positions,
            type_vocab_size=sizes.segments,
            pad_token_id=pad_id,
            hidden_dropout_prob=sizes.dropout,
            attention_probs_dropout_prob=sizes.dropout,
            attn_implementation="eager",  # the others give no attention weights
        )
        self.theirs = BertForPreTraining(config).to(dtype).eval()
        self.ours = Ours(
            vocab,
            sizes.width,
            num_layers=sizes.layers,
            num_heads=sizes.heads,
            d_ff=sizes.d_ff,
            max_length=sizes.positions,
            num_segments=sizes.segments,
            dropout=sizes.dropout,
            pad_id=pad_id,
        )
        self.ours.to(dtype).eval()
        self.names = names(sizes.layers)
        scramble(self.theirs)
        copy(self.theirs, self.ours, self.names)

        self.ids = torch.randint(vocab - 1, (batch, length))
        self.ids += self.ids >= pad_id
        at = torch.arange(length)
        some = torch.randint(1, max(length - 1, 2), (batch, 1))
        barred = {
            "": torch.zeros(batch, length, dtype=torch.bool),
            "end": at > some,
            "start": at < some,
            # A few positions between the first and the last, others in each sequence.
            "middle": (torch.rand(batch, length) < 0.4) & (at > 0) & (at < length - 1),
        }[sizes.padding]
        assert barred.any() == bool(sizes.padding)
        self.ids[barred] = pad_id
        self.words = ~barred
        self.segments: Tensor | None = torch.randint(sizes.segments, (batch, length)).sort(1).values
        # A label at some words, as mask_tokens gives them; one at least, else the loss is NaN.
        asked = (torch.rand(batch, length) < 0.3) & self.words
        asked[0, self.words[0].nonzero()[0]] = True
        self.labels = torch.randint(vocab, (batch, length)).masked_fill(~asked, -100)
        self.follows = torch.randint(2, (batch,))

    def their_outputs(self, **more: Any) -> Any:
        mask = self.words.long()
        return self.theirs(self.ids, attention_mask=mask, token_type_ids=self.segments, **more)


@pytest.fixture(params=DTYPES, ids=["float32", "float64"])
def dtype(request: Any) -> torch.dtype:
    return request.param


@pytest.fixture(params=SIZES)
def pair(request: Any, dtype: torch.dtype) -> Pair:
    return Pair(dtype, SIZES[request.param])


@pytest.mark.parametrize("segments", ["given", "none"])
def test_every_layer_and_all_outputs_equal_hugging_face(
    pair: Pair, dtype: torch.dtype, segments: str
) -> None:
    """At padding too: what stands there nobody reads, but there is one right value."""
    if segments == "none":
        pair.segments = None
    seen: list[Tensor] = []
    weights: list[Tensor] = []
    model = pair.ours.model
    for part in (model.embeddings, *model.layers):
        part.register_forward_hook(lambda _, __, output: seen.append(output))
    for layer in model.layers:
        layer.self_attn.register_forward_hook(lambda _, __, output: weights.append(output[1]))
    with torch.no_grad():
        expected = pair.their_outputs(output_hidden_states=True, output_attentions=True)
        pooled, logits, following = pair.ours(pair.ids, pair.segments)
        hidden, _ = model(pair.ids, pair.segments)
        their_pooled = pair.theirs.bert(
            pair.ids,
            attention_mask=pair.words.long(),
            token_type_ids=pair.segments,
        ).pooler_output
    layers = len(model.layers)
    assert len(expected.hidden_states) == layers + 1
    close: Any = CLOSE[dtype]
    torch.testing.assert_close(seen[: layers + 1], list(expected.hidden_states), **close)
    torch.testing.assert_close(weights[:layers], list(expected.attentions), **close)
    torch.testing.assert_close(hidden, expected.hidden_states[-1], **close)
    torch.testing.assert_close(pooled, their_pooled, **close)
    torch.testing.assert_close(logits, expected.prediction_logits, **close)
    torch.testing.assert_close(following, expected.seq_relationship_logits, **close)


def test_pretraining_loss_and_all_gradients_equal_hugging_face(
    pair: Pair, dtype: torch.dtype
) -> None:
    """Their loss is their own: the sum of both cross-entropies, labels of -100 left out."""
    if not pair.words[:, 0].all():
        # Their padding does not learn. That shows only where it stands in the place of [CLS]:
        # nothing else reads it.
        pair.theirs.bert.embeddings.word_embeddings.padding_idx = None
    _, logits, following = pair.ours(pair.ids, pair.segments)
    loss = F.cross_entropy(logits.flatten(0, 1), pair.labels.flatten())
    loss = loss + F.cross_entropy(following, pair.follows)
    expected = pair.their_outputs(labels=pair.labels, next_sentence_label=pair.follows).loss
    close: Any = CLOSE[dtype]
    torch.testing.assert_close(loss, expected, **close)
    loss.backward()
    expected.backward()
    ours, theirs = (dict(module.named_parameters()) for module in (pair.ours, pair.theirs))
    for name, own in pair.names.items():
        torch.testing.assert_close(
            ours[own].grad, theirs[name].grad, **close, msg=lambda text, own=own: f"{own}: {text}"
        )


def test_their_fused_attention_gives_our_numbers_too(dtype: torch.dtype) -> None:
    pair = Pair(dtype, SIZES["in the middle"])
    pair.theirs.set_attn_implementation("sdpa")
    with torch.no_grad():
        expected = pair.their_outputs()
        _, logits, following = pair.ours(pair.ids, pair.segments)
    close: Any = CLOSE[dtype]
    torch.testing.assert_close(logits, expected.prediction_logits, **close)
    torch.testing.assert_close(following, expected.seq_relationship_logits, **close)


def test_a_dropout_rate_of_one_leaves_nothing_to_chance_and_equals_hugging_face() -> None:
    pair = Pair(torch.float32, replace(SIZES["at the end"], dropout=1.0))
    with torch.no_grad():
        expected = pair.theirs.train().bert(pair.ids, attention_mask=pair.words.long())
        hidden, pooled = pair.ours.model.train()(pair.ids)
    torch.testing.assert_close(hidden, expected.last_hidden_state)
    torch.testing.assert_close(pooled, expected.pooler_output)


def test_dropout_equals_hugging_faces_on_average() -> None:
    """First and second moments of each number, since the draws are not in the same order."""
    count = 20_000
    sizes = Sizes(1, 3, layers=1, heads=2, width=8, d_ff=6, vocab=9, dropout=0.5)
    pair = Pair(torch.float32, sizes)
    assert pair.segments is not None
    ids, segments = pair.ids.repeat(count, 1), pair.segments.repeat(count, 1)

    def moments(model: Any) -> tuple[Tensor, Tensor]:
        outputs = [part.flatten(1) for part in model]
        both = torch.cat(outputs, dim=1)
        return torch.stack([both.mean(0), both.square().mean(0)]), torch.stack(
            [both.std(0), both.square().std(0)]
        )

    with torch.no_grad():
        expected = pair.theirs.train().bert(ids, token_type_ids=segments)
        means, spread = moments((expected.last_hidden_state, expected.pooler_output))
        model = pair.ours.model.train()
        found, _ = moments(model(ids, segments))
        limit = 5 * spread * math.sqrt(2 / count)
        assert ((found - means).abs() < limit).all()
        # And that it can be seen: each of the places where numbers are dropped counts.
        dropouts = [part for part in model.modules() if isinstance(part, nn.Dropout)]
        assert len(dropouts) == 3  # embeddings, layer, attention
        for part in dropouts:
            part.p = 0.0
            changed, _ = moments(model(ids, segments))
            assert not ((changed - means).abs() < limit).all()
            part.p = 0.5


# ---- the parts, one by one -----------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 1.0])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("batch", "length", "segments"), [(3, 7, 2), (1, 1, 1), (2, 12, 4)])
def test_embeddings_and_their_gradients_equal_hugging_face(
    dtype: torch.dtype, batch: int, length: int, segments: int, given: bool, dropout: float
) -> None:
    torch.manual_seed(11)
    config = BertConfig(
        vocab_size=15,
        hidden_size=10,
        max_position_embeddings=12,
        type_vocab_size=segments,
        hidden_dropout_prob=dropout,
        pad_token_id=None,  # with one, their table does not learn its row
        num_attention_heads=1,
    )
    theirs = theirs_of.BertEmbeddings(config).to(dtype)
    ours = BertEmbeddings(15, 10, 12, segments, dropout).to(dtype)
    scramble(theirs)
    copy(theirs, ours, EMBEDDINGS)
    ids = torch.randint(15, (batch, length))
    which = torch.randint(segments, (batch, length)) if given else None
    upstream = torch.randn(batch, length, 10, dtype=dtype)
    outputs = [ours(ids, which), theirs(ids, token_type_ids=which)]
    close: Any = CLOSE[dtype]
    torch.testing.assert_close(*outputs, **close)
    gradients = [
        torch.autograd.grad((output * upstream).sum(), list(module.parameters()))
        for module, output in zip((ours, theirs), outputs, strict=True)
    ]
    torch.testing.assert_close(*gradients, rtol=close["atol"], atol=close["atol"])


def test_a_sequence_that_is_too_long_is_refused_with_both_numbers() -> None:
    embed = BertEmbeddings(15, 10, 12)
    embed(torch.zeros(2, 12, dtype=torch.long))
    with pytest.raises(ValueError, match=r"13.*12"):
        embed(torch.zeros(2, 13, dtype=torch.long))


@pytest.mark.parametrize("shape", [(), (3,), (2, 5), (2, 3, 4)])
def test_head_and_its_gradients_equal_hugging_face(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(12)
    config = BertConfig(vocab_size=21, hidden_size=12, num_attention_heads=1)
    theirs = theirs_of.BertLMPredictionHead(config).to(dtype)
    # What a whole model of theirs ties together: one bias, and the embedding's matrix.
    theirs.decoder.bias = theirs.bias
    ours = MaskedLanguageModelHead(12, 21).to(dtype)
    assert torch.equal(ours.bias, torch.zeros(21, dtype=dtype))
    scramble(theirs)
    assert {name for name, _ in theirs.named_parameters()} == {*HEAD, "decoder.weight"}
    assert {name for name, _ in ours.named_parameters()} == set(HEAD.values())
    with torch.no_grad():
        for name, own in HEAD.items():
            ours.get_parameter(own).copy_(theirs.get_parameter(name))
    hidden = torch.randn(*shape, 12, dtype=dtype, requires_grad=True)
    table = theirs.decoder.weight.detach().clone().requires_grad_()
    outputs = [ours(hidden, table), theirs(hidden)]
    close: Any = CLOSE[dtype]
    torch.testing.assert_close(*outputs, **close)
    mine = [hidden, table, *(ours.get_parameter(own) for own in HEAD.values())]
    other = [hidden, theirs.decoder.weight, *(theirs.get_parameter(name) for name in HEAD)]
    gradients = [
        torch.autograd.grad(output.sin().sum(), asked)
        for output, asked in zip(outputs, (mine, other), strict=True)
    ]
    torch.testing.assert_close(*gradients, rtol=close["atol"], atol=close["atol"])


def test_next_sentence_head_equals_hugging_face(dtype: torch.dtype) -> None:
    theirs = theirs_of.BertOnlyNSPHead(BertConfig(hidden_size=12, num_attention_heads=1)).to(dtype)
    ours = NextSentenceHead(12).to(dtype)
    both = ("weight", "bias")
    copy(theirs, ours, {f"seq_relationship.{kind}": f"classifier.{kind}" for kind in both})
    pooled = torch.randn(5, 12, dtype=dtype)
    torch.testing.assert_close(ours(pooled), theirs(pooled))


# ---- number of parameters ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "width", "heads", "millions", "with_heads"),
    [(12, 768, 12, 109.5, 110.1), (24, 1024, 16, 335.1, 336.2)],
)
def test_parameters_are_as_many_as_the_formula_and_hugging_face_say(
    layers: int, width: int, heads: int, millions: float, with_heads: float
) -> None:
    vocab, d_ff = 30_522, 4 * width
    embeddings = (vocab + 512 + 2) * width + 2 * width
    layer = 4 * (width**2 + width) + (2 * width * d_ff + d_ff + width) + 4 * width
    pooler = width**2 + width
    head = width**2 + width + 2 * width + vocab
    encoder = embeddings + layers * layer + pooler
    both = encoder + head + 2 * width + 2
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=d_ff,
    )
    assert config.vocab_size == vocab
    with torch.device("meta"):
        ours = Ours(vocab, width, num_layers=layers, num_heads=heads, d_ff=d_ff)
        theirs, whole = TheirModel(config), BertForPreTraining(config)
    assert count(ours.model) == encoder == theirs.num_parameters()
    assert count(ours) == both == whole.num_parameters()
    assert encoder / 1e6 == pytest.approx(millions, abs=0.05)
    assert both / 1e6 == pytest.approx(with_heads, abs=0.05)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_bert_base_is_the_default() -> None:
    config = BertConfig()
    with torch.device("meta"):
        model, theirs = BertModel(config.vocab_size), TheirModel(config)
    assert count(model) == theirs.num_parameters()
    assert len(model.layers) == config.num_hidden_layers
    assert model.layers[0].self_attn.num_heads == config.num_attention_heads
    rates = {part.p for part in model.modules() if isinstance(part, nn.Dropout)}
    assert rates == {config.hidden_dropout_prob} == {config.attention_probs_dropout_prob}
    steps = {part.eps for part in model.modules() if isinstance(part, nn.LayerNorm)}
    assert steps == {config.layer_norm_eps}
    assert model.pad_id == config.pad_token_id


# ---- packing -------------------------------------------------------------------------------

CLS, SEP, MASK = 2, 3, 4
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCAB = {token: i for i, token in enumerate([*SPECIAL, *(f"w{i}" for i in range(45))])}


def bert_processing() -> Tokenizer:
    """The processor that was made for BERT."""
    tokenizer = Tokenizer(models.WordLevel(VOCAB, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    return tokenizer


def bert_tokenizer() -> Tokenizer:
    """What the tokenizer of the published models does after it has cut the words."""
    tokenizer = bert_processing()
    tokenizer.post_processor = BertTokenizer(vocab=VOCAB).backend_tokenizer.post_processor
    return tokenizer


@pytest.mark.parametrize("build", [bert_processing, bert_tokenizer])
@pytest.mark.parametrize("first", [0, 1, 2, 5])
@pytest.mark.parametrize("second", [None, 0, 1, 2, 6])
def test_packing_equals_the_tokenizers_library(build: Any, first: int, second: int | None) -> None:
    tokenizer = build()
    torch.manual_seed(first)
    words = list(VOCAB)[len(SPECIAL) :]

    def some(number: int) -> list[str]:
        return [words[i] for i in torch.randint(len(words), (number,)).tolist()]

    pieces = [some(first)] if second is None else [some(first), some(second)]
    expected = tokenizer.encode(*pieces, is_pretokenized=True)
    a, *rest = ([VOCAB[word] for word in piece] for piece in pieces)
    b = rest[0] if rest else None
    before = list(a), b and list(b)
    assert pack_pair(a, b, CLS, SEP) == (expected.ids, expected.type_ids)
    assert (a, b) == before


# ---- masking -------------------------------------------------------------------------------

# The probability that one bound fails a right implementation; the seeds are fixed, so what passes
# today passes tomorrow. There are a few hundred bounds below.
ERROR = 1e-9


def assert_share(hits: int | Tensor, of: int | Tensor, p: float) -> None:
    """Chernoff's bound: P(share as far off as this) <= 2 exp(-n KL(share, p)), for any n and p."""
    hits, of = int(hits), int(of)
    share = hits / of
    terms = ((share, p), (1 - share, 1 - p))
    divergence = sum(a * math.log(a / b) for a, b in terms if a)
    assert of * divergence < math.log(2 / ERROR), f"{hits} of {of}, expected {p:.4f}"


def assert_chi_square(counts: Tensor, expected: Tensor | float) -> None:
    """Laurent and Massart (2000), lemma 1: bounds of a chi-square variable, both sides."""
    expected = torch.as_tensor(expected, dtype=torch.float64).expand(counts.shape)
    assert expected.min() > 20  # so that counts are about normal
    statistic = ((counts - expected).square() / expected).sum().item()
    freedom, x = counts.numel() - 1, math.log(1 / ERROR)
    assert statistic < freedom + 2 * math.sqrt(freedom * x) + 2 * x
    assert statistic > freedom - 2 * math.sqrt(freedom * x)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Draws:
    """Many positions, with ids that no random id can be, so that each fate shows."""

    ROWS, LENGTH, WORDS, TOKEN, MASKED = 4000, 50, 50, 60, 61

    def __init__(self, rate: float, hide: Any = mask_tokens) -> None:
        self.ids = torch.full((self.ROWS, self.LENGTH), self.TOKEN)
        self.special = torch.zeros_like(self.ids, dtype=torch.bool)
        self.special[:, ::10] = True
        self.inputs, self.labels = hide(
            self.ids, self.special, self.MASKED, self.WORDS, generator(), rate
        )
        self.chosen = self.labels != -100
        self.masked = self.inputs == self.MASKED
        self.replaced = self.inputs < self.WORDS
        self.kept = self.chosen & (self.inputs == self.TOKEN)
        self.ordinary = int((~self.special).sum())


@pytest.fixture(scope="module", params=[0.15, 0.5, 1.0])
def draws(request: Any) -> Draws:
    drawn = Draws(request.param)
    drawn.rate = request.param
    return drawn


def test_shares_are_within_binomial_bounds(draws: Draws) -> None:
    assert_share(draws.chosen.sum(), draws.ordinary, draws.rate)
    chosen = draws.chosen.sum()
    assert (draws.masked | draws.replaced | draws.kept)[draws.chosen].all()
    for fate, p in ((draws.masked, 0.8), (draws.replaced, 0.1), (draws.kept, 0.1)):
        assert (fate <= draws.chosen).all()
        assert_share((fate & draws.chosen).sum(), chosen, p)
        assert_share((fate & draws.chosen).sum(), draws.ordinary, p * draws.rate)
    # Each column and each of the rows, taken together, has these shares too.
    for column in range(draws.LENGTH):
        if not draws.special[0, column]:
            assert_share(draws.chosen[:, column].sum(), draws.ROWS, draws.rate)
            of = draws.chosen[:, column].sum()
            assert_share(draws.masked[:, column].sum(), of, 0.8)


def test_special_tokens_are_left_alone_and_labels_are_right(draws: Draws) -> None:
    assert not draws.chosen[draws.special].any()
    assert (draws.inputs[~draws.chosen] == draws.TOKEN).all()
    assert (draws.labels[draws.chosen] == draws.TOKEN).all()


def test_random_ids_are_uniform(draws: Draws) -> None:
    found = draws.inputs[draws.replaced]
    counts = torch.bincount(found, minlength=draws.WORDS)
    assert len(counts) == draws.WORDS
    assert_chi_square(counts, len(found) / draws.WORDS)
    # Whatever column they stand in, and whatever came before.
    half = found[: len(found) // 2 * 2].view(-1, 2) // 10
    pairs = torch.bincount(half[:, 0] * 5 + half[:, 1], minlength=25)
    assert_chi_square(pairs, len(half) / 25)


def test_positions_are_independent(draws: Draws) -> None:
    ordinary = ~draws.special
    for shift, axis in ((1, 1), (2, 1), (3, 1), (1, 0), (2, 0)):
        # Disjoint pairs, so that their number is binomial.
        def halves(x: Tensor, shift: int = shift, axis: int = axis) -> tuple[Tensor, Tensor]:
            size = x.shape[axis] // (2 * shift) * 2 * shift
            parts = x.narrow(axis, 0, size).unflatten(axis, (-1, 2, shift))
            return parts.select(axis + 1, 0), parts.select(axis + 1, 1)

        left, right = halves(ordinary)
        both = left & right
        a, b = halves(draws.chosen)
        assert_share((a & b)[both].sum(), both.sum(), draws.rate**2)
        chosen = a & b
        for name, p in (("masked", 0.8), ("replaced", 0.1), ("kept", 0.1)):
            c, d = halves(getattr(draws, name))
            assert_share((c & d)[chosen].sum(), chosen.sum(), p * p)
        c, _ = halves(draws.masked)
        _, d = halves(draws.kept)
        assert_share((c & d)[chosen].sum(), chosen.sum(), 0.08)


def test_the_number_chosen_in_a_sequence_is_binomial() -> None:
    """And not the same in each, as where exactly 15 % are taken."""
    draws = Draws(0.15)
    n, p = int((~draws.special[0]).sum()), 0.15
    counts = torch.bincount(draws.chosen.sum(dim=1), minlength=n + 1)
    expected = torch.tensor([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])
    expected = expected.double() * draws.ROWS
    usual = expected > 25
    assert_chi_square(
        torch.cat([counts[usual], counts[~usual].sum()[None]]),
        torch.cat([expected[usual], expected[~usual].sum()[None]]),
    )


def test_totals_vary_from_call_to_call_as_binomial_numbers_do() -> None:
    """Neither the number of chosen positions nor that of hidden ones is fixed in advance."""
    calls, size, rate = 600, 100, 0.5
    ids, special = torch.full((size,), 60), torch.zeros(size, dtype=torch.bool)
    one = generator()
    found = [mask_tokens(ids, special, 61, 50, one, rate) for _ in range(calls)]
    chosen = torch.tensor([int((labels != -100).sum()) for _, labels in found]).double()
    masked = torch.tensor([int((inputs == 61).sum()) for inputs, _ in found]).double()
    x = math.log(1 / ERROR)
    for numbers, of, p in ((chosen, size, rate), (masked, chosen, 0.8)):
        statistic = ((numbers - of * p).square() / (of * p * (1 - p))).sum().item()
        assert calls - 2 * math.sqrt(calls * x) < statistic
        assert statistic < calls + 2 * math.sqrt(calls * x) + 2 * x


def test_fates_are_those_of_hugging_faces_collator() -> None:
    """The same batch through theirs; Hoeffding's bound on the difference of two shares."""
    collator = DataCollatorForLanguageModeling(BertTokenizer(vocab=VOCAB), seed=5)
    collator.create_rng()

    def theirs(
        ids: Tensor, special: Tensor, mask_id: int, vocab: int, *_: Any
    ) -> tuple[Tensor, Tensor]:
        assert vocab == len(collator.tokenizer)
        inputs, labels = collator.torch_mask_tokens(ids.clone(), special)
        # Theirs writes its own [MASK], which is one of the random ids too: not told apart.
        return inputs, labels

    found = Draws(0.15), Draws(0.15, theirs)
    their_mask = collator.tokenizer.mask_token_id

    def shares(draws: Draws, masked: Tensor) -> list[tuple[int, int]]:
        chosen = int(draws.chosen.sum())
        replaced = (draws.inputs < draws.WORDS) & (draws.inputs != their_mask)
        hits = (masked, replaced, draws.kept)
        return [(chosen, draws.ordinary), *((int(hit.sum()), chosen) for hit in hits)]

    ours = shares(found[0], found[0].masked | (found[0].inputs == their_mask))
    other = shares(found[1], found[1].inputs == their_mask)
    for (hits, of), (their_hits, their_of) in zip(ours, other, strict=True):
        difference = abs(hits / of - their_hits / their_of)
        assert min(of, their_of) * difference**2 < math.log(2 / ERROR)
    for draws in found:
        assert torch.equal(draws.labels == -100, ~draws.chosen)
        assert not draws.chosen[draws.special].any()
        assert (draws.labels[draws.chosen] == draws.TOKEN).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (1, 9), (3, 4, 5)])
def test_shape_and_dtype_stay_and_nothing_given_changes(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    ids = torch.randint(5, 40, shape, generator=generator(), dtype=dtype)
    special = torch.rand(shape, generator=generator()) < 0.3
    before = ids.clone(), special.clone()
    for output in mask_tokens(ids, special, 4, 40, generator(), 0.5):
        assert (output.shape, output.dtype) == (ids.shape, dtype)
        assert output.data_ptr() != ids.data_ptr() or not ids.numel()
    assert torch.equal(ids, before[0])
    assert torch.equal(special, before[1])


def test_the_generator_is_the_only_source_and_moves_on() -> None:
    ids, special = torch.arange(200).view(10, 20), torch.zeros(10, 20, dtype=torch.bool)
    state = torch.get_rng_state()
    one = generator()
    first, second = (mask_tokens(ids, special, 4, 200, one) for _ in range(2))
    torch.manual_seed(77)
    again = mask_tokens(ids, special, 4, 200, generator())
    torch.set_rng_state(state)
    mask_tokens(ids, special, 4, 200, generator(9))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, second))


def test_the_layout_in_memory_does_not_matter() -> None:
    ids, special = torch.arange(60).view(6, 10), torch.rand(6, 10, generator=generator()) < 0.2
    straight = mask_tokens(ids, special, 4, 60, generator(), 0.5)
    turned = mask_tokens(ids.T.contiguous().T, special.T.contiguous().T, 4, 60, generator(), 0.5)
    assert all(map(torch.equal, straight, turned))


def test_the_ends_of_the_range_of_rates() -> None:
    ids, special = torch.arange(60).view(6, 10), torch.zeros(6, 10, dtype=torch.bool)
    inputs, labels = mask_tokens(ids, special, 4, 60, generator(), 0.0)
    assert torch.equal(inputs, ids)
    assert (labels == -100).all()
    assert torch.equal(mask_tokens(ids, special, 4, 60, generator(), 1.0)[1], ids)
    for rate in (-0.01, 1.01, math.nan):
        with pytest.raises(ValueError, match="rate"):
            mask_tokens(ids, special, 4, 60, generator(), rate)
