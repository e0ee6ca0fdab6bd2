"""The page in the browser: a recording goes up, scene and pictures come down."""

import contextlib
import json
import socket
import subprocess
import sys
import time

import chromium
import numpy as np
import pytest
import soundfile

import ergl_jax
from ergl_jax.errors import InputError
from ergl_jax.inference import demo

TEXTS = "[...document.querySelectorAll('textarea')].map(each => each.value).join('\\n')"


@pytest.fixture
def clip(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 32000)
    soundfile.write(tmp_path / "clip.wav", noise, 16000)
    return tmp_path / "clip.wav"


def test_without_gradio_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"pip install .*ergl_jax\[demo\]"):
        demo.require_gradio()


def test_a_recording_is_classified_and_explained(tiny, clip, tmp_path):
    pytest.importorskip("websocket")
    pytest.importorskip("gradio")
    if chromium.EXECUTABLE is None:
        pytest.skip("no Chromium")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ergl_jax", "demo", f"--bundle={tiny.workdir / 'bundle'}"]
    server = subprocess.Popen([*command, f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        wait_for(port, server)
        with chromium.page() as browser:
            browser.show(1280)
            browser.command("Page.navigate", url=f"http://127.0.0.1:{port}/")
            until(browser, "document.querySelector('input[type=file]') !== null")
            document = browser.command("DOM.getDocument", depth=-1)["root"]["nodeId"]
            node = browser.command(
                "DOM.querySelector", nodeId=document, selector="input[type=file]"
            )["nodeId"]
            browser.command("DOM.setFileInputFiles", nodeId=node, files=[str(clip)])
            until(browser, "document.querySelector('input[type=file]') === null")
            button = "[...document.querySelectorAll('button')].find(b => b.innerText == 'Classify')"
            until(browser, f"{button} !== undefined")
            browser.evaluate(f"{button}.click()")
            until(browser, "document.querySelectorAll('img[src^=\"data:image\"]').length >= 2")
            text = browser.evaluate(TEXTS)
            scene = ergl_jax.load(tiny.workdir / "bundle").classify(clip).scene
            assert scene.replace("_", " ") in text
            assert scene in browser.evaluate("document.body.innerText")
            outside = [url for url in browser.requests if not url.startswith(("data:", "blob:"))]
            assert all(url.startswith(f"http://127.0.0.1:{port}/") for url in outside), outside
    finally:
        server.terminate()
        server.wait(30)


def wait_for(port, server, seconds=120):
    """Returns when something listens there."""
    deadline = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    pytest.fail(f"no page after {seconds} s, status {server.poll()}")


def until(browser, expression, seconds=90):
    """Waits until JavaScript's `expression` holds."""
    deadline = time.monotonic() + seconds
    while not browser.evaluate(expression):
        assert time.monotonic() < deadline, (expression, json.dumps(browser.complaints))
        time.sleep(0.2)
