"""Running submissions in children of a fork server: what comes back, and what cannot."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from grading_fixtures import SEED, SOFTMAX, outcomes_of
from nbformat import NotebookNode

from autograder.engine import (
    MAX_CELL,
    BrokenProtocol,
    Cell,
    CellResult,
    EngineError,
    ForkEngine,
    Job,
    Receiver,
    Transcript,
    environment,
)
from autograder.outcomes import decode
from autograder.sandbox import Bounds
from autograder.worker import CELL, END, HEADER, MAX_TEXT, OUTCOMES, Recorder


def _job(*sources: str, **more: object) -> Job:
    return Job([Cell(f"cell-{i}", source) for i, source in enumerate(sources)], SEED, **more)


@pytest.fixture(scope="module")
def engine() -> Iterator[ForkEngine]:
    """Shut in as this machine allows; on one that allows nothing, not at all."""
    with ForkEngine(trust=True) as engine:
        yield engine


@pytest.fixture(scope="module")
def run(engine: ForkEngine) -> Callable[..., Transcript]:
    """Runs cells given by their sources."""
    return lambda *sources, **more: engine.run(_job(*sources, **more))


def _text(result: CellResult) -> str:
    return "".join(out.text for out in result.outputs if out.output_type == "stream")


def _error(result: CellResult) -> NotebookNode:
    return next(out for out in result.outputs if out.output_type == "error")


# ---- cells that behave -----------------------------------------------------------------------

HONEST = {
    "print and a value": "print('hi'); 6 * 7",
    "magic": "%time x = 3",
    "cell magic": "%%html\n<b>bold</b>",
    "shell": "!echo from the shell",
    "shell output": "told = !printf 'a\\nb'\ntold",
    "await": "import asyncio\nawait asyncio.sleep(0.01)\n'awaited'",
    "figure": "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
    "display": "from IPython.display import HTML, display\ndisplay(HTML('<i>x</i>'))",
    "update": "h = display('old', display_id=True); h.update('new')",
    "clear": "from IPython.display import clear_output\n"
    "print(1); clear_output(wait=True); print(2)",
    "progress": "from tqdm.auto import tqdm\nfor _ in tqdm(range(50)): pass",
    "widget": "import ipywidgets\nipywidgets.IntSlider()",
    "warning": "import warnings, sys\nwarnings.warn('careful'); print('err', file=sys.stderr)",
    "bytes": "sys.stdout.buffer.write('é'.encode()); sys.stdout.flush()",
    "input": "input('who?')",
    "password": "import getpass; getpass.getpass()",
    "raise": "1 / 0",
    "syntax": "def f(:",
    "unknown magic": "%no_such_magic",
    "exit": "import sys; sys.exit(3)",
    "quit": "quit",
    "group": "raise ExceptionGroup('two', [ValueError(1)])",
    "strange error": "class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E",
    "interrupt": "raise KeyboardInterrupt",
    "install": "%pip install x\n!pip install x",
    "environment": "import os; print(os.environ['WORKBOOK_BUDGET'], os.environ['WORKBOOK_GRADING'],"
    " os.environ['WORKBOOK_STATIC'], os.environ.get('A_SECRET'), os.listdir('.'),"
    " torch.get_num_threads() if (torch := __import__('torch')) else 0)",
    "many": "for i in range(1000): display(i)",
    "flood": "for i in range(20_000): print('0123456789')",
    "sleep": "import time\nwhile True: time.sleep(0.05)",
    "swallow": "while True:\n    try: time.sleep(0.05)\n    except BaseException: break",
    "after": "print('still here', x)",
}


@pytest.fixture(scope="module")
def honest() -> dict[str, CellResult]:
    """One notebook of many cells, run once."""
    os.environ["A_SECRET"] = "token"
    job = Job([Cell(name, source) for name, source in HONEST.items()], SEED, cell_seconds=1.5)
    with ForkEngine(trust=True) as engine:
        transcript = engine.run(job)
    del os.environ["A_SECRET"]
    assert (transcript.status, transcript.note) == ("finished", "")
    assert transcript.stopped_in is None
    return transcript.cells


def test_outputs_are_valid_in_a_notebook(honest: dict[str, CellResult]) -> None:
    book = nbformat.v4.new_notebook()
    for name, source in HONEST.items():
        book.cells.append(nbformat.v4.new_code_cell(source, outputs=honest[name].outputs))
    nbformat.validate(book)


def test_what_is_printed_and_what_a_cell_returns(honest: dict[str, CellResult]) -> None:
    stream, value = honest["print and a value"].outputs
    assert (stream.name, stream.text) == ("stdout", "hi\n")
    assert value.output_type == "execute_result"
    assert value.data == {"text/plain": "42"}
    assert _text(honest["bytes"]) == "é"
    assert {out.name for out in honest["warning"].outputs} == {"stderr"}
    assert honest["warning"].status == "ok"


def test_magics_the_shell_and_await(honest: dict[str, CellResult]) -> None:
    assert "CPU times" in _text(honest["magic"])
    assert honest["cell magic"].outputs[0].data["text/html"] == "<b>bold</b>\n"
    assert _text(honest["shell"]).strip() == "from the shell"
    assert honest["shell output"].outputs[0].data["text/plain"] == "['a', 'b']"
    assert honest["await"].outputs[0].data["text/plain"] == "'awaited'"


def test_figures_displays_and_widgets(honest: dict[str, CellResult]) -> None:
    assert len(honest["figure"].outputs) == 1
    assert honest["figure"].outputs[0].data["image/png"].startswith("iVBOR")
    assert honest["display"].outputs[0].data["text/html"] == "<i>x</i>"
    assert [out.data["text/plain"] for out in honest["update"].outputs] == ["'new'"]
    assert _text(honest["clear"]) == "2\n"
    assert honest["widget"].status == "ok"


def test_a_progress_bar_leaves_its_last_state(honest: dict[str, CellResult]) -> None:
    assert "50/50" in _text(honest["progress"])
    assert " 0/50" not in _text(honest["progress"])


def test_input_is_answered_with_a_clear_error(honest: dict[str, CellResult]) -> None:
    for name in ("input", "password"):
        assert _error(honest[name]).ename == "StdinNotImplementedError"
        assert "nobody to ask while a notebook is graded" in _error(honest[name]).evalue


@pytest.mark.parametrize(
    ("name", "ename"),
    [
        ("raise", "ZeroDivisionError"),
        ("syntax", "SyntaxError"),
        ("unknown magic", "Error"),
        ("exit", "SystemExit"),
        ("group", "Error"),
        ("strange error", "E"),
        ("interrupt", "KeyboardInterrupt"),
    ],
)
def test_an_error_ends_its_cell_only(honest: dict[str, CellResult], name: str, ename: str) -> None:
    assert honest[name].status == "error"
    assert _error(honest[name]).ename == ename
    assert _text(honest["after"]) == "still here 3\n"


def test_exit_and_installations_do_nothing(honest: dict[str, CellResult]) -> None:
    assert honest["quit"].status == "ok"
    assert _text(honest["install"]).count("not installed while a notebook is graded") == 2


def test_the_environment_is_that_of_grading_and_has_no_secrets(
    honest: dict[str, CellResult],
) -> None:
    assert _text(honest["environment"]) == "smoke 1 1 None [] 1\n"


def test_too_much_output_is_cut_with_a_note(honest: dict[str, CellResult]) -> None:
    assert len(_text(honest["flood"])) < MAX_TEXT + 200
    assert "120,000 more characters of output were cut" in _text(honest["flood"])
    assert "800 more outputs were cut" in _text(honest["many"])


def test_a_cell_that_does_not_end_is_stopped_and_the_next_ones_run(
    honest: dict[str, CellResult],
) -> None:
    assert honest["sleep"].status == "timeout"
    assert _error(honest["sleep"]).ename == "CellTimeout"
    assert honest["swallow"].status == "timeout"


def test_later_cells_get_less_time_once_one_did_not_end(honest: dict[str, CellResult]) -> None:
    assert 1.4 < honest["sleep"].seconds < 3
    assert honest["swallow"].seconds < 1.4


# ---- checks ----------------------------------------------------------------------------------


def test_checks_send_raw_outcomes_and_show_nothing(engine: ForkEngine) -> None:
    check = 'check("attention/softmax", softmax)'
    cells = [
        Cell("define", f"import torch\n{SOFTMAX}"),
        Cell("practice", f"from autograder import check\n{check}"),
        Cell("redefine", "check = print"),
        Cell("graded", check, "attention/softmax"),
        Cell("loaded", "import sys\nsorted(m for m in sys.modules if m.startswith('autograder.'))"),
    ]
    transcript = engine.run(Job(cells, SEED))
    assert transcript.status == "finished"
    assert transcript.cells["practice"].messages == []
    graded = transcript.cells["graded"]
    assert graded.outputs == []
    assert len(graded.messages) == 1
    exercise, outcomes = decode(graded.messages[0])
    assert exercise == "attention/softmax"
    assert not any(outcome.failure for outcome in outcomes)
    loaded = transcript.cells["loaded"].outputs[0].data["text/plain"]
    assert "autograder.checking" in loaded
    assert "autograder.judge" not in loaded
    assert "autograder.pack" not in loaded


# ---- cells that do not -----------------------------------------------------------------------


def test_a_process_that_dies_keeps_what_had_ended(run: Callable[..., Transcript]) -> None:
    transcript = run("print('before')", "import os; os._exit(7)", "print('never')")
    assert transcript.status == "killed"
    assert "exit status 7" in transcript.note
    assert _text(transcript.cells["cell-0"]) == "before\n"
    assert transcript.stopped_in == "cell-1"
    assert transcript.cells["cell-2"].status is None


def test_a_signal_is_named(run: Callable[..., Transcript]) -> None:
    transcript = run("import ctypes; ctypes.string_at(0)", "1")
    assert transcript.status == "killed"
    assert "SIGSEGV" in transcript.note
    assert transcript.one_cell
    assert transcript.settled


STUBBORN = (
    "import signal, time\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
    "while True: time.sleep(1)"
)


def test_a_cell_that_nothing_interrupts_is_to_blame_for_its_end(
    run: Callable[..., Transcript],
) -> None:
    transcript = run("1", STUBBORN, "2", cell_seconds=0.5)
    assert transcript.status == "timeout"
    assert "did not end within 0.5 seconds" in transcript.note
    assert (transcript.one_cell, transcript.stopped_in) == (True, "cell-1")
    assert transcript.cells["cell-0"].status == "ok"


def test_the_whole_submission_has_a_limit(run: Callable[..., Transcript]) -> None:
    transcript = run("1", STUBBORN, "2", seconds=2.0, cell_seconds=10.0)
    assert transcript.status == "timeout"
    assert "longer than 2 seconds" in transcript.note
    assert not transcript.one_cell
    assert transcript.stopped_in == "cell-1"


def test_nothing_that_a_submission_started_outlives_it(engine: ForkEngine) -> None:
    mark = f"sleeper-{os.getpid()}"
    sleeps = f"['bash', '-c', 'exec -a {mark} sleep 100']"
    start = (
        "import os, subprocess, time\n"
        f"subprocess.Popen({sleeps}, start_new_session=True)\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        f"        os.execvp('bash', {sleeps})\n"
        "    os._exit(0)\n"
        "time.sleep(0.3)"
    )
    for last in ("1", "os._exit(0)", STUBBORN):
        transcript = engine.run(_job(start, last, cell_seconds=0.5))
        assert transcript.cells["cell-0"].status == "ok"
        assert not _running(mark)


def _running(mark: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if mark.encode() in file.read():
                    found.append(pid)
        except OSError:
            continue
    return found


# ---- the server ------------------------------------------------------------------------------


def test_children_compute_after_the_server_did(run: Callable[..., Transcript]) -> None:
    """One thread before any operation: else the children of a process that used torch hang."""
    train = (
        "import torch\n"
        "x = torch.randn(200, 200, requires_grad=True)\n"
        "layer = torch.nn.Linear(200, 200)\n"
        "(layer(x) @ x).softmax(-1).pow(2).sum().backward()\n"
        "torch.optim.Adam(layer.parameters()).step()\n"
        "print(x.grad.isfinite().all().item(), torch.get_num_threads())"
    )
    for _ in range(3):
        transcript = run(train, seconds=20.0)
        assert _text(transcript.cells["cell-0"]) == "True 1\n"


def test_submissions_run_at_once_and_share_nothing(engine: ForkEngine) -> None:
    def one(number: int) -> str:
        cells = [
            f"import os, time; open('mine', 'w').write('{number}'); time.sleep(0.2)",
            "print(open('mine').read(), os.listdir('.'))",
        ]
        return _text(engine.run(_job(*cells)).cells["cell-1"])

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(one, range(8)))
    assert [text.split()[0] for text in said] == [str(number) for number in range(8)]
    assert {text.split(" ", 1)[1] for text in said} == {"['mine']\n"}


def test_a_closed_engine_runs_nothing_more() -> None:
    engine = ForkEngine(trust=True)
    engine.run(_job("1"))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(engine.run, _job("import time; time.sleep(20)"))
        time.sleep(0.5)
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            running.result(10)
    assert not engine._servers


def test_a_server_outlives_the_thread_that_asked_for_it() -> None:
    with ForkEngine(trust=True) as engine:
        servers = set()
        for _ in range(3):
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(engine.run, _job("1")).result().status == "finished"
            servers |= set(engine._servers.values())
    assert len(servers) == 1


def test_what_the_assignment_ships_is_there(engine: ForkEngine) -> None:
    files = {"table.csv": b"a,b", "pictures/cat.bin": bytes(range(256))}
    cell = "print(open('table.csv').read(), len(open('pictures/cat.bin', 'rb').read()))"
    transcript = engine.run(_job(cell, files=files))
    assert _text(transcript.cells["cell-0"]) == "a,b 256\n"


def test_a_server_that_dies_costs_a_retry_not_a_grade() -> None:
    with ForkEngine(trust=True) as engine:
        engine.run(_job("1"))
        (server,) = engine._servers.values()
        os.killpg(server._process.pid, signal.SIGKILL)
        assert _text(engine.run(_job("print(2)")).cells["cell-0"]) == "2\n"


def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with (
        ForkEngine(trust=True, layers=()) as engine,
        pytest.raises(EngineError, match=r"did not start .*autograder doctor"),
    ):
        engine.run(_job("1"))


def test_too_much_memory_is_named(engine: ForkEngine) -> None:
    hoard = "def hoard():\n    x = []\n    while True: x.append(bytearray(1 << 22))\n\nhoard()"
    transcript = engine.run(_job("1", hoard, "print('after')"))
    assert "MemoryError" in {_error(transcript.cells["cell-1"]).ename}
    assert _text(transcript.cells["cell-2"]) == "after\n"


def test_all_processes_of_a_submission_share_its_memory() -> None:
    hoard = (
        "import os, time\n"
        "for _ in range(8):\n"
        "    if os.fork() == 0:\n"
        "        x = bytearray(40 << 20)\n"
        "        time.sleep(30)\n"
        "time.sleep(30)"
    )
    with ForkEngine(trust=True, bounds=Bounds(memory=200 << 20)) as engine:
        if "namespaces" not in engine.layers:
            pytest.skip("without namespaces no other process can be started at all")
        transcript = engine.run(_job(hoard))
    assert transcript.status == "killed"
    assert "more than 200 MiB of memory" in transcript.note


@pytest.mark.parametrize(
    ("frame", "note"),
    [
        ("HEADER.pack(9, 0, 0)", "no result"),
        ("HEADER.pack(OUTCOMES, 999, 0)", "no result"),
        ("HEADER.pack(CELL, 0, 2**32 - 1)", "a result of 4096 MiB"),
        ("HEADER.pack(CELL, 1, 2) + b'{}'", "malformed"),
    ],
)
def test_nonsense_on_the_channel_ends_the_submission(
    run: Callable[..., Transcript], frame: str, note: str
) -> None:
    find = (
        "import os, stat\n"
        "from autograder.worker import *\n"
        "for name in os.listdir('/proc/self/fd'):\n"
        "    fd = int(name)\n"
        "    try:\n"
        "        if fd > 2 and stat.S_ISFIFO(os.fstat(fd).st_mode): os.write(fd, FRAME)\n"
        "    except OSError: pass\n"
    )
    transcript = run("print('kept')", find.replace("FRAME", frame), "print('after')")
    assert transcript.status == "killed"
    assert note in transcript.note
    assert _text(transcript.cells["cell-0"]) == "kept\n"


# ---- the receiver, without a process ---------------------------------------------------------


def _frame(kind: int, index: int, payload: bytes) -> bytes:
    return HEADER.pack(kind, index, len(payload)) + payload


def _ended(*outputs: dict[str, object], **more: object) -> bytes:
    return json.dumps({"outputs": outputs, "status": "ok", "seconds": 0.5} | more).encode()


def test_frames_may_arrive_in_pieces_of_any_size() -> None:
    out = {"output_type": "stream", "name": "stdout", "text": "x"}
    sent = outcomes_of(SOFTMAX)
    data = (
        _frame(OUTCOMES, 0, sent)
        + _frame(CELL, 0, _ended(out))
        + _frame(CELL, 1, _ended(status="error"))
        + _frame(END, 0, b"")
    )
    for size in (1000, len(data)):
        receiver = Receiver(_job("a", "b"))
        for start in range(0, len(data), size):
            receiver.feed(data[start : start + size])
        assert receiver.ended
        first, second = receiver.results.values()
        assert first.messages == [sent]
        assert _text(first) == "x"
        assert second.status == "error"


@pytest.mark.parametrize(
    "frame",
    [
        _frame(OUTCOMES, 0, b"late"),
        _frame(CELL, 0, _ended()),
        _frame(OUTCOMES, 2, b"early"),
        _frame(CELL, 2, _ended()),
    ],
    ids=["late outcomes", "a duplicate", "early outcomes", "out of order"],
)
def test_only_the_cell_that_runs_has_something_to_send(frame: bytes) -> None:
    receiver = Receiver(_job("a", "b", "c"))
    receiver.feed(_frame(OUTCOMES, 0, b"its own") + _frame(CELL, 0, _ended()))
    with pytest.raises(BrokenProtocol, match="was not running"):
        receiver.feed(frame)
    first, *others = receiver.results.values()
    assert (first.messages, first.status) == ([b"its own"], "ok")
    assert all(cell.status is None and not cell.messages for cell in others)


def test_more_than_a_cell_can_give_is_refused() -> None:
    out = {"output_type": "stream", "name": "stdout", "text": "x"}
    with pytest.raises(BrokenProtocol, match="malformed"):
        Receiver(_job("a")).feed(_frame(CELL, 0, _ended(*[out] * 1000)))
    receiver = Receiver(_job("a"))
    with pytest.raises(BrokenProtocol, match="more results"):
        receiver.feed(_frame(OUTCOMES, 0, b"") * 9)
    long = {"output_type": "error", "ename": "E" * 10**6, "evalue": "", "traceback": []}
    receiver = Receiver(_job("a"))
    receiver.feed(_frame(CELL, 0, _ended(long)))
    assert len(_error(receiver.results["cell-0"]).ename) == 200


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 50_000,
        _ended(status="splendid"),
        _ended(seconds="long"),
        _ended({"output_type": "video"}),
        _ended({"output_type": "stream", "name": "stdout", "text": ["a"]}),
        _ended({"output_type": "error", "ename": 1, "evalue": "", "traceback": []}),
        _ended({"output_type": "display_data", "data": {"text/html": 5}, "metadata": {}}),
        _ended({"output_type": "display_data", "data": "x", "metadata": {}}),
    ],
    ids=range(11),
)
def test_malformed_results_are_refused(payload: bytes) -> None:
    with pytest.raises(BrokenProtocol, match="malformed"):
        Receiver(_job("a")).feed(_frame(CELL, 0, payload))


def test_outputs_are_rebuilt_with_the_fields_of_the_format() -> None:
    outputs = [
        {"output_type": "stream", "name": "fancy", "text": "x\ud800", "more": 1},
        {
            "output_type": "execute_result",
            "data": {"application/json": {"a": [1]}, "text/plain": "1"},
            "metadata": [],
            "execution_count": -4,
        },
    ]
    receiver = Receiver(_job("a"))
    receiver.feed(_frame(CELL, 0, _ended(*outputs)))
    (result,) = receiver.results.values()
    book = nbformat.v4.new_notebook()
    book.cells.append(nbformat.v4.new_code_cell("", outputs=result.outputs))
    nbformat.validate(book)
    assert result.outputs[0].name == "stdout"
    assert result.outputs[1].data == {"text/plain": "1"}


def test_too_much_in_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograder.engine.MAX_TOTAL", 100)
    with pytest.raises(BrokenProtocol, match="more than"):
        Receiver(_job("a")).feed(b"\x02" * 101)
    assert MAX_CELL > 2**20


def test_the_environment_takes_over_only_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    made = environment()
    assert made["LC_ALL"] == "C.UTF-8"
    assert made["WORKBOOK_BUDGET"] == "smoke"
    assert made["OMP_NUM_THREADS"] == "1"
    assert "AWS_SECRET_ACCESS_KEY" not in made


# ---- the recorder, without a process ---------------------------------------------------------


def test_rich_output_beyond_the_limits_is_counted_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("autograder.worker.MAX_RICH", 100)
    recorder = Recorder()
    recorder.rich("display_data", {"text/plain": "x" * 60})
    recorder.rich("display_data", {"text/plain": "x" * 60})
    recorder.error("E", "x" * 5000, [f"line {i}" for i in range(500)])
    kept, error, note = recorder.finish()
    assert kept["data"]["text/plain"] == "x" * 60
    assert len(error["traceback"]) == 60
    assert len(error["evalue"]) == 2000
    assert "1 more outputs were cut" in note["text"]


def test_bytes_and_unknown_values_become_json() -> None:
    recorder = Recorder()
    looped: list[object] = []
    looped.append(looped)
    recorder.rich("display_data", {"image/png": b"\x89P", "application/json": {"a": {1}}})
    recorder.rich("display_data", {"application/json": looped})
    first, second = recorder.finish()
    assert first["data"]["image/png"] == "iVA="
    assert first["data"]["application/json"] == {"a": "{1}"}
    assert second["data"]["application/json"] == ""


def test_streams_alternate_as_they_were_written() -> None:
    recorder = Recorder()
    for name, text in (("stdout", "a"), ("stdout", "b\r\n"), ("stderr", "1\r2"), ("stdout", "c")):
        recorder.stream(name, text)
    assert [(o["name"], o["text"]) for o in recorder.finish()] == [
        ("stdout", "ab\n"),
        ("stderr", "2"),
        ("stdout", "c"),
    ]
