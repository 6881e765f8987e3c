"""Attacks on limits and processes: bombs, floods, endless loops, deaths, what should not live on.

What could harm a machine is bounded by itself, and is not done at all where the process that
grades is within reach: the attack reports that instead.
"""

from __future__ import annotations

from tests.submissions.hostile_grades import TRUTH, attack

MIDDLE = "causal_mask-solution"

# ---- ends ------------------------------------------------------------------------------------

DEATHS = {
    "exit": ("Ends its process.", "os._exit(0)"),
    "exit-with-points": (
        "Ends its process with a status like its points.",
        "print(16.0, flush=True)\nos._exit(16)",
    ),
    "abort": ("Aborts.", "os.abort()"),
    "segfault": ("Reads from address 0.", "import ctypes\nctypes.string_at(0)"),
    "self-kill": ("Kills itself.", "os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(5)"),
    "kill-group": ("Kills its process group.", "os.killpg(0, signal.SIGKILL)\ntime.sleep(5)"),
    "deep-crash": (
        "Lifts Python's own limit of depth, and overflows the stack.",
        "sys.setrecursionlimit(10**9)\nthing = []\nfor _ in range(10**6):\n    thing = [thing]\n"
        "repr(thing)",
    ),
    "closes-all": (
        "Closes every descriptor.",
        "os.closerange(0, 4096)",
    ),
    "covers-all": (
        "Puts the null device in the place of every descriptor.",
        "null = os.open(os.devnull, os.O_RDWR)\n"
        "for fd in range(200):\n    if fd != null:\n        os.dup2(null, fd)",
    ),
}

EXITS_INSIDE = {
    "padding_mask": "def padding_mask(token_ids, pad_id=0):\n    os._exit(0)",
}

RECURSION = {
    "causal_mask": """
class Deep:
    def __repr__(self):
        return repr(Deep())

    __str__ = __repr__


def causal_mask(length):
    try:
        return causal_mask(length)
    except RecursionError:
        raise ValueError(Deep()) from None
""",
}

# ---- signals ---------------------------------------------------------------------------------

KILL_ALL = """
if contained():
    # In its own process namespace it hears its own signals too.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL):
        for pid in (os.getppid(), place.pid, *range(2, 400)):
            if pid not in (os.getpid(), 0):
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
    with contextlib.suppress(OSError):
        os.kill(1, signal.SIGKILL) if os.getpid() != 1 else None
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGKILL)
"""

# ---- too much --------------------------------------------------------------------------------

FORK_BOMB = """
if contained():
    children = []
    with contextlib.suppress(OSError):
        while len(children) < 1500:
            pid = os.fork()
            if pid == 0:
                with contextlib.suppress(OSError):
                    os.fork()
                time.sleep(20)
                os._exit(0)
            children.append(pid)
    print("children:", len(children))
    if len(children) >= 1000:
        got("a thousand processes")
"""

THREAD_BOMB = """
threads = []
with contextlib.suppress(RuntimeError, MemoryError):
    while len(threads) < 3000:
        threads.append(threading.Thread(target=time.sleep, args=(20,), daemon=True))
        threads[-1].start()
if len(threads) >= 2000:
    got("two thousand threads")
"""

MEMORY_BOMBS = {
    "list": "hoard = []\nwhile len(hoard) < 60:\n    hoard.append(bytearray(b'x') * 100_000_000)",
    "torch": "hoard = []\nwhile len(hoard) < 60:\n    hoard.append(torch.ones(25_000_000))",
    "map": "import mmap\nhoard = []\nwhile len(hoard) < 60:\n"
    "    hoard.append(mmap.mmap(-1, 100_000_000))\n    hoard[-1][::4096] = b'x' * 24415",
}

MEMORY_OF_MANY = """
if contained():
    ready, tell = os.pipe()
    children = []
    with contextlib.suppress(OSError):
        for _ in range(12):
            pid = os.fork()
            if pid == 0:
                try:
                    hoard = bytearray(b"x") * 500_000_000
                    os.write(tell, b"x")
                    time.sleep(20)
                finally:
                    os._exit(0)
            children.append(pid)
    time.sleep(1.5)
    os.set_blocking(ready, False)
    with contextlib.suppress(BlockingIOError):
        if len(os.read(ready, 100)) == 12:
            got("six gigabytes in twelve processes")
"""

DISK_BOMB = """
import errno, tempfile
block = b"x" * (16 << 20)
total = 0
for folder in (os.getcwd(), tempfile.gettempdir(), "/dev/shm", "/var/tmp", os.path.expanduser("~")):
    for number in range(60):
        try:
            with open(f"{folder}/stray-{number}", "wb") as file:
                for _ in range(4):
                    total += file.write(block)
        except OSError:
            break
print("written:", total >> 20, "MiB")
if total > 4 << 30:
    got("four gigabytes of files")
"""

# Files that have no name count as nobody's memory, unless somebody looks for them.
NAMELESS_FILES = """
held, total = [], 0
with contextlib.suppress(OSError, MemoryError):
    while total < 4 << 30 and len(held) < 200:
        held.append(os.memfd_create("stray"))
        os.posix_fallocate(held[-1], 0, 100 << 20)
        total += 100 << 20
print("held:", total >> 20, "MiB")
if total >= 3 << 30:
    got("three gigabytes in files without a name")
for fd in held:
    os.close(fd)
"""

MANY_FILES = """
made = 0
with contextlib.suppress(OSError):
    os.mkdir("many")
    for made in range(60_000):
        os.close(os.open(f"many/{made}", os.O_CREAT | os.O_WRONLY))
print("files:", made)
if made > 50_000:
    got("fifty thousand files")
"""

MANY_DESCRIPTORS = """
held = []
with contextlib.suppress(OSError):
    while len(held) < 20_000:
        held.append(os.open(os.devnull, os.O_RDONLY))
if len(held) >= 10_000:
    got("ten thousand open files")
"""

FLOODS = [
    "from IPython.display import HTML, display\n"
    "for _ in range(40):\n    display(HTML('<p>' + 'x' * 1_000_000))\n"
    "for number in range(3000):\n    display(number)",
    "print('x' * 30_000_000)\nprint('y' * 10_000_000, file=sys.stderr)\n"
    "sys.stdout.write('\\r' * 1_000_000)\nprint('\\x00\\x1b[2J\\ud800' * 1000)",
    "for fd in (1, 2):\n    with contextlib.suppress(OSError):\n"
    "        for _ in range(60):\n            os.write(fd, b'x' * 500_000)",
    "import subprocess\nsubprocess.run('yes | head -c 30000000', shell=True)\n"
    "subprocess.run('yes | head -c 3000000 >&2', shell=True)",
]
ENDLESS_FLOOD = "while True:\n    print('x' * 100_000)\n    sys.stderr.write('y' * 100_000)"

LIMITS = """
import resource
for name in dir(resource):
    if name.startswith("RLIMIT_"):
        kind = getattr(resource, name)
        soft, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                got("lifted", name)
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(kind, (hard + 1, hard + 1))
                got("raised", name)
with contextlib.suppress(OSError):
    os.nice(-20)
    got("went first")
with contextlib.suppress(OSError):
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    got("went before all")
with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
    file.write("-1000")
    file.flush()
    got("will not be the one to go")
"""

# ---- endless ---------------------------------------------------------------------------------

SWALLOWS = {
    "causal_mask": """
def causal_mask(length):
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            continue
""",
}

NO_CLOCKS = {
    "causal_mask": """
def causal_mask(length):
    for number in signal.valid_signals():
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    signal.signal = signal.setitimer = signal.pthread_kill = lambda *arguments: None
    threading.Event.wait = lambda *arguments: time.sleep(1000)
    while True:
        time.sleep(1)
""",
}

IN_C = {
    "causal_mask": "import re\n\n\ndef causal_mask(length):\n"
    "    re.match(r'(a+)+$', 'a' * 60 + 'b')",
}

STOPPED = "os.kill(os.getpid(), signal.SIGSTOP)"

# ---- living on -------------------------------------------------------------------------------

DETACHED = """
import subprocess
script = f"sleep 4; echo stray > {place.strays}/$1; sleep 60; : $0"
for name, start in (
    ("popen", dict(start_new_session=True)),
    ("nohup", dict(start_new_session=True, stdin=subprocess.DEVNULL)),
):
    with contextlib.suppress(OSError):
        subprocess.Popen(["sh", "-c", script, place.token, name],
                         env={**os.environ, "CORPUS_MARK": place.token}, **start)
with contextlib.suppress(OSError):
    os.system(f"(setsid sh -c '{script}' {place.token} setsid > /dev/null 2>&1 &)")
"""

DOUBLE_FORK = """
import ctypes
libc = ctypes.CDLL(None)
pid = os.fork()
if pid == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    libc.prctl(15, ("s-" + place.token).encode()[:15], 0, 0, 0)  # its name, as ps shows it
    for number in range(1, 60):
        with contextlib.suppress(Exception):
            signal.signal(number, signal.SIG_IGN)
    time.sleep(4)
    with contextlib.suppress(OSError):
        open(f"{place.strays}/double-fork", "w").close()
    time.sleep(60)
    os._exit(0)
os.waitpid(pid, 0)
"""

HOLDS_PIPES = """
import ctypes
if os.fork() == 0:
    ctypes.CDLL(None).prctl(15, ("s-" + place.token).encode()[:15], 0, 0, 0)
    os.setsid()
    time.sleep(60)
    os._exit(0)
os._exit(0)
"""

AT_EXIT = """
import atexit, weakref
for _ in range(3):
    atexit.register(lambda: time.sleep(60))
atexit.register(lambda: to_every_descriptor(frame(2, 0, b"late")))
threading.Thread(target=time.sleep, args=(60,)).start()


class Stays:
    def __del__(self):
        time.sleep(60)


stays = Stays()
weakref.finalize(stays, time.sleep, 60)
import multiprocessing.util
multiprocessing.util.Finalize(None, time.sleep, args=(60,), exitpriority=10)
"""

LATER = """
def later():
    while True:
        for name in ("softmax", "padding_mask", "causal_mask"):
            get_ipython().user_ns[name] = getattr(torch, name, None)
        print("from a thread")
        time.sleep(0.002)


threading.Thread(target=later).start()
threading.Timer(0.2, lambda: to_every_descriptor(frame(1, 3, b"{}"))).start()
"""

SUBMISSIONS = (
    *(
        attack(name, story, "right", {MIDDLE: source}, fate="killed timeout error")
        for name, (story, source) in DEATHS.items()
    ),
    attack(
        "exit-inside",
        "Ends its process while it is checked.",
        "right",
        {"last": "pass"},
        EXITS_INSIDE,
        fate="killed",
        tools="import os\n",
    ),
    attack("recursion", "Never returns from itself.", "right", {"last": "pass"}, RECURSION),
    attack(
        "kill-all",
        "Sends signals to every process there is.",
        "right",
        {MIDDLE: KILL_ALL},
        fate="killed timeout",
    ),
    attack("fork-bomb", "Forks.", "right", {MIDDLE: FORK_BOMB}, fate="killed timeout error"),
    attack("thread-bomb", "Starts threads.", "right", {MIDDLE: THREAD_BOMB}, fate="killed error"),
    *(
        attack(
            f"memory-{name}",
            "Takes memory.",
            "right",
            {MIDDLE: f"{source}\ngot('six gigabytes')"},
            fate="killed timeout error",
        )
        for name, source in MEMORY_BOMBS.items()
    ),
    attack(
        "memory-of-many",
        "Takes memory in twelve processes.",
        "right",
        {MIDDLE: MEMORY_OF_MANY},
        fate="killed timeout error",
    ),
    attack(
        "disk", "Fills every folder.", "right", {MIDDLE: DISK_BOMB}, fate="killed timeout error"
    ),
    attack(
        "nameless-files",
        "Fills memory with files that have no name.",
        "right",
        {MIDDLE: NAMELESS_FILES},
        fate="killed timeout error",
    ),
    attack("many-files", "Makes many files.", "right", {MIDDLE: MANY_FILES}, fate="timeout error"),
    attack("many-descriptors", "Opens many files.", "right", {MIDDLE: MANY_DESCRIPTORS}),
    attack(
        "floods",
        "Prints, displays and writes too much in every way.",
        "right",
        {"first": FLOODS},
        shows="were cut",
    ),
    attack(
        "endless-flood",
        "Prints for ever.",
        "right",
        {"last": ENDLESS_FLOOD},
        fate="killed timeout",
    ),
    attack("limits", "Lifts its limits.", "right", {"first": LIMITS}),
    attack(
        "swallows",
        "Catches whatever is to end its loop.",
        "right",
        {"last": "pass"},
        SWALLOWS,
        fate="killed timeout",
    ),
    attack(
        "no-clocks",
        "Blocks signals, stops alarms and watchers, then sleeps.",
        "right",
        {"last": "pass"},
        NO_CLOCKS,
        fate="killed timeout",
    ),
    attack(
        "in-c",
        "Loops inside the C library, where nothing interrupts it.",
        "right",
        {"last": "pass"},
        IN_C,
        fate="killed timeout",
    ),
    attack("stopped", "Stops itself.", "right", {MIDDLE: STOPPED}, fate="killed timeout"),
    attack("detached", "Starts what should live on.", "right", {MIDDLE: DETACHED}),
    attack("double-fork", "Forks twice, out of its session.", "right", {MIDDLE: DOUBLE_FORK}),
    attack(
        "holds-pipes",
        "Is gone, while its child keeps its pipes open.",
        "right",
        {MIDDLE: HOLDS_PIPES},
        fate="killed timeout",
    ),
    attack("at-exit", "Sleeps in every exit handler.", "right", {"last": TRUTH + AT_EXIT}),
    attack(
        "thread-interferes",
        "A thread replaces answers and prints in later cells.",
        "all-wrong",
        {"softmax-check": TRUTH + LATER},
        fate="killed timeout error",
    ),
)
