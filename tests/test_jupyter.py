"""The released notebook in JupyterLab and Notebook 7, in a real browser."""

from __future__ import annotations

import contextlib
import json
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
from typing import Any

import nbformat
import pytest
from conftest import ROOT

from autograder import notebooks
from book.browser import FLAGS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHAPTER = "01_attention"
CHECKED = (
    "softmax",
    "scaled_dot_product_attention",
    "padding_mask",
    "causal_mask",
    "AdditiveAttention",
)
# Draw every cell, also those far from the screen: the test looks for them all.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

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
    for name, values in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "WORKBOOK_BUDGET": "smoke",
        # Threads that wait sleep, or a second busy process makes the kernel crawl.
        "OMP_WAIT_POLICY": "PASSIVE",
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    command = (
        f"{sys.executable} -m jupyterlab --no-browser --allow-root --port={port} "
        f"--IdentityProvider.token= --ServerApp.password= --ServerApp.root_dir={folder} "
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"
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


def run_all(tab: Any) -> None:
    """Asks for "Run All Cells" until a cell has begun: on a busy machine a request can get lost."""
    begun = '.jp-InputPrompt:text-matches("\\\\[([0-9]+|\\\\*)\\\\]")'
    for last in (False, False, True):
        tab.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
        tab.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
        with contextlib.nullcontext() if last else contextlib.suppress(AssertionError):
            wait_for(tab, begun, seconds=60)
            return


def wait_for(tab: Any, selector: str, seconds: float = 300) -> None:
    """Waits until the page holds the element, and confirms what JupyterLab asks meanwhile.

    It asks which kernel to start where it has not read the list of kernels yet.
    """
    accept = tab.locator(".jp-Dialog button.jp-mod-accept")
    deadline = time.monotonic() + seconds
    while not tab.locator(selector).count():
        assert time.monotonic() < deadline, f"no {selector} after {seconds:g} seconds"
        if accept.count():
            accept.first.click()
        tab.wait_for_timeout(200)


@pytest.mark.parametrize("page", ["lab/tree", "notebooks"], ids=["lab", "notebook7"])
def test_the_notebook_opens_and_runs(server: str, page: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            headless=True,
            args=list(FLAGS),
            viewport={"width": 1400, "height": 1000},
        )
        tab = browser.new_page()
        tab.goto(f"{server}/{page}/chapters/{CHAPTER}/{CHAPTER}.ipynb", timeout=120_000)
        wait_for(tab, ".jp-Notebook .jp-Cell")
        # Before the kernel answers, "Run All Cells" asks for one instead of running anything.
        wait_for(tab, '.jp-Notebook-ExecutionIndicator[data-status="idle"]')
        run_all(tab)
        for exercise in CHECKED:
            wait_for(tab, f'.verdict-passed:has-text("attention/{exercise}:")')
        # The page of a notebook does not get the explorer's module from the book.
        wait_for(tab, "tw-softmax .told")
        tab.locator("tw-softmax").get_by_role("slider", name="temperature").press("End")
        wait_for(tab, 'tw-softmax .told:text-matches("temperature 10\\\\.00")')
        errors = tab.locator("[data-mime-type*=stderr]").all_inner_texts()
        browser.close()
    assert errors == []
