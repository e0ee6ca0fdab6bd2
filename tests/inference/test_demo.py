"""The page in the browser: a recording goes up, scene and pictures come down."""

import contextlib
import dataclasses
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
from ergl_jax import bundle as bundles
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


@contextlib.contextmanager
def shown(bundle):
    """Lends a browser with the page of a bundle, and the page's address."""
    pytest.importorskip("websocket")
    pytest.importorskip("gradio")
    if chromium.EXECUTABLE is None:
        pytest.skip("no Chromium")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ergl_jax", "demo", f"--bundle={bundle}"]
    server = subprocess.Popen([*command, f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        wait_for(port, server)
        with chromium.page() as browser:
            browser.show(1280)
            browser.command("Page.navigate", url=f"http://127.0.0.1:{port}/")
            until(browser, "document.querySelector('input[type=file]') !== null")
            yield browser, f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(30)


def classify(browser, clip):
    """Uploads a file and presses the button."""
    document = browser.command("DOM.getDocument", depth=-1)["root"]["nodeId"]
    node = browser.command("DOM.querySelector", nodeId=document, selector="input[type=file]")
    browser.command("DOM.setFileInputFiles", nodeId=node["nodeId"], files=[str(clip)])
    until(browser, "document.querySelector('input[type=file]') === null")
    button = "[...document.querySelectorAll('button')].find(b => b.innerText == 'Classify')"
    until(browser, f"{button} !== undefined")
    browser.evaluate(f"{button}.click()")


def outside(browser, address):
    """What the page asked others for."""
    return [url for url in browser.requests if not url.startswith(("data:", "blob:", address))]


PICTURES = "document.querySelectorAll('img[src^=\"data:image\"]').length >= 2"


def test_a_recording_is_classified_and_explained(tiny, clip):
    with shown(tiny.workdir / "bundle") as (browser, address):
        classify(browser, clip)
        until(browser, PICTURES)
        text = browser.evaluate(TEXTS)
        scene = ergl_jax.load(tiny.workdir / "bundle").classify(clip).scene
        assert scene.replace("_", " ") in text
        assert scene in browser.evaluate("document.body.innerText")
        assert outside(browser, address) == []


TAKEN = "document.title='taken'"
NAMES = (
    f"</script><img src=x onerror={TAKEN}>",
    "![a](http://127.0.0.1:9/a.png)",
    f'[b](javascript:{TAKEN}) <a href="javascript:{TAKEN}">c</a>',
    "<img src=http://127.0.0.1:9/b.png>",
    f'"><svg onload={TAKEN}>',
    "{{ 7 * 7 }}${7 * 7}",
)
# Elements that run or load what a name asks for.
LOADED = """[...document.querySelectorAll(
    "[onerror], [onload], [src*='127.0.0.1:9/'], [src=x], a[href^='javascript:']"
  )].map(each => each.outerHTML.slice(0, 300))"""


@pytest.mark.parametrize("whole", [True, False])
def test_hostile_names_of_a_bundle_and_a_file_are_text(tiny, clip, tmp_path, whole):
    bundle = bundles.load(tiny.workdir / "bundle")
    names = {
        field: (*NAMES, *known)[: len(known)]
        for field, known in (("scenes", bundle.scenes), ("events", bundle.events))
    }
    bundle = dataclasses.replace(bundle, **names, dataset=NAMES[1], licence=NAMES[3])
    bundle.save(tmp_path / "bundle")
    named = clip.with_name(f"<img src=x onerror={TAKEN}>.wav")
    named.write_bytes(clip.read_bytes() if whole else b"no sound at all")
    with shown(tmp_path / "bundle") as (browser, address):
        classify(browser, named)
        until(browser, PICTURES if whole else 'document.body.innerText.includes("can\'t be")')
        text = browser.evaluate(f"document.body.innerText + {TEXTS}")
        assert all(name in text for name in (*bundle.scenes[:6], NAMES[1]))
        assert browser.evaluate("document.title") == "ergl_jax"
        assert browser.evaluate(LOADED) == [] and outside(browser, address) == []


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
