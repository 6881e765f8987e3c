"""What holds a submission in: layers of isolation, each used where the machine has it.

Two processes use this module. The grading process builds the command that starts the fork server,
inside bubblewrap where there is one (:func:`bubblewrap`). Every child of the server that runs a
submission first shuts itself in (:func:`unshare`, :func:`furnish`, :func:`shut`). Nothing here
needs more than the standard library, and nothing here trusts what is inside.

=============  =====================================================================================
layer          what it does
=============  =====================================================================================
bubblewrap     the fork server sees the Python environment and the system's libraries, nothing else
namespaces     each submission has processes, mounts, a network and users of its own; they end with
               it
landlock       the kernel refuses every file that is not on a list
seccomp        the kernel refuses system calls that no notebook needs
rlimits        memory, processor time, processes, open files, file size
=============  =====================================================================================
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import shutil
import site
import struct
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LAYERS = ("bubblewrap", "namespaces", "landlock", "seccomp", "rlimits")

# What must be true of a submission, and the sets of layers of which any one makes it true.
PROTECTIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "files": (("bubblewrap", "namespaces"), ("landlock",)),
    "processes": (("namespaces",), ("seccomp",)),
    "network": (("namespaces",), ("seccomp",)),
    "resources": (("rlimits",),),
}

TEMPORARY = "/tmp"
# Where a submission works, where it has namespaces.
WORK = f"{TEMPORARY}/work"
HOME = f"{TEMPORARY}/home"

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS = (
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/os-release",
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# Root hands each submission to a user of its own, counted up from here.
_FIRST_USER = 64_000
_USERS = 500


class SandboxError(Exception):
    """A layer that was asked for does not hold."""


def missing(layers: Iterable[str]) -> list[str]:
    """The protections that these layers do not give."""
    have = set(layers)
    return [
        name for name, ways in PROTECTIONS.items() if not any(have.issuperset(way) for way in ways)
    ]


# ---- what is to be seen ----------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """The files that a submission may read; it may write none of them.

    Attributes:
        readable: files and folders.
        covered: files and folders beneath those whose content is not there.
        kept: files in the covered folders that are there all the same.
        late: folders that the server still reads, and no submission.
    """

    readable: tuple[str, ...]
    covered: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    late: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The view as plain JSON values."""
        return {name: list(value) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> View:
        """What :meth:`to_json` gave."""
        return cls(**{name: tuple(value) for name, value in raw.items()})

    def pieces(self) -> list[str]:
        """Files and folders that together are what a submission may read, nothing covered."""
        hidden = {*self.covered, *self.late}
        found = [path for path in self.kept if os.path.exists(path)]
        waiting = [path for path in self.readable if os.path.exists(path)]
        while waiting:
            path = waiting.pop()
            if path in hidden:
                continue
            if any(_beneath(other, path) for other in hidden):
                with contextlib.suppress(OSError):
                    waiting += [os.path.join(path, name) for name in os.listdir(path)]
            else:
                found.append(path)
        return found


def python_view(packages: Sequence[Path], covered: Sequence[Path], **more: Sequence[Path]) -> View:
    """The system's libraries, this Python with its libraries, and some packages' folders."""
    paths = sysconfig.get_paths()
    wanted = [sys.prefix, sys.base_prefix]
    wanted += [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    wanted += [os.path.dirname(os.path.realpath(sys.executable))]
    if site.ENABLE_USER_SITE:
        wanted.append(site.getusersitepackages())
    # Where other environments' libraries are reached from this one.
    wanted += [path for path in sys.path if path.endswith(("/site-packages", "/dist-packages"))]
    wanted += [str(path) for path in packages]
    readable = [*_SYSTEM, *_SETTINGS]
    for path in sorted({os.path.realpath(path) for path in wanted}):
        # A prefix such as /usr/local is beneath /usr already. One that holds a whole home or the
        # file system itself is no prefix but a mistake.
        if not any(_beneath(path, known) for known in readable) and path.count("/") > 1:
            readable.append(path)
    return View(
        tuple(readable),
        tuple(str(path) for path in covered),
        **{name: tuple(str(path) for path in value) for name, value in more.items()},
    )


def _beneath(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


# ---- bubblewrap ------------------------------------------------------------------------------


def bubblewrap(view: View) -> list[str]:
    """The command that runs another one where nothing but a view can be seen.

    The server keeps what it needs to make namespaces for its children: as root its capabilities,
    as an ordinary user the right to nest user namespaces.
    """
    command = ["bwrap", "--die-with-parent", "--new-session"]
    command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try"]
    command += ["--cap-add", "ALL"] if os.geteuid() == 0 else ["--unshare-user"]
    # First, for a course may lie beneath it.
    command += ["--tmpfs", TEMPORARY]
    for path in _folders_above(view.readable):
        # Else they are for root's eyes alone, and no submission runs as root.
        command += ["--perms", "0755", "--dir", path]
    for path in view.readable:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            command += ["--ro-bind", path, path]
    for path in view.covered:
        if os.path.isdir(path):
            command += ["--tmpfs", path]
        elif os.path.isfile(path):
            command += ["--ro-bind", "/dev/null", path]
    for path in view.kept:
        if os.path.exists(path):
            command += ["--ro-bind", path, path]
    for path in view.covered:
        if os.path.isdir(path):
            command += ["--remount-ro", path]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    return [*command, "--chdir", TEMPORARY, "--remount-ro", "/", "--"]


def _folders_above(paths: Iterable[str]) -> list[str]:
    """The folders that lead to some paths, outermost first."""
    return sorted({str(folder) for path in paths for folder in Path(path).parents} - {"/"})


def has_bubblewrap() -> bool:
    """Whether the program is there at all; whether it works is for ``doctor`` to try."""
    return shutil.which("bwrap") is not None


# ---- the limits ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bounds:
    """What one submission may use.

    Attributes:
        memory: bytes, beyond what the interpreter and its libraries take; all processes together.
        files: bytes in the temporary folder, the working folder included.
        file: bytes of one file.
        processes: processes and threads.
        open_files: open files of a process.
    """

    memory: int = 2 << 30
    files: int = 256 << 20
    file: int = 128 << 20
    processes: int = 96
    open_files: int = 256


@dataclass
class Enclosure:
    """How one submission is shut in: prepared once by the server, used by each child.

    Attributes:
        layers: those to use.
        view: what may be read.
        bounds: what may be used.
        pieces: of the view, listed once.
    """

    layers: tuple[str, ...]
    view: View
    bounds: Bounds = field(default_factory=Bounds)
    pieces: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pieces = self.pieces or self.view.pieces()

    def has(self, layer: str) -> bool:
        """Whether a layer is used."""
        return layer in self.layers


# ---- namespaces ------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)
if sys.platform == "linux":
    _libc.syscall.restype = ctypes.c_long
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
_NEWPID, _NEWNET = 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_REMOUNT, _BIND, _REC, _PRIVATE = 0x20, 0x1000, 0x4000, 0x40000


def unshare() -> None:
    """Leaves the namespaces that this process shares with others.

    The process namespace is that of the children to come; the first one is its process 1, and
    when that ends, whatever else is in there is killed by the kernel.

    Raises:
        OSError: the kernel refuses.
    """
    flags = _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        _call(_libc.unshare, flags)
        return
    _call(_libc.unshare, flags | _NEWUSER)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")


def furnish(enclosure: Enclosure, files: dict[str, bytes], user: int | None) -> None:
    """Lays out the mounts of a fresh mount namespace, and goes to the working folder.

    Args:
        enclosure: what may be seen and used.
        files: the assignment's own files, by name.
        user: the id of the user that the files are for, None to leave them as they are.

    Raises:
        OSError: the kernel refuses.
    """
    _mount(None, "/", None, _REC | _PRIVATE)
    view, apart = enclosure.view, not enclosure.has("bubblewrap")
    beneath = [path for path in view.readable if _beneath(path, TEMPORARY)]
    held = {
        path: os.open(path, os.O_PATH)
        for path in (*beneath, *(view.kept if apart else ()))
        if os.path.exists(path)
    }
    size = f"size={enclosure.bounds.files},nr_inodes=20000,mode=0755"
    _mount("tmpfs", TEMPORARY, "tmpfs", _NOSUID | _NODEV, size)
    shared = f"{TEMPORARY}/.shm"
    for folder in (WORK, HOME, shared):
        os.mkdir(folder)
    lay_out(files, WORK)
    if user is not None:
        for path in (TEMPORARY, WORK, HOME, shared, *_files_in(WORK)):
            os.chown(path, user, user)
    if os.path.isdir("/dev/shm"):
        # Counted within the same bound.
        _mount(shared, "/dev/shm", None, _BIND)
    for path in beneath:
        if path in held:
            _bring_back(held[path], path)
    for folder in (*(view.covered if apart else ()), *view.late):
        if os.path.isdir(folder):
            _mount("tmpfs", folder, "tmpfs", _NOSUID | _NODEV, "size=64k,mode=0755")
            for path, fd in held.items():
                if path != folder and _beneath(path, folder):
                    _bring_back(fd, path)
            _mount(None, folder, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)
    for fd in held.values():
        os.close(fd)
    try:
        _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    except OSError:
        # A container may forbid it. Better none than one that shows the other processes.
        _mount("tmpfs", "/proc", "tmpfs", _RDONLY, "size=4k")
    os.chdir(WORK)


def _bring_back(fd: int, path: str) -> None:
    """Puts what was at a path before a mount hid it there again, to be read only."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    source = f"/proc/self/fd/{fd}"
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(source, path, None, _BIND | _REC)
    _mount(None, path, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)


def lay_out(files: dict[str, bytes], folder: str) -> None:
    """Writes files, given by their relative paths, into a folder."""
    for name, data in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


def _files_in(folder: str) -> list[str]:
    return [
        os.path.join(where, name)
        for where, folders, names in os.walk(folder)
        for name in (*folders, *names)
    ]


def user_of(number: int) -> int | None:
    """The user that runs the submission of that number: None where this process is not root."""
    return _FIRST_USER + number % _USERS if os.geteuid() == 0 else None


# ---- shutting in -----------------------------------------------------------------------------


def shut(
    enclosure: Enclosure, seconds: float, user: int | None, work: str, alone: bool = False
) -> None:
    """Gives up, for good, whatever a submission has no need of. The last thing before it runs.

    Args:
        enclosure: which layers, and within what bounds.
        seconds: of processor time, per process.
        user: whom to become, where this process is root.
        work: the folder that may be written to.
        alone: whether no other process may be started, even where there are namespaces.

    Raises:
        OSError: the kernel refuses a layer that is asked for.
    """
    if enclosure.has("rlimits"):
        _limit(enclosure.bounds, seconds)
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    if set(enclosure.layers) & {"namespaces", "landlock", "seccomp"}:
        _give_up_privileges()
    if enclosure.has("landlock"):
        _landlock(enclosure.pieces, _writable(enclosure, work))
    if enclosure.has("seccomp"):
        alone = alone or not enclosure.has("namespaces")
        _seccomp(alone, unix=enclosure.has("bubblewrap"))


def _writable(enclosure: Enclosure, work: str) -> list[str]:
    if not enclosure.has("namespaces"):
        return [work]
    places = [TEMPORARY]
    if any(_beneath(path, TEMPORARY) for path in enclosure.view.readable):
        # What lies there of the course stays as it is.
        places = [WORK, HOME, f"{TEMPORARY}/.shm"]
    # Its own processes may be looked at: multiprocessing and psutil do.
    return [*places, "/dev/shm", "/proc"]


def _limit(bounds: Bounds, seconds: float) -> None:
    used, private = _memory_used()
    for kind, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        # Mapped memory, and that part of it which is private and writable.
        (resource.RLIMIT_AS, used + bounds.memory, used + bounds.memory),
        (resource.RLIMIT_DATA, private + bounds.memory, private + bounds.memory),
        (resource.RLIMIT_CPU, int(seconds) + 2, int(seconds) + 3),
        (resource.RLIMIT_NPROC, bounds.processes, bounds.processes),
        (resource.RLIMIT_FSIZE, bounds.file, bounds.file),
        (resource.RLIMIT_NOFILE, bounds.open_files, bounds.open_files),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 1 << 20, 1 << 20),
    ):
        most = resource.getrlimit(kind)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(kind, (soft, hard))


_PAGE = resource.getpagesize()


def _memory_used() -> tuple[int, int]:
    """Bytes mapped, and bytes private and writable, of this process."""
    try:
        with open("/proc/self/statm") as file:
            pages = file.read().split()
    except OSError:  # no /proc in here
        return 24 << 30, 4 << 30
    return int(pages[0]) * _PAGE, int(pages[5]) * _PAGE


def _give_up_privileges() -> None:
    header = struct.pack("Ii", 0x20080522, 0)
    for capability in range(64):
        with contextlib.suppress(OSError):  # the kernel knows fewer
            _prctl(24, capability)  # PR_CAPBSET_DROP
    with contextlib.suppress(OSError):
        _prctl(47, 4)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL
    _syscall("capset", header, bytes(24))
    _prctl(38, 1)  # PR_SET_NO_NEW_PRIVS, which Landlock and seccomp ask for


# ---- Landlock --------------------------------------------------------------------------------

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL


def _landlock(readable: Sequence[str], writable: Sequence[str]) -> None:
    version = _syscall("landlock_create_ruleset", None, 0, 1)  # fails where there is none
    every = (1 << 13) - 1
    every |= (version >= 2) << 13 | (version >= 3) << 14 | (version >= 5) << 15
    attributes = struct.pack(
        "QQQ",
        every,
        3 if version >= 4 else 0,  # TCP: neither bind nor connect
        3 if version >= 6 else 0,  # abstract sockets and signals stay inside
    )
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = _syscall("landlock_create_ruleset", attributes, size, 0)
    read = (_EXECUTE | _READ_FILE | _READ_DIR) & every
    for path in readable:
        _allow(rules, path, read)
    for path in _DEVICES:
        _allow(rules, path, (_READ_FILE | _WRITE_FILE) & every)
    for path in writable:
        _allow(rules, path, every)
    _syscall("landlock_restrict_self", rules, 0)
    os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there need not be allowed
    try:
        if not os.path.isdir(path):
            access &= _ON_FILES
        rule = struct.pack("=Qi", access, fd)
        _syscall("landlock_add_rule", rules, 1, rule, 0)
    finally:
        os.close(fd)


# ---- seccomp ---------------------------------------------------------------------------------

# Number on x86-64, number on arm64 (None: not there).
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "capset": (126, 91),
    "chroot": (161, 51),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
    "fork": (57, None),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "landlock_add_rule": (445, 445),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "memfd_create": (319, 279),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setns": (308, 268),
    "shmget": (29, 194),
    "settimeofday": (164, 170),
    "socket": (41, 198),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "tkill": (200, 130),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vfork": (58, None),
}
_SPECIAL = {"clone", "clone3", "fork", "vfork", "socket", "capset"}
_SPECIAL |= {name for name in _CALLS if name.startswith("landlock_")}
_SIGNALS = {"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal"}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NEW_NAMESPACES = 0x7E020080


def _number(name: str) -> int:
    column = _MACHINES.get(platform.machine(), (None, 0))[0]
    number = None if column is None else _CALLS[name][column]
    if number is None:
        raise OSError(errno.ENOSYS, f"{name} is not known on {platform.machine()}")
    return number


def _seccomp(alone: bool, unix: bool) -> None:
    """Refuses system calls that no notebook needs.

    Args:
        alone: no other process may be started or signalled, and no socket opened: where there
            are no namespaces, for one.
        unix: sockets may be opened (they lead nowhere: the network namespace is empty, and no
            other program's socket can be seen).
    """
    column, machine = _MACHINES.get(platform.machine(), (None, 0))
    if column is None:
        raise OSError(errno.ENOSYS, f"no filter for {platform.machine()}")
    # struct sock_filter: code, jump if true, jump if false, operand. Loads are of the call's
    # number (offset 0), the machine (4) and the low halves of its arguments (16, 24, ...).
    load, equal, at_least, any_bit, end = 0x20, 0x15, 0x35, 0x45, 0x06
    program: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4),
        (equal, 1, 0, machine),
        (end, 0, 0, _KILL),
        (load, 0, 0, 0),
    ]
    if column == 0:  # the x32 variants of the calls
        program += [(at_least, 0, 1, 0x40000000), (end, 0, 0, _ERRNO | errno.ENOSYS)]

    def known(name: str) -> int | None:
        return _CALLS[name][column]

    def refuse(name: str, error: int = errno.EPERM) -> None:
        number = known(name)
        if number is not None:
            program.extend([(equal, 0, 1, number), (end, 0, 0, _ERRNO | error)])

    def when(name: str, test: Sequence[tuple[int, int, int, int]]) -> None:
        """``test`` runs with the call's number loaded, ends or falls through, and reloads it."""
        number = known(name)
        if number is not None:
            body = [*test, (load, 0, 0, 0)]
            program.extend([(equal, 0, len(body), number), *body])

    # Files without a name and shared segments are memory that no limit counts.
    for name in _CALLS:
        if name not in _SPECIAL | _SIGNALS:
            refuse(name)
    # The C library falls back on clone, whose flags can be looked at.
    refuse("clone3", errno.ENOSYS)
    when(
        "clone",
        [(load, 0, 0, 16), (any_bit, 0, 1, _NEW_NAMESPACES), (end, 0, 0, _ERRNO | errno.EPERM)],
    )
    if alone:
        threads = 0x00010000
        when(
            "clone",
            [(load, 0, 0, 16), (any_bit, 1, 0, threads), (end, 0, 0, _ERRNO | errno.EPERM)],
        )
        refuse("fork")
        refuse("vfork")
        me = os.getpid() & 0xFFFFFFFF
        for name in ("kill", "tgkill"):
            when(name, [(load, 0, 0, 16), (equal, 1, 0, me), (end, 0, 0, _ERRNO | errno.EPERM)])
        for name in sorted(_SIGNALS - {"kill", "tgkill"}):
            refuse(name)
    if alone or not unix:
        refuse("socket", errno.EACCES)
    else:
        # Unix and internet sockets only: others, such as vsock, know no namespaces.
        allowed = [(equal, 3, 0, 1), (equal, 2, 0, 2), (equal, 1, 0, 10)]
        when("socket", [(load, 0, 0, 16), *allowed, (end, 0, 0, _ERRNO | errno.EACCES)])
    program.append((end, 0, 0, _ALLOW))
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filters = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    program_at = ctypes.create_string_buffer(filters, len(filters))
    _prctl(22, 2, ctypes.addressof(program_at))  # PR_SET_SECCOMP, a filter


# ---- the C library ---------------------------------------------------------------------------


def _call(function: Any, *arguments: Any) -> int:
    ctypes.set_errno(0)
    result = function(*arguments)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _prctl(option: int, *arguments: int) -> int:
    padded = (*arguments, 0, 0, 0, 0)[:4]
    return _call(_libc.prctl, ctypes.c_int(option), *map(ctypes.c_ulong, padded))


def _syscall(name: str, *arguments: Any) -> int:
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _call(_libc.syscall, ctypes.c_long(_number(name)), *values)


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, data: str | None = None
) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    try:
        _call(_libc.mount, *encoded, ctypes.c_ulong(flags), data.encode() if data else None)
    except OSError as error:
        raise OSError(error.errno, f"cannot mount {target}: {error.strerror}") from None


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def die_with_parent() -> None:
    """Has the kernel end this process when the one that started it ends."""
    if sys.platform == "linux":
        _prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL


def adopt_orphans() -> None:
    """Makes this process the parent of the processes that its dead children leave."""
    if sys.platform == "linux":
        _prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


# ---- trying ----------------------------------------------------------------------------------
# Run as a program of its own, this module tries every layer: it does inside what the layer is
# there to prevent.


def _attempt(layer: str, enclosure: Enclosure) -> str:
    """Tries a layer in this process, which is spent afterwards; returns what was seen.

    Raises:
        SandboxError: the layer is there but does not hold.
        OSError: the kernel refuses it.
    """
    if layer == "namespaces":
        unshare()
        pid = os.fork()
        if pid:
            if os.waitpid(pid, 0)[1]:
                raise SandboxError("what must not be possible inside is possible")
            return "processes, mounts, network and users of its own"
        try:
            furnish(enclosure, {}, user_of(0))
            shut(enclosure, 10, user_of(0), WORK)
            alone = os.getpid() == 1
            quiet = _refused(_connect)
            bounded = os.statvfs(TEMPORARY).f_blocks * 4096 <= enclosure.bounds.files * 2
            with open(f"{WORK}/x", "w") as file:
                file.write("mine")
        except BaseException:
            os._exit(2)
        os._exit(0 if alone and quiet and bounded else 1)
    if layer == "rlimits":
        _limit(Bounds(memory=64 << 20), 10)
        try:
            bytearray(256 << 20)
        except MemoryError:
            return "memory, processor time, processes, files"
        raise SandboxError("more memory than allowed can be had")
    shut(enclosure, 10, None, TEMPORARY)
    if layer == "landlock":
        if not _refused(lambda: os.listdir("/")) or not os.listdir(sys.prefix):
            raise SandboxError("a file that is not on the list can be read")
        return "only the files that are listed can be read"
    if not _refused(lambda: _syscall("ptrace", 0, 0, 0, 0)):
        raise SandboxError("a forbidden system call can be made")
    return "system calls that no notebook needs are refused"


def _refused(act: Any) -> bool:
    try:
        act()
    except OSError:
        return True
    return False


def _connect() -> None:
    import socket

    with socket.socket() as made:
        made.settimeout(1)
        made.connect(("127.0.0.1", 9))


def _try_all(settings: dict[str, Any]) -> list[dict[str, Any]]:
    view = View.from_json(settings["view"])
    around = ("bubblewrap",) if settings["bubblewrap"] else ()
    found: list[dict[str, Any]] = []
    for layer in LAYERS[1:]:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                said = f"1{_attempt(layer, Enclosure((*around, layer), view))}"
            except (OSError, SandboxError) as error:
                said = f"0{error}"
            os.write(writer, said.encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            said = pipe.read()
        os.waitpid(pid, 0)
        found.append({"name": layer, "holds": said[:1] == "1", "seen": said[1:] or "it died"})
    return found


if __name__ == "__main__":
    import json

    print(json.dumps(_try_all(json.loads(sys.argv[1]))))
