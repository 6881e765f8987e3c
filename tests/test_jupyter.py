"""The released notebook in JupyterLab and Notebook 7, in a real browser."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from autograder import notebooks

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHAPTER = "01_attention"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium; on Debian: apt-get install chromium"
)


def solved_release() -> nbformat.NotebookNode:
    """The notebook that learners get, with every solution cell filled in."""
    released = nbformat.read(ROOT / "chapters" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
    source = notebooks.read_source(ROOT / "solutions" / CHAPTER / f"{CHAPTER}.md")
    solutions = {
        notebooks.grade_id(cell): cell.source
        for cell in source.cells
        if notebooks.is_solution(cell)
    }
    for cell in released.cells:
        if cell.cell_type == "code" and notebooks.grade_id(cell) in solutions:
            cell.source = solutions[notebooks.grade_id(cell)]
    return released


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Jupyter server over a folder that holds the solved release."""
    folder = tmp_path_factory.mktemp("jupyter")
    work = folder / "chapters" / CHAPTER
    work.mkdir(parents=True)
    nbformat.write(solved_release(), work / f"{CHAPTER}.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "WORKBOOK_BUDGET": "smoke",
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    command = (
        f"{sys.executable} -m jupyterlab --no-browser --allow-root --port={port} "
        f"--IdentityProvider.token= --ServerApp.password= --ServerApp.root_dir={folder} "
        "--LabApp.collaborative=False --ServerApp.disable_check_xsrf=True "
        "--LabApp.news_url=None --LabApp.check_for_updates_class="
        "jupyterlab.NeverCheckForUpdate"
    ).split()
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/api/status", timeout=5).close()
                break
            time.sleep(0.5)
        else:
            raise AssertionError((folder / "server.log").read_text())
        yield address
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.mark.parametrize("page", ["lab/tree", "notebooks"], ids=["lab", "notebook7"])
def test_the_notebook_opens_and_runs(server: str, page: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            viewport={"width": 1400, "height": 1000},
        )
        tab = browser.new_page()
        # JupyterLab asks which kernel where it has not read the list of kernels yet.
        dialog = tab.locator(".jp-Dialog")
        tab.add_locator_handler(dialog, lambda: dialog.locator("button.jp-mod-accept").click())
        tab.goto(f"{server}/{page}/chapters/{CHAPTER}/{CHAPTER}.ipynb", timeout=120_000)
        tab.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=120_000)
        # Before the kernel answers, "Run All Cells" asks for one instead of running anything.
        idle = '.jp-Notebook-ExecutionIndicator[data-status="idle"]'
        tab.locator(idle).first.wait_for(state="attached", timeout=120_000)
        menu = tab.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$"))
        menu.click()
        tab.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
        # Only what is near the screen is drawn, so scroll through and note what appears.
        seen: set[str] = set()
        widgets = 0
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and (len(seen) < 5 or not widgets):
            for step in range(40):
                tab.evaluate(
                    "step => { const box = document.querySelector("
                    "'.jp-WindowedPanel-outer') || document.querySelector('.jp-Notebook');"
                    " box.scrollTop = box.scrollHeight * step / 40; }",
                    step,
                )
                tab.wait_for_timeout(120)
                for text in tab.locator(".verdict-passed").all_text_contents():
                    seen |= set(re.findall(r"attention/\w+", text))
                widgets = max(widgets, tab.locator(".widget-slider").count())
        tab.screenshot(path=tmp_path / "last.png")
        errors = tab.locator(".jp-RenderedText[data-mime-type*=stderr]").all_inner_texts()
        browser.close()
    assert seen == {
        "attention/softmax",
        "attention/scaled_dot_product_attention",
        "attention/padding_mask",
        "attention/causal_mask",
        "attention/AdditiveAttention",
    }
    assert widgets, "the explorer shows no slider"
    assert errors == []
