"""The pages of explanations and of the atlas in a browser: layout, matrix, choices, timeline."""

import chromium
import numpy as np
import pytest
from made_explanations import bundle, explanation
from made_surveys import hand_made, predicting

from ergl_jax.inference import atlas_page, explanation_page

pytest.importorskip("websocket")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.EXECUTABLE is None, reason="no Chromium"),
]
CELL = "document.getElementById('cell').textContent"
COLOURS = "[...document.querySelectorAll('#matrix td[role]')].map(c => c.style.background)"
SCALE = "[...document.querySelectorAll('#scale span')].map(s => s.textContent)"
# What reaches beyond the window, unless it scrolls within a container of its own.
OUTSIDE = """[...document.body.querySelectorAll('*')]
  .filter(each => !each.parentElement.closest('.scroll, svg'))
  .filter(each => each.getBoundingClientRect().right > innerWidth + 0.5)
  .map(each => each.outerHTML.slice(0, 200))"""
EXPLANATION = explanation(25)
# All parks are taken for the moon, which has no clips of its own.
SURVEY = predicting(hand_made(), {**{k: 3 for k in range(0, 30, 3)}, 1: 2})


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pages")
    agreement = {"events": 0.6, "relations": 0.1, "clips": 50}
    return {
        "explanation": explanation_page.write(EXPLANATION, bundle(), directory),
        "atlas": atlas_page.write(directory, SURVEY, agreement, runs=["a", "b"]),
    }


@pytest.fixture(scope="module")
def browser():
    with chromium.page() as page:
        yield page


@pytest.fixture
def visit(browser, paths):
    """Opens a page; at the end of the test there is no complaint, nor a request to elsewhere."""
    browser.complaints.clear()
    browser.requests.clear()

    def visit(name, width=1280, **options):
        browser.show(width, **options)
        browser.open(paths[name])
        return browser

    yield visit
    assert browser.complaints == []
    allowed = {path.absolute().as_uri() for path in paths.values()}
    assert {url for url in browser.requests if not url.startswith("data:")} <= allowed


def text(value, form):
    return format(value, form).replace("-", "−")


def click(page, selector, index=0):
    page.evaluate(f"document.querySelectorAll('{selector}')[{index}].click()")


def choose(page, index):
    page.evaluate(
        f"(c => {{ c.value = '{index}'; c.dispatchEvent(new Event('change')); }})"
        "(document.getElementById('scene'))"
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["explanation", "atlas"])
def test_everything_is_within_the_screen(visit, name, dark):
    for width in (320, 375, 1280):
        page = visit(name, width, dark=dark)
        page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        assert page.evaluate(OUTSIDE) == []
        pictures = page.evaluate(
            "[...document.querySelectorAll('.picture')].map(each => each.clientWidth)"
        )
        assert all(each > 250 for each in pictures)


def test_clicks_and_keys_describe_a_cell(visit):
    def described(i, j):
        e, c = EXPLANATION, EXPLANATION.edge_contributions[i, j]
        mean = text(e.activations.edge_strengths[i, j], ".2f")
        return (
            f"{e.events[j]} → {e.events[i]}: contribution {text(c, '+.2f')} nats, mean edge {mean}"
        )

    page = visit("explanation")
    click(page, "#matrix td[role]", 25)
    assert page.evaluate(CELL) == described(1, 0)
    for key in ("ArrowDown", "ArrowRight"):
        page.evaluate(
            "document.querySelector('#matrix .current').dispatchEvent("
            f"new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}}))"
        )
    assert page.evaluate(CELL) == described(2, 1)


def test_colours_show_contributions_or_mean_edges(visit):
    page = visit("explanation")
    signs = ["positive" if x > 0 else "negative" for x in EXPLANATION.edge_contributions.ravel()]
    assert all(f"--{s}" in c for s, c in zip(signs, page.evaluate(COLOURS), strict=True))
    assert "0" in page.evaluate(SCALE)
    click(page, "input[value=edge_means]")
    assert all("--mean" in each for each in page.evaluate(COLOURS))


def test_text_is_readable_on_light_and_on_dark(visit):
    shades = []
    for dark in (False, True):
        colours = visit("explanation", dark=dark).evaluate(
            "['color', 'background-color'].map(name => getComputedStyle(document.body)[name])"
            ".concat(getComputedStyle(document.querySelector("
            "'#timeline svg [style*=\"fill: currentColor\"]')).fill)"
        )
        shades.append([sum(map(int, c[4:-1].split(","))) for c in colours])
    (ink, paper, drawn), (dark_ink, dark_paper, dark_drawn) = shades
    assert ink + 400 < paper and drawn == ink
    assert dark_paper + 400 < dark_ink and dark_drawn == dark_ink


def test_a_click_on_the_timeline_moves_the_audio(visit):
    page = visit("explanation")
    page.evaluate(
        "(t => { const b = t.getBoundingClientRect(); t.dispatchEvent(new MouseEvent('click', "
        "{clientX: b.left + b.width * (data.left + data.right) / 2, clientY: b.top + 60})); })"
        "(document.getElementById('timeline'))"
    )
    assert page.evaluate("audio.currentTime") == pytest.approx(1, abs=0.5)


def test_the_atlas_shows_the_chosen_scene_and_its_difference(visit):
    page = visit("atlas")
    means = [SURVEY.edge_means[SURVEY.truth == k].mean(axis=0) for k in range(3)]
    click(page, "#matrix td[role]", 2)
    for scene in (1, 2):
        choose(page, scene)
        panels = "[...document.querySelectorAll('[data-panel]')].map(p => !p.hidden)"
        assert page.evaluate(panels) == [k == scene for k in range(3)]
        assert page.evaluate(CELL).endswith(f"mean edge {text(means[scene][0, 2], '.3f')}")
    choose(page, 1)
    click(page, "#difference")
    difference = means[1] - means[2]
    assert page.evaluate(CELL).endswith(f"difference {text(difference[0, 2], '+.3f')}")
    largest = np.abs(difference).max()
    assert page.evaluate(SCALE) == [f"−{largest:.3f}", f"+{largest:.3f}", "0"]
    choose(page, 0)  # its neighbour has no clips
    assert page.evaluate("difference.disabled")
    assert all("--mean" in each for each in page.evaluate(COLOURS))
