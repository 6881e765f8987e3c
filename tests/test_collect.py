"""Collecting: what an LMS or a folder holds, sorted for grading; and archives that mean harm."""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
import unicodedata
import warnings
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT
from test_cli import invoke

from autograder.archives import ArchiveLimits
from autograder.collect import Collected, CollectError, collect, folder_name

NAME = "01_attention"
FIRST, LAST = (2026, 9, 1, 10, 0, 0), (2026, 9, 14, 18, 30, 0)


def book(text: str = "x = 1") -> bytes:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text, id="cell")])
    return nbformat.writes(made).encode()


def make_zip(path: Path, files: Any, date: Any = None) -> Path:
    """A zip of ``name -> bytes`` (or pairs), dated a day apart, or all at ``date``."""
    pairs = list(files.items() if isinstance(files, dict) else files)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for day, (name, data) in enumerate(pairs, 1):
            info = zipfile.ZipInfo(name, date or (2026, 9, day, 12, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Duplicate name")
                archive.writestr(info, data)
    return path


def run(source: Path, to: Path, *arguments: Any, **options: Any) -> Collected:
    return collect(source, to, *arguments, root=ROOT, **options)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def notebooks_of(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(folder).items() if name.endswith(".ipynb")}


def outcomes(result: Collected) -> dict[str, str]:
    return {item.student: item.outcome for item in result.items}


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "out" / "submitted"


def assert_nothing_written(to: Path) -> None:
    assert not to.exists()
    assert not to.parent.exists() or list(to.parent.iterdir()) == []


# ---- Moodle ----------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", ["/", ""])
def test_a_moodle_archive_of_a_class_is_collected(tmp_path: Path, to: Path, separator: str) -> None:
    class_ = {"Ada Lovelace_12345": "a", "José Müller_12346": "j", "李 明_12347": "l"}
    archive = make_zip(
        tmp_path / "moodle.zip",
        {
            f"{who}_assignsubmission_file_{separator}{NAME}.ipynb": book(text)
            for who, text in class_.items()
        },
    )
    result = run(archive, to)
    assert notebooks_of(to) == {
        f"{student}/{NAME}/{NAME}.ipynb": book(text)
        for student, text in (
            ("Ada_Lovelace_12345", "a"),
            ("José_Müller_12346", "j"),
            ("李_明_12347", "l"),
        )
    }
    assert set(outcomes(result).values()) == {"new"}
    assert result.refused == result.unrecognized == []
    from autograder.grading import find_submissions  # what `grade` reads with

    assert [entry.path.is_file() for entry in find_submissions(to, [NAME])] == [True] * 3
    # Beside the target nothing is left.
    assert list(to.parent.iterdir()) == [to]


def test_names_in_utf_8_that_do_not_say_so_are_read(tmp_path: Path, to: Path) -> None:
    path = make_zip(
        tmp_path / "a.zip", {f"José Müller_1_assignsubmission_file_/{NAME}.ipynb": book()}
    )
    data = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        data[data.find(header) + flags] &= ~0x08
    path.write_bytes(data)
    assert "é" not in zipfile.ZipFile(path).namelist()[0]
    run(path, to)
    assert list(notebooks_of(to)) == [f"José_Müller_1/{NAME}/{NAME}.ipynb"]


def test_what_is_no_notebook_is_listed_and_junk_is_not(tmp_path: Path, to: Path) -> None:
    ada = "Ada Lovelace_1_assignsubmission_"
    archive = make_zip(
        tmp_path / "a.zip",
        {
            f"{ada}file_/{NAME}.ipynb": book(),
            f"{ada}file_/plan.pdf": b"%PDF",
            f"{ada}file_/rest.zip": b"PK",
            f"{ada}file_/.ipynb_checkpoints/{NAME}-checkpoint.ipynb": book("old"),
            f"__MACOSX/{ada}file_/._{NAME}.ipynb": b"junk",
            f"{ada}onlinetext_/onlinetext.html": b"<p>",
            ".DS_Store": b"junk",
        },
    )
    result = run(archive, to)
    assert [name.rsplit("/", 1)[1] for name in result.unrecognized] == [
        "plan.pdf",
        "rest.zip",
        "onlinetext.html",
    ]
    assert any("rest.zip is an archive itself" in note for note in result.notes)
    assert list(notebooks_of(to)) == [f"Ada_Lovelace_1/{NAME}/{NAME}.ipynb"]


def test_the_only_notebook_of_a_student_is_taken_whatever_it_is_called(
    tmp_path: Path, to: Path
) -> None:
    archive = make_zip(
        tmp_path / "a.zip",
        {
            "Ada_1_assignsubmission_file_/final VERSION.ipynb": book("a"),
            "Ben_2_assignsubmission_file_/one.ipynb": book("b"),
            "Ben_2_assignsubmission_file_/two.ipynb": book("c"),
            f"Eve_3_assignsubmission_file_/{NAME}.ipynb": book("e"),
            "Eve_3_assignsubmission_file_/scratch.ipynb": book("f"),
        },
    )
    result = run(archive, to)
    assert notebooks_of(to) == {
        f"Ada_1/{NAME}/{NAME}.ipynb": book("a"),
        f"Eve_3/{NAME}/{NAME}.ipynb": book("e"),
    }
    assert any("final VERSION.ipynb is the only notebook" in note for note in result.notes)
    assert any("Not taken" in note and "scratch.ipynb" in note for note in result.notes)
    [refused] = result.refused
    assert refused.startswith("Ben_2: 2 notebooks")
    assert f"Ben_2/{NAME} by hand" in refused


def test_the_assignment_must_be_named_where_the_files_do_not_tell(tmp_path: Path, to: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"Ada_1_assignsubmission_file_/homework.ipynb": book()})
    with pytest.raises(CollectError, match=f"do not tell the assignment.*{NAME}"):
        run(archive, to)
    assert_nothing_written(to)
    run(archive, to, NAME)
    assert list(notebooks_of(to)) == [f"Ada_1/{NAME}/{NAME}.ipynb"]


# ---- Canvas ----------------------------------------------------------------------------------


def test_a_canvas_archive_of_a_class_is_collected(tmp_path: Path, to: Path) -> None:
    archive = make_zip(
        tmp_path / "canvas.zip",
        {
            f"lovelaceada_12345_678910_{NAME}.ipynb": book("a"),
            f"turingalan_LATE_12346_678920_{NAME}-1.ipynb": book("t"),
            f"hoppergrace_12347_678930_{NAME}.ipynb": book("first"),
            f"hoppergrace_12347_678931_{NAME}-1.ipynb": book("second"),
            f"hoppergrace_12347_678940_{NAME}-2.ipynb": book("third"),
            "noetheremmy_12348_678950_Kapitel 1.ipynb": book("n"),
            f"anon_Ab3dE_678960_{NAME}.ipynb": book("x"),
            "lovelaceada_12345_678911_plot.png": b"PNG",
        },
    )
    result = run(archive, to)
    assert notebooks_of(to) == {
        f"{student}/{NAME}/{NAME}.ipynb": book(text)
        for student, text in (
            ("lovelaceada_12345", "a"),
            ("turingalan_12346", "t"),
            ("hoppergrace_12347", "third"),
            ("noetheremmy_12348", "n"),
            ("anon_Ab3dE", "x"),
        )
    }
    assert result.unrecognized == ["lovelaceada_12345_678911_plot.png"]
    assert any("late: turingalan_12346" in note for note in result.notes)
    # Canvas stamps entries with the moment of packing: that is no time of handing in.
    assert not list(to.rglob("timestamp.txt"))


def test_the_newest_is_told_by_canvas_number_and_not_by_the_learner_s_name(
    tmp_path: Path, to: Path
) -> None:
    archive = make_zip(
        tmp_path / "canvas.zip",
        {
            f"lovelaceada_1_30_{NAME}-1-1.ipynb": book("newest"),
            f"lovelaceada_1_20_{NAME}-10.ipynb": book("older"),
            f"turingalan_2_40_{NAME}-2.ipynb": book("two"),
            f"turingalan_2_40_{NAME}-10.ipynb": book("ten"),
        },
    )
    run(archive, to)
    assert notebooks_of(to) == {
        f"lovelaceada_1/{NAME}/{NAME}.ipynb": book("newest"),
        f"turingalan_2/{NAME}/{NAME}.ipynb": book("ten"),
    }


# ---- folders and nbgrader's layout -----------------------------------------------------------


def test_nbgrader_s_layout_is_collected_with_its_timestamps(tmp_path: Path, to: Path) -> None:
    files = {
        f"class/ada/{NAME}/{NAME}.ipynb": book("a"),
        f"class/ada/{NAME}/timestamp.txt": b"2026-09-01 12:00:00.5 Europe/Berlin",
        f"class/ben@uni.edu/{NAME}/{NAME}.ipynb": book("b"),
        f"class/ben@uni.edu/{NAME}/timestamp.txt": b"rubbish",
        "class/eve/42_unknown/42_unknown.ipynb": book("e"),
    }
    result = run(make_zip(tmp_path / "layout.zip", files, date=LAST), to)
    assert tree(to) == {
        f"ada/{NAME}/{NAME}.ipynb": book("a"),
        f"ada/{NAME}/timestamp.txt": tree(to)[f"ada/{NAME}/timestamp.txt"],
        f"ben@uni.edu/{NAME}/{NAME}.ipynb": book("b"),
        f"ben@uni.edu/{NAME}/timestamp.txt": tree(to)[f"ben@uni.edu/{NAME}/timestamp.txt"],
    }
    assert (to / f"ada/{NAME}/timestamp.txt").read_text().startswith("2026-09-01 10:00:00")
    assert result.unrecognized == ["eve/42_unknown/42_unknown.ipynb"]


@pytest.mark.parametrize("form", ["folder", "tar", "tar.gz"])
def test_a_folder_and_a_tar_are_taken_as_well(tmp_path: Path, to: Path, form: str) -> None:
    folder = tmp_path / "unpacked"
    for name, text in (("Ada_1", "a"), ("Ben_2", "b")):
        place = folder / f"{name}_assignsubmission_file_"
        place.mkdir(parents=True)
        (place / f"{NAME}.ipynb").write_bytes(book(text))
    source = folder
    if form != "folder":
        source = tmp_path / f"class.{form}"
        with tarfile.open(source, "w:gz" if form == "tar.gz" else "w") as archive:
            archive.add(folder, ".")
    run(source, to)
    assert notebooks_of(to) == {
        f"Ada_1/{NAME}/{NAME}.ipynb": book("a"),
        f"Ben_2/{NAME}/{NAME}.ipynb": book("b"),
    }
    # A folder's dates are those of copying, and here the tar's are within seconds.
    assert not list(to.rglob("timestamp.txt"))


def test_a_course_s_own_named_regexp_is_used(tmp_path: Path, to: Path) -> None:
    course = tmp_path / "course"
    (course / "solutions" / NAME).mkdir(parents=True)
    (course / "solutions" / NAME / f"{NAME}.md").write_text("# Attention\n")
    (course / "nbgrader_config.py").write_text(
        "c = get_config()\n"
        "c.FileNameCollectorPlugin.named_regexp = "
        r"r'(?P<file_id>\w+) by (?P<student_id>\w+) at (?P<timestamp>[0-9-]+)\.ipynb'"
    )
    archive = make_zip(tmp_path / "a.zip", {f"{NAME} by ada at 2026-09-03.ipynb": book()})
    collect(archive, to, root=course)
    assert set(tree(to)) == {f"ada/{NAME}/{NAME}.ipynb", f"ada/{NAME}/timestamp.txt"}
    assert (to / f"ada/{NAME}/timestamp.txt").read_text() == "2026-09-03 00:00:00"


# ---- when handed in, and what is there already -----------------------------------------------


def moodle(path: Path, date: Any = None, **texts: str) -> Path:
    names = {
        f"{who}_{n}_assignsubmission_file_": text for n, (who, text) in enumerate(texts.items())
    }
    return make_zip(
        path, {f"{name}/{NAME}.ipynb": book(text) for name, text in names.items()}, date
    )


def test_dates_of_the_entries_become_nbgrader_s_timestamps(
    tmp_path: Path, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        result = run(moodle(tmp_path / "a.zip", Ada="a", Ben="b"), to)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (to / f"Ada_0/{NAME}/timestamp.txt").read_text() == "2026-09-01 10:00:00"
    assert (to / f"Ben_1/{NAME}/timestamp.txt").read_text() == "2026-09-02 10:00:00"
    assert [item.handed_in for item in result.items] == [
        datetime(2026, 9, 1, 10, tzinfo=UTC),
        datetime(2026, 9, 2, 10, tzinfo=UTC),
    ]


def test_an_exact_date_in_utc_is_preferred(tmp_path: Path, to: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for n, seconds in enumerate((1_788_000_000, 1_788_100_000)):
            info = zipfile.ZipInfo(f"Ada_{n}_assignsubmission_file_/{NAME}.ipynb", FIRST)
            info.extra = struct.pack("<HHBi", 0x5455, 5, 1, seconds)
            archive.writestr(info, book())
    assert [item.handed_in.timestamp() for item in run(path, to).items if item.handed_in] == [
        1_788_000_000,
        1_788_100_000,
    ]


def test_the_moment_of_packing_makes_nobody_late(tmp_path: Path, to: Path) -> None:
    result = run(moodle(tmp_path / "a.zip", LAST, Ada="a", Ben="b"), to)
    assert not list(to.rglob("timestamp.txt"))
    assert any("nobody is late" in note for note in result.notes)


def test_what_is_there_stays_unless_the_new_one_is_newer(tmp_path: Path, to: Path) -> None:
    first = moodle(tmp_path / "1.zip", FIRST, Ada="a", Ben="b")
    later = moodle(tmp_path / "2.zip", LAST, Ada="a", Ben="better")
    assert set(outcomes(run(first, to)).values()) == {"new"}
    assert outcomes(run(first, to)) == {"Ada_0": "unchanged", "Ben_1": "unchanged"}
    assert outcomes(run(later, to)) == {"Ada_0": "unchanged", "Ben_1": "replaced"}
    before = tree(to)
    result = run(first, to)
    assert outcomes(result) == {"Ada_0": "unchanged", "Ben_1": "kept"}
    assert any("Ben_1" in note and "--force" in note for note in result.notes)
    assert tree(to) == before
    assert outcomes(run(first, to, force=True)) == {"Ada_0": "unchanged", "Ben_1": "replaced"}
    assert notebooks_of(to)[f"Ben_1/{NAME}/{NAME}.ipynb"] == book("b")


def test_other_files_in_a_student_s_folder_stay(tmp_path: Path, to: Path) -> None:
    place = to / "Ada_0" / NAME
    place.mkdir(parents=True)
    (place / "data.csv").write_text("1,2")
    run(moodle(tmp_path / "a.zip", LAST, Ada="a"), to)
    assert (place / "data.csv").read_text() == "1,2"
    assert (place / f"{NAME}.ipynb").read_bytes() == book("a")


# ---- names that collide ----------------------------------------------------------------------


def test_two_students_of_one_name_are_kept_apart_by_their_number(tmp_path: Path, to: Path) -> None:
    files = {f"Ada_{n}_assignsubmission_file_/{NAME}.ipynb": book(str(n)) for n in (1, 2)}
    result = run(make_zip(tmp_path / "a.zip", files), to)
    assert notebooks_of(to) == {f"Ada_{n}/{NAME}/{NAME}.ipynb": book(str(n)) for n in (1, 2)}
    assert any("Ada (1) and Ada (2) have the same name" in note for note in result.notes)


DECOMPOSED = unicodedata.normalize("NFD", "José")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([f"ada/{NAME}/{NAME}.ipynb"] * 2, "same file"),
        ([f"ada/{NAME}/{NAME}.ipynb", f"ada/{NAME}/{NAME.upper()}.ipynb"], "same file"),
        ([f"ada/{NAME}/{NAME}.ipynb", f"Ada/{NAME}/{NAME}.ipynb"], "the folder ada"),
        ([f"ada x/{NAME}/{NAME}.ipynb", f"ada_x/{NAME}/{NAME}.ipynb"], "the folder ada_x"),
        ([f"José/{NAME}/{NAME}.ipynb", f"{DECOMPOSED}/{NAME}/{NAME}.ipynb"], "the folder josé"),
        ([f"ada_1_2_{NAME}.ipynb", f"mallory_1_3_{NAME}.ipynb"], "the number 1"),
        ([f"***/{NAME}/{NAME}.ipynb"], "no folder name"),
    ],
)
def test_who_cannot_be_told_apart_is_left_out_by_name(
    tmp_path: Path, to: Path, names: list[str], words: str
) -> None:
    honest = "Zoe_9_assignsubmission_file_/" if "_1_" in names[0] else "zoe/01_attention/"
    honest = f"zoe_9_9_{NAME}.ipynb" if "_1_" in names[0] else f"{honest}{NAME}.ipynb"
    pairs = [(name, book(str(n))) for n, name in enumerate([*names, honest])]
    result = run(make_zip(tmp_path / "a.zip", pairs), to)
    assert [item.student.split("_")[0] for item in result.items] == ["zoe"]
    [refused] = result.refused
    assert words in refused
    assert "by hand" in refused
    assert len(notebooks_of(to)) == 1


@pytest.mark.parametrize(
    "name",
    [
        f"mallory_1_2__7_assignsubmission_file_{NAME}.ipynb",
        f"mallory_1_2_ada_7_8_{NAME}.ipynb",
        f"Mallory_1_assignsubmission_file_/Ada_7_assignsubmission_file_/{NAME}.ipynb",
        f"Mallory_1_assignsubmission_file_/ada_7_8_{NAME}.ipynb",
        f"Mallory_1_assignsubmission_file_ada_7_8_{NAME}.ipynb",
        f"mallory/{NAME}/ada_7_8_{NAME}.ipynb",
        f"mallory/{NAME}/Ada_7_assignsubmission_file_{NAME}.ipynb",
    ],
)
def test_no_file_name_passes_for_another_student_s(tmp_path: Path, to: Path, name: str) -> None:
    run(make_zip(tmp_path / "a.zip", {name: book()}), to, NAME)
    [path] = notebooks_of(to)
    assert path.lower().startswith("mallory")


# ---- archives that mean harm -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"../../evil/{NAME}/{NAME}.ipynb", "leads out of its folder"),
        (f"ada/../../{NAME}.ipynb", "leads out of its folder"),
        ("/etc/cron.d/evil.ipynb", "absolute path"),
        ("C:/evil.ipynb", "names a drive"),
        ("..\\..\\evil.ipynb", "backslash"),
        ("ada/\x1b[2Jevil.ipynb", "control characters"),
        ("ada/evil.ipynb\0.txt", "control characters"),
        ("a" * 2000 + ".ipynb", "longer than"),
        ("../outside.txt", "leads out of its folder"),
        ("../folder/", "leads out of its folder"),
    ],
)
def test_a_name_that_leads_out_refuses_the_archive(
    tmp_path: Path, to: Path, name: str, words: str
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"ada/{NAME}/{NAME}.ipynb", book())
        info = zipfile.ZipInfo("placeholder")
        info.filename = info.orig_filename = name
        archive.writestr(info, book() if not name.endswith("/") else b"")
    with pytest.raises(CollectError, match=words) as caught:
        run(path, to)
    assert "a.zip was refused" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert_nothing_written(to)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"a.zip", "out"}


def test_a_tar_that_leads_out_is_refused(tmp_path: Path, to: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(f"../{NAME}.ipynb")
        info.size = len(book())
        archive.addfile(info, io.BytesIO(book()))
    with pytest.raises(CollectError, match="leads out of its folder"):
        run(path, to)
    assert_nothing_written(to)


def test_links_and_special_files_are_not_followed(tmp_path: Path, to: Path) -> None:
    secret = tmp_path / "secret.ipynb"
    secret.write_bytes(book("secret"))
    path = make_zip(tmp_path / "a.zip", {f"ada/{NAME}/{NAME}.ipynb": book()})
    with zipfile.ZipFile(path, "a") as archive:
        for student, kind in (("eve", stat.S_IFLNK), ("fifo", stat.S_IFIFO), ("dev", stat.S_IFCHR)):
            info = zipfile.ZipInfo(f"{student}/{NAME}/{NAME}.ipynb")
            info.external_attr = (kind | 0o777) << 16
            archive.writestr(info, str(secret))
    result = run(path, to)
    assert outcomes(result) == {"ada": "new"}
    assert [text.split("/")[0] for text in result.refused] == ["eve", "fifo", "dev"]
    assert all("not followed" in text for text in result.refused)


def test_links_in_a_tar_and_in_a_folder_are_not_followed(tmp_path: Path, to: Path) -> None:
    folder = tmp_path / "in"
    secret = tmp_path / "secret"
    for student in ("ada", "eve"):
        (folder / student / NAME).mkdir(parents=True)
    (secret / NAME).mkdir(parents=True)
    (secret / NAME / f"{NAME}.ipynb").write_bytes(book("secret"))
    (folder / "ada" / NAME / f"{NAME}.ipynb").write_bytes(book())
    (folder / "eve" / NAME / f"{NAME}.ipynb").symlink_to(secret / NAME / f"{NAME}.ipynb")
    (folder / "mallory").symlink_to(secret)
    os.mkfifo(folder / "ada" / NAME / "pipe.ipynb")
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "class")
        hard = tarfile.TarInfo(f"class/zoe/{NAME}/{NAME}.ipynb")
        hard.type, hard.linkname = tarfile.LNKTYPE, str(secret / NAME / f"{NAME}.ipynb")
        archive.addfile(hard)
    assert outcomes(run(folder, to)) == {"ada": "new"}
    result = run(path, to.with_name("from_tar"))
    assert outcomes(result) == {"ada": "new"}
    assert len(result.refused) == 4


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, to: Path) -> None:
    path = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open(f"ada/{NAME}/{NAME}.ipynb", "w", force_zip64=True) as entry,
    ):
        for _ in range(300):
            entry.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(CollectError, match=r"314,572,800 bytes.*fill a disk"):
        run(path, to)
    assert_nothing_written(to)


def test_a_compressed_tar_bomb_is_refused_while_it_grows(tmp_path: Path, to: Path) -> None:
    class Zeros(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return bytes(size or 0)

    path = tmp_path / "bomb.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo(f"ada/{NAME}/{NAME}.ipynb")
        info.size = 200 * 2**20
        archive.addfile(info, Zeros())
    with pytest.raises(CollectError, match="fill a disk"):
        run(path, to)
    assert_nothing_written(to)


def test_limits_on_files_total_and_one_file(tmp_path: Path, to: Path) -> None:
    noise = os.urandom(3000)
    files = {f"s{n}/{NAME}/{NAME}.ipynb": noise for n in range(5)}
    archive = make_zip(tmp_path / "a.zip", files)
    with pytest.raises(CollectError, match="more than 4 files"):
        run(archive, to, limits=ArchiveLimits(entries=4))
    with pytest.raises(CollectError, match=r"unpacked, counted up to s3/"):
        run(archive, to, limits=ArchiveLimits(total=10_000))
    assert_nothing_written(to)
    files[f"big/{NAME}/{NAME}.ipynb"] = os.urandom(2**20)
    result = run(make_zip(tmp_path / "b.zip", files), to, limits=ArchiveLimits(file=2**19))
    assert len(result.items) == 5
    assert [text for text in result.refused if text.startswith("big: ") and "MiB" in text]


def test_an_entry_that_lies_about_its_size_writes_nothing(tmp_path: Path, to: Path) -> None:
    path = make_zip(
        tmp_path / "a.zip", [(f"{n}/{NAME}/{NAME}.ipynb", os.urandom(5000)) for n in "abc"]
    )
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 100)  # the uncompressed size of the last
    path.write_bytes(data)
    with pytest.raises(CollectError, match=r"c/.* cannot be unpacked"):
        run(path, to)
    assert_nothing_written(to)


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "flipped", "nothing", "encrypted"])
def test_unusable_archives_are_refused_with_what_to_do(tmp_path: Path, to: Path, kind: str) -> None:
    path = moodle(tmp_path / "a.zip", Ada="a" * 5000, Ben="b")
    data = bytearray(path.read_bytes())
    if kind == "text":
        data = bytearray(b"hello")
    elif kind == "empty":
        data = bytearray()
    elif kind == "cut":
        data = data[: len(data) // 2]
    elif kind == "flipped":
        data[90] ^= 0xFF
    elif kind == "encrypted":
        at = data.find(b"PK\x01\x02")
        data[at + 8] |= 1
    path.write_bytes(data)
    if kind == "nothing":
        path = tmp_path / "none.zip"
    with pytest.raises(CollectError, match=r"again|Name what to collect|password"):
        run(path, to)
    assert_nothing_written(to)


def test_folder_names_are_safe_everywhere() -> None:
    assert folder_name("Ada Lovelace", "12") == "Ada_Lovelace_12"
    assert folder_name("../..//etc") == "etc"
    assert folder_name("．．／x") == "x"  # full-width dots and slash
    assert folder_name("a*b?[c]\u202e\x00") == "a_b_c"
    assert folder_name("..") == folder_name("", "5") == ""
    assert len(folder_name("x" * 500, "123")) == 84


# ---- the command -----------------------------------------------------------------------------


def test_the_command_prints_what_was_collected(tmp_path: Path, to: Path) -> None:
    archive = make_zip(
        tmp_path / "a.zip",
        {
            f"Ada [b]_1_assignsubmission_file_/{NAME}.ipynb": book(),
            "Ada [b]_1_assignsubmission_file_/notes.txt": b"",
        },
    )
    result = invoke("collect", archive, "--to", to, "--root", ROOT)
    assert result.exit_code == 0, result.output
    assert "Ada_b_1" in result.stdout
    assert "new" in result.stdout
    assert "Not recognized: Ada [b]_1_assignsubmission_file_/notes.txt." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.zip"], "no archive or folder nowhere.zip"),
        (["empty"], "none of 0 files was recognized"),
        (["a.zip", "42_none"], "There is no assignment 42_none"),
        (["bad.zip"], "leads out of its folder"),
    ],
)
def test_unusable_input_exits_2_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    moodle(tmp_path / "a.zip", Ada="a")
    make_zip(tmp_path / "bad.zip", {"../x": b""})
    result = invoke("collect", *arguments, "--to", tmp_path / "out", "--root", ROOT)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output
