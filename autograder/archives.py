"""What is in an archive or folder that came from outside: checked before anything is unpacked."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import os
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from autograder.submission import UnreadableSubmission, read_bytes

JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")
_LONGEST_NAME = 1024
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


class ArchiveError(Exception):
    """An archive is unsafe or unusable; the text names the entry and says what to do."""


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold.

    Attributes:
        entries: how many files.
        file: the largest notebook that is unpacked, in bytes.
        total: all unpacked notebooks together, in bytes.
        ratio: how many times its compressed size an entry may grow.
        small: up to this size, in bytes, an entry may grow by any factor.
    """

    entries: int = 20_000
    file: int = 128 * 2**20
    total: int = 2 * 2**30
    ratio: int = 200
    small: int = 8 * 2**20


@dataclass(frozen=True)
class Entry:
    """A file of an archive or folder; nothing of it has been unpacked.

    Attributes:
        name: with ``/`` between folders; safe to join to a folder.
        size: in bytes, as the archive claims.
        modified: its date, where it has one.
        open: gives its bytes.
    """

    name: str
    size: int
    modified: datetime | None
    open: Callable[[], IO[bytes]]


def shown(name: str) -> str:
    """A file name that does to a terminal nothing but appear."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in name)


@contextlib.contextmanager
def listing(
    source: Path, limits: ArchiveLimits, work: Path
) -> Iterator[tuple[list[Entry], list[str]]]:
    """All files of an archive (zip, tar, tar.gz) or folder; they can be opened in this context.

    Args:
        source: the archive or folder.
        limits: what it may hold.
        work: a folder for temporary files.

    Yields:
        The files, without hidden ones and what systems leave behind; and a sentence for each link
        and special file, none of which is followed.

    Raises:
        ArchiveError: there is no such source, it is damaged or encrypted, an entry's name leads
            out of the archive, or it would grow beyond the limits.
    """
    links: list[str] = []
    with contextlib.ExitStack() as stack:
        try:
            if source.is_dir():
                entries = _of_folder(source, limits, links)
            elif not source.is_file():
                raise ArchiveError(f"There is no archive or folder {source}. Name what to collect.")
            elif zipfile.is_zipfile(source):
                archive = stack.enter_context(zipfile.ZipFile(source))
                entries = _of_zip(archive, source, limits, links)
            else:
                plain = stack.enter_context(tarfile.open(_plain(source, limits, work), "r:"))
                entries = _of_tar(plain, source, links)
            checked = list(_checked(entries, source, limits))
        except (*_DAMAGED, NotImplementedError) as error:
            raise ArchiveError(
                f"{source} cannot be read as a folder, nor as a zip, tar or tar.gz archive "
                f"({error}). Download it again."
            ) from error
        yield checked, links


def unpack(entry: Entry, path: Path, limits: ArchiveLimits) -> None:
    """Writes one entry to a new file.

    Raises:
        ArchiveError: it is damaged, or larger than it claimed to be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    left = min(entry.size, limits.file)
    try:
        with entry.open() as source, path.open("xb") as file:
            while chunk := source.read(2**20):
                left -= len(chunk)
                if left < 0:
                    raise zipfile.BadZipFile("it is larger than it claims")
                file.write(chunk)
    except (*_DAMAGED, NotImplementedError) as error:
        raise ArchiveError(
            f"{shown(entry.name)} cannot be unpacked ({error}), so nothing was collected. "
            "Download the archive again."
        ) from error


def text_of(entry: Entry, most: int = 200) -> str | None:
    """A short text file; None where it is longer than ``most`` bytes, damaged or no text."""
    if entry.size <= most:
        with contextlib.suppress(*_DAMAGED, NotImplementedError), entry.open() as file:
            return file.read(most).decode("utf-8")
    return None


def _checked(entries: Iterable[Entry], source: Path, limits: ArchiveLimits) -> Iterator[Entry]:
    total = 0
    for count, entry in enumerate(entries, 1):
        if count > limits.entries:
            raise ArchiveError(
                f"{source} holds more than {limits.entries:,} files. Collect it in parts."
            )
        _refuse_unsafe(entry.name, source)
        if _is_junk(entry.name):
            continue
        # Nothing but notebooks is unpacked, and none that is larger than the limit.
        if entry.name.lower().endswith(".ipynb") and entry.size <= limits.file:
            total += entry.size
        if total > limits.total:
            raise ArchiveError(
                f"{source}: its notebooks would take more than {limits.total / 2**30:.1f} GiB "
                f"unpacked, counted up to {shown(entry.name)}. Collect it in parts."
            )
        yield entry


def _is_junk(name: str) -> bool:
    return any(part.startswith(".") or part in JUNK for part in name.split("/"))


def _refuse_unsafe(name: str, source: Path) -> None:
    reason = None
    if name.startswith("/"):
        reason = "is an absolute path"
    elif "\\" in name:
        reason = "has a backslash"
    elif re.match(r"[A-Za-z]:", name):
        reason = "names a drive"
    elif ".." in name.split("/"):
        reason = "leads out of its folder"
    elif len(name) > _LONGEST_NAME:
        reason = f"is longer than {_LONGEST_NAME} characters"
    elif any(unicodedata.category(c) == "Cc" for c in name):
        reason = "has control characters"
    if reason:
        raise ArchiveError(
            f"{source} was refused, and nothing unpacked: the name of its entry "
            f"{shown(name[:200])} {reason}. No LMS writes that; find out where the archive comes "
            "from, and download it again."
        )


def _refuse_link(name: str, source: Path, links: list[str]) -> None:
    _refuse_unsafe(name, source)
    if not _is_junk(name):
        links.append(
            f"{shown(name)} is a link or a special file and was not followed. Ask for the "
            "notebook itself."
        )


# ---- zip -------------------------------------------------------------------------------------


def _of_zip(
    archive: zipfile.ZipFile, source: Path, limits: ArchiveLimits, links: list[str]
) -> Iterator[Entry]:
    for info in archive.infolist():
        name, kind = _zip_name(info), stat.S_IFMT(info.external_attr >> 16)
        if info.flag_bits & 0x1:
            raise ArchiveError(
                f"{source}: {shown(name)} is encrypted. Unpack the archive with its password, and "
                "collect the folder."
            )
        if info.file_size > max(limits.small, limits.ratio * info.compress_size):
            raise ArchiveError(
                f"{source} was refused, and nothing unpacked: {shown(name)} would grow from "
                f"{info.compress_size:,} to {info.file_size:,} bytes, as only an archive made to "
                "fill a disk does. Take it out of the archive, and ask who handed it in."
            )
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            _refuse_link(name, source, links)
        elif info.is_dir():
            _refuse_unsafe(name, source)
        else:
            open_it = functools.partial(archive.open, info)
            yield Entry(name, info.file_size, _zip_date(info), open_it)


def _zip_name(info: zipfile.ZipInfo) -> str:
    # The name as stored: zipfile cuts its own copy at a NUL.
    name = info.orig_filename
    if not info.flag_bits & 0x800:
        # Many writers store UTF-8 without saying so; zipfile then reads it as a DOS code page.
        with contextlib.suppress(UnicodeError):
            return name.encode("cp437").decode("utf-8")
    return name


def _zip_date(info: zipfile.ZipInfo) -> datetime | None:
    """The entry's date. The old field has no zone and is taken as this machine's time."""
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        if kind == 0x5455 and size >= 5 and len(extra) >= 9 and extra[4] & 1:
            return datetime.fromtimestamp(struct.unpack("<i", extra[5:9])[0], UTC)
        extra = extra[4 + size :]
    if info.date_time <= (1980, 1, 1, 0, 0, 0):  # what is written where there is no date
        return None
    try:
        return datetime(*info.date_time).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# ---- tar -------------------------------------------------------------------------------------


def _plain(source: Path, limits: ArchiveLimits, work: Path) -> Path:
    """The archive without its compression, which hides how large it is."""
    with source.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return source
    size, written, path = source.stat().st_size, 0, work / "plain.tar"
    most = min(limits.total, max(limits.small, limits.ratio * size))
    with gzip.open(source) as packed, path.open("xb") as plain:
        while chunk := packed.read(2**20):
            written += len(chunk)
            if written > most:
                raise ArchiveError(
                    f"{source} was refused: its {size:,} bytes grow to more than {most:,}, as only "
                    "an archive made to fill a disk does. Find out where it comes from."
                )
            plain.write(chunk)
    return path


def _of_tar(archive: tarfile.TarFile, source: Path, links: list[str]) -> Iterator[Entry]:
    for member in archive:
        name = member.name.removeprefix("./")
        if member.isdir():
            _refuse_unsafe(name, source)
        elif not member.isreg() or member.issparse():
            _refuse_link(name, source, links)
        else:
            date = datetime.fromtimestamp(member.mtime, UTC) if member.mtime > 0 else None
            yield Entry(name, member.size, date, functools.partial(_open_tar, archive, member))


def _open_tar(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return archive.extractfile(member) or io.BytesIO()


# ---- folder ----------------------------------------------------------------------------------


def _of_folder(source: Path, limits: ArchiveLimits, links: list[str]) -> Iterator[Entry]:
    for folder, folders, files in os.walk(source):
        folders.sort()
        for name in sorted([*files, *folders]):
            path = Path(folder, name)
            status, inside = path.lstat(), path.relative_to(source).as_posix()
            if stat.S_ISREG(status.st_mode):
                date = datetime.fromtimestamp(status.st_mtime, UTC)
                open_it = functools.partial(_open_file, path, limits.file)
                yield Entry(inside, status.st_size, date, open_it)
            elif not stat.S_ISDIR(status.st_mode):
                _refuse_link(inside, source, links)


def _open_file(path: Path, most: int) -> IO[bytes]:
    try:
        return io.BytesIO(read_bytes(path, most))
    except UnreadableSubmission as error:
        raise OSError(str(error)) from error
