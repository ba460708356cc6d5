"""JupyterLab, for real: sliders that are moved in the page are seen by Python, and the other way round."""

import importlib.util
import json
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from built import listen

CELLS = [
    """import ipywidgets
from vfnet_edu.widgets import LossExplorer

plain = ipywidgets.IntSlider(value=3, max=100)
plain""",
    "ours = LossExplorer(q=0.8)\nours",
    'print("python", "sees", plain.value, ours.q)',
    'ours.q = 0.25\nplain.value = 77\nprint("python", "has", "spoken")',
]
CODE = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
STILL = '{"checkForUpdates": false, "fetchNews": "false"}'  # the server, too, asks nobody


@pytest.fixture
def lab(tmp_path, checkout_on_path):
    """The address of a notebook in a JupyterLab that only this machine and only this test can reach."""
    for module in ("jupyterlab", "anywidget", "ipywidgets"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} not installed")
    notebook = {
        "cells": [CODE | {"id": f"cell-{i}", "source": text} for i, text in enumerate(CELLS)],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (tmp_path / "work").mkdir()
    (tmp_path / "work/try.ipynb").write_text(json.dumps(notebook))
    settings = tmp_path / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(STILL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    environment = checkout_on_path | {"JUPYTER_TOKEN": token, "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings")}
    for name in ("CONFIG", "DATA", "RUNTIME"):
        environment[f"JUPYTER_{name}_DIR"] = str(tmp_path / name.lower())
    environment["JUPYTERLAB_WORKSPACES_DIR"] = str(tmp_path / "workspaces")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--ServerApp.port_retries=0", f"--ServerApp.root_dir={tmp_path / 'work'}"]  # fmt: skip
    log = tmp_path / "lab.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        origin = f"http://127.0.0.1:{port}"
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{origin}/api/status?token={token}", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.5)
        else:
            pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")
        yield origin, f"{origin}/lab/tree/try.ipynb?token={token}&reset"
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


def test_two_ways(browser, lab):
    origin, address = lab
    page = browser.new_page(viewport={"width": 1300, "height": 1600})
    page.set_default_timeout(60_000)
    noticed = listen(page, origin)
    page.goto(address)
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    cells.nth(3).wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()

    def run(i):
        cells.nth(i).locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")

    run(0)
    knob = page.locator(".widget-slider .noUi-handle")
    knob.wait_for()
    run(1)
    explorer = page.locator(".jp-OutputArea-output .ve")
    explorer.wait_for()
    q, says = explorer.get_by_label("target q").first, explorer.locator(".ve-says").first
    said = says.inner_text()

    # the page moves, Python sees it
    drag(page, knob, 120)
    drag(page, q, -90, start=0.8)
    assert says.inner_text() != said
    run(2)
    answer = page.locator(".jp-OutputArea-output pre", has_text="python sees")
    answer.wait_for()
    plain, ours = answer.inner_text().split()[2:]
    assert int(plain) > 3 and float(ours) < 0.75
    assert float(q.input_value()) == pytest.approx(float(ours))

    # Python speaks, the page moves
    said = says.inner_text()
    run(3)
    page.locator(".jp-OutputArea-output pre", has_text="python has spoken").wait_for()
    page.wait_for_function("e => e.value === '0.25'", arg=q.element_handle())
    page.get_by_text("77", exact=True).first.wait_for()
    assert says.inner_text() != said
    assert noticed["elsewhere"] == []
    page.close()


def drag(page, element, dx, start=0.5):
    """Take an element (a slider: at `start` of its width) and move it by `dx` pixels."""
    element.scroll_into_view_if_needed()
    box = element.bounding_box()
    x, y = box["x"] + start * box["width"], box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for i in range(1, 9):
        page.mouse.move(x + dx * i / 8, y)
    page.mouse.up()
    page.wait_for_timeout(300)
