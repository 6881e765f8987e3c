"""The measurement of the book works; what it measures is not judged here."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tiny

from autograder.notebooks import Chapter
from book import browser as browsers


@pytest.fixture
def measure(benchmark_script, monkeypatch) -> ModuleType:
    # The script takes its own folder off the path, for its own reasons.
    monkeypatch.setattr(sys, "path", list(sys.path))
    return benchmark_script("book")


@pytest.fixture
def course(tmp_path: Path) -> Path:
    root = tiny.course(tmp_path / "course", tiny.chapter(tiny.text("A formula, $x^2$.")))
    for name in ("_static", "_ext", "_templates"):
        shutil.copytree(tiny.ROOT / "book" / name, root / "book" / name)
    toc = root / "book" / "_toc.yml"
    toc.write_text(toc.read_text() + "  - file: book/references\n")
    (root / "book" / "references.md").write_text("# References\n\n```{bibliography}\n```\n")
    # Two, which are executed side by side, by processes that read the script anew.
    second = root / "solutions" / "02_thrice" / "02_thrice.md"
    second.parent.mkdir()
    second.write_text(tiny.chapter())
    for name in ("01_twice", "02_thrice"):
        released = Chapter(root, name).released
        released.parent.mkdir(parents=True)
        released.write_text("{}")
    return root


def test_a_quick_pass_measures_both_sides(measure, course, tmp_path):
    try:
        browsers.find()
    except browsers.NoBrowser as reason:
        pytest.skip(str(reason))
    file = tmp_path / "figures.json"
    script = [sys.executable, str(tiny.ROOT / "benchmarks" / "book.py"), "--quick"]
    done = subprocess.run(
        [*script, "--root", str(course), "--budget", "smoke", "--json", str(file)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    both = {measure.OURS, measure.PLAIN}
    assert set(found["building"]) == set(measure.STEPS)
    for clocks in found["building"].values():
        assert set(clocks) == {"by the clock", "of CPU time"}
        for seconds in clocks.values():
            assert set(seconds) == both | {"ratio"}
            assert seconds["ratio"]["median"] > 0
    page = found["reading"]["chapters/01_twice/01_twice.html"]
    for side in both:
        assert {"HTML", "CSS", "JavaScript", "fonts", "pictures"} <= set(page["bytes"][side])
        assert page["bytes"][side]["HTML"] > 1000
        assert page["requests"][side] > len(page["foreign"][side])
        assert page["milliseconds"]["loaded"][side]["median"] > 0
    assert not page["foreign"][measure.OURS]
    assert any("mathjax" in at for at in page["foreign"][measure.PLAIN])
    assert "book/index.html" in found["reading"]
    assert (
        found["reading"]["all pages"]["bytes"][measure.OURS]["HTML"]
        > page["bytes"][measure.OURS]["HTML"]
    )
    assert "ratio" in done.stdout
    assert {row["what"] for row in found["summary"]} >= {
        "building the book, cold: CPU time",
        "bytes of a chapter",
        "loaded of a chapter",
    }


def test_an_edit_changes_one_chapter(measure, tmp_path):
    names = [tmp_path / "chapters" / name / f"{name}.ipynb" for name in ("01_one", "02_two")]
    for path in names:
        path.parent.mkdir(parents=True)
        cells = [{"cell_type": "code", "source": "1"}, {"cell_type": "markdown", "source": ["# A"]}]
        path.write_text(json.dumps({"cells": cells}))
    before = names[0].read_text()
    measure.edit(tmp_path, 0)
    assert names[0].read_text() == before
    edited = json.loads(names[1].read_text())["cells"]
    assert edited[0]["source"] == "1"
    assert edited[1]["source"] == "# A\n\nEdited 1 times.\n"


def test_bytes_are_told_by_kind(measure, tmp_path):
    (tmp_path / "font.woff2").write_bytes(b"0" * 1000)
    (tmp_path / "page.html").write_text("0" * 1000)
    (tmp_path / "empty.css").write_bytes(b"")
    asked = ["font.woff2?v=1", "font.woff2#x", "page.html", "empty.css"]
    kinds = measure.by_kind(tmp_path, asked)
    assert kinds["fonts"] == 1000
    assert 0 < kinds["HTML"] < 100
    assert 0 < kinds["CSS"] < kinds["HTML"]
    assert kinds["pictures"] == 0
