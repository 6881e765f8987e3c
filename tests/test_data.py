"""Data: what is published is fetched once, checked and continued; number names; held-out numbers.

No test reaches the network: files come from a server of the test's own.
"""

import gzip
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from num2words import num2words

from workbook import data

ROOT = Path(__file__).resolve().parents[1]
MIRROR = ROOT.parent / "shared" / "data"
needs_mirror = pytest.mark.skipif(
    not MIRROR.is_dir(), reason="the mirror of the real data is not beside the repository"
)

NAME = "letters/all.bin"
CONTENT = bytes(range(256)) * 4000  # 1 MB


class Server:
    """Serves ``content`` as a web server does that knows ranges; can be told to misbehave."""

    def __init__(self):
        self.content = CONTENT
        self.ranges = []  # of each request: the Range header, or None
        self.breaks_after = []  # of the next requests: bytes after which the connection is cut
        self.knows_ranges = True
        self.status = 200
        self.pause = 0.0  # seconds before the content
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/{NAME}"
        threading.Thread(target=self.http.serve_forever, args=[0.05], daemon=True).start()

    def answer(self, request):
        # A server that may, compresses; a range is then one of other bytes.
        assert request.headers["Accept-Encoding"] == "identity"
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if self.status != 200:
            request.send_error(self.status)
            return
        if not self.knows_ranges:
            first = 0
        if first >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.content[first:]
        request.send_response(206 if first else 200)
        request.send_header("Content-Length", str(len(body)))
        if first:
            last = len(self.content) - 1
            request.send_header("Content-Range", f"bytes {first}-{last}/{last + 1}")
        request.end_headers()
        time.sleep(self.pause)
        request.wfile.write(body[: self.breaks_after.pop(0)] if self.breaks_after else body)

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no mirror, no proxy, and no waiting between tries."""
    monkeypatch.setenv("WORKBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    for variable in ("WORKBOOK_DATA", "WORKBOOK_STATIC", "WORKBOOK_GRADING"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))
    return tmp_path / "cache"


@pytest.fixture
def server(cache, monkeypatch):
    """A server, and the one file that it publishes as the whole registry."""
    server = Server()
    publish(monkeypatch, server.address)
    yield server
    server.close()


def publish(monkeypatch, address):
    file = data.File(address, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), "letters")
    monkeypatch.setattr(data, "FILES", {NAME: file})


def contents(folder):
    """The files in a folder that hold something (a lock is empty)."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# The registry


@needs_mirror
@pytest.mark.parametrize("name", data.FILES)
def test_the_mirror_holds_what_the_registry_lists(name):
    if not (MIRROR / name).is_file():
        pytest.skip(f"the mirror has no {name}")
    content = (MIRROR / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == data.FILES[name].sha256
    assert len(content) == data.FILES[name].size


def test_every_file_has_an_address_that_ends_like_its_name():
    for name, file in data.FILES.items():
        assert file.address.startswith("https://")
        assert file.address.rsplit("/", 1)[-1] == name.rsplit("/", 1)[-1]
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.about


def test_an_unknown_name_is_refused_with_near_ones():
    with pytest.raises(ValueError, match=r"'multi30k/train\.gz'.*multi30k/train\.de\.gz"):
        data.fetch("multi30k/train.gz")
    with pytest.raises(ValueError, match=r"'iliad'.*tinyshakespeare/input\.txt"):
        data.fetch("iliad")


# Downloads


def test_a_file_is_downloaded_once_and_kept(server, cache, capfd):
    path = data.fetch(NAME)
    assert path == cache / NAME
    assert path.read_bytes() == CONTENT
    assert data.fetch(NAME) == path
    assert server.ranges == [None]
    assert contents(cache) == {NAME: CONTENT}
    out, err = capfd.readouterr()
    assert "all.bin: 100%" in out
    assert err == ""


@pytest.mark.parametrize("variable", ["WORKBOOK_STATIC", "WORKBOOK_GRADING"])
def test_where_nobody_watches_a_download_is_silent(server, monkeypatch, capfd, variable):
    monkeypatch.setenv(variable, "1")
    data.fetch(NAME)
    assert capfd.readouterr() == ("", "")


def test_a_download_that_breaks_off_is_continued(server, capfd):
    server.breaks_after = [400_000, 300_000]
    assert data.fetch(NAME).read_bytes() == CONTENT
    # The client may not get all that was sent before the cut.
    starts = [0] + [int(r[len("bytes=") : -1]) for r in server.ranges[1:]]
    assert len(starts) == 3
    assert 0 < starts[1] <= 400_000
    assert starts[1] < starts[2] <= starts[1] + 300_000
    assert capfd.readouterr().err == ""


def test_a_later_run_continues_what_an_earlier_one_began(server, cache):
    server.breaks_after = [100_000] * 3
    with pytest.raises(data.DataError, match="connection failed"):
        data.fetch(NAME)
    (kept,) = contents(cache).values()
    assert CONTENT.startswith(kept)
    assert 0 < len(kept) <= 300_000
    assert data.fetch(NAME).read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={len(kept)}-"
    assert contents(cache) == {NAME: CONTENT}


def left_behind(cache, content):
    part = cache / f"{NAME}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)


def test_a_server_without_ranges_sends_the_whole_again(server, cache):
    server.knows_ranges = False
    left_behind(cache, CONTENT[:5000])
    assert data.fetch(NAME).read_bytes() == CONTENT
    assert server.ranges == ["bytes=5000-"]


def test_a_part_that_is_already_whole_is_taken(server, cache):
    left_behind(cache, CONTENT)
    assert data.fetch(NAME).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("wrong", [b"other", b"x" * (len(CONTENT) + 7)], ids=["short", "long"])
def test_a_part_of_another_file_is_thrown_away(server, cache, wrong):
    left_behind(cache, wrong)
    assert data.fetch(NAME).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(wrong)}-", None]
    assert contents(cache) == {NAME: CONTENT}


def test_a_damaged_file_in_the_cache_is_replaced(server, cache):
    data.fetch(NAME).write_bytes(b"damaged")
    assert data.fetch(NAME).read_bytes() == CONTENT
    assert len(server.ranges) == 2


def test_a_file_that_is_not_the_published_one_is_deleted_and_said(server, cache, capfd):
    server.content = b"<html>Sign in to this network</html>"
    with pytest.raises(data.DataError, match=r"letters/all\.bin.*sha256.*deleted.*again") as raised:
        data.fetch(NAME)
    assert server.address in str(raised.value)
    assert contents(cache) == {}
    assert server.ranges == [None] * (1 + data.RETRIES)
    assert capfd.readouterr().err == ""


def test_offline_it_is_said_what_to_put_where(cache, monkeypatch):
    server = Server()
    server.close()
    publish(monkeypatch, server.address)
    with pytest.raises(data.DataError) as raised:
        data.fetch(NAME)
    for part in (NAME, server.address, "online", f"FOLDER/{NAME}", "set WORKBOOK_DATA to"):
        assert part in str(raised.value)
    monkeypatch.setenv("WORKBOOK_DATA", str(cache.parent))
    with pytest.raises(data.DataError, match="put the file at") as raised:
        data.fetch(NAME)
    assert str(cache.parent / NAME) in str(raised.value)


def test_the_answer_of_a_server_that_refuses_is_told(server):
    server.status = 404
    with pytest.raises(data.DataError, match="it answered 404"):
        data.fetch(NAME)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_said_with_what_is_needed_and_left_as_it_was(server, cache):
    (cache / NAME).parent.mkdir(parents=True)
    part = cache / f"{NAME}.part"
    part.symlink_to("/dev/full")  # a place where every write finds the disk full
    with pytest.raises(data.DataError, match=r"no room.*1\.0 MB.*WORKBOOK_CACHE") as raised:
        data.fetch(NAME)
    assert str(cache) in str(raised.value)
    assert not part.is_symlink()
    assert data.fetch(NAME).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_to_is_named(server, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(data.DataError, match=r"cannot be kept in .*cache.*Set WORKBOOK_CACHE"):
        data.fetch(NAME)


def test_the_cache_is_the_users_own_where_none_is_set(server, tmp_path, monkeypatch):
    monkeypatch.delenv("WORKBOOK_CACHE")
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "user" / project)
    assert data.fetch(NAME) == tmp_path / "user" / "transformer-workbook" / NAME


def test_processes_that_want_the_same_file_download_it_once(server):
    server.pause = 1.5  # long enough for all of them to ask
    code = (
        "import sys; from workbook import data; name, *rest = sys.argv[1:]\n"
        "data.FILES[name] = data.File(rest[0], rest[1], int(rest[2]), '')\n"
        "print(); print(data.fetch(name))"
    )
    file = data.FILES[NAME]
    arguments = [sys.executable, "-c", code, NAME, file.address, file.sha256, str(file.size)]
    processes = [
        subprocess.Popen(
            arguments, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    results = [process.communicate(timeout=120) for process in processes]
    assert [err for _, err in results] == [""] * 3
    paths = {Path(out.splitlines()[-1]) for out, _ in results}
    assert [path.read_bytes() for path in paths] == [CONTENT]
    assert server.ranges == [None]


# The mirror


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    path = tmp_path / "mirror" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    monkeypatch.setenv("WORKBOOK_DATA", str(tmp_path / "mirror"))
    return path


def test_the_mirror_comes_first(server, mirror, cache):
    assert data.fetch(NAME) == mirror
    assert server.ranges == []
    assert not cache.exists()


def test_another_file_in_the_mirror_is_refused_and_left(server, mirror):
    mirror.write_bytes(b"mine")
    with pytest.raises(data.DataError, match=r"not the published file.*left as it is") as raised:
        data.fetch(NAME)
    assert str(mirror) in str(raised.value)
    assert mirror.read_bytes() == b"mine"
    assert server.ranges == []


def test_what_the_mirror_lacks_is_downloaded(server, mirror, cache):
    mirror.unlink()
    assert data.fetch(NAME) == cache / NAME


def test_a_mirror_that_is_no_folder_is_an_error(server, mirror, monkeypatch):
    monkeypatch.setenv("WORKBOOK_DATA", str(mirror))
    with pytest.raises(data.DataError, match=r"WORKBOOK_DATA is .*no folder.*unset it"):
        data.fetch(NAME)


# The sets


@pytest.fixture
def real(monkeypatch):
    monkeypatch.setenv("WORKBOOK_DATA", str(MIRROR))


@needs_mirror
@pytest.mark.parametrize(
    ("split", "count"),
    [*zip(data.SPLITS, (29_000, 1_014, 1_000, 1_000), strict=True)],
)
def test_multi30k_has_its_published_sizes(real, split, count):
    pairs = data.multi30k(split)
    assert len(pairs) == count
    assert all(german and english for german, english in pairs)
    assert "\n" not in "".join(german + english for german, english in pairs)


@needs_mirror
def test_german_comes_before_english(real):
    assert data.multi30k("val")[0] == (
        "Eine Gruppe von Männern lädt Baumwolle auf einen Lastwagen",
        "A group of men are loading cotton onto a truck",
    )


@needs_mirror
def test_tiny_shakespeare_is_all_there(real):
    text = data.tiny_shakespeare()
    assert len(text) == 1_115_394
    assert len(set(text)) == 65
    assert text.startswith("First Citizen:\n")


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'test'.*train, val, test_2016_flickr, test_2017"):
        data.multi30k("test")


def small_multi30k(tmp_path, monkeypatch, german, english):
    files = {}
    for language, text in (("de", german), ("en", english)):
        name = f"multi30k/val.{language}.gz"
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()))
        files[name] = data.File("", hashlib.sha256(path.read_bytes()).hexdigest(), 0, "")
    monkeypatch.setattr(data, "FILES", files)
    monkeypatch.setenv("WORKBOOK_DATA", str(tmp_path))


def test_only_a_newline_ends_a_sentence(tmp_path, monkeypatch):
    small_multi30k(tmp_path, monkeypatch, "ein\u2028Satz \nzwei\n", "one\x85sentence\ntwo")
    assert data.multi30k("val") == [("ein\u2028Satz", "one\x85sentence"), ("zwei", "two")]


def test_files_that_are_no_pairs_are_refused(tmp_path, monkeypatch):
    small_multi30k(tmp_path, monkeypatch, "eins\nzwei\n", "one\n")
    with pytest.raises(data.DataError, match="2 German and 1 English"):
        data.multi30k("val")


# Number names


def test_numbers_have_names():
    assert data.number_names([21, 0, 121], "de") == [
        *("einundzwanzig", "null", "einhunderteinundzwanzig")
    ]
    assert data.number_names([-5, 1_234], "en") == [
        *("minus five", "one thousand, two hundred and thirty-four")
    ]


@pytest.mark.parametrize("language", ["de", "en", "fr", "pt_BR"])
def test_names_are_those_of_num2words(language):
    numbers = [*range(0, 130), 999, 1000, 71_071, 999_999, 10**6, 2.5]
    expected = [num2words(number, lang=language).lower() for number in numbers]
    assert data.number_names(numbers, language) == expected


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list, tuple, iter])
def test_numbers_come_in_any_collection(kind):
    assert data.number_names(kind([3, 7]), "en") == ["three", "seven"]


def test_what_equals_a_number_does_not_get_its_name_from_memory():
    assert data.number_names([1, 2.0, 2], "en") == ["one", num2words(2.0), "two"]
    for wrong in (True, "1", None, torch.tensor(True)):
        with pytest.raises(TypeError, match="only numbers have names"):
            data.number_names([wrong], "en")
    with pytest.raises(TypeError, match="only numbers"):
        data.number_names("12", "en")


def test_an_unknown_language_is_refused_with_near_ones():
    # num2words itself would take German for "de-DE" and fail without a word for "german".
    with pytest.raises(ValueError, match=r"'pt-BR'. Did you mean pt_BR\?.*are am, ar, "):
        data.number_names([1], "pt-BR")
    with pytest.raises(ValueError, match=r"'german'. The languages are .*\bde, en,"):
        data.number_names([1], "german")


# Held-out numbers


@given(st.integers(2, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))))
def test_no_number_is_in_both_parts(sizes):
    limit, count = sizes
    train, held_out = data.hold_out(limit, count, seed=limit)
    assert len(held_out) == count
    assert sorted(train.tolist() + held_out.tolist()) == list(range(limit))


def test_a_seed_gives_one_split_and_another_another():
    first, again, other = (data.hold_out(1000, 100, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert set(first[1].tolist()) != set(other[1].tolist())


def test_a_slice_of_held_out_numbers_is_a_fair_sample():
    _, held_out = data.hold_out(10**6, 10_000, seed=0)
    # 1,000 uniform numbers: their mean has a standard deviation of 0.29 / 1000 ** 0.5 = 0.0091.
    assert held_out[:1000].double().mean().item() / 10**6 == pytest.approx(0.5, abs=0.05)
    assert held_out.dtype == torch.int64


def test_a_split_leaves_the_global_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    data.hold_out(10, 2, seed=9)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("count", [-1, 0, 10, 11])
def test_holding_out_nothing_or_everything_is_refused(count):
    with pytest.raises(ValueError, match=f"{count} of 10 .*at least 1 and at most 9"):
        data.hold_out(10, count, seed=0)


# A real set for sentence classification, in the form of SST-2


@pytest.fixture
def tsv(tmp_path):
    def write(content: str | bytes) -> Path:
        path = tmp_path / "dev.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_sentences_come_with_their_labels(tsv):
    text = 'sentence\tlabel\nit \'s a "charming" journey . \t1\nn\u00e3o, obrigado\t0\ndull\t12\n'
    expected = [(1, 'it \'s a "charming" journey .'), (0, "n\u00e3o, obrigado"), (12, "dull")]
    assert data.sentence_classification(tsv(text)) == expected


@pytest.mark.parametrize(
    "change", [("\n", "\r\n"), ("sentence\t", "\ufeffsentence\t"), ("0\n", "0")]
)
def test_the_way_an_editor_saves_it_does_not_matter(tsv, change):
    text = "sentence\tlabel\nfine\t1\npoor\t0\n"
    assert data.sentence_classification(tsv(text.replace(*change))) == [(1, "fine"), (0, "poor")]


def test_only_a_newline_ends_an_example(tsv):
    text = "sentence\tlabel\none\u2028line\rand\x0b \t1\n"
    assert data.sentence_classification(tsv(text)) == [(1, "one\u2028line\rand")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "line 1: .*sentence<TAB>label"),
        ("index\tsentence\n0\tfine\n", r"line 1: .*'index\\tsentence'.*dev\.tsv"),
        ("fine\t1\n", "line 1: the first line must be"),
        ("sentence\tlabel\n", "no examples"),
        ("sentence\tlabel\nfine\t1\npoor\n", "line 3: .*'poor'"),
        ("sentence\tlabel\nfine\t1\n\npoor\t0\n", "line 3: .*''"),
        ("sentence\tlabel\nfine\tvery\t1\n", "line 2: .*one tab"),
        ("sentence\tlabel\nfine\tgood\n", "line 2: .*'fine.*good'"),
        ("sentence\tlabel\nfine\t-1\n", "line 2: .*whole number from 0"),
        ("sentence\tlabel\nfine\t\u00b2\n", "line 2: .*whole number from 0"),
        ("sentence\tlabel\n \t1\n", "line 2: a line is a sentence"),
        (b"sentence\tlabel\nfine\t1\ncaf\xe9\t0\n", "line 3: this is not UTF-8"),
    ],
)
def test_a_file_of_another_form_is_refused_with_its_line(tsv, content, said):
    path = tsv(content)
    with pytest.raises(ValueError, match=said) as error:
        data.sentence_classification(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.tsv"):
        data.sentence_classification(tmp_path / "none.tsv")


# The package


def test_importing_is_silent_and_leaves_the_libraries_for_later():
    code = (
        "import sys, workbook.data, workbook.images, workbook.text\n"
        "late = {'num2words', 'pooch', 'requests', 'tokenizers', 'filelock', 'sklearn', 'PIL'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_python_reference_is_what_help_reads(capsys):
    reference = data.python_reference()
    assert list(reference) == sorted(reference)
    assert sum(map(len, reference.values())) > 300_000
    help("lambda")
    assert reference["lambda"].splitlines()[0] in capsys.readouterr().out
