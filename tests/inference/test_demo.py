"""The Gradio page in a browser: upload a recording, see its scene and pictures."""

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

from ergl_jax import bundle as bundles
from ergl_jax.cli import main
from ergl_jax.inference.classify import Model
from ergl_jax.inference.explain import Explainer

TAKEN = "document.title='taken'"
NAMES = (
    f"</script><img src=x onerror={TAKEN}>",
    "![a](http://127.0.0.1:9/a.png)",
    f'[b](javascript:{TAKEN}) <a href="javascript:{TAKEN}">c</a>',
    "<img src=http://127.0.0.1:9/b.png>",
    f'"><svg onload={TAKEN}>',
    "{{ 7 * 7 }}${7 * 7}",
)
TEXTS = "[...document.querySelectorAll('textarea')].map(each => each.value).join('\\n')"
PICTURES = "document.querySelectorAll('[role=img] > svg').length == 2"
DOWNLOADED = """
  atob(document.querySelector('a[download="explanation.html"]').href.split(',')[1]).slice(0, 15)
"""
# The sum of red, green and blue of the graph's text.
INK = """getComputedStyle(
    document.querySelector('[role=img][aria-label=graph] [style*="fill: currentColor"]')
  ).fill.match(/\\d+/g).slice(0, 3).reduce((sum, x) => sum + Number(x), 0)"""
# Elements that run or load what a name refers to.
LOADED = """[...document.querySelectorAll(
    "[onerror], [onload], [src*='127.0.0.1:9/'], [src=x], a[href^='javascript:']"
  )].map(each => each.outerHTML.slice(0, 300))"""


def test_without_gradio_the_error_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", "--bundle=none"]) == 2
    assert 'gradio is not installed: pip install ".[demo]"' in capsys.readouterr().err


@pytest.mark.slow
def test_an_unknown_sound_is_called_one(tiny, tmp_path):
    pytest.importorskip("gradio")
    from ergl_jax.inference import demo

    bundle = bundles.load(tiny.workdir / "bundle")
    known = dataclasses.replace(bundle.known, distances=np.zeros(20, np.float32))
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 32000), 16000)
    model = Model(dataclasses.replace(bundle, known=known))
    for explainer in (None, Explainer(model)):
        _, why, _ = demo.answer(str(tmp_path / "a.wav"), model, explainer)
        assert " classes: unlike the training clips" in "".join(why.splitlines()[:2])


@contextlib.contextmanager
def open_page(bundle):
    """A browser with the page of a bundle, and the page's address."""
    pytest.importorskip("websocket")
    pytest.importorskip("gradio")
    if chromium.EXECUTABLE is None:
        pytest.skip("no Chromium")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ergl_jax", "demo", f"--bundle={bundle}", f"--port={port}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/"
    try:
        until(lambda: server.poll() is None and listens(port))
        with chromium.page() as browser:
            browser.show(1280)
            browser.command("Page.navigate", url=address)
            shows(browser, "document.querySelector('input[type=file]') !== null")
            yield browser, address
    finally:
        server.terminate()
        server.wait(30)


def listens(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def shows(browser, expression):
    """Waits until a JavaScript expression is true."""
    until(lambda: browser.evaluate(expression))


@pytest.mark.slow
@pytest.mark.parametrize("readable", [True, False])
def test_a_recording_is_explained_and_hostile_names_are_text(tiny, tmp_path, readable):
    bundle = bundles.load(tiny.workdir / "bundle")
    names = {
        field: (*NAMES, *known)[: len(known)]
        for field, known in (("scenes", bundle.scenes), ("events", bundle.events))
    }
    bundle = dataclasses.replace(bundle, **names, dataset=NAMES[1], licence=NAMES[3])
    bundle.save(tmp_path / "bundle")
    clip = tmp_path / f"<img src=x onerror={TAKEN}>.wav"
    soundfile.write(clip, np.random.default_rng(0).normal(0, 0.1, 32000), 16000)
    if not readable:
        clip.write_bytes(b"not audio")
    with open_page(tmp_path / "bundle") as (browser, address):
        document = browser.command("DOM.getDocument", depth=-1)["root"]["nodeId"]
        selector = {"nodeId": document, "selector": "input[type=file]"}
        node = browser.command("DOM.querySelector", **selector)["nodeId"]
        browser.command("DOM.setFileInputFiles", nodeId=node, files=[str(clip)])
        shows(browser, "document.querySelector('input[type=file]') === null")
        button = "[...document.querySelectorAll('button')].find(b => b.innerText == 'Classify')"
        shows(browser, f"{button} !== undefined")
        browser.evaluate(f"{button}.click()")
        shows(browser, PICTURES if readable else 'document.body.innerText.includes("can\'t be")')
        text = browser.evaluate(f"document.body.innerText + {TEXTS}")
        assert all(name in text for name in (*bundle.scenes[:6], NAMES[1]))
        assert ("classified as" in text) == readable
        if readable:
            assert browser.evaluate(DOWNLOADED) == "<!doctype html>"
            inks = []
            for dark in (False, True):
                browser.evaluate(f"document.body.classList.toggle('dark', {str(dark).lower()})")
                inks.append(browser.evaluate(INK))
            assert inks[0] + 400 < inks[1]
        assert browser.evaluate("document.title") == "ergl_jax"
        assert browser.evaluate(LOADED) == [], json.dumps(browser.complaints)
        outside = [x for x in browser.requests if not x.startswith(("data:", "blob:", address))]
        assert outside == []
