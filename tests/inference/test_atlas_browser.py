"""The atlas in a browser: no sideways scroll, no complaint, and its choices change the matrix."""

import dataclasses

import chromium
import numpy as np
import pytest
from made_surveys import hand_made, told

from ergl_jax.inference import atlas_page

pytest.importorskip("websocket")
pytestmark = pytest.mark.skipif(chromium.EXECUTABLE is None, reason="no Chromium")

HOSTILE = '"><script>document.title="taken"</script><img src=x onerror=alert(1)>'
PAINTED = "[...document.querySelectorAll('#matrix td[role]')].map(c => c.style.background)"
TOLD = "document.getElementById('told').textContent"
SHOWN = "[...document.querySelectorAll('[data-panel]')].map(p => !p.hidden)"
SCALE = "[...document.querySelectorAll('#scale span')].map(s => s.textContent)"


def made():
    """Long and hostile names; all parks are taken for the moon, of which there are no clips."""
    found = told(hand_made(), {**{k: 3 for k in range(0, 30, 3)}, 1: 2})
    return dataclasses.replace(
        found,
        scenes=("park", HOSTILE, "a_scene_of_a_name_that_is_very_long_indeed_and_longer", "moon"),
        events=("Speech", HOSTILE, "an event of a long name, of several words"),
        names=tuple(f"a/clip/of/a/long/path/and-a-name-without-a-space-{k}" for k in range(30)),
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    agreement = {"events": 0.6, "relations": 0.1, "clips": 50}
    runs = [f"run{k}" for k in range(3)]
    return atlas_page.write(tmp_path_factory.mktemp("atlas"), made(), agreement, runs=runs)


@pytest.fixture(scope="module")
def browser():
    with chromium.page() as page:
        yield page


@pytest.fixture
def page(browser, path):
    """The page on a desktop, and afterwards no complaint and no request."""
    browser.show(1280)
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(path)
    yield browser
    assert browser.complaints == []
    assert {url for url in browser.requests if not url.startswith("data:")} == {
        path.absolute().as_uri()
    }


def choose(page, place):
    page.evaluate(
        f"(c => {{ c.value = '{place}'; c.dispatchEvent(new Event('change')); }})"
        "(document.getElementById('scene'))"
    )


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_no_page_scrolls_sideways(page, path, width):
    page.show(width)
    page.open(path)
    for place in range(3):
        choose(page, place)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.images.length") == 0
    assert page.evaluate("document.title").startswith("Scene atlas")


def test_another_scene_changes_panel_matrix_and_what_is_told(page):
    found = made()
    choose(page, 1)
    page.evaluate("document.querySelectorAll('#matrix td[role]')[2].click()")
    seen = []
    for place in (1, 2):
        choose(page, place)
        mean = found.edge_means[found.truth == place].mean(axis=0)
        assert page.evaluate(SHOWN) == [k == place for k in range(3)]
        value = f"{mean[0, 2]:.3f}".replace("-", "−")
        assert page.evaluate(TOLD) == f"{found.events[2]} → Speech: mean edge {value}"
        ends = [f"{x:.3f}".replace("-", "−") for x in (mean.min(), mean.max())]
        assert page.evaluate(SCALE)[:2] == ends
        seen.append(page.evaluate(PAINTED))
    assert seen[0] != seen[1] and all("--mean" in each for each in seen[0])


def test_the_difference_has_two_colours_and_a_zero(page):
    found = made()
    choose(page, 1)
    page.evaluate("document.getElementById('difference').click()")
    mine, theirs = (found.edge_means[found.truth == k].mean(axis=0) for k in (1, 2))
    signs = ["adds" if x > 0 else "takes" for x in (mine - theirs).ravel()]
    painted = page.evaluate(PAINTED)
    assert all(f"--{sign}" in each for sign, each in zip(signs, painted, strict=True))
    largest = np.abs(mine - theirs).max()
    assert page.evaluate(SCALE) == [f"−{largest:.3f}", f"+{largest:.3f}", "0"]
    page.evaluate("document.querySelectorAll('#matrix td[role]')[0].click()")
    difference = f"{mine[0, 0] - theirs[0, 0]:+.3f}".replace("-", "−")
    assert page.evaluate(TOLD).endswith(f"difference {difference}")


def test_without_clips_of_the_neighbour_there_is_no_difference(page):
    choose(page, 1)
    page.evaluate("document.getElementById('difference').click()")
    choose(page, 0)
    assert page.evaluate("document.getElementById('difference').disabled")
    assert all("--mean" in each for each in page.evaluate(PAINTED))
    choose(page, 1)
    assert not page.evaluate("document.getElementById('difference').disabled")
