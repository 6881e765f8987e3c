"""Data: number names, which need no download, and published sets, fetched once and checked.

A published file is looked for in three places, in this order:

1. the folder that the environment variable ``WORKBOOK_DATA`` names: a mirror, in which the
   files have the names of ``FILES``;
2. your cache: the usual folder of your system, or the one that ``WORKBOOK_CACHE`` names;
3. its public address. What comes from there is kept in the cache.

Wherever it comes from, its bytes must be the published ones.
"""

import difflib
import errno
import functools
import gzip
import hashlib
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any

import torch

from workbook import budget, journal

RETRIES = 2
TIMEOUT = 30  # seconds without a byte
SPLITS = ("train", "val", "test_2016_flickr", "test_2017_flickr")


class DataError(Exception):
    """A published file could not be had, or is not what was published; the text says what to do."""


@dataclass(frozen=True)
class File:
    """A published file: its address, its sha256 in hex, its size in bytes, what it is."""

    address: str
    sha256: str
    size: int
    about: str


_MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
_ABOUT_MULTI30K = (
    "Multi30k, task 1, raw: one German and one English sentence per line, on a picture each "
    "(Elliott et al., 2016; 2017). The pictures' captions come from Flickr30K, whose terms apply."
)
_MULTI30K_FILES = """
726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6 637044 train.de.gz
d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f 568929 train.en.gz
f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a 24681 val.de.gz
14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28 21650 val.en.gz
9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8 22890 test_2016_flickr.de.gz
611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9 21077 test_2016_flickr.en.gz
a2c89666db00c495cd8513b9d708d5a3acc205d7de312ef2bf5fb7ebc1540aee 21471 test_2017_flickr.de.gz
76a444ee25172e72695cddb13ae4a3bda59430617be88e0bb46b60504f054074 19138 test_2017_flickr.en.gz
"""
# Name in a mirror and in the cache -> the file.
FILES = {
    f"multi30k/{name}": File(f"{_MULTI30K}/{name}", sha256, int(size), _ABOUT_MULTI30K)
    for sha256, size, name in map(str.split, _MULTI30K_FILES.strip().splitlines())
} | {
    "tinyshakespeare/input.txt": File(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        1_115_394,
        "Tiny Shakespeare: scenes from plays by William Shakespeare, one after the other, as "
        "gathered for char-rnn (Karpathy, 2015). The plays are in the public domain.",
    ),
    "cifar10/cifar-10-python.tar.gz": File(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        170_498_071,
        "CIFAR-10: 60,000 color images of 32 x 32 pixels in ten classes (Krizhevsky, 2009, "
        "Learning Multiple Layers of Features from Tiny Images, technical report, Toronto).",
    ),
}


def multi30k(split: str) -> list[tuple[str, str]]:
    """Return the sentence pairs (German, English) of one of ``SPLITS``.

    They are 29,000 in "train", 1,014 in "val" and 1,000 in each test set; capitals and
    punctuation are as they were written. Source and terms: ``FILES["multi30k/train.de.gz"].about``.

    Raises:
        ValueError: no such split.
        DataError: a file cannot be had; see ``fetch``.
    """
    if split not in SPLITS:
        raise ValueError(f"Multi30k has no split {split!r}. Choose one of {', '.join(SPLITS)}.")
    german, english = (
        # Newline only: a sentence may hold other characters at which Python would split.
        gzip.decompress(fetch(f"multi30k/{split}.{language}.gz").read_bytes())
        .decode("utf-8")
        .removesuffix("\n")
        .split("\n")
        for language in ("de", "en")
    )
    if len(german) != len(english):
        raise DataError(
            f"Multi30k {split!r} has {len(german)} German and {len(english)} English lines. "
            "They are no pairs; get both files from one place."
        )
    return [(de.strip(), en.strip()) for de, en in zip(german, english, strict=True)]


def tiny_shakespeare() -> str:
    """Return 1,115,394 characters of Shakespeare's plays. Raises ``DataError`` as ``fetch`` does.

    The customary split takes the first nine tenths for training, the rest for validation.
    """
    return fetch("tinyshakespeare/input.txt").read_bytes().decode("utf-8")


def python_reference() -> dict[str, str]:
    """Return the Python language reference that every Python carries: title -> text.

    Python's ``help()`` reads it. Another version of Python has other texts: 465,048 characters
    in 79 topics in 3.11.
    """
    from pydoc_data.topics import topics

    texts = {title: topics[title].strip() for title in sorted(topics)}
    together = "\0".join(text for pair in texts.items() for text in pair).encode()
    version = "{}.{}".format(*sys.version_info)
    journal.note(
        "data", name=f"Python {version} reference", sha256=hashlib.sha256(together).hexdigest()
    )
    return texts


def sentence_classification(path: str | os.PathLike[str]) -> list[tuple[int, str]]:
    """Return the examples of a sentence-classification set as pairs (label, sentence).

    The file is one of tab-separated values as SST-2 has it (Socher et al., 2013, as GLUE gives
    it out: ``train.tsv`` and ``dev.tsv``): a first line ``sentence<TAB>label``, then one example
    per line, labels being whole numbers from 0. Quotation marks are text. Spaces around a
    sentence are taken off.

    Raises:
        ValueError: the file is not of that form; the text names the line.
        FileNotFoundError: there is no such file.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: this is not UTF-8. Save the file as UTF-8."
        ) from None
    # Newline only: a sentence may hold other characters at which Python would split.
    first, *lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if first.split("\t") != ["sentence", "label"]:
        raise ValueError(
            f"{path}, line 1: the first line must be 'sentence<TAB>label', and is {first[:60]!r}. "
            "(GLUE's own test.tsv has no labels; take dev.tsv.)"
        )
    examples = []
    for number, line in enumerate(lines, start=2):
        sentence, _, label = line.rpartition("\t")
        if "\t" in sentence or not sentence.strip() or not re.fullmatch("[0-9]+", label.strip()):
            raise ValueError(
                f"{path}, line {number}: a line is a sentence, one tab and a label (a whole number "
                f"from 0), and this is {line[:60]!r}."
            )
        examples.append((int(label), sentence.strip()))
    if not examples:
        raise ValueError(f"{path} has no examples after line 1.")
    return examples


def number_names(numbers: Iterable[Any] | torch.Tensor, language: str) -> list[str]:
    """Return the names of numbers, in lower case: 21 is "einundzwanzig" in "de".

    numbers: a list, range, tensor or array of numbers. language: a code of num2words, as "de",
    "en", "fr", "pt_BR". Hyphens, commas and spaces are as num2words writes them.

    Raises:
        ValueError: num2words does not have the language.
        TypeError: an entry is no number (a text, or True).
    """
    from num2words import CONVERTER_CLASSES

    if language not in CONVERTER_CLASSES:
        near = difflib.get_close_matches(str(language), CONVERTER_CLASSES)
        raise ValueError(
            f"There are no number names in {language!r}. "
            + (f"Did you mean {_list(near)}? " if near else "")
            + f"The languages are {_list(CONVERTER_CLASSES)}."
        )
    if hasattr(numbers, "tolist"):  # a tensor or an array: plain numbers are looked up faster
        numbers = numbers.tolist()
    return [_number_name(number, language) for number in numbers]


# 1, 1.0 and True are equal keys of a dictionary, and have not the same name.
@functools.lru_cache(maxsize=2**16, typed=True)
def _number_name(number: Number, language: str) -> str:
    from num2words import num2words

    if isinstance(number, bool) or not isinstance(number, Number):
        raise TypeError(f"{number!r} is a {type(number).__name__}, and only numbers have names.")
    return num2words(number, lang=language).lower()


def hold_out(limit: int, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Split the numbers 0 .. limit - 1 into ``(train, held_out)``, two tensors of int64.

    No number is in both; ``held_out`` has ``count`` of them. Both are in random order, so that
    any slice is a fair sample. The same seed gives the same split. Raises ``ValueError`` where
    ``count`` does not leave both parts something.
    """
    if not 0 < count < limit:
        raise ValueError(
            f"{count} of {limit} numbers cannot be held out: "
            f"hold out at least 1 and at most {limit - 1}."
        )
    # A generator of its own: a split does not move the random numbers that a model starts from.
    order = torch.randperm(limit, generator=torch.Generator().manual_seed(seed))
    return order[count:], order[:count]


def fetch(name: str) -> Path:
    """Return the path of the published file ``name``, a key of ``FILES``.

    Downloads it where neither ``WORKBOOK_DATA`` nor the cache has it; a download that broke off
    is continued where it stopped.

    Raises:
        ValueError: no such name.
        DataError: the file cannot be had (no network, no room, no such mirror) or its bytes are
            not the published ones; the text says what to do.
    """
    if name not in FILES:
        near = difflib.get_close_matches(name, FILES, n=3) or FILES
        raise ValueError(f"No file is called {name!r}. Choose from {_list(near)}.")
    path = _mirrored(name) or _cached(name)
    journal.note("data", name=name, sha256=FILES[name].sha256)
    return path


def _mirrored(name: str) -> Path | None:
    """The file in the folder of ``WORKBOOK_DATA``, or None where it is not there."""
    mirror = os.environ.get("WORKBOOK_DATA")
    if not mirror:
        return None
    folder = Path(mirror).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"WORKBOOK_DATA is {mirror!r}, which is no folder. Correct it, or unset it to "
            "download what is needed."
        )
    path = folder / name
    if not path.is_file():
        return None
    if sha256_of(path) != FILES[name].sha256:
        raise DataError(
            f"{path} is not the published file: its sha256 differs. It was left as it is. "
            f"Replace it by {FILES[name].address}, or remove it and it will be downloaded."
        )
    return path


def _cached(name: str) -> Path:
    """The file in the cache, downloaded where it is not there."""
    import pooch
    import requests
    from filelock import FileLock

    # Its remarks would go to stderr, which looks like an error in Jupyter and in graders.
    pooch.get_logger().setLevel("WARNING")
    file = FILES[name]
    cache = pooch.create(
        path=pooch.os_cache("transformer-workbook"),
        env="WORKBOOK_CACHE",
        base_url="",
        registry={name: f"sha256:{file.sha256}"},
        urls={name: file.address},
        retry_if_failed=RETRIES,
    )
    path = cache.abspath / name
    if path.is_file() and sha256_of(path) == file.sha256:
        return path
    part = path.with_name(f"{path.name}.part")
    mirror = os.environ.get("WORKBOOK_DATA")
    elsewhere = f"put the file at {Path(mirror or 'FOLDER') / name}" + (
        "." if mirror else " and set WORKBOOK_DATA to that FOLDER."
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may want the same file: it waits, and then finds it there.
        with FileLock(f"{path}.lock"):
            return Path(cache.fetch(name, downloader=functools.partial(_download, part)))
    except requests.RequestException as error:
        answer = error.response
        reason = (
            f"it answered {answer.status_code}" if answer is not None else "the connection failed"
        )
        raise DataError(
            f"{name} could not be downloaded from {file.address} ({reason}; "
            f"{type(error).__name__}). Run this again when you are online: what has come so far "
            f"is kept. To do without a network, {elsewhere}"
        ) from error
    except ValueError as error:  # pooch's word for a wrong sum; it has removed the file
        raise DataError(
            f"{name} came damaged from {file.address}: its sha256 is not the published one. It "
            "was deleted. Run this again. If it happens again, the file has changed there, or "
            f"something in between changes it; get it another way, {elsewhere}"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            part.unlink(missing_ok=True)  # gives back what it took: the notebook needs room too
            raise DataError(
                f"There is no room for {name} in {cache.abspath}: it needs "
                f"{file.size / 1e6:.1f} MB. Make room, or set WORKBOOK_CACHE to a folder on "
                "another disk."
            ) from error
        raise DataError(
            f"{name} cannot be kept in {cache.abspath} ({error.strerror or error}). "
            "Set WORKBOOK_CACHE to a folder that you may write to."
        ) from error


def _download(part: Path, address: str, target: str, _: Any) -> None:
    """Download ``address`` to ``target`` by way of ``part``, which outlives a broken connection.

    A downloader of pooch's. The sum is checked afterwards, and a wrong file removed; the next
    try then begins anew.
    """
    import requests

    have = part.stat().st_size if part.exists() else 0
    # Compressed on the way, the bytes would not be those of the file, nor their count.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        # 416: there is nothing after what we have.
        if answer.status_code != requests.codes.requested_range_not_satisfiable:
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                have = 0  # the server sends the whole
            _write(answer, part, have)
    part.replace(target)


def _write(answer: Any, part: Path, have: int) -> None:
    """Append what the server sends to the first ``have`` bytes of ``part``, with a bar."""
    from tqdm import tqdm

    length = answer.headers.get("Content-Length")
    bar = tqdm(
        desc=part.stem,
        initial=have,
        total=have + int(length) if length else None,
        unit="B",
        unit_scale=True,
        file=sys.stdout,
        ncols=76,
        disable=budget.static() or budget.grading(),
    )
    with bar, part.open("ab" if have else "wb") as file:
        for chunk in answer.iter_content(chunk_size=2**16):
            file.write(chunk)
            bar.update(len(chunk))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
