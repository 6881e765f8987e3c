"""Text: subwords that give back every text, padding, batches of similar length."""

import functools
import hashlib
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbook.text import BOS, EOS, PAD, SPECIAL, UNK, Tokenizer, bucketed, pad

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [
    "Zwei junge Männer lesen.",
    "Zwei Frauen lesen ein Buch.",
    "Ein Mann liest zwei Bücher.",
] * 3


@functools.cache
def trained():
    """Once for all tests; the properties cannot take a fixture for each example."""
    return Tokenizer.train(TEXTS, 300)


@pytest.fixture
def tokenizer():
    return trained()


# Subwords


@given(st.text())
def test_every_text_comes_back(text):
    tokenizer = Tokenizer.train([], 260)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    # Nothing learned: one id per byte, and none of the special ones.
    assert len(ids) == len(text.encode())
    assert all(len(SPECIAL) <= i < 260 for i in ids)


@given(st.text(st.sampled_from("Zwei Mänrlsubch.\n<pad>\t日\0é")))
def test_every_text_comes_back_from_learned_pieces(text):
    tokenizer = trained()
    ids = tokenizer.encode(text)
    assert tokenizer.decode([BOS, *ids, EOS, PAD, PAD]) == text
    assert all(len(SPECIAL) <= i < tokenizer.vocab_size for i in ids)
    assert len(tokenizer.pieces(text)) == len(ids)


def test_the_special_tokens_have_the_first_ids(tokenizer):
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)
    stored = json.loads(tokenizer._model.to_str())["model"]["vocab"]
    assert [stored[token] for token in SPECIAL] == [0, 1, 2, 3]
    assert sorted(stored.values()) == list(range(tokenizer.vocab_size))


@pytest.mark.parametrize("token", SPECIAL)
def test_a_special_token_that_was_typed_is_text(tokenizer, token):
    for text in (token, f"a {token} b"):
        assert not {PAD, BOS, EOS, UNK} & set(tokenizer.encode(text))
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_most_frequent_pair_becomes_the_first_piece():
    # "a" "b" stand together three times, " " "a" twice.
    tokenizer = Tokenizer.train(["ab ab ab"], 261)
    assert tokenizer.vocab_size == 261
    assert tokenizer.pieces("ab ab") == ["ab", " ", "ab"]
    assert tokenizer.encode("ab") == [260]


def test_more_pieces_make_shorter_texts():
    small, large = (Tokenizer.train(TEXTS, size) for size in (260, 300))
    assert len(large.encode(TEXTS[0])) < len(small.encode(TEXTS[0])) == len(TEXTS[0].encode())


def test_a_small_text_has_few_pieces():
    tokenizer = Tokenizer.train(["abcdefg"], 5000)
    assert tokenizer.vocab_size == 260


def test_pieces_are_the_text_cut_up(tokenizer):
    text = "Zwei Männer lesen ein Buch."
    pieces = tokenizer.pieces(text)
    assert "".join(pieces) == text
    assert "Zwei" in pieces
    assert len(pieces) < len(text)


def test_a_character_in_pieces_shows_its_bytes():
    tokenizer = Tokenizer.train([], 260)
    assert tokenizer.pieces("é \0") == [r"\xc3", r"\xa9", " ", "\0"]


@given(st.text())
def test_pieces_of_one_byte_are_the_bytes_of_the_text(text):
    pieces = Tokenizer.train([], 260).pieces(text)
    expected = [bytes([byte]).decode("utf-8", "backslashreplace") for byte in text.encode()]
    assert pieces == expected


def test_ids_may_come_from_a_tensor(tokenizer):
    ids = torch.tensor([BOS, *tokenizer.encode("Ein Mann"), EOS, PAD])
    assert tokenizer.decode(ids) == "Ein Mann"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("wrong", [-1, 300])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer, wrong):
    with pytest.raises(ValueError, match=f"{wrong} is no token id.* 0 to 299"):
        tokenizer.decode([5, wrong])


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match=r"259 is too small.*need 260"):
        Tokenizer.train(TEXTS, 259)


def test_what_is_no_text_is_refused(tokenizer):
    with pytest.raises(TypeError, match=r"\[text\]"):
        Tokenizer.train("one text", 300)
    with pytest.raises(TypeError, match="wants a text, not int"):
        tokenizer.encode(5)
    with pytest.raises(ValueError, match=r"lone surrogate.*UTF-8"):
        tokenizer.encode("half \ud83d")


def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.vocab_size == tokenizer.vocab_size
    for text in (*TEXTS, "typed: <pad>", "日本"):
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.decode(loaded.encode(text)) == text


def test_what_is_no_saved_tokenizer_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(FileNotFoundError):
        Tokenizer.load(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="holds no tokenizer"):
        Tokenizer.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="holds no tokenizer"):
        Tokenizer.load(path)
    other = Tokenizer.train(TEXTS, 300)._model.to_str().replace("<bos>", "<cls>")
    path.write_text(other)
    with pytest.raises(ValueError, match="first tokens are not <pad>, <bos>"):
        Tokenizer.load(path)


# A process of its own: trained, forked, used in the child, and every process lists its threads.
FORK = """
import hashlib, os, sys, torch
torch.set_num_threads(1)
before = len(os.listdir("/proc/self/task"))
from workbook.text import Tokenizer
texts = sys.stdin.read().split("\\n") * 500
def learn():
    return hashlib.sha256(Tokenizer.train(texts, 300)._model.to_str().encode()).hexdigest()
print(learn(), flush=True)
child = os.fork()
if not child:
    print(learn(), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(learn())
after = os.listdir("/proc/self/task")
assert len(after) <= before, ("the library has started threads", before, after)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_training_repeats_itself_also_after_a_fork_and_is_silent():
    ran = subprocess.run(
        [sys.executable, "-W", "default", "-c", FORK],
        cwd=ROOT,
        input="\n".join(TEXTS),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    here = hashlib.sha256(Tokenizer.train(TEXTS * 500, 300)._model.to_str().encode()).hexdigest()
    assert ran.stdout.split() == [here] * 3


# Padding

sequences = st.lists(st.lists(st.integers(0, 10**9), max_size=9), min_size=1, max_size=9)


@given(sequences, st.integers(-1, 5))
def test_padding_fills_up_to_the_longest(batch, pad_id):
    longest = max(map(len, batch))
    padded = pad(batch, pad_id)
    assert padded.dtype == torch.int64
    assert padded.shape == (len(batch), longest)
    assert padded.tolist() == [ids + [pad_id] * (longest - len(ids)) for ids in batch]


def test_padding_takes_tensors_and_leaves_them():
    first = torch.tensor([5, 6, 7], dtype=torch.int32)
    padded = pad([first, torch.tensor([8])])
    assert padded.tolist() == [[5, 6, 7], [8, PAD, PAD]]
    padded[0, 0] = 9
    assert first.tolist() == [5, 6, 7]


def test_what_cannot_be_padded_is_refused():
    with pytest.raises(ValueError, match="batch is empty"):
        pad([])
    with pytest.raises(ValueError, match=r"Entry 0 has 0 axes.*\[\[5, 6, 7\], \[8\]\]"):
        pad([5, 6])


# Batches of similar length


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(40, 200), st.integers(0, 2**31))
def test_every_index_is_in_one_batch_that_fits(lengths, max_tokens, seed):
    batches = bucketed(lengths, max_tokens, generator(seed))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert batch
        assert len(batch) * max(lengths[i] for i in batch) <= max_tokens


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(40, 200))
def test_batches_hold_neighbors_in_length_and_are_full(lengths, max_tokens):
    batches = [[lengths[i] for i in batch] for batch in bucketed(lengths, max_tokens, generator())]
    batches.sort(key=lambda batch: (min(batch), max(batch), -len(batch)))
    for batch, following in itertools.pairwise(batches):
        assert max(batch) <= min(following)
        assert (len(batch) + 1) * min(following) > max_tokens


def test_of_a_pair_the_longer_counts():
    lengths = [(3, 9), (9, 3), (2, 2), [1, 2]]
    batches = bucketed(lengths, 18, generator())
    assert sorted(map(sorted, batches)) in ([[0, 1], [2, 3]], [[0], [1, 2, 3]])
    for batch in batches:
        assert len(batch) * max(max(lengths[i]) for i in batch) <= 18


def test_order_and_company_are_shuffled_and_a_seed_repeats_them():
    lengths = [5] * 20 + [9] * 20
    first = bucketed(lengths, 45, generator(1))
    assert first == bucketed(lengths, 45, generator(1))
    other = bucketed(lengths, 45, generator(2))
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in other}
    # 6 batches: in order of length in 1 of 720 orders. Over 20 seeds that is never all of them.
    orders = [bucketed(lengths, 45, generator(seed)) for seed in range(20)]
    assert any([lengths[b[0]] for b in o] != sorted(lengths[b[0]] for b in o) for o in orders)


def test_batches_waste_little():
    draw = random.Random(0)
    lengths = [min(40, 4 + int(draw.expovariate(0.1))) for _ in range(5000)]
    batches = bucketed(lengths, 1000, generator())
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert sum(lengths) / padded > 0.95
    assert len(batches) < 1.1 * sum(lengths) / 1000


def test_a_sequence_that_fits_into_no_batch_is_named():
    with pytest.raises(ValueError, match=r"Sequence 1 has 12 tokens.*max_tokens = 10.*Raise"):
        bucketed([3, (12, 4), 5], 10, generator())
    assert bucketed([], 10, generator()) == []
