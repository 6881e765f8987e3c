"""Chapter 6: GPT. Sennrich et al. 2016; Radford et al. 2019."""

import copy
import itertools
import math
from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from autograder.cases import (
    attention_parameters,
    blocks_parameters,
    dropped_after_sublayers,
    dropped_inside_sublayers,
    half_of_a_sum,
    hand_on,
    missing,
    numbers,
    own_parameters,
    pre_norm_parameters,
    refusal,
    silence,
)
from autograder.complaints import Complaint
from autograder.exercise import Exercise, Returned, near_answer
from autograder.runner import raises


def result_or_error(call, name, *arguments, shown=lambda result: result):
    """The error that a call raises, and where it raises none its result, as named outputs."""
    error = raises(call, *copy.deepcopy(arguments))
    outputs = {f"error, {name}": error}
    return outputs if error != "nothing" else outputs | {name: shown(call(*arguments))}


def drawn_letters(make, letters="abcdefghij"):
    """For str.translate: other letters in place of these, in the same order of the alphabet."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    drawn = make.uniform(0, 1, len(alphabet)).argsort(stable=True)[: len(letters)].tolist()
    return str.maketrans(letters, "".join(alphabet[i] for i in sorted(drawn)))


# ---- learning byte-pair encoding -----------------------------------------------------------

learn_bpe = Exercise(
    "gpt/learn_bpe",
    points=4,
    signature="learn_bpe(words, num_merges)",
    returns=[Returned("merges", "of (left, right)", type=list)],
)


def spelled(merges):
    """A list of merges as one text, in which a message can show what differs."""
    pairs = [
        " + ".join(merge)
        if isinstance(merge, tuple | list) and all(isinstance(piece, str) for piece in merge)
        else repr(merge)
        for merge in merges
    ]
    return ", ".join(pairs) or "none"


def counted(make, words):
    """The words in drawn letters, and each count up to 3 percent higher; the order stays."""
    letters = drawn_letters(make)
    more = make.uniform(0, 0.03, len(words)).tolist()
    return {
        word.translate(letters): count + int(count * share)
        for (word, count), share in zip(words.items(), more, strict=True)
    }


def drawn_words(make, number, letters, longest, most):
    """Words over a few letters, each with a count from 1 to ``most``."""
    used = drawn_letters(make, "abcdefghij"[:letters])
    names = list(used.values())
    table = make.integers(0, letters, number, longest).tolist()
    lengths = make.integers(2, longest + 1, number).tolist()
    counts = make.integers(1, most + 1, number).tolist()
    return {
        "".join(chr(names[i]) for i in row[:length]): count
        for row, length, count in zip(table, lengths, counts, strict=True)
    }


@learn_bpe.case(
    "the four words of the table above",
    next_step="Compare with the table. In each step: count all pairs, take the most frequent one, "
    "join it in every word, and count again.",
)
def _(learn, make):
    return {"merges": spelled(learn({"ran": 5, "rang": 3, "sang": 6, "sand": 2}, 7))}


@learn_bpe.case(
    "a pair of one frequent word, and a pair of many rare words",
    next_step="Count a pair as often as its word occurs: counts[pair] += count.",
)
def _(learn, make):
    words = {"cd": 1, "cde": 2, "fcd": 1, "gcd": 2, "ab": 40, "cdh": 1, "icd": 2, "jcd": 1}
    return {"merges": spelled(learn(counted(make, words), 3))}


@learn_bpe.case(
    "a pair that stands several times in one word",
    next_step="Every place in a word counts, and every place is joined.",
)
def _(learn, make):
    words = {"eabab": 40, "cd": 60, "efababab": 2}
    return {"merges": spelled(learn(counted(make, words), 6))}


@learn_bpe.case(
    "equally frequent pairs",
    weight=2,
    next_step="Of equally frequent pairs, take the smallest in Python's order of (left, right): "
    "min(counts, key=lambda pair: (-counts[pair], pair)).",
)
def _(learn, make):
    letters = drawn_letters(make)
    count = int(make.integers(4, 20))
    one = {word.translate(letters): count for word in ("fg", "cj", "hb", "ci", "ji", "dhb")}
    # Joined, abd comes before ag; as pairs, (a, g) comes before (ab, d).
    two = {"ab": 9 * count, "abd": count, "ag": count, "cab": count, "he": count, "fbg": count}
    two = {word.translate(letters): times for word, times in two.items()}
    return {"merges of two letters": spelled(learn(one, 5)), "merges": spelled(learn(two, 7))}


@learn_bpe.case(
    "capital letters, accents, signs and other alphabets",
    next_step="Use the characters as they are, with list(word), and Python's own order.",
)
def _(learn, make):
    count = int(make.integers(3, 12))
    words = dict.fromkeys(("Ab", "aB", "Ba", "naïve", "naïf", "c++", "[.]*"), count)
    return {"merges": spelled(learn(words | {"日本": 2 * count}, 10))}


@learn_bpe.case(
    "runs of one letter",
    weight=2,
    next_step="aaa has the pair a a twice. Join from left to right, and go on behind what was "
    "joined: a a a becomes aa a, and a a a a becomes aa aa.",
)
def _(learn, make):
    counting = counted(make, {"bbb": 50, "cd": 80, "ef": 60})
    joining = counted(make, {"aaa": 50, "aaaaa": 90, "baaaa": 40, "caaa": 30})
    return {
        "merges of a run and other pairs": spelled(learn(counting, 4)),
        "merges of long runs": spelled(learn(joining, 6)),
    }


@learn_bpe.case(
    "pieces that only end or begin like the pair",
    next_step="Join pieces, not text: the pair a b is not in the pieces xa b, nor in a bx. Work on "
    "lists of pieces.",
)
def _(learn, make):
    ending = {"da": 400, "ab": 100, "dab": 40, "ca": 60, "edabe": 20}
    beginning = {"bd": 400, "ab": 100, "abd": 40, "ca": 60, "eabde": 20}
    return {
        "merges after d + a": spelled(learn(counted(make, ending), 5)),
        "merges after b + d": spelled(learn(counted(make, beginning), 5)),
    }


@learn_bpe.case(
    "as many merges as num_merges says",
    next_step="num_merges is the number of pairs that are returned, where there are so many.",
)
def _(learn, make):
    words = drawn_words(make, 8, 6, 6, 30)
    return {
        f"merges, num_merges {number}": spelled(learn(dict(words), number)) for number in (0, 1, 4)
    }


@learn_bpe.case(
    "no pair is left",
    next_step="Leave the loop where there is no pair any more, and not before: also a pair that "
    "occurs once is joined. Without any pair the result is [].",
)
def _(learn, make):
    letters = drawn_letters(make)
    words = {"abc": 3, "ab": 1, "c": 7, "defgh": 1}
    words = {word.translate(letters): count for word, count in words.items()}
    single = {word.translate(letters): 4 for word in "abc"}
    return (
        result_or_error(learn, "merges, num_merges 20", words, 20, shown=spelled)
        | result_or_error(learn, "merges of words of one letter", single, 5, shown=spelled)
        | result_or_error(learn, "merges of no words", {}, 5, shown=spelled)
    )


@learn_bpe.case(
    "the same words once more, left as they were",
    weight=0.5,
    next_step="Keep the pieces of each word in a dictionary of your own, and change nothing in "
    "words.",
)
def _(learn, make):
    words = drawn_words(make, 7, 5, 5, 20)
    before = list(words.items())
    first, second = spelled(learn(words, 6)), spelled(learn(words, 6))
    return {
        "merges": first,
        "merges of a second call": second,
        "words afterwards are those before": list(words.items()) == before,
    }


@learn_bpe.case(
    "words over few letters, and words over many",
    weight=2,
    next_step="Go through it by hand with two or three of such words, and print the pieces after "
    "each step.",
)
def _(learn, make):
    few, many = drawn_words(make, 25, 3, 7, 40), drawn_words(make, 25, 10, 8, 40)
    return {
        "merges, few letters": spelled(learn(few, 9)),
        "merges, many letters": spelled(learn(many, 10)),
    }


@learn_bpe.case("more words", hidden=True)
def _(learn, make):
    return {"merges": spelled(learn(drawn_words(make, 60, 6, 9, 12), 40))}


@near_answer
def join(pieces, pair, limit=None, step=2):
    """Joins the pair wherever it stands: the right way, and with a limit or another step not."""
    joined, i, done = [], 0, 0
    while i < len(pieces):
        if tuple(pieces[i : i + 2]) == pair and (limit is None or done < limit):
            joined.append("".join(pair))
            done += 1
            i += step
        else:
            joined.append(pieces[i])
            i += 1
    return joined


@near_answer
def join_backwards(pieces, pair):
    """Joins from right to left."""
    turned = join([piece[::-1] for piece in pieces[::-1]], (pair[1][::-1], pair[0][::-1]))
    return [piece[::-1] for piece in turned[::-1]]


@near_answer
def join_without_skipping(pieces, pair):
    """Joins in a loop over the places: what was joined is joined again."""
    joined = []
    for i, piece in enumerate(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            joined.append("".join(pair))
        elif i == 0 or tuple(pieces[i - 1 : i + 1]) != pair:
            joined.append(piece)
    return joined


@near_answer
def join_runs(pieces, pair):
    """Joins whatever was joined again with what follows."""
    joined = []
    for piece in pieces:
        if joined and piece == pair[1] and joined[-1].endswith(pair[0]):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


@learn_bpe.misconceptions
def _():
    """Learning with one thing wrong at a time."""

    def neighbors(pieces):
        return list(itertools.pairwise(pieces))

    def smallest(counts):
        return min(counts, key=lambda pair: (-counts[pair], pair))

    def replace(pieces, pair):
        return " ".join(pieces).replace(" ".join(pair), "".join(pair)).split(" ")

    def replace_between_spaces(pieces, pair):
        text = f" {' '.join(pieces)} "
        return text.replace(f" {' '.join(pair)} ", f" {''.join(pair)} ").strip().split(" ")

    def learner(
        split=list,
        weight=lambda count: count,
        pairs_of=neighbors,
        count_all=None,
        choose=smallest,
        joined=join,
        enough=lambda counts: not counts,
        steps=lambda number, pieces: number,
        noted=lambda best, counts: best,
        told=lambda merges: merges,
    ):
        def learn(words, num_merges):
            pieces = {word: split(word) for word in words}
            merges = []
            for _ in range(steps(num_merges, pieces)):
                counts = Counter()
                for word, count in words.items():
                    for pair in pairs_of(pieces[word]):
                        counts[pair] += weight(count)
                if count_all:
                    counts = count_all(pieces, words)
                if enough(counts):
                    break
                best = choose(counts)
                merges.append(noted(best, counts))
                pieces = {word: joined(parts, best) for word, parts in pieces.items()}
            return told(merges)

        return learn

    def across(times):
        def count_all(pieces, words):
            line = [
                piece
                for word, count in words.items()
                for _ in range(times(count))
                for piece in pieces[word]
            ]
            return Counter(neighbors(line))

        return count_all

    def across_weighted(pieces, words):
        counts, last = Counter(), None
        for word, count in words.items():
            for piece in pieces[word]:
                if last is not None:
                    counts[last, piece] += count
                last = piece
        return counts

    def found_in_text(pieces, words):
        counts = Counter()
        for word, count in words.items():
            text = " ".join(pieces[word])
            for pair in set(neighbors(pieces[word])):
                counts[pair] += count * text.count(" ".join(pair))
        return counts

    def without_overlap(pieces):
        found, last_end = [], {}
        for i, pair in enumerate(neighbors(pieces)):
            if last_end.get(pair, -1) < i:
                found.append(pair)
                last_end[pair] = i + 1
        return found

    def counted_once(words, num_merges):
        counts = Counter()
        for word, count in words.items():
            for pair in neighbors(word):
                counts[pair] += count
        return sorted(counts, key=lambda pair: (-counts[pair], pair))[:num_merges]

    def counted_once_by_most_common(words, num_merges):
        counts = Counter()
        for word, count in words.items():
            for pair in neighbors(word):
                counts[pair] += count
        return [pair for pair, _ in counts.most_common(num_merges)]

    def never_joined_again(words, num_merges):
        # All the pairs of letters only: what is joined takes no further part.
        return learner(
            pairs_of=lambda pieces: [p for p in neighbors(pieces) if len("".join(p)) == 2]
        )(words, num_merges)

    def adding_up(words, num_merges):
        counts = Counter()

        def count_all(pieces, words):
            for word, count in words.items():
                for pair in neighbors(pieces[word]):
                    counts[pair] += count
            return counts

        return learner(count_all=count_all)(words, num_merges)

    def changing(words, num_merges):
        merges = learner()(words, num_merges)
        for word in list(words):
            words[" ".join(word)] = words.pop(word)
        return merges

    def emptying(words, num_merges):
        merges = learner()(words, num_merges)
        words.clear()
        return merges

    def sum_of_words(pair, words):
        return sum(count for word, count in words.items() if "".join(pair) in word)

    def weighed_by_text(pieces, words):
        pairs = {pair for parts in pieces.values() for pair in neighbors(parts)}
        return Counter({pair: sum_of_words(pair, words) for pair in pairs})

    def all_at_once(words, num_merges):
        pieces, merges = {word: list(word) for word in words}, []
        while len(merges) < num_merges:
            counts = Counter()
            for word, count in words.items():
                for pair in neighbors(pieces[word]):
                    counts[pair] += count
            if not counts:
                break
            for best in sorted(pair for pair in counts if counts[pair] == max(counts.values())):
                merges.append(best)
                pieces = {word: join(parts, best) for word, parts in pieces.items()}
        return merges[:num_merges]

    def only_one_word(words, num_merges):
        pieces, merges = {word: list(word) for word in words}, []
        for _ in range(num_merges):
            counts = Counter()
            for word, count in words.items():
                for pair in neighbors(pieces[word]):
                    counts[pair] += count
            if not counts:
                break
            merges.append(smallest(counts))
            for word, parts in pieces.items():
                if merges[-1] in neighbors(parts):
                    pieces[word] = join(parts, merges[-1])
                    break
        return merges

    yield (
        "Every word counts once, however often it occurs.",
        learner(weight=lambda count: 1),
        "Add the word's count: counts[pair] += count.",
    )
    yield (
        "A pair counts once for each word, although it may stand there several times.",
        learner(pairs_of=lambda pieces: list(dict.fromkeys(neighbors(pieces)))),
        "Add the word's count for every place where the pair stands.",
    )
    yield (
        "A pair counts wherever its letters stand in the text of a word, even where they belong to "
        "other pieces by now.",
        learner(count_all=weighed_by_text),
        "Count the neighbors among the word's present pieces: zip(pieces, pieces[1:]).",
    )
    for choose in (
        lambda counts: max(counts, key=counts.get),
        lambda counts: counts.most_common(1)[0][0],
    ):
        yield (
            "Of equally frequent pairs it takes the one that was counted first.",
            learner(choose=choose),
            "Take min(counts, key=lambda pair: (-counts[pair], pair)).",
        )
    yield (
        "Of equally frequent pairs it takes the one that was counted last.",
        learner(choose=lambda counts: max(reversed(list(counts)), key=counts.get)),
        "Take min(counts, key=lambda pair: (-counts[pair], pair)).",
    )
    yield (
        "Of equally frequent pairs it takes the last in Python's order; it should be the first.",
        learner(choose=lambda counts: max(counts, key=lambda pair: (counts[pair], pair))),
        "Take min(counts, key=lambda pair: (-counts[pair], pair)): the count is turned around, "
        "the pair is not.",
    )
    yield (
        "Equally frequent pairs are compared as joined text, not as pairs.",
        learner(
            choose=lambda counts: min(counts, key=lambda pair: (-counts[pair], "".join(pair), pair))
        ),
        "Compare (left, right) itself: ('a', 'g') comes before ('ab', 'd').",
    )
    yield (
        "Equally frequent pairs are compared by their right piece first.",
        learner(choose=lambda counts: min(counts, key=lambda pair: (-counts[pair], pair[::-1]))),
        "Compare (left, right) as it is: the left piece decides first.",
    )
    for length in (1, -1):
        yield (
            "Of equally frequent pairs it takes one by length; only Python's order decides.",
            learner(
                choose=lambda counts, length=length: min(
                    counts, key=lambda pair: (-counts[pair], length * len("".join(pair)), pair)
                )
            ),
            "Take min(counts, key=lambda pair: (-counts[pair], pair)).",
        )
    yield (
        "Equally frequent pairs are compared without regard to capital letters.",
        learner(
            choose=lambda counts: min(
                counts, key=lambda pair: (-counts[pair], [p.lower() for p in pair], pair)
            )
        ),
        "Python's own order: capital letters come before small ones.",
    )
    yield (
        "All of several equally frequent pairs are joined in one step, without counting again.",
        all_at_once,
        "Join one pair, then count anew.",
    )
    yield (
        "The least frequent pair is joined.",
        learner(choose=lambda counts: min(counts, key=lambda pair: (counts[pair], pair))),
        "Take the most frequent one: min with -counts[pair].",
    )
    yield (
        "The pairs are counted with str.count, which misses pairs that overlap, and also finds the "
        "ends of longer pieces.",
        learner(count_all=found_in_text),
        "Count every pair of neighbors in the list of pieces: zip(pieces, pieces[1:]).",
    )
    yield (
        "Pairs that overlap count once: aaa has the pair a a twice.",
        learner(pairs_of=without_overlap),
        "Count every pair of neighbors, zip(pieces, pieces[1:]). Only in joining there is no "
        "overlap.",
    )
    for joined in (lambda pieces, pair: join(pieces, pair, step=1), join_without_skipping):
        yield (
            "After joining it goes on by one piece instead of two, so a letter is used twice: aaa "
            "becomes more than three letters.",
            learner(joined=joined),
            "After joining, go on by 2.",
        )
    yield (
        "A run is joined as a whole: a a a becomes aaa in one step.",
        learner(joined=join_runs),
        "Join two pieces, and go on behind them: a a a becomes aa a.",
    )
    yield (
        "Joining goes from right to left: a a a becomes a aa.",
        learner(joined=join_backwards),
        "Begin at the start of the word: a a a becomes aa a.",
    )
    yield (
        "Only the first occurrence in each word is joined.",
        learner(joined=lambda pieces, pair: join(pieces, pair, limit=1)),
        "Go on to the end of the word after joining.",
    )
    yield (
        "The pair is joined in one word only, not in every word that has it.",
        only_one_word,
        "Rewrite the pieces of all words in each step.",
    )
    for joined in (replace, replace_between_spaces):
        yield (
            "The pieces are joined by replacing text, which also hits the end or the beginning of "
            "longer pieces, or misses a neighbor.",
            learner(joined=joined),
            "Walk through the list of pieces, and compare the pieces at i and i + 1 with the pair.",
        )
    for count_all in (across(lambda count: 1), across(lambda count: count), across_weighted):
        yield (
            "The words are put in one line: pairs reach from one word into the next.",
            learner(count_all=count_all),
            "Count the pairs of each word by themselves.",
        )
    for counting in (counted_once, counted_once_by_most_common):
        yield (
            "The pairs are counted once, at the beginning; joining changes the counts.",
            counting,
            "Count again after every merge, with the joined pieces.",
        )
    yield (
        "The counts are never reset: those of earlier steps add up.",
        adding_up,
        "Begin every step with an empty Counter.",
    )
    yield (
        "What was joined takes no further part: all pairs are of two single letters.",
        never_joined_again,
        "Rewrite each word's list of pieces after a merge, and count its neighbors.",
    )
    for least in (2, 3):
        yield (
            "It stops while there are still pairs, because they are rare.",
            learner(enough=lambda counts, least=least: max(counts.values(), default=0) < least),
            "Stop where no pair is left at all; a pair that occurs once is joined too.",
        )
    for choose in (smallest, lambda counts: counts.most_common(1)[0][0]):
        yield (
            "It does not stop where no pair is left, and asks for the largest of nothing.",
            learner(choose=choose, enough=lambda counts: False),
            "Leave the loop where there is no pair: if not counts: break.",
        )
    yield (
        "num_merges is ignored: it goes on until no pair is left.",
        learner(steps=lambda number, pieces: 1000),
        "Let the loop run num_merges times at most.",
    )
    yield (
        "It returns one merge too many.",
        learner(steps=lambda number, pieces: number + 1),
        "Let the loop run num_merges times.",
    )
    yield (
        "It returns one merge too few.",
        learner(steps=lambda number, pieces: number - 1),
        "Let the loop run num_merges times, and append the pair in each.",
    )
    yield (
        "num_merges is taken for the size of the vocabulary, the single characters included.",
        learner(steps=lambda number, pieces: number - len(set("".join(pieces)))),
        "num_merges is the number of pairs to join.",
    )
    yield (
        "The merges are returned as joined pieces, not as pairs.",
        learner(told=lambda merges: ["".join(pair) for pair in merges]),
        "Append the pair itself, (left, right).",
    )
    for noted in (
        lambda best, counts: (best, counts[best]),
        lambda best, counts: (*best, counts[best]),
    ):
        yield (
            "The counts are returned with the pairs.",
            learner(noted=noted),
            "Append the pair itself, (left, right).",
        )
    yield (
        "The merges are not in the order in which they were learned: the last one comes first.",
        learner(told=lambda merges: merges[::-1]),
        "Append each pair at the end of the list.",
    )
    yield (
        "The merges are sorted; they belong in the order in which they were learned.",
        learner(told=sorted),
        "Append each pair at the end of the list, and leave it there.",
    )
    for split in (
        lambda word: [*word, "</w>"],
        lambda word: [*word[:-1], word[-1:] + "</w>"],
        lambda word: [*word, "_"],
        lambda word: ["_", *word],
    ):
        yield (
            "A sign for the end or the beginning of a word is added, as some tokenizers do; here a "
            "word is its characters and nothing else.",
            learner(split=split),
            "Begin with list(word).",
        )
    yield (
        "The words begin as bytes; here they begin as characters.",
        learner(split=lambda word: [chr(byte) for byte in word.encode()]),
        "Begin with list(word).",
    )
    yield (
        "Capital letters are made small.",
        learner(split=lambda word: list(word.lower())),
        "Begin with list(word), as it is.",
    )
    for careless in (changing, emptying):
        yield (
            "The dictionary words is changed, so a second call gives something else.",
            careless,
            "Keep the pieces in a dictionary of your own.",
        )


# ---- applying byte-pair encoding -----------------------------------------------------------

apply_bpe = Exercise(
    "gpt/apply_bpe",
    points=2,
    signature="apply_bpe(word, merges)",
    returns=[Returned("pieces", "of str", type=list)],
)

# What learn_bpe gives for the chapter's four words.
TABLE = [
    ("a", "n"),
    ("an", "g"),
    ("s", "ang"),
    ("r", "an"),
    ("r", "ang"),
    ("an", "d"),
    ("s", "and"),
]


def in_letters(letters, merges):
    """The merges in drawn letters. No piece arises from two of them, as in a learned list."""
    return [(left.translate(letters), right.translate(letters)) for left, right in merges]


def divided(apply, word, merges):
    """The pieces of a word as one text, in which a message can show what differs."""
    pieces = apply(word, merges)
    texts = [piece if isinstance(piece, str) else repr(piece) for piece in pieces]
    return " | ".join(texts) if pieces else "none"


@apply_bpe.case(
    "words that the merges of the table never saw",
    next_step="grand becomes g ran d: r + an is merge number 4, and when number 6 looks for an and "
    "d, there is no an any more.",
)
def _(apply, make):
    return {
        f"pieces of {word}": divided(apply, word, list(TABLE))
        for word in ("grand", "sandrang", "ant")
    }


@apply_bpe.case(
    "the order of the merges decides, not the length of the pieces",
    weight=2,
    next_step="One loop over the merges, in their order. Inside it, join that pair everywhere in "
    "the word.",
)
def _(apply, make):
    letters = drawn_letters(make)
    merges = [("b", "c"), ("a", "b"), ("c", "d"), ("ab", "cd"), ("e", "bc"), ("bc", "d")]
    merges = in_letters(letters, merges)
    words = ("abcd", "ebcd", "abecd", "abbcdcd", "bcdab")
    return {
        f"pieces of word {number}": divided(apply, word.translate(letters), list(merges))
        for number, word in enumerate(words, start=1)
    }


@apply_bpe.case(
    "a pair that stands several times in a word",
    next_step="Do each merge everywhere in the word.",
)
def _(apply, make):
    letters = drawn_letters(make)
    merges = in_letters(letters, [("a", "b"), ("ab", "c"), ("d", "ab")])
    return {
        "pieces": divided(apply, "abdabeababcab".translate(letters), list(merges)),
        "pieces of a second word": divided(
            apply, "abcabcfabcdabdab".translate(letters), list(merges)
        ),
    }


@apply_bpe.case(
    "runs of one letter",
    next_step="Join from left to right, and go on behind what was joined: a a a becomes aa a.",
)
def _(apply, make):
    letters = drawn_letters(make)
    merges = in_letters(letters, [("a", "a"), ("aa", "aa"), ("b", "a")])
    return {
        f"pieces, {length} in a row": divided(
            apply, ("b" + length * "a").translate(letters), list(merges)
        )
        for length in (3, 4, 7)
    }


@apply_bpe.case(
    "pieces that only end or begin like the pair",
    next_step="Join pieces, not text: the pair a b is not in the pieces xa b, nor in a bx.",
)
def _(apply, make):
    letters = drawn_letters(make)
    merges = in_letters(letters, [("d", "a"), ("b", "e"), ("a", "b"), ("ab", "f")])
    return {
        "pieces": divided(apply, "dabcabf".translate(letters), list(merges)),
        "pieces of a second word": divided(apply, "abeabdabfab".translate(letters), list(merges)),
    }


@apply_bpe.case(
    "characters that were never seen",
    next_step="They stay as they are, each by itself. Merges that fit nowhere do nothing.",
)
def _(apply, make):
    letters = drawn_letters(make)
    merges = in_letters(letters, [("c", "d"), ("a", "b"), ("h", "i"), ("ab", "cd")])
    return {
        "pieces": divided(apply, "abxéab🙂🙂.AB日abcd".translate(letters), list(merges)),
        "pieces of a word that is all new": divided(apply, "Zoë+*", list(merges)),
        # Signs that mean something in a pattern are characters like others here.
        "pieces of signs": divided(apply, "x..(++)a+", [(".", "."), ("+", "+"), ("(", "++")]),
    }


@apply_bpe.case(
    "an empty word, one letter, and no merges",
    weight=0.5,
    next_step="Begin with list(word): the empty word has no pieces, [].",
)
def _(apply, make):
    letters = drawn_letters(make)
    merges = in_letters(letters, [("a", "b"), ("ab", "a")])
    return {
        "pieces of a word": divided(apply, "ababa".translate(letters), list(merges)),
        "pieces of the empty word": divided(apply, "", list(merges)),
        "pieces of one letter": divided(apply, "a".translate(letters), list(merges)),
        "pieces without merges": divided(apply, "abab".translate(letters), []),
    }


@apply_bpe.case(
    "the same merges twice, left as they were",
    weight=0.5,
    next_step="Change neither the list of merges nor anything outside the function.",
)
def _(apply, make):
    letters = drawn_letters(make)
    merges = in_letters(letters, [("b", "c"), ("a", "bc"), ("d", "e")])
    before = list(merges)
    pieces = [
        divided(apply, word.translate(letters), merges) for word in ("abcde", "fabc", "abcde")
    ]
    return {
        "pieces of three words": pieces,
        "pieces of the first with fewer merges": divided(
            apply, "abcde".translate(letters), merges[:1]
        ),
        "merges afterwards are those before": merges == before,
    }


@apply_bpe.case("longer words", hidden=True)
def _(apply, make):
    letters = drawn_letters(make)
    merges = [("a", "c"), ("b", "a"), ("c", "b"), ("ac", "b"), ("ba", "cb"), ("a", "a"), ("c", "c")]
    merges = in_letters(letters, merges)
    table = make.integers(0, 3, 4, 30).tolist()
    return {
        f"pieces of word {number}": divided(
            apply, "".join("abc"[i] for i in row).translate(letters), list(merges)
        )
        for number, row in enumerate(table, start=1)
    }


@apply_bpe.misconceptions
def _():
    """Applying with one thing wrong at a time."""

    def replace(pieces, pair):
        # filter: the empty text splits into one empty piece.
        text = " ".join(pieces).replace(" ".join(pair), "".join(pair))
        return list(filter(None, text.split(" ")))

    def splitter(
        begin=list,
        order=lambda merges: merges,
        joined=join,
        finish=lambda pieces: pieces,
        ready=lambda before, after: False,
    ):
        def apply(word, merges):
            pieces = begin(word)
            for pair in order(merges):
                before, pieces = pieces, joined(pieces, pair)
                if ready(before, pieces):
                    break
            return finish(pieces)

        return apply

    def longest_first(word, merges):
        known = {left + right for left, right in merges}
        pieces, i = [], 0
        while i < len(word):
            ends = [end for end in range(len(word), i + 1, -1) if word[i:end] in known]
            end = ends[0] if ends else i + 1
            pieces.append(word[i:end])
            i = end
        return pieces

    def longest_anywhere(word, merges):
        known = sorted((left + right for left, right in merges), key=len, reverse=True)
        for piece in known:
            if piece in word:
                left, _, right = word.partition(piece)
                return [*longest_anywhere(left, merges), piece, *longest_anywhere(right, merges)]
        return list(word)

    def longest_last(word, merges):
        known = {left + right for left, right in merges}
        pieces, end = [], len(word)
        while end > 0:
            begins = [i for i in range(end - 1) if word[i:end] in known]
            begin = begins[0] if begins else end - 1
            pieces.insert(0, word[begin:end])
            end = begin
        return pieces

    def reading_once(word, merges):
        pieces = []
        for character in word:
            if pieces and (pieces[-1], character) in merges:
                pieces[-1] += character
            else:
                pieces.append(character)
        return pieces

    def leftmost_first(word, merges):
        pieces = list(word)
        while True:
            places = [i for i in range(len(pieces) - 1) if (pieces[i], pieces[i + 1]) in merges]
            if not places:
                return pieces
            pieces[places[0] : places[0] + 2] = [pieces[places[0]] + pieces[places[0] + 1]]

    def last_learned_first(word, merges):
        pieces = list(word)
        while True:
            there = set(itertools.pairwise(pieces))
            fitting = [pair for pair in merges if pair in there]
            if not fitting:
                return pieces
            pieces = join(pieces, fitting[-1])

    def emptying(word, merges):
        pieces = list(word)
        while merges:
            pieces = join(pieces, merges.pop(0))
        return pieces

    def turning(word, merges):
        merges.reverse()
        return splitter()(word, merges[::-1])

    def known_only(word, merges):
        known = {character for pair in merges for character in "".join(pair)}
        return splitter(begin=lambda word: [c for c in word if c in known])(word, merges)

    def unknown_marked(word, merges):
        known = {character for pair in merges for character in "".join(pair)}
        return splitter(begin=lambda word: [c if c in known else "<unk>" for c in word])(
            word, merges
        )

    in_order = "One loop over the merges, in their order; inside it, join that pair everywhere."
    for greedy in (longest_first, longest_anywhere, longest_last):
        yield (
            "The longest piece that fits is taken; the merges should be done in their order.",
            greedy,
            in_order,
        )
    for careless in (reading_once, leftmost_first):
        yield (
            "The word is read from left to right, and whatever fits is joined; the merges should "
            "be done one after the other, in their order.",
            careless,
            in_order,
        )
    yield (
        "The merges are done in reverse order.",
        splitter(order=lambda merges: merges[::-1]),
        "The first merge that was learned comes first.",
    )
    yield (
        "Of the merges that fit, the one learned last is done first.",
        last_learned_first,
        "The first merge that was learned comes first.",
    )
    for order in (sorted, lambda merges: sorted(merges, key=lambda pair: -len("".join(pair)))):
        yield (
            "The merges are sorted; they should be done in the order in which they were learned.",
            splitter(order=order),
            "Take the list as it comes.",
        )
    yield (
        "Each merge is done once, at its first place only.",
        splitter(joined=lambda pieces, pair: join(pieces, pair, limit=1)),
        "Go on to the end of the word after joining.",
    )
    yield (
        "It stops after the first merge that fits.",
        splitter(ready=lambda before, after: before != after),
        "Do all merges, one after the other.",
    )
    yield (
        "It stops at the first merge that does not fit.",
        splitter(ready=lambda before, after: before == after),
        "A merge that fits nowhere does nothing; go on with the next.",
    )
    yield (
        "The last merge is left out.",
        splitter(order=lambda merges: merges[:-1]),
        "Loop over all merges.",
    )
    for joined in (lambda pieces, pair: join(pieces, pair, step=1), join_without_skipping):
        yield (
            "After joining it goes on by one piece instead of two, so a letter is used twice.",
            splitter(joined=joined),
            "After joining, go on by 2. Joined together, the pieces must give the word.",
        )
    yield (
        "A run is joined as a whole: a a a becomes aaa in one step.",
        splitter(joined=join_runs),
        "Join two pieces, and go on behind them: a a a becomes aa a.",
    )
    yield (
        "Joining goes from right to left: a a a becomes a aa.",
        splitter(joined=join_backwards),
        "Begin at the start of the word: a a a becomes aa a.",
    )
    yield (
        "The pieces are joined by replacing text, which also hits the end or the beginning of "
        "longer pieces.",
        splitter(joined=replace),
        "Walk through the list of pieces, and compare the pieces at i and i + 1 with the pair.",
    )
    yield (
        "The empty word gives one empty piece; it has none.",
        splitter(finish=lambda pieces: pieces or [""]),
        'Return [] for "": split(" ") of an empty text gives one empty piece, list does not.',
    )
    for careless in (known_only, unknown_marked):
        yield (
            "Characters that no merge knows are lost.",
            careless,
            "Begin with list(word). Joined together, the pieces must give the word.",
        )
    for begin in (
        lambda word: [*word, "</w>"],
        lambda word: [*word[:-1], word[-1:] + "</w>"],
        lambda word: [*word, "_"],
        lambda word: ["_", *word],
    ):
        yield (
            "A sign for the end or the beginning of the word is added; the pieces are those of the "
            "word and nothing else.",
            splitter(begin=begin),
            "Begin with list(word).",
        )
    yield (
        "The word begins as bytes; here it begins as characters.",
        splitter(begin=lambda word: [chr(byte) for byte in word.encode()]),
        "Begin with list(word).",
    )
    yield (
        "Capital letters are made small.",
        splitter(begin=lambda word: list(word.lower())),
        "Begin with list(word), as it is.",
    )
    for careless in (emptying, turning):
        yield (
            "The list of merges is changed, so the next word gets other pieces.",
            careless,
            "Loop over merges without changing it.",
        )


# ---- GPT block -----------------------------------------------------------------------------


def gpt_block_parameters(d_model, num_heads, dropout=0.0):
    """The parameters of a block."""
    return pre_norm_parameters(d_model, 4 * d_model)


gpt_block = Exercise(
    "gpt/GPTBlock",
    points=4,
    signature="GPTBlock(d_model, num_heads, dropout=0.0), forward(x)",
    returns=[Returned("output", "(batch, length, d_model)")],
    without=["multi_head_attention", "_transformer_encoder_layer_fwd"],
    parameters=gpt_block_parameters,
)


@gpt_block.case(
    "the parameters",
    next_step="self_attn is a MultiHeadAttention, norm1 and norm2 are two nn.LayerNorm, w_1 leads "
    "to 4 * d_model hidden numbers and w_2 back; all with bias, and nothing else.",
)
def _(gpt_block, make):
    layer = gpt_block(8, 2)
    lacking = missing(layer, 8, 2)
    # What lacks parameters is not called: what it does without them is no news.
    shape = "" if lacking else str(tuple(layer(make.normal(2, 3, 8)).shape))
    return {
        "parameters that are missing": lacking,
        "numbers in all parameters": numbers(layer),
        "shape of the output": shape,
    }


@gpt_block.case(
    "two sequences of four positions",
    next_step="y = x + self_attn(n, n, n, mask)[0] with n = norm1(x); then "
    "y + w_2(gelu(w_1(norm2(y)))).",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 8, 2)
    return {"output": layer(make.normal(2, 4, 8))}


@gpt_block.case(
    "one position: there is nothing to choose",
    next_step="A position reads itself: with length 1 its attention weight is 1. Keep axes of "
    "length 1: no squeeze().",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 8, 2)
    return {"output": layer(make.normal(1, 1, 8))}


@gpt_block.case(
    "one head, and as many heads as columns",
    next_step="Pass num_heads on to the attention.",
)
def _(gpt_block, make):
    one, four = make.module(gpt_block, 4, 1), make.module(gpt_block, 4, 4)
    x = make.normal(1, 3, 4)
    # Each call has tensors of its own: what a call changes in place, another case tells.
    return {"output of one head": one(x.clone()), "output of four heads": four(x.clone())}


@gpt_block.case(
    "the attention alone: w_2 gives 0",
    next_step="What is left is x + self_attn(n, n, n, mask)[0] with n = norm1(x): query, key and "
    "value are all the normalized x, and what is added is x itself.",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 8, 2)
    silence(layer, "w_2")
    return {"output": layer(make.normal(1, 4, 8))}


@gpt_block.case(
    "the network alone, magnified: w_o gives 0",
    next_step="What is left is x + w_2(gelu(w_1(norm2(x)))). Values that are off by a few percent "
    "or less: the GELU is the one with tanh, F.gelu(z, approximate='tanh').",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 8, 2)
    silence(layer, "w_o")
    with torch.no_grad():
        own_parameters(layer)["w_2.weight"].mul_(30)
    return {"output": layer(make.normal(1, 3, 8))}


@gpt_block.case(
    "sublayers that each give a constant",
    next_step="x itself goes through a pre-norm block, and the sublayers add to it: no norm stands "
    "on the way from x to the output.",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 8, 2)
    silence(layer, "w_o", "w_2")
    own = own_parameters(layer)
    with torch.no_grad():
        for name in ("self_attn.w_o.bias", "w_2.bias"):
            own[name].copy_(make.normal(8))
    return {"output": layer(make.normal(1, 3, 8))}


@gpt_block.case(
    "a later position changes",
    weight=2,
    next_step="Hand causal_mask(length) to the attention: position t reads 0 to t.",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 8, 2)
    x, new = make.normal(2, 5, 8), make.normal(2, 2, 8)
    other = torch.cat([x[:, :3], new], dim=1)
    before = layer(x.clone())
    change = (layer(other) - before).abs().amax(dim=(0, 2))
    return {
        "output at the last position": before[:, 4],
        "change of the output before it": change[:3],
        "the output from it on changes": bool((change[3:] > 1e-3).all()),
    }


@gpt_block.case(
    "vectors of small variance",
    weight=0.5,
    next_step="norm1 and norm2 are nn.LayerNorm(d_model), with the eps that it has by default.",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 8, 2)
    silence(layer, "w_2")
    first = layer(make.normal(1, 2, 8, scale=0.004))
    layer = make.module(gpt_block, 8, 2)
    silence(layer, "w_o")
    return {"after norm1": first, "after norm2": layer(make.normal(1, 2, 8, scale=0.004))}


@gpt_block.case(
    "other lengths, one after the other, and a very long one",
    weight=0.5,
    next_step="Make the mask for the length of each x, x.shape[1]; a block knows no longest one.",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 4, 1)
    layer(make.normal(2, 3, 4))
    return {
        "the first of 2100": layer(make.normal(1, 2100, 4))[:, :2],
        "output of two": layer(make.normal(1, 2, 4)),
        "output of fourteen": layer(make.normal(1, 14, 4)),
    }


@gpt_block.case(
    "dropout in evaluation mode, where it does nothing",
    next_step="Make each dropout an nn.Dropout in __init__, which eval() switches off.",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 8, 2, 1.0)
    layer.component.eval()
    return {"output": layer(make.normal(1, 4, 8))}


@gpt_block.case(
    "dropout of everything, in training mode",
    next_step="Dropout acts on what each sublayer gives, before x is added. If all is dropped, x "
    "is left.",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 8, 2, 1.0)
    return {"output": layer(make.normal(1, 4, 8))}


@gpt_block.case(
    "dropout of a quarter, in training mode",
    weight=0.5,
    next_step="x + dropout(sublayer(...)): a quarter of what either sublayer gives becomes 0, and "
    "the rest grows by 1 / (1 - 0.25).",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 8, 2, 0.25)
    return dropped_after_sublayers(layer, make.normal(40, 5, 8), 0.25)


@gpt_block.case(
    "dropout inside the sublayers",
    weight=0.5,
    next_step="Pass the rate on to self_attn, which drops weights. The network drops nothing "
    "between w_1 and w_2.",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 8, 1, 0.5)
    return dropped_inside_sublayers(layer, make.normal(400, 1, 8))


@gpt_block.case(
    "gradients of input and parameters",
    next_step="Both sublayers, both norms and both residual connections take part.",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 4, 2)
    x, own = make.normal(1, 3, 4, grad=True), own_parameters(layer)
    names = ("self_attn.w_v.bias", "norm2.weight")
    return make.gradients("output", layer(x), x=x, **{name: own[name] for name in names})


@gpt_block.case(
    "float64 inputs that are views, left as they were",
    next_step="Stay in the dtype of x, and write x = x + y, not x += y.",
)
def _(gpt_block, make):
    layer = make.module(gpt_block, 4, 2, dtype=torch.float64)
    x = make.normal(3, 4, 1, dtype=torch.float64)
    return {"output": layer(x.permute(2, 0, 1)), "the input is unchanged": make.unchanged()}


@gpt_block.case("bfloat16", weight=0.5, next_step="Return the dtype of x.")
def _(gpt_block, make):
    layer = make.module(gpt_block, 8, 2, dtype=torch.bfloat16)
    x = make.normal(1, 4, 8, dtype=torch.bfloat16)
    short = layer(x)
    layer.component.float()
    # Right ways to compute differ by a percent or so in bfloat16: its values are not compared.
    long = layer(x.float())
    near = (short.float() - long).abs().max() < 0.3
    return {
        "dtype": str(short.dtype),
        "values lie within 0.3 of those in float32": bool(near),
        "output in float32": long[:, 1],
    }


@gpt_block.case("other sizes", hidden=True)
def _(gpt_block, make):
    layer = make.module(gpt_block, 12, 3)
    return {"output": layer(make.normal(3, 6, 12))}


@gpt_block.misconceptions
def _():
    """A block with one thing wrong at a time."""
    from autograder import slips
    from autograder.slips import attend, transform
    from workbook.ready.attention import causal_mask

    def block(*order, **parts):
        """The shared block with what GPT-2 has: a mask, the other GELU, the norm's default eps."""
        own = {
            "mask": causal_mask,
            "bend": lambda z: F.gelu(z, approximate="tanh"),
            "norm": nn.LayerNorm,
        }

        class Block(slips.block(*order, **(own | parts))):
            def __init__(self, d_model, num_heads, dropout=0.0):
                super().__init__(d_model, num_heads, 4 * d_model, dropout)

        return Block

    yield from slips.of_pre_norm(block, "GPT-2", "self_attn(n, n, n, mask)")
    yield (
        "There is a third norm; the last norm of GPT stands after all blocks.",
        block(
            second=lambda self, x, y: self.norm3(y + transform(self, self.norm2(y))),
            change=lambda self, d_model: setattr(self, "norm3", nn.LayerNorm(d_model)),
        ),
        "A block has norm1 and norm2. Return the sum as it is.",
    )
    for eps in (1e-12, 1e-6):
        yield (
            "The norms have another eps than nn.LayerNorm has by default, 1e-5.",
            block(norm=lambda d_model, eps=eps: nn.LayerNorm(d_model, eps=eps)),
            "nn.LayerNorm(d_model), without eps.",
        )
    yield (
        "The network comes first and the attention second.",
        block(
            lambda self, x: x + transform(self, self.norm2(x)),
            lambda self, x, y: y + attend(self, self.norm1(y)),
        ),
        "Attend first, then transform each position.",
    )

    def in_place(self, x):
        x += attend(self, self.norm1(x))
        return x

    yield (
        "The residual is added in place, which changes the caller's x.",
        block(in_place),
        "Write x = x + ..., not x += ....",
    )
    yield (
        "The block computes in float32, whatever the dtype of x.",
        block(
            lambda self, x: (self.float(), x.float() + attend(self, self.norm1(x.float())))[1],
        ),
        "Leave x in its dtype; what you make yourself takes it with dtype=x.dtype.",
    )
    for sentence, bend in (
        ("This is the exact GELU; GPT-2 uses the approximation with tanh.", F.gelu),
        ("A ReLU stands between w_1 and w_2; GPT-2 uses the GELU with tanh.", torch.relu),
        (
            "This is another approximation of the GELU, with a sigmoid; GPT-2's has a tanh.",
            slips.quick_gelu,
        ),
        ("Nothing stands between w_1 and w_2; there must be a GELU.", lambda z: z),
    ):
        yield sentence, block(bend=bend), "F.gelu(self.w_1(...), approximate='tanh')."
    for times in (1, 2):
        yield (
            "The hidden layer is not four times as wide as the model.",
            block(width=lambda d_model, d_ff, times=times: times * d_model),
            "w_1 = nn.Linear(d_model, 4 * d_model), and w_2 back.",
        )

    def ones(length):
        return torch.ones(length, length, dtype=torch.bool)

    for sentence, mask, next_step in (
        (
            "The causal mask is missing: each position reads those that it has to predict.",
            lambda length: None,
            "Make causal_mask(length), and hand it to self_attn as the mask.",
        ),
        (
            "The mask bars the diagonal: a position may not read itself.",
            lambda length: ones(length).tril(-1),
            "Position t reads 0 to t: use causal_mask as it is.",
        ),
        (
            "The mask is inverted: True means may attend, here and in chapter 2.",
            lambda length: ~causal_mask(length),
            "Hand causal_mask(length) on as it is, without ~.",
        ),
        (
            "The mask allows the wrong triangle: each position reads itself and what follows.",
            lambda length: ones(length).triu(),
            "Rows are queries and columns are keys: keep the lower triangle, as causal_mask does.",
        ),
        (
            "Each position reads one position too far: the very token that it has to predict.",
            lambda length: ones(length).tril(1),
            "Position t reads 0 to t, not t + 1: use causal_mask as it is.",
        ),
    ):
        yield sentence, block(mask=mask), next_step
    yield (
        "The mask is as long as the batch, not as the sequence.",
        block(axis=0),
        "causal_mask(x.shape[1]): axis 0 is the batch.",
    )


# ---- GPT -----------------------------------------------------------------------------------


def gpt_parameters(vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
    """The parameters of the model: two tables, the blocks, the last norm."""
    return {
        "token.weight": (vocab_size, d_model),
        "position.weight": (context, d_model),
    } | blocks_parameters(d_model, num_layers, 4 * d_model)


gpt = Exercise(
    "gpt/GPT",
    points=5,
    signature="GPT(vocab_size, context, d_model, num_layers, num_heads, dropout=0.0), "
    "forward(token_ids)",
    returns=[Returned("logits", "(batch, length, vocab_size)")],
    without=["multi_head_attention", "_transformer_encoder_layer_fwd"],
    parameters=gpt_parameters,
)


TABLES = ("token.weight", "position.weight")


def small_gpt(
    gpt, make, num_layers=1, num_heads=2, dropout=0.0, context=7, dtype=torch.float32, silent=True
):
    """A model of 9 tokens and width 8.

    Where it is ``silent``, its blocks hand x on as it is.
    """
    model = make.module(gpt, 9, context, 8, num_layers, num_heads, dropout, dtype=dtype)
    if silent:
        hand_on(model, *TABLES)
    return model


@gpt.case(
    "the parameters",
    next_step="token and position are nn.Embedding tables, blocks is an nn.ModuleList of "
    "num_layers blocks, norm is one nn.LayerNorm. The output uses token.weight and has no layer "
    "and no bias of its own.",
)
def _(gpt, make):
    model, larger = gpt(9, 7, 8, 1, 2), gpt(9, 7, 8, 3, 2)
    lacking = missing(larger, 9, 7, 8, 3, 2)
    # What lacks parameters is not called: what it does without them is no news.
    shape = "" if lacking else str(tuple(model(make.integers(0, 9, 2, 4)).shape))
    return {
        "parameters that are missing": lacking,
        "numbers with one block": numbers(model),
        "numbers with three blocks": numbers(larger),
        "shape of the logits": shape,
        "context": getattr(model.component, "context", None),
    }


@gpt.case(
    "around blocks that hand x on as it is",
    weight=2,
    next_step="x is token plus position, one row for each place from 0 on. At the end: "
    "norm(x) @ token.weight.T, and no softmax.",
)
def _(gpt, make):
    model = small_gpt(gpt, make)
    return {"logits": model(make.integers(0, 9, 2, 4))}


@gpt.case(
    "the same token everywhere, and a single token",
    next_step="Places alone tell equal tokens apart: position 0, 1, 2, … for every sequence. Keep "
    "axes of length 1.",
)
def _(gpt, make):
    model = small_gpt(gpt, make)
    return {
        "logits": model(torch.full((2, 3), 4)),
        "logits of a single token": model(make.tensor([[5]])),
    }


@gpt.case(
    "blocks that each add a constant",
    next_step="x = block(x) for every block in self.blocks, once each; then the norm.",
)
def _(gpt, make):
    model = small_gpt(gpt, make, num_layers=3)
    own = own_parameters(model)
    with torch.no_grad():
        for i in range(3):
            # Whatever the sublayers read, they now give these numbers.
            own[f"blocks.{i}.self_attn.w_o.bias"].copy_(make.normal(8))
            own[f"blocks.{i}.w_2.bias"].copy_(make.normal(8))
    return {"logits": model(make.integers(0, 9, 1, 4))}


@gpt.case(
    "two blocks",
    next_step="If the check of GPTBlock fails, mend that first. Then: the blocks one after the "
    "other, in their order, and the norm after the last.",
)
def _(gpt, make):
    model = small_gpt(gpt, make, num_layers=2, silent=False)
    return {"logits": model(make.integers(0, 9, 1, 5))}


@gpt.case(
    "one head, and as many heads as columns",
    weight=0.5,
    next_step="GPTBlock(d_model, num_heads, dropout): pass num_heads on.",
)
def _(gpt, make):
    one = small_gpt(gpt, make, num_heads=1, silent=False)
    many = small_gpt(gpt, make, num_heads=8, silent=False)
    ids = make.integers(0, 9, 1, 3)
    return {"logits of one head": one(ids.clone()), "logits of eight heads": many(ids.clone())}


@gpt.case(
    "a later token changes",
    next_step="Only the blocks mix positions, and their mask is causal: if the check of GPTBlock "
    "fails, mend that first.",
)
def _(gpt, make):
    model = small_gpt(gpt, make, num_layers=2, silent=False)
    ids = make.integers(0, 9, 2, 5)
    other = ids.clone()
    other[:, 3] = (other[:, 3] + 1) % 9
    change = (model(other) - model(ids)).abs().amax(dim=(0, 2))
    return {
        "change of the logits before it": change[:3],
        "the logits from it on change": bool((change[3:] > 1e-4).all()),
    }


@gpt.case(
    "as many tokens as fit, and more",
    next_step="Begin forward with: if length > self.context, raise a ValueError that says both "
    "numbers.",
)
def _(gpt, make):
    model = small_gpt(gpt, make, context=23)
    ids = make.integers(0, 9, 1, 23)
    full, _ = refusal(model, ids)
    one, named = refusal(model, make.integers(0, 9, 2, 24))
    many, further = refusal(model, make.integers(0, 9, 1, 57))
    return {
        "raised for a full context": full,
        "the last logits of a full context": model(ids)[:, -1] if full == "nothing" else None,
        "raised for one token too many": one,
        "raised for many too many": many,
        "the errors name both numbers": {23, 24} <= named and {23, 57} <= further,
        "context": getattr(model.component, "context", None),
    }


@gpt.case(
    "as many tokens as columns",
    weight=0.5,
    next_step="Where vocab_size is d_model, a matrix that is not transposed raises no error: "
    "x @ token.weight.T.",
)
def _(gpt, make):
    model = make.module(gpt, 8, 9, 8, 1, 2)
    hand_on(model, *TABLES)
    return {"logits": model(make.integers(0, 8, 1, 3))}


@gpt.case(
    "dropout in evaluation mode, where it does nothing",
    next_step="Make each dropout an nn.Dropout in __init__, which eval() switches off.",
)
def _(gpt, make):
    model = small_gpt(gpt, make, num_layers=2, dropout=1.0)
    whole = small_gpt(gpt, make, num_layers=2, dropout=1.0, silent=False)
    plain = small_gpt(gpt, make, num_layers=2, silent=False)
    for each in (model, whole, plain):
        each.component.eval()
    ids = make.integers(0, 9, 1, 3)
    change = whole(ids.clone()) - plain(ids.clone())
    return {
        "logits": model(ids),
        "how many logits dropout changes": int((change.abs() > 1e-4).sum()),
    }


@gpt.case(
    "dropout of everything, in training mode",
    next_step="Dropout acts on the sum of token and position, and its rate is passed on to every "
    "block. If all is dropped, the norm gets zeros.",
)
def _(gpt, make):
    ids = make.integers(0, 9, 1, 2)
    return {
        "logits around silent blocks": small_gpt(gpt, make, dropout=1.0)(ids.clone()),
        "logits": small_gpt(gpt, make, dropout=1.0, silent=False)(ids.clone()),
    }


@gpt.case(
    "dropout of half, in training mode",
    weight=0.5,
    next_step="x = self.dropout(token + position): one dropout, on the sum.",
)
def _(gpt, make):
    model = make.module(gpt, 8, 9, 8, 1, 2, 0.5)
    hand_on(model, *TABLES)
    own = own_parameters(model)
    with torch.no_grad():
        # Each sum of token and position is 1, though neither is; and what the norm gives is
        # read off at the output.
        own["token.weight"].copy_(3 * torch.eye(8))
        own["position.weight"].copy_(1 - 3 * torch.eye(9, 8))
        own["norm.weight"].fill_(1.0)
        own["norm.bias"].zero_()
        given = model(torch.arange(8).expand(60, 8))
    outputs, low = half_of_a_sum(given)
    return outputs | {"each sequence drops its own": bool((low != low[:1]).any())}


@gpt.case(
    "gradients of tables and norm",
    weight=1.5,
    next_step="The gradient reaches token.weight from both ends: as the table that is looked up, "
    "and as the matrix of the output.",
)
def _(gpt, make):
    model = small_gpt(gpt, make, context=4)
    own = own_parameters(model)
    names = ("token.weight", "position.weight", "norm.weight")
    logits = model(make.integers(0, 9, 2, 3))
    return make.gradients("logits", logits, **{name: own[name] for name in names})


@gpt.case(
    "a gradient for every parameter",
    weight=0.5,
    next_step="Hand x from block to block: no detach(), no torch.no_grad().",
)
def _(gpt, make):
    model = small_gpt(gpt, make, num_layers=2, silent=False)
    own, asked = own_parameters(model), gpt_parameters(9, 7, 8, 2, 2)
    logits = model(make.integers(0, 9, 2, 5))
    found = make.gradients("logits", logits, **{name: own[name] for name in asked})
    return {"parameters that get one": len(found)}


@gpt.case(
    "int32 ids that are a view, left as they were",
    weight=0.5,
    next_step="Ids are integers of any size: look them up with self.token(token_ids), and change "
    "none.",
)
def _(gpt, make):
    model = small_gpt(gpt, make)
    ids = make.integers(0, 9, 3, 2, dtype=torch.int32)
    return {"logits": model(ids.T), "the ids are unchanged": make.unchanged()}


@gpt.case(
    "float64 and bfloat16",
    weight=0.5,
    next_step="The logits have the dtype of the parameters: make no float32 tensor on the way.",
)
def _(gpt, make):
    ids = make.integers(0, 9, 1, 3)
    short = small_gpt(gpt, make, dtype=torch.bfloat16, silent=False)
    return {
        "logits": small_gpt(gpt, make, dtype=torch.float64)(ids.clone()),
        "dtype of bfloat16": str(short(ids.clone()).dtype),
    }


@gpt.case(
    "two models, several lengths: nothing is carried over",
    weight=0.5,
    next_step="Keep nothing from one call to the next: neither lengths nor positions.",
)
def _(gpt, make):
    model, other = small_gpt(gpt, make), make.module(gpt, 5, 6, 4, 1, 1)
    model(make.integers(0, 9, 2, 3))
    other(make.integers(0, 5, 1, 4))
    longer = model(make.integers(0, 9, 1, 5))
    return {"logits": longer[:, 2:], "logits of two": model(make.integers(0, 9, 1, 2))}


@gpt.case("other sizes", hidden=True)
def _(gpt, make):
    model = make.module(gpt, 13, 8, 12, 3, 3)
    return {"logits": model(make.integers(0, 13, 3, 6))}


@gpt.misconceptions
def _():
    """The model with one thing wrong at a time."""
    from workbook.ready.attention import causal_mask
    from workbook.ready.multi_head import MultiHeadAttention
    from workbook.ready.positions import sinusoidal_encoding

    class Block(nn.Module):
        def __init__(self, d_model, num_heads, dropout=0.0):
            super().__init__()
            self.self_attn = MultiHeadAttention(d_model, num_heads, dropout)
            self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
            self.w_1, self.w_2 = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)
            self.dropout = nn.Dropout(dropout)

        def mask(self, length):
            return causal_mask(length)

        def bend(self, z):
            return F.gelu(z, approximate="tanh")

        def attend(self, x):
            return self.dropout(self.self_attn(x, x, x, self.mask(x.size(1)))[0])

        def transform(self, x):
            return self.dropout(self.w_2(self.bend(self.w_1(x))))

        def forward(self, x):
            x = x + self.attend(self.norm1(x))
            return x + self.transform(self.norm2(x))

    class Right(nn.Module):
        block, longer = Block, 0

        def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
            super().__init__()
            self.context = context
            self.token = nn.Embedding(vocab_size, d_model)
            self.position = nn.Embedding(context + self.longer, d_model)
            self.blocks = self.stack(d_model, num_layers, num_heads, dropout)
            self.norm, self.dropout = nn.LayerNorm(d_model), nn.Dropout(dropout)

        def stack(self, d_model, num_layers, num_heads, dropout):
            sizes = d_model, num_heads, dropout
            return nn.ModuleList(self.block(*sizes) for _ in range(num_layers))

        def checked(self, ids):
            if ids.size(1) > self.context:
                raise ValueError(f"{ids.size(1)} tokens, but the context is {self.context}")
            return ids

        def vectors(self, ids):
            return self.token(ids)

        def places(self, ids):
            return self.position.weight[: ids.size(1)]

        def embed(self, ids):
            return self.dropout(self.vectors(ids) + self.places(ids))

        def run(self, x):
            for layer in self.blocks:
                x = layer(x)
            return x

        def last(self, x):
            return self.norm(x)

        def logits(self, x):
            return x @ self.token.weight.T

        def forward(self, token_ids):
            return self.logits(self.last(self.run(self.embed(self.checked(token_ids)))))

    def changed(**attributes):
        return type("Changed", (Right,), attributes)

    def created(change, **attributes):
        """With something more done at the end of __init__."""

        class Created(changed(**attributes)):
            def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
                super().__init__(vocab_size, context, d_model, num_layers, num_heads, dropout)
                change(self, vocab_size, d_model)

        return Created

    # The output.

    tied = "return self.norm(x) @ self.token.weight.T."
    for bias in (False, True):
        yield (
            "The output has a matrix of its own; it must be tied to the input, token.weight.",
            created(
                lambda self, vocab_size, d_model, bias=bias: setattr(
                    self, "output", nn.Linear(d_model, vocab_size, bias=bias)
                ),
                logits=lambda self, x: self.output(x),
            ),
            tied,
        )
    yield (
        "The output has a bias; the logits are products with token.weight and nothing more.",
        created(
            lambda self, vocab_size, d_model: setattr(
                self, "bias", nn.Parameter(torch.zeros(vocab_size))
            ),
            logits=lambda self, x: x @ self.token.weight.T + self.bias,
        ),
        tied,
    )
    yield (
        "The output's matrix is a copy: no gradient reaches token.weight from the output.",
        changed(logits=lambda self, x: x @ self.token.weight.detach().T),
        "Use self.token.weight itself, without detach(), data or clone in __init__.",
    )
    for name, function in (
        ("probabilities", torch.softmax),
        ("log-probabilities", torch.log_softmax),
    ):
        yield (
            f"What comes back are {name}; the exercise asks for logits, without softmax.",
            changed(logits=lambda self, x, function=function: function(Right.logits(self, x), -1)),
            tied,
        )
    yield (
        "token.weight is not transposed at the output.",
        changed(logits=lambda self, x: x @ self.token.weight),
        tied,
    )
    yield (
        "The logits are divided by the square root of d_model.",
        changed(logits=lambda self, x: Right.logits(self, x) / x.size(-1) ** 0.5),
        tied,
    )
    yield (
        "Only the logits of the last position come back; in training every position predicts.",
        changed(logits=lambda self, x: Right.logits(self, x[:, -1:])),
        "Return logits of shape (batch, length, vocab_size).",
    )

    # The norm.

    yield (
        "The last norm is missing: blocks that are pre-norm leave their sum as it is.",
        changed(last=lambda self, x: x),
        tied,
    )

    def norm_first(self, x):
        return Right.run(self, self.norm(x))

    yield (
        "The norm stands before the blocks; it belongs after the last one.",
        changed(run=norm_first, last=lambda self, x: x),
        "Embed, run through the blocks, then norm.",
    )

    def norm_each(self, x):
        for layer in self.blocks:
            x = self.norm(layer(x))
        return x

    yield (
        "The norm is applied after every block; it belongs after the last one alone.",
        changed(run=norm_each, last=lambda self, x: x),
        "Apply self.norm once, after the loop.",
    )

    # The embeddings.

    scaled = "x = self.dropout(self.token(token_ids) + self.position(positions))."
    yield (
        "The tokens are multiplied by the square root of d_model, as in 2017; GPT takes them as "
        "they are.",
        changed(vectors=lambda self, ids: self.token(ids) * self.token.weight.size(1) ** 0.5),
        scaled,
    )
    yield (
        "No positions are added, so the order of the tokens hardly matters.",
        changed(places=lambda self, ids: 0.0),
        scaled,
    )
    yield (
        "The positions are counted from 1; the first is 0.",
        changed(places=lambda self, ids: self.position(torch.arange(1, ids.size(1) + 1))),
        "positions = torch.arange(length).",
    )
    yield (
        "The positions are the last rows of the table; they count from 0.",
        changed(places=lambda self, ids: self.position.weight[-ids.size(1) :]),
        "positions = torch.arange(length).",
    )
    yield (
        "Every token gets the same position.",
        changed(places=lambda self, ids: self.position.weight[:1]),
        "positions = torch.arange(length).",
    )
    for places in (
        lambda self, ids: self.position.weight[: ids.size(0)].unsqueeze(1),
        lambda self, ids: self.position.weight[: ids.size(0)],
    ):
        yield (
            "The positions follow the sequences of the batch, not the tokens of a sequence.",
            changed(places=places),
            "positions = torch.arange(token_ids.shape[1]): axis 0 is the batch.",
        )
    yield (
        "The positions are sinusoids; GPT learns a table of them.",
        changed(
            places=lambda self, ids: sinusoidal_encoding(ids.size(1), self.token.weight.size(1)).to(
                self.token.weight
            )
        ),
        "self.position = nn.Embedding(context, d_model).",
    )

    def again(self, x):
        for layer in self.blocks:
            x = layer(x + self.position.weight[: x.size(1)])
        return x

    yield (
        "The positions are added again before every block; they belong to the tokens, once.",
        changed(run=again),
        scaled,
    )
    yield (
        "The table of positions has another length than context.",
        changed(longer=1),
        "self.position = nn.Embedding(context, d_model).",
    )

    # The context.

    too_long = "if length > self.context: raise ValueError(f'... {length} ... {self.context} ...')."

    def looks_up(self, ids):
        return self.position(torch.arange(ids.size(1)))

    for places in (looks_up, Right.places):
        yield (
            "A length above context is not refused; the table of positions fails instead.",
            changed(checked=lambda self, ids: ids, places=places),
            too_long,
        )
    yield (
        "What exceeds the context is cut off in silence; forward must refuse it.",
        changed(checked=lambda self, ids: ids[:, -self.context :]),
        too_long,
    )

    def asserting(self, ids):
        assert ids.size(1) <= self.context, f"{ids.size(1)} > {self.context}"
        return ids

    yield (
        "An assert refuses what is too long; the exercise asks for a ValueError.",
        changed(checked=asserting),
        too_long,
    )

    def saying_little(self, ids):
        if ids.size(1) > self.context:
            raise ValueError("the input is too long")
        return ids

    yield (
        "The ValueError does not name both numbers, the length and the context.",
        changed(checked=saying_little),
        too_long,
    )

    def too_strict(self, ids):
        if ids.size(1) >= self.context:
            raise ValueError(f"{ids.size(1)} tokens, but the context is {self.context}")
        return ids

    yield (
        "An input that fills the context exactly is refused; only longer ones must be.",
        changed(checked=too_strict),
        "if length > self.context.",
    )

    class Nameless(Right):
        def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
            super().__init__(vocab_size, context, d_model, num_layers, num_heads, dropout)
            self.longest = self.__dict__.pop("context")

        def checked(self, ids):
            if ids.size(1) > self.longest:
                raise ValueError(f"{ids.size(1)} tokens, but the context is {self.longest}")
            return ids

    yield (
        "There is no attribute context; what generates text asks for it.",
        Nameless,
        "self.context = context, in __init__.",
    )

    # The blocks.

    each = "nn.ModuleList(GPTBlock(d_model, num_heads, dropout) for _ in range(num_layers))."

    def same(self, d_model, num_layers, num_heads, dropout):
        return nn.ModuleList([Block(d_model, num_heads, dropout)] * num_layers)

    yield (
        "One block is used num_layers times, with the same parameters: [block] * num_layers "
        "repeats the one object.",
        changed(stack=same),
        each,
    )

    def listed(self, d_model, num_layers, num_heads, dropout):
        return [Block(d_model, num_heads, dropout) for _ in range(num_layers)]

    yield (
        "The blocks are in a plain Python list, which hides them: their parameters do not learn.",
        changed(stack=listed),
        each,
    )
    for count in (1, 2):

        def fixed(self, d_model, num_layers, num_heads, dropout, count=count):
            return nn.ModuleList(Block(d_model, num_heads, dropout) for _ in range(count))

        yield (
            "The number of blocks is fixed, whatever num_layers is.",
            changed(stack=fixed),
            each,
        )

    def restart(self, x):
        for layer in self.blocks:
            last = layer(x)
        return last

    def backward(self, x):
        for layer in reversed(self.blocks):
            x = layer(x)
        return x

    def first_again(self, x):
        for _ in self.blocks:
            x = self.blocks[0](x)
        return x

    for sentence, run in (
        ("Every block starts from the embeddings, so that only the last one counts.", restart),
        ("The blocks run in the wrong order, the last one first.", backward),
        ("The first block runs again and again, and the others never.", first_again),
        ("Only the first block runs.", lambda self, x: self.blocks[0](x)),
        ("The blocks never run.", lambda self, x: x),
    ):
        yield sentence, changed(run=run), "for block in self.blocks: x = block(x)."

    def one_head(self, d_model, num_layers, num_heads, dropout):
        return Right.stack(self, d_model, num_layers, 1, dropout)

    yield (
        "num_heads is not passed on to the blocks.",
        changed(stack=one_head),
        each,
    )

    def with_block(**methods):
        return changed(block=type("Changed", (Block,), methods))

    def post_norm(self, x):
        x = self.norm1(x + self.attend(x))
        return self.norm2(x + self.transform(x))

    mend = "Mend GPTBlock until its own check passes in full, then run this one again."
    yield (
        "The causal mask is missing in the blocks: each position sees the very token that it has "
        "to predict.",
        with_block(mask=lambda self, length: None),
        mend,
    )
    yield ("The blocks are post-norm; GPT-2's are pre-norm.", with_block(forward=post_norm), mend)
    for name, bend in (
        ("the exact GELU", lambda self, z: F.gelu(z)),
        ("a ReLU", lambda self, z: torch.relu(z)),
    ):
        yield (
            f"The blocks have {name}; GPT-2's have the GELU with tanh.",
            with_block(bend=bend),
            mend,
        )

    # Dropout.

    yield (
        "There is no dropout on the sum of token and position.",
        changed(embed=lambda self, ids: self.vectors(ids) + self.places(ids)),
        scaled,
    )

    def tokens_only(self, ids):
        return self.dropout(self.vectors(ids)) + self.places(ids)

    yield (
        "Dropout acts on the tokens alone; it belongs on their sum with the positions.",
        changed(embed=tokens_only),
        scaled,
    )

    def separately(self, ids):
        places = self.places(ids).expand(len(ids), -1, -1)
        return self.dropout(self.vectors(ids)) + self.dropout(places)

    yield (
        "Tokens and positions are dropped separately; one dropout belongs on their sum.",
        changed(embed=separately),
        scaled,
    )
    yield (
        "Dropout acts after the last norm too; it belongs on the sum of token and position, and "
        "inside the blocks.",
        changed(last=lambda self, x: self.dropout(self.norm(x))),
        tied,
    )

    def never(self, d_model, num_layers, num_heads, dropout):
        return Right.stack(self, d_model, num_layers, num_heads, 0.0)

    yield (
        "The dropout rate is not passed on to the blocks.",
        changed(stack=never),
        each,
    )
    yield (
        "Dropout acts in evaluation mode too.",
        changed(
            embed=lambda self, ids: F.dropout(self.vectors(ids) + self.places(ids), self.dropout.p)
        ),
        "Use nn.Dropout, or F.dropout with training=self.training.",
    )


# ---- next-token loss -----------------------------------------------------------------------

next_token_loss = Exercise(
    "gpt/next_token_loss",
    points=2,
    signature="next_token_loss(logits, token_ids)",
    returns=[Returned("loss", "()")],
)


@next_token_loss.case(
    "a worked example: three tokens of a vocabulary of four",
    next_step="The text is 2, 0, 3. The first logits give token 0 the probability 0.5, the second "
    "ones give token 3 the probability 0.2: the loss is -(ln 0.5 + ln 0.2) / 2.",
)
def _(loss, make):
    p = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.1, 0.6, 0.1, 0.2], [0.3, 0.2, 0.2, 0.3]])
    return {"loss": loss(p.log()[None], torch.tensor([[2, 0, 3]]))}


@next_token_loss.case(
    "a batch of sequences",
    weight=2,
    next_step="Compare logits[:, :-1] with token_ids[:, 1:], and take the mean over all of them.",
)
def _(loss, make):
    return {"loss": loss(make.normal(3, 5, 7), make.integers(0, 7, 3, 5))}


@next_token_loss.case(
    "as many sequences and positions as words",
    next_step="The softmax runs over the vocabulary, the last axis. F.cross_entropy takes axis 1 "
    "for the classes where there are three axes: flatten batch and length first.",
)
def _(loss, make):
    return {
        "loss of a cube": loss(make.normal(5, 5, 5), make.integers(0, 5, 5, 5)),
        "loss with one position more": loss(make.normal(4, 5, 4), make.integers(0, 4, 4, 5)),
    }


@next_token_loss.case(
    "what is not used: the last logits and the first token",
    next_step="Nothing follows the last position, and nothing stands before the first token.",
)
def _(loss, make):
    logits, ids = make.normal(2, 4, 6), make.integers(0, 6, 2, 4)
    other_logits, other_ids = logits.clone(), ids.clone()
    other_logits[:, -1] = make.normal(2, 6, scale=5.0)
    other_ids[:, 0] = (ids[:, 0] + 3) % 6
    before = loss(logits.clone(), ids.clone())
    return {
        "loss": before,
        "change when the last logits change": (loss(other_logits, ids.clone()) - before).abs(),
        "change when the first token changes": (loss(logits.clone(), other_ids) - before).abs(),
    }


@next_token_loss.case(
    "logits that foresee the next token, and logits that repeat their own",
    next_step="The logits at position t are judged against token t + 1: foreseeing costs next to "
    "nothing, repeating a lot.",
)
def _(loss, make):
    # No token is its own neighbor.
    ids = make.integers(0, 3, 2, 6) + 3 * (torch.arange(6) % 2)
    own = 9.0 * nn.functional.one_hot(ids, 6).float()
    return {
        "loss of foreseeing": loss(own.roll(-1, dims=1), ids.clone()),
        "loss of repeating": loss(own.clone(), ids.clone()),
    }


@next_token_loss.case(
    "two positions, and a batch of one",
    weight=0.5,
    next_step="Keep axes of length 1: no squeeze() without a dim.",
)
def _(loss, make):
    return {
        "loss of one target": loss(make.normal(1, 2, 5), make.integers(0, 5, 1, 2)),
        "loss of one target each": loss(make.normal(4, 2, 5), make.integers(0, 5, 4, 2)),
        "loss of one sequence": loss(make.normal(1, 6, 5), make.integers(0, 5, 1, 6)),
    }


@next_token_loss.case(
    "token 0 and the last token of the vocabulary are tokens like all others",
    weight=0.5,
    next_step="There is no padding here: every target counts.",
)
def _(loss, make):
    ids = 5 * make.integers(0, 2, 3, 7)
    ids[:, 1], ids[:, 2] = 0, 5
    return {"loss": loss(make.normal(3, 7, 6, scale=2.0), make.watch(ids))}


@next_token_loss.case(
    "large logits",
    weight=0.5,
    next_step="exp overflows: use F.cross_entropy or torch.log_softmax.",
)
def _(loss, make):
    logits = make.normal(2, 4, 6, scale=3.0, shift=1000.0)
    return {
        "loss, all logits near 1000": loss(logits, make.integers(0, 6, 2, 4)),
        "loss, logits far apart": loss(make.normal(2, 4, 6, scale=90.0), make.integers(0, 6, 2, 4)),
    }


@next_token_loss.case(
    "gradients",
    next_step="The loss must be a tensor that the gradient can flow back from.",
)
def _(loss, make):
    logits = make.normal(3, 4, 5, grad=True)
    value = loss(logits, make.integers(0, 5, 3, 4))
    return {"loss": value, **make.gradients("loss", value.reshape(1), logits=logits)}


@next_token_loss.case(
    "float64 logits that are a view, left as they were",
    weight=0.5,
    next_step="Stay in the dtype of the logits, and use flatten or reshape in place of view.",
)
def _(loss, make):
    logits, ids = make.normal(7, 4, 3, dtype=torch.float64), make.integers(0, 7, 4, 3)
    value = loss(logits.permute(2, 1, 0), ids.T)
    return {"loss": value, "the inputs are unchanged": make.unchanged()}


@next_token_loss.case(
    "bfloat16", weight=0.5, next_step="Let new tensors take the dtype of the logits."
)
def _(loss, make):
    # A loss in float32 is as good, for it is where training keeps its sums.
    value = loss(make.normal(2, 5, 6, dtype=torch.bfloat16), make.integers(0, 6, 2, 5))
    return {"loss": value.to(torch.bfloat16)}


@next_token_loss.case("a larger vocabulary and batch", hidden=True)
def _(loss, make):
    logits = make.normal(6, 11, 29, scale=2.0, grad=True)
    value = loss(logits, make.integers(0, 29, 6, 11))
    return {"loss": value, **make.gradients("loss", value.reshape(1), logits=logits)}


@next_token_loss.misconceptions
def _():
    """The loss with one thing wrong at a time."""

    def shifted(logits, ids):
        return logits[:, :-1], ids[:, 1:]

    def picked(log_p, ids):
        return -log_p.gather(-1, ids[..., None])[..., 0]

    def loss_of(
        shift=shifted,
        log=lambda logits: torch.log_softmax(logits, dim=-1),
        each=picked,
        mean=lambda losses: losses.mean(),
    ):
        def loss(logits, token_ids):
            predicted, targets = shift(logits, token_ids)
            return mean(each(log(predicted), targets))

        return loss

    def over_all_positions(logits, token_ids):
        return loss_of(mean=torch.sum)(logits, token_ids) / token_ids.numel()

    def by_the_batch(logits, token_ids):
        return loss_of(mean=torch.sum)(logits, token_ids) / token_ids.size(0)

    def by_the_length(logits, token_ids):
        return loss_of(mean=torch.sum)(logits, token_ids) / (token_ids.size(1) - 1)

    def without_zero(losses, ids):
        kept = (ids != 0).to(losses.dtype)
        return (losses * kept).sum() / kept.sum().clamp(min=1)

    def zero_is_padding(logits, token_ids):
        losses = loss_of(mean=lambda losses: losses)(logits, token_ids)
        return without_zero(losses, token_ids[:, 1:])

    def in_another_order(logits, ids):
        predicted, targets = shifted(logits, ids)
        return predicted.flatten(0, 1), targets.T.flatten()

    def reshaped(logits, token_ids):
        predicted, targets = shifted(logits, token_ids)
        batch, length, vocab = predicted.shape
        return nn.functional.cross_entropy(predicted.reshape(batch, vocab, length), targets)

    def flattened_first(logits, token_ids):
        flat, ids = logits.flatten(0, 1), token_ids.flatten()
        return nn.functional.cross_entropy(flat[:-1], ids[1:])

    def log_of_softmax(tiny):
        return lambda logits: torch.log(torch.softmax(logits, dim=-1) + tiny)

    def unsafe(logits):
        return logits - logits.exp().sum(dim=-1, keepdim=True).log()

    def all_classes(log_p, ids):
        hot = nn.functional.one_hot(ids, log_p.size(-1)).to(log_p.dtype)
        return -(hot * log_p)

    def every_class_by_itself(logits, token_ids):
        predicted, targets = shifted(logits, token_ids)
        hot = nn.functional.one_hot(targets, logits.size(-1)).to(logits.dtype)
        return nn.functional.binary_cross_entropy_with_logits(predicted, hot)

    shift = "Compare logits[:, :-1] with token_ids[:, 1:]."
    yield (
        "There is no shift: each position is asked for the token that it reads.",
        loss_of(lambda logits, ids: (logits, ids)),
        shift,
    )
    for same in (
        lambda logits, ids: (logits[:, 1:], ids[:, 1:]),
        lambda logits, ids: (logits[:, :-1], ids[:, :-1]),
    ):
        yield (
            "Both are cut at the same end, so each position is still asked for the token that it "
            "reads.",
            loss_of(same),
            shift,
        )
    yield (
        "It is shifted the wrong way: each position is asked for the token before its own.",
        loss_of(lambda logits, ids: (logits[:, 1:], ids[:, :-1])),
        shift,
    )
    for roll in (
        lambda logits, ids: (logits, ids.roll(-1, dims=1)),
        lambda logits, ids: (logits.roll(1, dims=1), ids),
    ):
        yield (
            "Shifting goes around in a circle: the last position is asked for the first token.",
            loss_of(roll),
            "Cut instead of rolling: " + shift,
        )
    yield (
        "The rows of the batch are put in one line before shifting: a sequence's last position is "
        "asked for the first token of the next sequence.",
        flattened_first,
        "Cut first, along axis 1, then flatten.",
    )
    for wrong in (loss_of(mean=torch.sum), by_the_batch, by_the_length):
        yield (
            "It is not the mean over all targets: the sum is not divided by their number.",
            wrong,
            "Divide by batch * (length - 1), or let F.cross_entropy take the mean.",
        )
    yield (
        "The sum is divided by batch * length, but there are only batch * (length - 1) targets.",
        over_all_positions,
        "Take the mean over what was summed.",
    )
    for mean in (
        lambda losses: losses.mean(dim=1),
        lambda losses: losses,
        lambda losses: losses.flatten(),
    ):
        yield (
            "The result has an axis left; it is one number, the mean over batch and length.",
            loss_of(mean=mean),
            "Take the mean over both axes.",
        )
    yield (
        "Only the last position is asked; every position has a next token to foresee.",
        loss_of(lambda logits, ids: (logits[:, -2], ids[:, -1])),
        shift,
    )
    for dim in (0, 1):
        yield (
            "The softmax does not run over the vocabulary, the last axis.",
            loss_of(log=lambda logits, dim=dim: torch.log_softmax(logits, dim=dim)),
            "Flatten batch and length, so that the vocabulary is axis 1, or use dim=-1.",
        )
    yield (
        "The axes are brought into order by reshape, which mixes positions and vocabulary.",
        reshaped,
        "Use flatten(0, 1), or transpose(1, 2).",
    )
    yield (
        "Logits and tokens are flattened in different orders, so tokens meet other sequences' "
        "logits.",
        loss_of(in_another_order),
        "Flatten both with the batch first.",
    )
    for again in (
        lambda logits: torch.log_softmax(torch.softmax(logits, dim=-1), dim=-1),
        lambda logits: torch.log_softmax(torch.sigmoid(logits), dim=-1),
    ):
        yield (
            "A softmax or sigmoid comes before the cross-entropy, which has its own.",
            loss_of(log=again),
            "Give the logits to F.cross_entropy as they are.",
        )
    yield (
        "The logits are taken for log-probabilities; they are never normalized.",
        loss_of(log=lambda logits: logits),
        "Use F.cross_entropy, or torch.log_softmax first.",
    )
    yield (
        "The loss is in bits; it should be in nats.",
        loss_of(log=lambda logits: torch.log_softmax(logits, dim=-1) / math.log(2)),
        "Use the natural logarithm, as F.cross_entropy does.",
    )
    yield (
        "The sign is missing: a log-probability is negative, a loss is not.",
        loss_of(mean=lambda losses: -losses.mean()),
        "Put a minus before the mean.",
    )
    yield (
        "This is the perplexity, the exponential of the loss.",
        loss_of(mean=lambda losses: losses.mean().exp()),
        "Return the mean itself.",
    )
    for mean in (
        lambda losses: 1 - (-losses).exp().mean(),
        lambda losses: -(-losses).exp().mean(),
        lambda losses: -(-losses).exp().mean().log(),
    ):
        yield (
            "The probabilities are averaged, not their logarithms.",
            loss_of(mean=mean),
            "Take the logarithm of each probability, then the mean.",
        )
    yield (
        "The mean runs over the vocabulary too, so the loss is too small by a factor vocab_size.",
        loss_of(each=all_classes),
        "Take the target's log-probability only, or sum over the vocabulary.",
    )
    yield (
        "Each token is a yes-or-no question of its own; here one of the whole vocabulary is right.",
        every_class_by_itself,
        "Use F.cross_entropy, with one softmax over the vocabulary.",
    )
    yield (
        "Token 0 is taken for padding; here every target counts.",
        zero_is_padding,
        "Leave ignore_index and masks out.",
    )
    for log in (log_of_softmax(0.0), log_of_softmax(1e-9), log_of_softmax(1e-12), unsafe):
        yield (
            "The softmax leaves the logarithms on the way, so large logits overflow, or small "
            "probabilities become 0.",
            loss_of(log=log),
            "Use F.cross_entropy or torch.log_softmax.",
        )
    for two in (
        lambda logits, ids: (logits[:, :-2], ids[:, 2:]),
        lambda logits, ids: (logits[:, 1:-1], ids[:, 2:]),
        lambda logits, ids: (logits[:, :-2], ids[:, 1:-1]),
    ):
        yield (
            "One position too many is cut off.",
            loss_of(two),
            shift,
        )


# ---- filtering logits ----------------------------------------------------------------------

filter_logits = Exercise(
    "gpt/filter_logits",
    points=4,
    signature="filter_logits(logits, temperature=1.0, top_k=None, top_p=None)",
    returns=[Returned("filtered", "of logits")],
)


def logits_for(make, *rows, temperature=1.0, dtype=torch.float32):
    """Logits whose softmax, after division by the temperature, is near the given rows.

    In each row the probabilities change by at most 1 percent, equal ones stay equal, and they
    change places. Where a sum of them is compared with a number, this must lie further off.
    """
    made = []
    for row in rows:
        shift = float(make.uniform(-3, 3, 1))
        factors = make.uniform(0.99, 1.01, len(row)).tolist()
        places = make.uniform(0, 1, len(row)).argsort(stable=True).tolist()
        logits = [temperature * math.log(p * factors[row.index(p)]) + shift for p in row]
        made.append([logits[place] for place in places])
    return make.tensor(made, dtype=dtype)


SIX = (0.40, 0.25, 0.15, 0.10, 0.06, 0.04)
STEEP = (0.88, 0.05, 0.03, 0.02, 0.01, 0.01)
FLAT = (0.21, 0.19, 0.18, 0.16, 0.14, 0.12)


@filter_logits.case(
    "five tokens, one knob at a time",
    next_step="The probabilities are near 0.50, 0.25, 0.15, 0.07 and 0.03, as in the example "
    "above. Work it out by hand.",
)
def _(cut, make):
    logits = logits_for(make, (0.50, 0.25, 0.15, 0.07, 0.03))
    return {
        "filtered, temperature 2": cut(logits.clone(), 2.0),
        "filtered, top_k 3": cut(logits.clone(), 1.0, 3),
        "filtered, top_p 0.8": cut(logits.clone(), 1.0, None, 0.8),
    }


@filter_logits.case(
    "temperature alone", next_step="Divide the logits by the temperature. Nothing is cut."
)
def _(cut, make):
    logits = make.normal(3, 8, scale=2.0)
    return {
        f"filtered, temperature {temperature}": cut(logits.clone(), temperature)
        for temperature in (0.25, 3)
    }


@filter_logits.case(
    "top-k alone",
    next_step="Whatever is below the k-th largest of its row becomes -inf; the others stay as they "
    "are.",
)
def _(cut, make):
    logits = make.normal(4, 9, scale=2.0)
    return {f"filtered, top_k {top_k}": cut(logits.clone(), 1.0, top_k) for top_k in (2, 7)}


@filter_logits.case(
    "top-p alone, on even and on uneven rows",
    weight=2,
    next_step="Sort, take the softmax, sum up. A token is cut where the sum of those before it has "
    "reached top_p. Then bring the decision back to where each token stood.",
)
def _(cut, make):
    logits = logits_for(make, SIX, STEEP, FLAT, SIX)
    return {
        f"filtered, top_p {top_p}": cut(logits.clone(), 1.0, None, top_p) for top_p in (0.3, 0.72)
    }


@filter_logits.case(
    "the token that crosses the boundary",
    next_step="It is kept: the set must reach top_p. Ask for the sum of the tokens before it, so "
    "that nothing stands before the first, and it always stays.",
)
def _(cut, make):
    logits = logits_for(make, STEEP, (0.95, 0.04, 0.01, 0.0002, 0.0001, 0.00005), SIX)
    return {
        f"filtered, top_p {top_p}": cut(logits.clone(), 1.0, None, top_p) for top_p in (0.01, 0.6)
    }


@filter_logits.case(
    "temperature before top-p",
    next_step="Divide first: top-p looks at the probabilities after the temperature.",
)
def _(cut, make):
    return {
        "filtered, temperature 3, top_p 0.72": cut(
            logits_for(make, SIX, FLAT, temperature=3.0), 3.0, None, 0.72
        ),
        "filtered, temperature 0.4, top_p 0.72": cut(
            logits_for(make, SIX, FLAT, temperature=0.4), 0.4, None, 0.72
        ),
    }


@filter_logits.case(
    "top-k before top-p",
    weight=2,
    next_step="Take the softmax of what top-k left: the probabilities of the kept tokens sum to 1 "
    "again, and so fewer of them reach top_p.",
)
def _(cut, make):
    # Of the three that are kept: 0.40, 0.33 and 0.27. Of all six: 0.30, 0.55 and 0.75.
    row = (0.30, 0.25, 0.20, 0.12, 0.08, 0.05)
    logits = logits_for(make, row, row, row)
    return {
        "filtered, top_k 3, top_p 0.65": cut(logits.clone(), 1.0, 3, 0.65),
        "filtered, top_k 2, top_p 0.4": cut(logits.clone(), 1.0, 2, 0.4),
    }


@filter_logits.case(
    "all three",
    next_step="The order is temperature, top-k, top-p, each with what the one before has left.",
)
def _(cut, make):
    rows = (0.30, 0.25, 0.20, 0.12, 0.08, 0.05)
    return {
        "filtered, temperature 2": cut(logits_for(make, rows, SIX, temperature=2.0), 2.0, 3, 0.7),
        "filtered, temperature 0.5": cut(logits_for(make, rows, SIX, temperature=0.5), 0.5, 3, 0.7),
    }


@filter_logits.case(
    "several tokens equal to the k-th largest",
    next_step="All of them are kept. Compare values, logits < kth, not places in the order.",
)
def _(cut, make):
    rows = [(0.3, 0.2, 0.2, 0.2, 0.06, 0.04), (0.25, 0.25, 0.25, 0.1, 0.1, 0.05)]
    logits = logits_for(make, *rows)
    return {f"filtered, top_k {top_k}": cut(logits.clone(), 1.0, top_k) for top_k in (2, 4)}


@filter_logits.case(
    "equally probable tokens at the boundary of top-p",
    next_step="Of equal ones the lower id comes first: sort with stable=True, descending.",
)
def _(cut, make):
    rows = [(0.3, 0.2, 0.2, 0.2, 0.06, 0.04), (0.25, 0.25, 0.25, 0.1, 0.1, 0.05)]
    logits = logits_for(make, *rows)
    return {
        "filtered, top_p 0.4": cut(logits.clone(), 1.0, None, 0.4),
        "filtered, top_p 0.62": cut(logits.clone(), 1.0, None, 0.62),
        "filtered, top_k 2, top_p 0.6": cut(logits.clone(), 1.0, 2, 0.6),
    }


@filter_logits.case(
    "a sum that is exactly top_p",
    weight=0.5,
    next_step="At least top_p: once the sum has reached it, all further tokens are cut.",
)
def _(cut, make):
    # One half is exact in every floating point format, however the softmax is computed.
    high, low = make.uniform(-1, 1, 1), -80.0 - make.uniform(0, 4, 2)
    logits = make.watch(torch.cat([low[:1], high, high, low[1:]]))
    return {
        "filtered, two halves and top_p 0.5": cut(logits, 1.0, None, 0.5),
        "filtered, two halves and top_p 0.6": cut(logits, 2.0, None, 0.6),
    }


@filter_logits.case(
    "top_k as large as the vocabulary or larger, and top_p 1",
    next_step="They keep all. Let k be min(top_k, vocab_size), and allow top_p 1.",
)
def _(cut, make):
    logits = logits_for(make, SIX, FLAT)
    return (
        result_or_error(cut, "filtered, top_k as the vocabulary", logits, 2.0, 6)
        | result_or_error(cut, "filtered, top_k above it", logits, 2.0, 50)
        | result_or_error(cut, "filtered, top_p 1", logits, 2.0, None, 1.0)
        | result_or_error(cut, "filtered, both and top_k 2", logits, 2.0, 2, 1.0)
    )


@filter_logits.case(
    "logits that are -inf already",
    weight=0.5,
    next_step="They stay -inf and count as probability 0.",
)
def _(cut, make):
    logits = logits_for(make, SIX, STEEP, FLAT).clone()
    logits[0, 1], logits[1, 2:5], logits[2, 0] = -math.inf, -math.inf, -math.inf
    make.watch(logits)
    return {
        "filtered, temperature 2, top_k 4": cut(logits.clone(), 2.0, 4),
        "filtered, temperature 2, top_p 0.995": cut(logits.clone(), 2.0, None, 0.995),
    }


@filter_logits.case(
    "one axis, three, and four",
    next_step="Count the axis from the end, dim=-1 and [..., -1:], so that any number may stand in "
    "front.",
)
def _(cut, make):
    one = logits_for(make, SIX)[0]
    return {
        "filtered, one axis": cut(one, 1.0, 4, 0.7),
        "filtered, three axes": cut(logits_for(make, SIX, STEEP).repeat(3, 1, 1), 1.0, 4, 0.7),
        "filtered, four axes": cut(logits_for(make, FLAT).reshape(1, 1, 1, 6), 1.0, 4, 0.5),
    }


@filter_logits.case(
    "as many rows as tokens, each at another height",
    next_step="Each row has its own k-th largest and its own order: keepdim=True, or [..., -1:].",
)
def _(cut, make):
    rows = logits_for(make, *(6 * [SIX])) + 5.0 * make.normal(6, 1)
    cube = make.normal(4, 4, 4) + 5.0 * make.normal(4, 4, 1)
    return {
        "filtered, top_k 2": cut(rows.clone(), 1.0, 2),
        "filtered, top_p 0.72": cut(rows.clone(), 1.0, None, 0.72),
        "filtered, top_k 2 of a cube": cut(cube, 1.0, 2),
    }


@filter_logits.case(
    "values that are refused",
    next_step="Raise a ValueError for a temperature of 0 or below, top_k below 1, and top_p "
    "outside (0, 1]. Ask `is not None`, for 0 counts as False.",
)
def _(cut, make):
    logits = logits_for(make, SIX)
    refused = {
        "temperature 0": (0.0,),
        "temperature -1": (-1.0,),
        "top_k 0": (1.0, 0),
        "top_k -2": (1.0, -2),
        "top_p 0": (1.0, None, 0.0),
        "top_p -0.2": (1.0, None, -0.2),
        "top_p 1.5": (1.0, None, 1.5),
    }
    return {
        f"{name} is refused with a ValueError": raises(cut, logits.clone(), *knobs) == "ValueError"
        for name, knobs in refused.items()
    } | {"error for values that are allowed": raises(cut, logits.clone(), 0.1, 1, 0.1)}


@filter_logits.case(
    "float64 logits that are a view, left as they were",
    weight=0.5,
    next_step="Make new tensors: logits = logits / temperature, and masked_fill without the "
    "underscore at its end.",
)
def _(cut, make):
    logits = logits_for(make, SIX, FLAT, STEEP, dtype=torch.float64).T.contiguous()
    make.watch(logits)
    return {
        "filtered": cut(logits.T, 1.0, 4, 0.6),
        "filtered, temperature 1.3": cut(logits.T, 1.3),
        "filtered, top_k 2": cut(logits.T, 1.0, 2),
        "the logits are unchanged": make.unchanged(),
    }


@filter_logits.case(
    "float16 and bfloat16",
    weight=0.5,
    next_step="Return the dtype of the logits. Sum up in float64 where they are short.",
)
def _(cut, make):
    return {
        f"filtered, {str(dtype).removeprefix('torch.')}": cut(
            logits_for(make, SIX, FLAT, STEEP, temperature=2.0, dtype=dtype), 2.0, 4, 0.63
        )
        for dtype in (torch.float16, torch.bfloat16)
    }


@filter_logits.case("a larger vocabulary and other knobs", hidden=True)
def _(cut, make):
    # Rows of halves: each token is as probable as all after it, so no sum is near the boundary.
    halves = tuple(0.5 ** (i + 1) for i in range(9))
    rows = logits_for(make, *(6 * [halves]), temperature=0.7).reshape(2, 3, 9)
    return {
        "filtered, all three": cut(rows.clone(), 0.7, 6, 0.9),
        "filtered, top_p 0.97": cut(rows.clone(), 0.7, None, 0.97),
        "filtered, top_k 4": cut(make.normal(3, 40, scale=3.0), 1.5, 4),
    }


@filter_logits.misconceptions
def _():
    """The three knobs with one thing wrong at a time."""

    def check(temperature, top_k, top_p):
        if temperature <= 0:
            raise ValueError("temperature")
        if top_k is not None and top_k < 1:
            raise ValueError("top_k")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError("top_p")

    def warm(logits, temperature):
        return logits / temperature

    def largest(logits, top_k):
        kth = logits.topk(min(top_k, logits.size(-1))).values[..., -1:]
        return logits < kth

    def sums_before(p):
        return p.cumsum(dim=-1) - p

    def back(cut, ids):
        return torch.zeros_like(cut).scatter(-1, ids, cut)

    def in_order(
        decide=lambda p, top_p: sums_before(p) >= top_p,
        likely=lambda ordered: ordered.double().softmax(dim=-1),
        sort=lambda logits: logits.sort(dim=-1, descending=True, stable=True),
        place=back,
    ):
        def nucleus(logits, top_p):
            if top_p == 1:
                return torch.zeros_like(logits, dtype=torch.bool)
            ordered, ids = sort(logits)
            return place(decide(likely(ordered), top_p), ids)

        return nucleus

    plain = in_order()

    def without(logits, cut):
        return logits.masked_fill(cut, -math.inf)

    def knobs(
        check=check,
        warm=warm,
        largest=largest,
        nucleus=plain,
        without=without,
        finish=lambda logits: logits,
    ):
        def cut(logits, temperature=1.0, top_k=None, top_p=None):
            check(temperature, top_k, top_p)
            logits = warm(logits, temperature)
            if top_k is not None:
                logits = without(logits, largest(logits, top_k))
            if top_p is not None:
                logits = without(logits, nucleus(logits, top_p))
            return finish(logits)

        return cut

    def nucleus_first(logits, temperature=1.0, top_k=None, top_p=None):
        check(temperature, top_k, top_p)
        logits = logits / temperature
        if top_p is not None:
            logits = without(logits, plain(logits, top_p))
        if top_k is not None:
            logits = without(logits, largest(logits, top_k))
        return logits

    def both_from_the_whole(logits, temperature=1.0, top_k=None, top_p=None):
        check(temperature, top_k, top_p)
        logits = logits / temperature
        cut = torch.zeros_like(logits, dtype=torch.bool)
        if top_k is not None:
            cut = cut | largest(logits, top_k)
        if top_p is not None:
            cut = cut | plain(logits, top_p)
        return without(logits, cut)

    def temperature_last(logits, temperature=1.0, top_k=None, top_p=None):
        check(temperature, top_k, top_p)
        return knobs()(logits, 1.0, top_k, top_p) / temperature

    def temperature_between(logits, temperature=1.0, top_k=None, top_p=None):
        # The nucleus is chosen by the probabilities as the model gave them.
        check(temperature, top_k, top_p)
        cut = torch.zeros_like(logits, dtype=torch.bool)
        if top_k is not None:
            cut = cut | largest(logits, top_k)
        if top_p is not None:
            cut = cut | plain(without(logits, cut), top_p)
        return without(logits / temperature, cut)

    def one_or_the_other(first):
        def cut(logits, temperature=1.0, top_k=None, top_p=None):
            check(temperature, top_k, top_p)
            if top_k is not None and top_p is not None:
                top_k, top_p = (top_k, None) if first == "top_k" else (None, top_p)
            return knobs()(logits, temperature, top_k, top_p)

        return cut

    def exactly_k(logits, top_k):
        ids = logits.topk(min(top_k, logits.size(-1))).indices
        return torch.ones_like(logits, dtype=torch.bool).scatter(-1, ids, False)

    def exactly_k_by_sorting(logits, top_k):
        ids = logits.argsort(dim=-1, descending=True, stable=True)
        return ids.argsort(dim=-1) >= top_k

    def kth_of_the_last_axis(logits, top_k):
        # Without the colon the rows' thresholds stand where the tokens are.
        return logits < logits.topk(min(top_k, logits.size(-1))).values[..., -1]

    def kth_of_all(logits, top_k):
        return logits < logits.flatten().topk(min(top_k, logits.numel())).values[-1]

    def kth_of_the_first(logits, top_k):
        return logits < logits.flatten(0, -2)[0].topk(min(top_k, logits.size(-1))).values[-1]

    def smallest(logits, top_k):
        kth = logits.topk(min(top_k, logits.size(-1)), largest=False).values[..., -1:]
        return logits > kth

    def too_large_a_k(logits, top_k):
        return logits < logits.topk(top_k).values[..., -1:]

    def off_by(number):
        def largest_off(logits, top_k):
            return largest(logits, max(top_k + number, 1))

        return largest_off

    def strictly_above(logits, top_k):
        return logits <= logits.topk(min(top_k, logits.size(-1))).values[..., -1:]

    def next_below(logits, top_k):
        if top_k >= logits.size(-1):
            return torch.zeros_like(logits, dtype=torch.bool)
        return logits <= logits.topk(top_k + 1).values[..., -1:]

    def keep_first(cut):
        return torch.cat([torch.zeros_like(cut[..., :1]), cut[..., 1:]], dim=-1)

    def shifted_twice(p, top_p):
        cut = p.cumsum(dim=-1) >= top_p
        return torch.cat([torch.zeros_like(cut[..., :2]), cut[..., :-2]], dim=-1)

    def ascending(logits):
        return logits.sort(dim=-1, stable=True)

    def higher_first(logits):
        values, ids = logits.flip(-1).sort(dim=-1, descending=True, stable=True)
        return values, logits.size(-1) - 1 - ids

    def smallest_cut(logits, top_p):
        """From the least probable on, as long as they sum to at most 1 - top_p."""
        ordered, ids = logits.sort(dim=-1, stable=True)
        total = ordered.double().softmax(dim=-1).cumsum(dim=-1)
        cut = total <= 1 - top_p
        return back(torch.cat([cut[..., :-1], torch.zeros_like(cut[..., -1:])], dim=-1), ids)

    def ties_kept(logits, top_p):
        cut = plain(logits, top_p)
        least = logits.masked_fill(cut, math.inf).amin(dim=-1, keepdim=True)
        return logits < least

    def unsorted(logits, top_p):
        return sums_before(logits.double().softmax(dim=-1)) >= top_p

    def each_by_itself(logits, top_p):
        p = logits.double().softmax(dim=-1)
        return (p < top_p) & (p < p.amax(dim=-1, keepdim=True))

    def of_the_best(logits, top_p):
        p = logits.double().softmax(dim=-1)
        return p < top_p * p.amax(dim=-1, keepdim=True)

    def less_than_the_rest(logits, top_p):
        p = logits.double().softmax(dim=-1)
        return (p < 1 - top_p) & (p < p.amax(dim=-1, keepdim=True))

    def jointly(logits, top_p):
        p = logits.double().softmax(dim=-1)
        ordered, ids = p.flatten().sort(descending=True, stable=True)
        cut = sums_before(ordered / (p.numel() / p.size(-1))) >= top_p
        return back(cut, ids).reshape(logits.shape)

    def as_the_first(logits, top_p):
        ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
        cut = sums_before(ordered.double().softmax(dim=-1)) >= top_p
        return back(cut.reshape(-1, cut.size(-1))[0].expand_as(cut), ids)

    def in_place(logits, temperature=1.0, top_k=None, top_p=None):
        check(temperature, top_k, top_p)
        logits /= temperature
        return knobs(without=lambda logits, cut: logits.masked_fill_(cut, -math.inf))(
            logits, 1.0, top_k, top_p
        )

    def masked_in_place(logits, temperature=1.0, top_k=None, top_p=None):
        check(temperature, top_k, top_p)
        if temperature != 1:
            logits = logits / temperature
        return knobs(
            warm=lambda logits, temperature: logits,
            without=lambda logits, cut: logits.masked_fill_(cut, -math.inf),
        )(logits, 1.0, top_k, top_p)

    def lenient(*allowed):
        """Refuses nothing of what is named."""

        def checked(temperature, top_k, top_p):
            refused = {
                "temperature 0": temperature == 0,
                "temperature below 0": temperature < 0,
                "top_k 0": top_k == 0,
                "top_k below 0": top_k is not None and top_k < 0,
                "top_p 0": top_p == 0,
                "top_p below 0": top_p is not None and top_p < 0,
                "top_p above 1": top_p is not None and top_p > 1,
            }
            if any(is_so for name, is_so in refused.items() if not name.startswith(allowed)):
                raise ValueError

        def cut(logits, temperature=1.0, top_k=None, top_p=None):
            checked(temperature, top_k, top_p)
            top_k = top_k if top_k is None or top_k > 0 else None
            top_p = top_p if top_p is None or 0 < top_p <= 1 else None
            return knobs(check=lambda *_: None)(logits, temperature, top_k, top_p)

        return cut

    def other_error(error):
        def refused(temperature, top_k, top_p):
            try:
                check(temperature, top_k, top_p)
            except ValueError as refusal:
                raise error(str(refusal)) from None

        return knobs(check=refused)

    def falsy(logits, temperature=1.0, top_k=None, top_p=None):
        check(temperature, top_k or None, top_p or None)
        return knobs()(logits, temperature, top_k or None, top_p or None)

    def no_one(temperature, top_k, top_p):
        check(temperature, top_k, top_p)
        if top_p == 1:
            raise ValueError("top_p")

    def no_whole(logits, temperature=1.0, top_k=None, top_p=None):
        if top_k is not None and top_k > logits.size(-1):
            raise ValueError("top_k")
        return knobs()(logits, temperature, top_k, top_p)

    def sorted_result(logits, temperature=1.0, top_k=None, top_p=None):
        return knobs()(logits, temperature, top_k, top_p).sort(dim=-1, descending=True).values

    def in_float32(logits, temperature=1.0, top_k=None, top_p=None):
        return knobs()(logits.float(), temperature, top_k, top_p)

    divide = "logits = logits / temperature, before anything else."
    yield (
        "The temperature is multiplied by: large ones should make the probabilities more even.",
        knobs(warm=lambda logits, temperature: logits * temperature),
        divide,
    )
    yield (
        "The temperature is ignored.",
        knobs(warm=lambda logits, temperature: logits),
        divide,
    )
    yield (
        "The temperature is divided by twice.",
        knobs(warm=lambda logits, temperature: logits / temperature / temperature),
        divide,
    )
    for late in (temperature_last, temperature_between):
        yield (
            "The temperature comes after top-p, which should look at the probabilities after it.",
            late,
            divide,
        )
    for whole in (nucleus_first, both_from_the_whole):
        yield (
            "Top-p looks at the distribution before top-k; it should look at what top-k left, "
            "scaled up to sum to 1.",
            whole,
            "Mask for top-k first, then take the softmax for top-p of the masked logits.",
        )
    for first, other in (("top_k", "top_p"), ("top_p", "top_k")):
        yield (
            f"Where both are given, {other} is ignored.",
            one_or_the_other(first),
            "Write two ifs, not if and elif: both cut, top_k first.",
        )
    yield (
        "top_k is ignored.",
        knobs(largest=lambda logits, top_k: torch.zeros_like(logits, dtype=torch.bool)),
        "Set to -inf what is below the k-th largest logit.",
    )
    yield (
        "top_p is ignored.",
        knobs(nucleus=lambda logits, top_p: torch.zeros_like(logits, dtype=torch.bool)),
        "Keep the smallest set of most probable tokens that sums to at least top_p.",
    )
    for largest_k in (exactly_k, exactly_k_by_sorting):
        yield (
            "Of several tokens equal to the k-th largest only some are kept; all of them stay.",
            knobs(largest=largest_k),
            "Compare values: cut where logits < kth.",
        )
    for fewer in (off_by(-1), strictly_above):
        yield (
            "Top-k cuts the k-th largest token too; it is kept.",
            knobs(largest=fewer),
            "kth = logits.topk(k).values[..., -1:], and cut where logits < kth.",
        )
    yield (
        "Top-k keeps one token more than k.",
        knobs(largest=off_by(1)),
        "kth = logits.topk(k).values[..., -1:], and cut where logits < kth.",
    )
    for top_of in (kth_of_all, kth_of_the_first, kth_of_the_last_axis):
        yield (
            "Top-k compares a token with another row's k-th largest.",
            knobs(largest=top_of),
            "logits.topk(k).values[..., -1:] has one value for each row, on an axis of length 1.",
        )
    yield (
        "Top-k keeps the smallest logits.",
        knobs(largest=smallest),
        "Cut what is below the k-th largest.",
    )
    for too_large in (knobs(largest=too_large_a_k), no_whole):
        yield (
            "A top_k above the vocabulary raises an error; it keeps all.",
            too_large,
            "Use min(top_k, logits.shape[-1]).",
        )
    yield (
        "A top_p of 1 is refused; it is allowed, and keeps all.",
        knobs(check=no_one),
        "Refuse unless 0 < top_p <= 1.",
    )
    for crossing in (
        lambda p, top_p: keep_first(p.cumsum(dim=-1) > top_p),
        lambda p, top_p: keep_first(p.cumsum(dim=-1) >= top_p),
    ):
        yield (
            "The token that crosses the boundary is cut; it is kept.",
            knobs(nucleus=in_order(crossing)),
            "Cut a token where the sum of those *before* it has reached top_p.",
        )
    for crossing in (
        lambda p, top_p: p.cumsum(dim=-1) > top_p,
        lambda p, top_p: p.cumsum(dim=-1) >= top_p,
    ):
        yield (
            "The token that crosses the boundary is cut, even if it is the first: then nothing is "
            "left.",
            knobs(nucleus=in_order(crossing)),
            "Cut a token where the sum of those *before* it has reached top_p: before the first "
            "there is nothing.",
        )
    yield (
        "Top-p keeps one token too many: the one behind the token that crosses the boundary.",
        knobs(nucleus=in_order(shifted_twice)),
        "Shift the sums by one place only.",
    )
    yield (
        "A token is kept although those before it sum to exactly top_p.",
        knobs(nucleus=in_order(lambda p, top_p: sums_before(p) > top_p)),
        "Cut where the sum before is >= top_p: the set must reach it, not exceed it.",
    )
    for nucleus in (
        in_order(sort=higher_first),
        in_order(sort=lambda logits: [x.flip(-1) for x in ascending(logits)]),
        smallest_cut,
    ):
        yield (
            "Of equally probable tokens the higher id comes first in top-p.",
            knobs(nucleus=nucleus),
            "logits.sort(dim=-1, descending=True, stable=True): turning an ascending order around "
            "turns equal ones around too.",
        )
    yield (
        "Tokens equal to the last kept one are kept too in top-p; there the lower id comes first.",
        knobs(nucleus=ties_kept),
        "Decide by the place in the order, not by the value. (Top-k is the other way around.)",
    )
    yield (
        "The sorted decision is not brought back to where the tokens stood.",
        knobs(nucleus=in_order(place=lambda cut, ids: cut)),
        "torch.zeros_like(cut).scatter(-1, ids, cut).",
    )
    yield (
        "The sorted decision is brought back with gather, which goes the wrong way.",
        knobs(nucleus=in_order(place=lambda cut, ids: cut.gather(-1, ids))),
        "torch.zeros_like(cut).scatter(-1, ids, cut): the decision at i belongs to the token "
        "ids[i].",
    )
    yield (
        "Top-p sums up in the order of the ids; the most probable token comes first.",
        knobs(nucleus=unsorted),
        "Sort the logits first, descending.",
    )
    yield (
        "Top-p sorts in ascending order, and keeps the least probable tokens.",
        knobs(nucleus=in_order(sort=ascending)),
        "Sort with descending=True.",
    )
    for alone in (each_by_itself, less_than_the_rest, of_the_best):
        yield (
            "Top-p compares each token's own probability with a bound; it is the running sum that "
            "counts.",
            knobs(nucleus=alone),
            "Sort, sum up with cumsum, and cut where the sum before has reached top_p.",
        )
    for part in (
        lambda p, top_p: sums_before(p) >= 1 - top_p,
        lambda p, top_p: p.cumsum(dim=-1) < top_p,
    ):
        yield (
            "Top-p cuts the wrong part: the probable tokens, or all beyond 1 - top_p.",
            knobs(nucleus=in_order(part)),
            "The most probable tokens are kept, up to a sum of top_p.",
        )
    for likely in (
        lambda ordered: ordered.double(),
        lambda ordered: ordered.double().sigmoid(),
    ):
        yield (
            "Top-p sums up something else than the softmax of the logits.",
            knobs(nucleus=in_order(likely=likely)),
            "cumsum of softmax(dim=-1) of the sorted logits.",
        )
    for rows in (
        jointly,
        as_the_first,
        in_order(likely=lambda ordered: ordered.double().softmax(dim=0)),
        in_order(lambda p, top_p: p.cumsum(dim=0) - p >= top_p),
    ):
        yield (
            "Top-p does not treat each row by itself.",
            knobs(nucleus=rows),
            "sort, softmax and cumsum with dim=-1.",
        )
    for value in (0.0, -1e9, -1e4):
        yield (
            "What is cut becomes a number instead of minus infinity.",
            knobs(without=lambda logits, cut, value=value: logits.masked_fill(cut, value)),
            "masked_fill(cut, -math.inf): exp of it is 0, whatever the other logits are.",
        )
    yield (
        "What is cut becomes a number instead of minus infinity.",
        knobs(without=lambda logits, cut: logits.masked_fill(cut, torch.finfo(logits.dtype).min)),
        "masked_fill(cut, -math.inf): exp of it is 0, whatever the other logits are.",
    )
    for finish in (
        lambda logits: logits.softmax(dim=-1),
        lambda logits: logits.log_softmax(dim=-1),
    ):
        yield (
            "Probabilities or their logarithms are returned, not the logits.",
            knobs(finish=finish),
            "Return the divided logits, with -inf where a token is cut.",
        )
    yield (
        "The logits are returned sorted; each token keeps its place.",
        sorted_result,
        "Use the order only to decide what is cut.",
    )
    for careless in (
        *(
            lenient(*names)
            for size in (1, 2, 3)
            for names in itertools.combinations(("temperature", "top_k", "top_p"), size)
        ),
        lenient("temperature 0"),
        lenient("temperature below 0"),
        lenient("temperature below 0", "top_k below 0", "top_p below 0"),
        lenient("top_p above 1"),
        lenient("top_p 0"),
        lenient("top_p 0", "top_p below 0"),
        lenient("temperature 0", "top_k 0", "top_p 0"),
        other_error(AssertionError),
    ):
        yield (
            "Values that make no sense are not refused with a ValueError, or not all of them.",
            careless,
            "temperature <= 0, top_k < 1, top_p not in (0, 1]: raise ValueError(...).",
        )
    yield (
        "A top_k or top_p of 0 is taken for None, because 0 counts as False.",
        falsy,
        "Ask `if top_k is not None`.",
    )
    for changing in (in_place, masked_in_place):
        yield (
            "The logits that were given are changed in place.",
            changing,
            "logits = logits / temperature makes a new tensor, logits /= temperature does not; "
            "masked_fill does, masked_fill_ does not.",
        )
    yield (
        "The result is always float32; it should have the dtype of the logits.",
        in_float32,
        "Return the dtype that came in.",
    )


# ---- generating ----------------------------------------------------------------------------

generate = Exercise(
    "gpt/generate",
    points=3,
    signature="generate(model, token_ids, max_new_tokens, generator=None, temperature=1.0, "
    "top_k=None, top_p=None)",
    returns=[Returned("token ids", "(batch, length + max_new_tokens)")],
)


class UpsideDown(nn.Module):
    """Stands for dropout: in training mode the logits change their signs, in evaluation not."""

    def forward(self, logits):
        return -logits if self.training else logits


class TableModel(nn.Module):
    """A model to generate with, whose every logit comes from a drawn table.

    The logits at a position follow from all token ids up to there and from their positions. They
    are the same numbers in another order each time, three quarters apart: no two are near each
    other, but where ``equal`` of them share the largest value. It notes how it is used.
    """

    def __init__(self, make, context=32, vocab=12, equal=1):
        super().__init__()
        self.context, self.vocab, self.equal = context, vocab, equal
        self.table = make.uniform(0, 1, 64, vocab, vocab)
        self.one = nn.Parameter(torch.ones(()))  # through which a gradient would flow
        self.dropout = UpsideDown()
        self.longest, self.recorded, self.calls = 0, False, 0

    def forward(self, token_ids):
        """Token ids (batch, length) -> logits (batch, length, vocab)."""
        self._check(token_ids)
        self.longest = max(self.longest, token_ids.size(1))
        self.recorded |= torch.is_grad_enabled()
        positions = torch.arange(token_ids.size(1)) % len(self.table)
        # The table lies on a grid, so these sums are exact on every machine.
        sums = self.table[positions, token_ids.long()].cumsum(dim=1)
        ranks = sums.argsort(dim=-1, stable=True).argsort(dim=-1)
        logits = 0.75 * ranks.clamp(max=self.vocab - self.equal) - 3.0
        return self.dropout(logits * self.one)

    def shares(self, token_ids, temperature=1.0, kept=None):
        """How often each token should come next: (vocab), for one sequence (1, length)."""
        with torch.no_grad():
            logits = copy.deepcopy(self).eval()(token_ids)[0, -1]
        if kept is not None:
            logits = logits.where(logits >= logits.sort().values[-kept], -math.inf)
        return (logits / temperature).softmax(dim=-1)

    def _check(self, token_ids):
        self.calls += 1
        if self.calls > 400:
            raise Complaint(
                "calls",
                "It called the model more than 400 times for a few tokens.",
                "Call it once for each new token.",
            )
        is_ids = isinstance(token_ids, Tensor) and not token_ids.is_floating_point()
        if not is_ids or token_ids.ndim != 2:
            kind = (
                f"a {token_ids.dtype} tensor of shape {tuple(token_ids.shape)}"
                if isinstance(token_ids, Tensor)
                else f"an object of type {type(token_ids).__name__}"
            )
            raise Complaint(
                "arguments",
                f"The model got {kind}; it takes token ids of shape (batch, length).",
                "Keep both axes, with a batch of one too, and the ids whole numbers.",
            )
        if 0 in token_ids.shape:
            raise Complaint(
                "arguments",
                f"The model got no tokens: the shape is {tuple(token_ids.shape)}.",
                "Give it the last model.context tokens, token_ids[:, -model.context:].",
            )
        if not bool(((token_ids >= 0) & (token_ids < self.vocab)).all()):
            raise Complaint(
                "arguments",
                f"The model got ids from {int(token_ids.min())} to {int(token_ids.max())}; its "
                f"vocabulary has those from 0 to {self.vocab - 1}.",
                "Draw from the last axis of the logits, the vocabulary.",
            )


def prompts(make, batch, length, vocab=12):
    """Token ids (batch, length), no two rows alike."""
    ids = make.integers(0, vocab, batch, length).clone()
    ids[:, 0] = (ids[0, 0] + torch.arange(batch)) % vocab
    return make.watch(ids)


def seeded(number):
    """A generator of its own, always with the same draws."""
    return torch.Generator().manual_seed(number)


def drawn_like(tokens, candidates):
    """Which of the named distributions many drawn tokens follow, the narrow ones first."""
    for name, shares in candidates.items():
        found = torch.bincount(tokens, minlength=len(shares)) / len(tokens)
        # Of 3,000 draws, a share is typically off by less than 0.009.
        if not found[shares == 0].any() and (found - shares).abs().max() < 0.045:
            return name
    return "none of these: " + ", ".join(candidates)


@generate.case(
    "greedy, one sequence",
    next_step="In each round: the logits at the last position, their argmax, and torch.cat along "
    "axis 1.",
)
def _(write, make):
    model = TableModel(make).eval()
    return {"token ids": write(model, prompts(make, 1, 3), 6, None, 0)}


@generate.case(
    "greedy, several sequences",
    next_step="argmax(dim=-1, keepdim=True) gives one token for each row, of shape (batch, 1).",
)
def _(write, make):
    model = TableModel(make).eval()
    return {
        "token ids": write(model, prompts(make, 5, 4), 7, None, 0.0),
        "token ids, cuts do not matter": write(model, prompts(make, 4, 1), 4, None, 0, 3, 0.5),
    }


@generate.case(
    "temperature 0",
    weight=0.5,
    next_step="Treat it first: filter_logits refuses a temperature of 0.",
)
def _(write, make):
    model, ids = TableModel(make).eval(), prompts(make, 2, 3)
    return result_or_error(write, "token ids", model, ids, 3, None, 0.0)


@generate.case(
    "a text that outgrows the context",
    weight=2,
    next_step="Give the model token_ids[:, -model.context:], the last ones. The result keeps all "
    "tokens.",
)
def _(write, make):
    model = TableModel(make, context=5).eval()
    grown = write(model, prompts(make, 3, 3), 8, None, 0)
    longest = model.longest
    other = TableModel(make, context=4).eval()
    return {
        "token ids": grown,
        "tokens that the model got at most": longest,
        "token ids after a long beginning": write(other, prompts(make, 2, 9), 3, None, 0),
        "tokens that the model got at most then": other.longest,
    }


@generate.case(
    "a context of one token",
    weight=0.5,
    next_step="Read model.context; the model may get one token as well as a thousand.",
)
def _(write, make):
    model = TableModel(make, context=1).eval()
    return {
        "token ids": write(model, prompts(make, 2, 2), 4, None, 0),
        "tokens that the model got at most": model.longest,
    }


@generate.case(
    "equal logits",
    weight=0.5,
    next_step="Greedy takes the lowest id among the largest logits, as argmax does.",
)
def _(write, make):
    model = TableModel(make, equal=4).eval()
    return {"token ids": write(model, prompts(make, 4, 3), 6, None, 0)}


@generate.case(
    "draws of which the filters leave one token",
    next_step="Draw from the softmax of filter_logits(logits, temperature, top_k, top_p): what is "
    "cut has the probability 0.",
)
def _(write, make):
    model = TableModel(make, context=6).eval()
    return {
        "token ids, top_k 1": write(model, prompts(make, 3, 4), 6, seeded(1), 1.0, 1),
        "token ids, top_p 0.2": write(model, prompts(make, 3, 4), 6, seeded(2), 1.0, None, 0.2),
        "token ids, temperature 0.01": write(model, prompts(make, 3, 4), 6, seeded(3), 0.01),
    }


@generate.case(
    "3,000 draws as they are, and with a temperature",
    weight=2,
    next_step="Draw from the softmax of the logits at the last position, divided by the "
    "temperature, with torch.multinomial(p, 1, generator=generator).",
)
def _(write, make):
    model, ids = TableModel(make).eval(), prompts(make, 1, 3)
    greedy = nn.functional.one_hot(model.shares(ids).argmax(), model.vocab).float()
    candidates = {
        "the largest logit alone": greedy,
        **{f"temperature {t}": model.shares(ids, t) for t in (1.0, 2.0, 0.5, 4.0, 0.25)},
        "all alike": torch.full((model.vocab,), 1 / model.vocab),
    }
    many = ids.expand(3000, -1)
    return {
        name: drawn_like(write(model, many, 1, *knobs)[:, -1], candidates)
        for name, knobs in {
            "the draws follow, by default": (seeded(4),),
            "the draws follow, temperature 2": (seeded(5), 2.0),
            "the draws follow, temperature 0.5": (seeded(6), 0.5),
            "the draws follow, no generator": (None, 0.5),
        }.items()
    }


@generate.case(
    "3,000 draws with top-k and top-p",
    next_step="Pass top_k and top_p on to filter_logits, and draw from the softmax of its result.",
)
def _(write, make):
    model, ids = TableModel(make).eval(), prompts(make, 1, 3)
    candidates = {
        **{f"the {k} most probable": model.shares(ids, 1.0, k) for k in (1, 2, 3, 4)},
        "all tokens": model.shares(ids),
    }
    many = ids.expand(3000, -1)
    return {
        name: drawn_like(write(model, many, 1, seeded(seed), 1.0, *knobs)[:, -1], candidates)
        for seed, (name, knobs) in enumerate(
            {
                # Nothing, 0.53, 0.78 and 0.90 stand before the first four.
                "the draws follow, top_k 3": (3,),
                "the draws follow, top_p 0.65": (None, 0.65),
                "the draws follow, top_k 4 and top_p 0.65": (4, 0.65),
            }.items()
        )
    }


@generate.case(
    "every row and every step draws anew",
    weight=0.5,
    next_step="torch.multinomial(p, 1, generator=generator) with p of shape (batch, vocab_size) "
    "draws once for each row. Let nothing seed the generator on the way.",
)
def _(write, make):
    # Of 12 tokens, 4 are equally probable and the others are cut.
    model, ids = TableModel(make, equal=4).eval(), prompts(make, 1, 2)
    drawn = write(model, ids.expand(40, -1), 20, seeded(7), 1.0, 4)
    return {
        "shape": str(tuple(drawn.shape)),
        "40 rows with the same beginning differ": bool((drawn != drawn[:1]).any()),
        "no row is like another": len(set(map(tuple, drawn.tolist()))) == 40,
        "how many of the 4 tokens come first, in some row": len(set(drawn[:, 2].tolist())),
        "another seed gives the same": torch.equal(
            drawn, write(model, ids.expand(40, -1), 20, seeded(17), 1.0, 4)
        ),
    }


@generate.case(
    "generators with the same seed, with another one, and one used twice",
    next_step="Pass generator=generator to torch.multinomial.",
)
def _(write, make):
    model, ids = TableModel(make, equal=5).eval(), prompts(make, 4, 3)

    def drawn(generator):
        return write(model, ids.clone(), 12, generator, 3.0)

    used = seeded(8)
    first, again, other, further = (
        drawn(generator) for generator in (used, seeded(8), seeded(9), used)
    )
    return {
        "shape": str(tuple(first.shape)),
        "the same seed gives the same": torch.equal(first, again),
        "another seed gives the same": torch.equal(first, other),
        "the generator's next draws are the same": torch.equal(first, further),
        "without a generator, a second call gives the same": torch.equal(drawn(None), drawn(None)),
    }


@generate.case(
    "a model in training mode, and one in evaluation mode",
    next_step="was_training = model.training, then model.eval(), and at the end "
    "model.train(was_training).",
)
def _(write, make):
    training, evaluating = TableModel(make).train(), TableModel(make).eval()
    outputs = {
        "token ids": write(training, prompts(make, 3, 3), 5, None, 0),
        "token ids, drawn": write(training, prompts(make, 3, 3), 5, seeded(1), 1.0, 1),
        "token ids, a model in evaluation mode": write(evaluating, prompts(make, 2, 3), 5, None, 0),
    }
    for name, model in (("training", training), ("evaluation", evaluating)):
        outputs[f"training of a model that was in {name} mode"] = model.training
        outputs[f"training of its dropout, in {name} mode before"] = model.dropout.training
    return outputs


@generate.case(
    "no gradient is recorded",
    weight=0.5,
    next_step="Write @torch.no_grad() above the function, or with torch.no_grad(): around the "
    "loop. It ends with the function.",
)
def _(write, make):
    model = TableModel(make).eval()
    ids = write(model, prompts(make, 2, 3), 4, seeded(1), 1.0, 1)
    return {
        "token ids": ids,
        "gradients were recorded in the model": model.recorded,
        "gradients can be recorded afterwards": torch.is_grad_enabled(),
        "the model's parameters want gradients as before": model.one.requires_grad,
    }


@generate.case(
    "one new token, and none",
    weight=0.5,
    next_step="The loop runs max_new_tokens times. Where it does not run, the result is what was "
    "given.",
)
def _(write, make):
    model, ids = TableModel(make).eval(), prompts(make, 3, 4)
    return {
        "token ids, one new token": write(model, ids.clone(), 1, None, 0),
        "token ids, no new token": write(model, ids.clone(), 0, None, 0),
    }


@generate.case(
    "token ids that are a view, left as they were",
    weight=0.5,
    next_step="torch.cat makes a new tensor: token_ids = torch.cat([token_ids, drawn], dim=1).",
)
def _(write, make):
    model = TableModel(make, context=6).eval()
    given = make.watch(prompts(make, 4, 3).T.contiguous())
    ids = write(model, given.T, 7, None, 0)
    return {
        "token ids": ids,
        "the token ids that were given are unchanged": make.unchanged(),
    }


@generate.case("another context, vocabulary and batch", hidden=True)
def _(write, make):
    model = TableModel(make, context=7, vocab=19).train()
    greedy = write(model, prompts(make, 6, 4, 19), 12, None, 0)
    return {
        "token ids": greedy,
        "token ids, top_k 1": write(model, prompts(make, 5, 10, 19), 5, seeded(1), 0.7, 1),
        "tokens that the model got at most": model.longest,
        "training afterwards": model.training,
    }


@generate.misconceptions
def _():
    """Generating with one thing wrong at a time."""

    def filtered(logits, temperature, top_k, top_p):
        if temperature <= 0:
            raise ValueError("temperature")
        logits = logits / temperature
        if top_k is not None:
            kth = logits.topk(min(top_k, logits.size(-1))).values[..., -1:]
            logits = logits.masked_fill(logits < kth, -math.inf)
        if top_p is not None:
            ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
            p = ordered.double().softmax(dim=-1)
            cut = p.cumsum(dim=-1) - p >= top_p
            cut = torch.zeros_like(cut).scatter(-1, ids, cut)
            logits = logits.masked_fill(cut, -math.inf)
        return logits

    def draw(p, generator):
        return torch.multinomial(p, 1, generator=generator)

    def crop(token_ids, context):
        return token_ids[:, -context:]

    def writer(
        crop=crop,
        read=lambda logits: logits[:, -1],
        knobs=filtered,
        draw=draw,
        best=lambda logits: logits.argmax(dim=-1, keepdim=True),
        is_greedy=lambda temperature: temperature == 0,
        grow=lambda token_ids, drawn, context: torch.cat([token_ids, drawn], dim=1),
        steps=lambda number, length: number,
        finish=lambda token_ids, length: token_ids,
        begin=lambda model: model.eval(),
        end=lambda model, was_training: model.train(was_training),
        guard=torch.no_grad,
    ):
        def write(
            model,
            token_ids,
            max_new_tokens,
            generator=None,
            temperature=1.0,
            top_k=None,
            top_p=None,
        ):
            was_training, length = model.training, token_ids.size(1)
            begin(model)
            with guard():
                for _ in range(steps(max_new_tokens, length)):
                    logits = read(model(crop(token_ids, model.context)))
                    if is_greedy(temperature):
                        drawn = best(logits)
                    else:
                        p = knobs(logits, temperature, top_k, top_p).softmax(dim=-1)
                        drawn = draw(p, generator)
                    token_ids = grow(token_ids, drawn, model.context)
            end(model, was_training)
            return finish(token_ids, length)

        return write

    def one_for_all(p, generator):
        return torch.multinomial(p[:1], 1, generator=generator).expand(len(p), 1)

    def of_the_mean(p, generator):
        return torch.multinomial(p.mean(dim=0), 1, generator=generator).expand(len(p), 1)

    def reseeded(p, generator):
        if generator is not None:
            generator.manual_seed(generator.initial_seed())
        return torch.multinomial(p, 1, generator=generator)

    def own_generator(p, generator):
        return torch.multinomial(p, 1, generator=torch.Generator().manual_seed(0))

    def last_of_equals(logits):
        return logits.size(-1) - 1 - logits.flip(-1).argmax(dim=-1, keepdim=True)

    def seeding_everything(*arguments):
        # The generator's seed is used, its state is not.
        model, token_ids, number, generator, *others = (*arguments, *[None] * (4 - len(arguments)))
        if generator is not None:
            torch.manual_seed(generator.initial_seed())
        return writer()(model, token_ids, number, None, *others)

    def repeating(model, token_ids, *others):
        given = token_ids.size(1)
        return writer(crop=lambda ids, context: crop(ids[:, :given], context))(
            model, token_ids, *others
        )

    def writing_into(model, token_ids, max_new_tokens, *others):
        longer = writer()(model, token_ids, max_new_tokens, *others)
        token_ids.copy_(longer[:, -token_ids.size(1) :])
        return longer

    def growing(model, token_ids, max_new_tokens, *others):
        longer = writer()(model, token_ids, max_new_tokens, *others)
        token_ids.data = longer
        return token_ids

    class SwitchedOff:
        """Gradients are switched off, and never on again."""

        def __enter__(self):
            torch.set_grad_enabled(False)

        def __exit__(self, *error):
            pass

    def flag_only(model, was_training):
        model.training = was_training

    def flag_off(model):
        model.training = False

    the_last = "model(token_ids[:, -model.context:])."
    yield (
        "The model gets all tokens, also when they are more than its context.",
        writer(crop=lambda ids, context: ids),
        the_last,
    )
    yield (
        "The model gets the first tokens of a long text; it should get the last ones.",
        writer(crop=lambda ids, context: ids[:, :context]),
        the_last,
    )
    for off in (1, -1):
        yield (
            "The model does not get exactly the last model.context tokens, but one more or one "
            "less.",
            writer(crop=lambda ids, context, off=off: ids[:, -max(context + off, 1) :]),
            the_last,
        )
    yield (
        "The model gets the last token only.",
        writer(crop=lambda ids, context: ids[:, -1:]),
        the_last + " It keeps nothing from one call to the next.",
    )
    yield (
        "The model always gets the tokens that were given at first, never the new ones.",
        repeating,
        "Put each new token behind the others before you ask again.",
    )
    for grow in (
        lambda ids, drawn, context: torch.cat([crop(ids, context), drawn], dim=1),
        lambda ids, drawn, context: crop(torch.cat([ids, drawn], dim=1), context),
    ):
        yield (
            "The result is cut to the context: the beginning of the text is lost.",
            writer(grow=grow),
            "Cut what the model gets, not what you return: give the cut tokens another name.",
        )
    for read in (
        lambda logits: logits[:, 0],
        lambda logits: logits[:, max(logits.size(1) - 2, 0)],
        lambda logits: logits.mean(dim=1),
    ):
        yield (
            "The next token is not read from the logits at the last position.",
            writer(read=read),
            "logits[:, -1].",
        )
    yield (
        "The smallest logit is chosen, not the largest.",
        writer(best=lambda logits: logits.argmin(dim=-1, keepdim=True)),
        "Use argmax.",
    )
    for best in (
        last_of_equals,
        lambda logits: logits.sort(dim=-1, stable=True).indices[:, -1:],
    ):
        yield (
            "Of equal logits greedy takes the highest id; it should be the lowest.",
            writer(best=best),
            "argmax takes the first of equal ones.",
        )
    yield (
        "Greedy takes one token for the whole batch.",
        writer(
            best=lambda logits: logits.argmax().expand(len(logits), 1) % logits.size(-1),
        ),
        "argmax(dim=-1, keepdim=True): one token for each row.",
    )
    yield (
        "A temperature of 0 raises an error: it goes through filter_logits, which refuses it.",
        writer(is_greedy=lambda temperature: False),
        "Ask for temperature == 0 first, and take the argmax.",
    )
    yield (
        "A temperature of 0 is taken for 1, so greedy writing draws.",
        writer(
            knobs=lambda logits, t, k, p: filtered(logits, t or 1.0, k, p),
            is_greedy=lambda temperature: False,
        ),
        "Where temperature == 0, take the argmax.",
    )
    yield (
        "The most probable token is always taken, nothing is drawn.",
        writer(is_greedy=lambda temperature: True),
        "Draw with torch.multinomial unless the temperature is 0.",
    )
    yield (
        "Every temperature below 1 is taken for greedy; only 0 is.",
        writer(is_greedy=lambda temperature: temperature < 1),
        "Ask for temperature == 0.",
    )
    yield (
        "The temperature is ignored in drawing.",
        writer(knobs=lambda logits, t, k, p: filtered(logits, 1.0, k, p)),
        "filter_logits(logits, temperature, top_k, top_p).",
    )
    yield (
        "The temperature is applied twice.",
        writer(knobs=lambda logits, t, k, p: filtered(logits / t, t, k, p)),
        "filter_logits divides already.",
    )
    yield (
        "The temperature is multiplied by; it divides.",
        writer(knobs=lambda logits, t, k, p: filtered(logits * t, 1.0, k, p)),
        "filter_logits(logits, temperature, top_k, top_p).",
    )
    for knobs, name in (
        (lambda logits, t, k, p: filtered(logits, t, None, p), "top_k"),
        (lambda logits, t, k, p: filtered(logits, t, k, None), "top_p"),
        (lambda logits, t, k, p: filtered(logits, t, None, None), "top_k and top_p"),
    ):
        yield (
            f"The draws ignore {name}.",
            writer(knobs=knobs),
            "filter_logits(logits, temperature, top_k, top_p).",
        )
    yield (
        "The draws ignore temperature, top_k and top_p: they come from the unfiltered logits.",
        writer(knobs=lambda logits, t, k, p: logits),
        "Draw from the softmax of what filter_logits returns.",
    )
    yield (
        "All tokens that are left are drawn equally often.",
        writer(
            knobs=lambda logits, t, k, p: filtered(logits, t, k, p).clamp(max=-99.0),
        ),
        "Draw from the softmax of the filtered logits.",
    )
    for together in (one_for_all, of_the_mean):
        yield (
            "One token is drawn for the whole batch; each row needs a draw of its own.",
            writer(draw=together),
            "torch.multinomial(p, 1, generator=generator) with p of shape (batch, vocab_size).",
        )
    yield (
        "The generator is not used.",
        writer(draw=lambda p, generator: torch.multinomial(p, 1)),
        "torch.multinomial(p, 1, generator=generator).",
    )
    yield (
        "A generator of its own is used, not the one that was given.",
        writer(draw=own_generator),
        "torch.multinomial(p, 1, generator=generator).",
    )
    yield (
        "The generator begins anew in every step.",
        writer(draw=reseeded),
        "Pass the generator on as it is; each draw continues from the one before.",
    )
    yield (
        "Only the generator's seed is used, so a second call with it gives the same draws again.",
        seeding_everything,
        "torch.multinomial(p, 1, generator=generator).",
    )
    for begin, end in (
        (lambda model: None, lambda model, was_training: None),
        (flag_off, flag_only),
    ):
        yield (
            "The model does not run in evaluation mode, so dropout disturbs what it writes.",
            writer(begin=begin, end=end),
            "model.eval() before the loop, which reaches all parts, and "
            "model.train(was_training) after it.",
        )
    for end in (lambda model, was_training: None, flag_only):
        yield (
            "A model that was in training mode stays in evaluation mode, or its dropout does.",
            writer(end=end),
            "model.train(was_training) at the end; it reaches all parts.",
        )
    yield (
        "The model is always in training mode afterwards, even if it was not before.",
        writer(end=lambda model, was_training: model.train()),
        "Remember model.training at the beginning: model.train(was_training).",
    )
    yield (
        "Gradients are recorded, which costs memory in every step and is of no use here.",
        writer(guard=torch.enable_grad),
        "Write @torch.no_grad() above the function.",
    )
    yield (
        "Gradients are switched off and stay off: nothing can be trained afterwards.",
        writer(guard=SwitchedOff),
        "Use torch.no_grad() as a decorator or in a with statement; both switch back.",
    )
    yield (
        "Only the new tokens are returned; the given ones belong to the result.",
        writer(finish=lambda ids, length: ids[:, length:]),
        "Return what torch.cat has made: the given tokens, then the new ones.",
    )
    yield (
        "The new tokens are put in front.",
        writer(grow=lambda ids, drawn, context: torch.cat([drawn, ids], dim=1)),
        "torch.cat([token_ids, drawn], dim=1).",
    )
    for off in (1, -1):
        yield (
            "It writes one token too many or too few.",
            writer(steps=lambda number, length, off=off: number + off),
            "Let the loop run max_new_tokens times.",
        )
    yield (
        "max_new_tokens is taken for the length of the result.",
        writer(steps=lambda number, length: number - length),
        "Let the loop run max_new_tokens times, however long the beginning is.",
    )
    for careless in (writing_into, growing):
        yield (
            "The token ids that were given are changed.",
            careless,
            "torch.cat makes a new tensor; write nothing into the old one.",
        )


# ---- attention with a cache ----------------------------------------------------------------

cached_attention = Exercise(
    "gpt/CachedAttention",
    points=4,
    signature="CachedAttention(d_model, num_heads), forward(x, cache=None)",
    returns=[
        Returned("output", "(batch, new, d_model)"),
        Returned("cache (keys, values)", type=object),
    ],
    without=["multi_head_attention"],
    parameters=lambda d_model, num_heads: attention_parameters("", d_model),
)


def attended(result):
    """Output, keys and values of what the module returned."""
    output, cache = result
    pair = isinstance(cache, tuple | list | Tensor) and len(cache) == 2
    if not (pair and all(isinstance(part, Tensor) for part in cache)):
        raise Complaint(
            "cache",
            f"The cache that comes back is a {type(cache).__name__}; expected a pair of tensors, "
            "(keys, values).",
            "Return output, (keys, values).",
        )
    return {"output": output, "keys": cache[0], "values": cache[1]}


def past(make, *shape, dtype=torch.float32):
    """Keys and values of the past, (batch, heads, past, d_head) each."""
    return make.normal(*shape, dtype=dtype), make.normal(*shape, dtype=dtype)


def in_portions(attend, x, *portions):
    """The outputs for ``x`` in portions of these lengths, and the last cache."""
    cache, outputs = None, []
    for portion in x.split(portions, dim=1):
        result = attend(portion) if cache is None else attend(portion, cache)
        attended(result)
        output, cache = result
        outputs.append(output)
    return torch.cat(outputs, dim=1), cache


@cached_attention.case(
    "the parameters",
    next_step="w_q, w_k, w_v and w_o are nn.Linear(d_model, d_model), with bias, and there is "
    "nothing else to learn: those of a trained MultiHeadAttention must fit.",
)
def _(cached_attention, make):
    attend = cached_attention(8, 2)
    lacking = missing(attend, 8, 2)
    # What lacks parameters is not called: what it does without them is no news.
    result = None if lacking else attended(attend(make.normal(2, 3, 8)))
    return {
        "parameters that are missing": lacking,
        "numbers in all parameters": numbers(attend),
        "shapes": result and ", ".join(str(tuple(part.shape)) for part in result.values()),
    }


@cached_attention.case(
    "no past, three new positions",
    next_step="Without a cache this is chapter 2's attention with a causal mask. The cache that "
    "comes back holds the projected keys and values, split into heads.",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 6, 2)
    return attended(attend(make.normal(2, 3, 6)))


@cached_attention.case(
    "one new position after a past of three",
    next_step="Put the past keys before the new key, and the same with the values: "
    "torch.cat([old, new], dim=2). The new position reads all of them.",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 6, 2)
    return attended(attend(make.normal(2, 1, 6), past(make, 2, 2, 3, 3)))


@cached_attention.case(
    "three new positions after a past of four",
    weight=2,
    next_step="New position i is number past + i of the whole sequence: it reads all past ones, "
    "and the new ones up to itself. The mask is the last `new` rows of the full causal mask, of "
    "shape (new, past + new).",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 6, 2)
    return {"output": attend(make.normal(2, 3, 6), past(make, 2, 2, 4, 3))[0]}


@cached_attention.case(
    "as many new positions as past ones",
    next_step="The mask has the shape (new, past + new), also where new and past are equal: all "
    "past positions are allowed, the new ones up to itself.",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 6, 2)
    return {"output": attend(make.normal(1, 3, 6), past(make, 1, 2, 3, 3))[0]}


@cached_attention.case(
    "batch, heads, new and d_head all three",
    next_step="Where sizes are equal, axes that are mixed up raise no error. Write the shape "
    "behind every line.",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 9, 3)
    result = attended(attend(make.normal(3, 3, 9), past(make, 3, 3, 3, 3)))
    return {"output": result["output"][:, 2], "values": result["values"][:, :, 3]}


@cached_attention.case(
    "one head, and as many heads as columns",
    next_step="Split into num_heads heads of width d_model // num_heads, and divide the scores by "
    "the root of that width.",
)
def _(cached_attention, make):
    one, four = make.module(cached_attention, 4, 1), make.module(cached_attention, 4, 4)
    x = make.normal(1, 2, 4)
    return {
        "output of one head": one(x.clone(), past(make, 1, 1, 2, 4))[0],
        "output of four heads": four(x.clone(), past(make, 1, 4, 2, 1))[0],
    }


@cached_attention.case(
    "one position, no past",
    next_step="Its only weight is 1: w_o(w_v(x)). Keep axes of length 1: no squeeze().",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 4, 2)
    return attended(attend(make.normal(1, 1, 4)))


@cached_attention.case(
    "one sequence in different portions",
    weight=2,
    next_step="In whatever portions a sequence is given, the outputs are those of one full pass: "
    "compare them position by position.",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 6, 2)
    x = make.normal(1, 14, 6)
    whole, _ = in_portions(attend, x, 14)
    single, _ = in_portions(attend, x, *[1] * 14)
    mixed, _ = in_portions(attend, x, 1, 3, 8, 2)
    return {
        "output": whole,
        "how far off, one by one": (single - whole).abs().amax(dim=(0, 2)),
        "how far off, in portions of 1, 3, 8 and 2": (mixed - whole).abs().amax(dim=(0, 2)),
    }


@cached_attention.case(
    "a later new position changes",
    next_step="A new position reads no new one that stands after it.",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 6, 2)
    x, cache = make.normal(1, 4, 6), past(make, 1, 2, 3, 3)
    other = torch.cat([x[:, :2], make.normal(1, 2, 6)], dim=1)
    before, after = (attend(new, tuple(c.clone() for c in cache))[0] for new in (x, other))
    change = (after - before).abs().amax(dim=(0, 2))
    return {
        "output at the last position": before[:, 3],
        "change of the output before it": change[:2],
        "the output from it on changes": bool((change[2:] > 1e-3).all()),
    }


@cached_attention.case(
    "every past position counts",
    next_step="Each new position reads all past ones, the first and the last of them included.",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 4, 1)
    x, (keys, values) = make.normal(1, 2, 4), past(make, 1, 1, 3, 4)
    before = attend(x.clone(), (keys.clone(), values.clone()))[0]
    moved = []
    for i in range(3):
        other = values.clone()
        other[:, :, i] += 5.0
        change = attend(x.clone(), (keys.clone(), other))[0] - before
        moved.append(change.abs().amax(dim=(0, 2)))
    return {"change of each new position, for each past one": torch.stack(moved)}


@cached_attention.case(
    "one cache, continued in two ways",
    weight=1.5,
    next_step="torch.cat makes a new tensor and leaves the old one as it is. Keep nothing in the "
    "module: all that it knows of the past is the cache that it is given.",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 6, 2)
    cache = past(make, 1, 2, 2, 3)
    attend(make.normal(1, 2, 6), cache)
    second = attend(make.normal(1, 1, 6), cache)[0]
    x, (_, kept) = make.normal(1, 1, 6), attend(make.normal(1, 2, 6))
    once, again = (attend(x.clone(), kept)[0] for _ in range(2))
    return {
        "output of the second": second,
        "how far off the same step is, taken again from a cache that it returned": once - again,
        "output of a new sequence": attend(make.normal(2, 2, 6))[0],
        "the given cache is unchanged": make.unchanged(),
    }


@cached_attention.case(
    "gradients of input, past and parameters",
    next_step="Every layer takes part, and so do the keys and values that are given.",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 4, 2)
    x, own = make.normal(1, 2, 4, grad=True), own_parameters(attend)
    keys, values = (make.normal(1, 2, 2, 2, grad=True) for _ in range(2))
    output, _ = attend(x, (keys, values))
    inputs = {"x": x, "keys": keys, "values": values, "w_q.weight": own["w_q.weight"]}
    return make.gradients("output", output, **inputs)


@cached_attention.case(
    "a gradient through the cache",
    weight=0.5,
    next_step="Return keys and values as they are, without detach(): given in portions, a sequence "
    "has the gradients of one full pass.",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 4, 2)
    x = make.normal(1, 3, 4, grad=True)
    output, _ = in_portions(attend, x, 2, 1)
    return make.gradients("output in portions of 2 and 1", output, x=x)


@cached_attention.case(
    "float64 inputs that are views, left as they were",
    next_step="Stay in the dtype of x. Go by the axes, not by the order in memory: reshape instead "
    "of view.",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 8, 2, dtype=torch.float64)  # the root of 4 is exact
    x = make.normal(8, 2, 1, dtype=torch.float64)
    keys, values = past(make, 1, 2, 2, 4, dtype=torch.float64)
    keys, values = keys.mT.contiguous().mT, values.mT.contiguous().mT
    output, _ = attend(x.permute(2, 1, 0), (make.watch(keys), make.watch(values)))
    return {"output": output, "the inputs are unchanged": make.unchanged()}


@cached_attention.case("bfloat16", weight=0.5, next_step="Return the dtype of x, in the cache too.")
def _(cached_attention, make):
    attend = make.module(cached_attention, 8, 2, dtype=torch.bfloat16)
    x, cache = make.normal(1, 2, 8, dtype=torch.bfloat16), past(make, 1, 2, 2, 4)
    short = attended(attend(x, tuple(part.bfloat16() for part in cache)))
    attend.component.float()
    rounded = tuple(part.bfloat16().float() for part in cache)
    # Right ways to compute differ by a percent or so in bfloat16: its values are not compared.
    long, _ = attend(x.float(), rounded)
    near = (short["output"].float() - long).abs().max() < 0.3
    return {
        "dtypes": ", ".join(str(part.dtype) for part in short.values()),
        "values lie within 0.3 of those in float32": bool(near),
        "output in float32": long[:, 1],
    }


@cached_attention.case(
    "operations for one more position",
    weight=0.5,
    next_step="Project the new position alone, and compute one row of scores: what is kept needs "
    "no second projection, and the old positions no queries.",
)
def _(cached_attention, make):
    attend = make.module(cached_attention, 4, 2)
    x, cache = make.normal(1, 1, 4), past(make, 1, 2, 255, 2)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output, _ = attend(x, cache)
    formula = 8 * 4**2 + 4 * 256 * 4
    return {
        "output": output,
        "at most twice those of the formula": counter.get_total_flops() <= 2 * formula,
    }


@cached_attention.case("other sizes", hidden=True)
def _(cached_attention, make):
    attend = make.module(cached_attention, 15, 3)
    return attended(attend(make.normal(2, 4, 15), past(make, 2, 3, 5, 5)))


@cached_attention.misconceptions
def _():
    """Attention with a cache, with one thing wrong at a time."""

    def split(x, heads):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def merge(x):
        return x.transpose(1, 2).flatten(2)

    def causal(past, new):
        at = torch.arange(past + new)
        return at <= at[past:].unsqueeze(1)

    def softmax(scores, mask):
        return torch.softmax(scores.masked_fill(~mask, -math.inf), dim=-1).nan_to_num()

    def attention(
        heads=lambda num_heads: num_heads,
        project=lambda self, x: (self.w_q(x), self.w_k(x), self.w_v(x)),
        split=split,
        merge=merge,
        given=lambda self, cache: cache,
        join=lambda old, new: torch.cat([old, new], dim=2),
        keep=lambda self, k, v, new, cache: (k, v),
        mask=causal,
        scale=lambda d_model, d_head: math.sqrt(d_head),
        weigh=softmax,
        finish=lambda self, read: self.w_o(read),
        change=lambda self, d_model: None,
    ):
        class Attention(nn.Module):
            def __init__(self, d_model, num_heads):
                super().__init__()
                self.w_q, self.w_k, self.w_v, self.w_o = (
                    nn.Linear(d_model, d_model) for _ in range(4)
                )
                self.heads = heads(num_heads)
                change(self, d_model)

            def forward(self, x, cache=None):
                q, k, v = (split(part, self.heads) for part in project(self, x))
                new, cache = (k, v), given(self, cache)
                past = 0
                if cache is not None:
                    k, v = join(cache[0], k), join(cache[1], v)
                    past = k.size(2) - q.size(2)
                scores = q @ k.mT / scale(x.size(-1), q.size(-1))
                read = weigh(scores, mask(past, q.size(2))) @ v
                return finish(self, merge(read)), keep(self, k, v, new, cache)

        return Attention

    # The cache.

    both = "keys = torch.cat([cache[0], k], dim=2), and the same with the values."
    yield (
        "The cache that is given is not used: new positions read only each other.",
        attention(given=lambda self, cache: None),
        both,
    )
    yield (
        "The cache that comes back holds the new keys and values only; it must hold the past too.",
        attention(keep=lambda self, k, v, new, cache: new),
        "Return what you concatenated: output, (keys, values).",
    )
    yield (
        "The cache comes back as it was given, without the new keys and values.",
        attention(keep=lambda self, k, v, new, cache: new if cache is None else tuple(cache)),
        "Return what you concatenated: output, (keys, values).",
    )

    def past_barred(past, new):
        mask = causal(past, new)
        return mask & (torch.arange(past + new) >= past)

    yield (
        "The past is kept but never read: the mask bars it.",
        attention(mask=past_barred),
        "All past positions are allowed: the mask is the last `new` rows of the causal mask.",
    )
    yield (
        "The new keys and values are put before the old ones.",
        attention(join=lambda old, new: torch.cat([new, old], dim=2)),
        both + " The old ones come first.",
    )

    def roll(old, new):
        return torch.cat([old, new], dim=2)[:, :, -old.size(2) :]

    yield (
        "The cache does not grow: the oldest keys and values make room for the new ones.",
        attention(join=roll, mask=lambda past, new: past_free(past, new)),
        both,
    )

    def past_free(past, new):
        """A mask for keys of which only the last ``new + past`` are left."""
        count = past + new
        return torch.arange(count) <= torch.arange(count - new, count).unsqueeze(1)

    yield (
        "Keys and values change places in the cache that comes back.",
        attention(keep=lambda self, k, v, new, cache: (v, k)),
        "Return output, (keys, values), in this order.",
    )
    yield (
        "Keys and values change places where the given cache is read.",
        attention(given=lambda self, cache: cache and (cache[1], cache[0])),
        "keys, values = cache, in this order.",
    )

    def grow(self, k, v, new, cache):
        if cache is not None:
            for old, grown in zip(cache, (k, v), strict=True):
                old.data = grown.data
        return k, v

    def write(self, k, v, new, cache):
        if cache is not None:
            for old, fresh in zip(cache, new, strict=True):
                count = min(old.size(2), fresh.size(2))
                old.data[:, :, -count:] = fresh.data[:, :, -count:]
        return k, v

    for keep in (grow, write):
        yield (
            "The cache that was given is changed in place; somebody may continue it in another "
            "way.",
            attention(keep=keep),
            "torch.cat makes a new tensor: leave the old ones as they are.",
        )

    def remember(self, k, v, new, cache):
        self.known = k, v
        return k, v

    yield (
        "The past is kept in the module, and the cache that is given is not read.",
        attention(given=lambda self, cache: cache and getattr(self, "known", cache), keep=remember),
        "All that is known of the past is the argument cache. Keep nothing in self.",
    )
    yield (
        "The cache that comes back is detached: no gradient flows through it.",
        attention(keep=lambda self, k, v, new, cache: (k.detach(), v.detach())),
        "Return keys and values as they are.",
    )

    def joined(self, x, cache):
        """The keys and values of all positions so far, not split into heads."""
        k, v = self.w_k(x), self.w_v(x)
        if cache is not None:
            k, v = torch.cat([cache[0], k], dim=1), torch.cat([cache[1], v], dim=1)
        return k, v

    class Unsplit(attention()):
        def forward(self, x, cache=None):
            k, v = joined(self, x, cache)
            q, keys, values = (split(part, self.heads) for part in (self.w_q(x), k, v))
            scores = q @ keys.mT / math.sqrt(q.size(-1))
            read = softmax(scores, causal(k.size(1) - x.size(1), x.size(1))) @ values
            return self.w_o(merge(read)), (k, v)

    yield (
        "Keys and values are kept as (batch, past, d_model); the exercise asks for them split "
        "into heads.",
        Unsplit,
        "Split into heads first, then concatenate: (batch, num_heads, past, d_head).",
    )

    class Inputs(attention()):
        """Keeps the inputs, cut into heads, and projects all of them in every call."""

        def forward(self, x, cache=None):
            whole = split(x, self.heads)
            if cache is not None:
                whole = torch.cat([cache[0], whole], dim=2)
            everything = merge(whole)
            q, k, v = (
                split(part, self.heads)
                for part in (self.w_q(x), self.w_k(everything), self.w_v(everything))
            )
            scores = q @ k.mT / math.sqrt(q.size(-1))
            read = softmax(scores, causal(k.size(2) - x.size(1), x.size(1))) @ v
            return self.w_o(merge(read)), (whole, whole)

    yield (
        "The inputs are kept, and projected anew in every call; keys and values must be kept.",
        Inputs,
        "Project x alone, and keep what w_k and w_v made of it.",
    )

    class Queries(attention()):
        def forward(self, x, cache=None):
            output, (_, values) = super().forward(x, cache)
            q = split(self.w_q(x), self.heads)
            return output, (q if cache is None else torch.cat([cache[0], q], dim=2), values)

    yield (
        "Queries are kept in place of keys; a query is used once, at its own position.",
        Queries,
        "Return output, (keys, values).",
    )

    # The mask.

    def ones(past, new):
        return torch.ones(new, past + new, dtype=torch.bool)

    rows = (
        "The mask is the last `new` rows of the full causal mask: with at = arange(past + new), "
        "at <= at[past:].unsqueeze(1)."
    )
    for sentence, mask in (
        ("There is no causal mask: new positions read those that follow them.", ones),
        (
            "The causal mask is left out as soon as there is a past: several new positions read "
            "each other's future.",
            lambda past, new: ones(past, new) if past else causal(past, new),
        ),
        (
            "The mask counts the new positions from 0, as if there were no past: they may read too "
            "little of it.",
            lambda past, new: ones(past, new).tril(),
        ),
        (
            "The mask bars the new position itself.",
            lambda past, new: ones(past, new).tril(past - 1),
        ),
        (
            "Each new position reads one position too far.",
            lambda past, new: ones(past, new).tril(past + 1),
        ),
        (
            "The mask is inverted: True means may attend.",
            lambda past, new: ~causal(past, new),
        ),
        (
            "A new position reads the past and itself, but not the new ones between.",
            lambda past, new: (
                (torch.arange(past + new) < past)
                | (torch.arange(past + new) == torch.arange(past, past + new).unsqueeze(1))
            ),
        ),
    ):
        yield sentence, attention(mask=mask), rows
    yield (
        "The barred weights are set to 0 after the softmax, and the others no longer sum to 1.",
        attention(weigh=lambda scores, mask: torch.softmax(scores, dim=-1) * mask),
        "Bar before the softmax: scaled_dot_product_attention(q, k, v, mask) does it.",
    )

    # The attention.

    for sentence, scale in (
        (
            "The scores are divided by the square root of d_model; a head is only d_head wide.",
            lambda d_model, d_head: math.sqrt(d_model),
        ),
        ("The scores are not divided by the square root of d_head.", lambda *_: 1.0),
    ):
        yield (
            sentence,
            attention(scale=scale),
            "Divide by math.sqrt(q.size(-1)), where q is split into heads.",
        )
    yield (
        "There is one head only: num_heads is not used.",
        attention(heads=lambda num_heads: 1),
        "Split queries, keys and values with split_heads(..., num_heads).",
    )
    yield (
        "w_o is never used: the heads come back side by side, as they are.",
        attention(finish=lambda self, read: read),
        "Return self.w_o(merge_heads(read)) as the output.",
    )
    yield (
        "The heads are split by a reshape straight to (batch, heads, new, d_head), which mixes "
        "positions.",
        attention(split=lambda x, heads: x.reshape(x.size(0), heads, x.size(1), -1)),
        "Use split_heads of chapter 2.",
    )
    yield (
        "The heads are merged without swapping the axes back first.",
        attention(merge=lambda x: x.reshape(x.size(0), x.size(2), -1)),
        "Use merge_heads of chapter 2.",
    )
    yield (
        "The keys are used as values: w_v is never used.",
        attention(project=lambda self, x: (self.w_q(x), self.w_k(x), self.w_k(x))),
        "v = split_heads(self.w_v(x), self.num_heads).",
    )
    yield (
        "Only the last new position gets an output.",
        attention(finish=lambda self, read: self.w_o(read[:, -1:])),
        "Return an output for every position of x.",
    )

    def without_bias(self, d_model):
        for layer in (self.w_q, self.w_k, self.w_v, self.w_o):
            layer.bias = None

    yield (
        "The four layers have no bias; those of chapter 2 have one.",
        attention(change=without_bias),
        "Leave bias=True, the default of nn.Linear.",
    )
