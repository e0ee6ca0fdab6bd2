"""The page of an explanation in a browser: a phone and a desktop, light and dark, by touch."""

import chromium
import pytest
from made_explanations import FRONT_END, explanation

from ergl_jax.bundle import Bundle
from ergl_jax.inference import report

pytest.importorskip("websocket")
pytestmark = pytest.mark.skipif(chromium.EXECUTABLE is None, reason="no Chromium")

HOSTILE = '"><script>document.title="taken"</script><img src=x onerror=alert(1)>'
TOLD = "document.getElementById('told').textContent"


@pytest.fixture(scope="module")
def one():
    events = ("Speech", "Music", HOSTILE, *(f"an event of the long name {k}" for k in range(22)))
    return explanation(25, events=events, name=HOSTILE.replace("/", ""), notes=(HOSTILE,))


@pytest.fixture(scope="module")
def path(one, tmp_path_factory):
    bundle = Bundle(
        model={"name": "ergl"},
        variables={},
        scenes=one.scenes,
        events=one.events,
        front_end=FRONT_END,
        clip_seconds=2.0,
        pad="zero",
        licence=HOSTILE,
        dataset=HOSTILE,
    )
    return report.write(one, bundle, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser():
    with chromium.page() as page:
        page.command("Emulation.setFocusEmulationEnabled", enabled=True)
        yield page


@pytest.fixture
def page(browser, path):
    """The page as a phone shows it, and afterwards no complaint."""
    browser.show(375)
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(path)
    yield browser
    assert browser.complaints == []
    asked = [url for url in browser.requests if not url.startswith("data:")]
    assert asked == [path.absolute().as_uri()]


def middle(page, i, j):
    """The middle of the cell of receiver i and sender j, scrolled into view."""
    cell = f"document.querySelectorAll('#matrix tbody tr')[{i}].children[{j + 1}]"
    page.evaluate(f"{cell}.scrollIntoView({{block: 'center', inline: 'center'}})")
    box = page.evaluate(
        f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
        f"({cell}.getBoundingClientRect())"
    )
    return box


def told(one, i, j):
    contribution = f"{one.edge_contributions[i, j]:+.2f}".replace("-", "−")
    mean = f"{one.edge_means[i, j]:.2f}".replace("-", "−")
    return f"{one.events[j]} → {one.events[i]}: contribution {contribution} nats, mean edge {mean}"


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_no_page_scrolls_sideways(page, path, width):
    page.show(width)
    page.open(path)
    page.requests.clear()
    page.open(path)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelectorAll('#matrix td[role]').length") == 25**2


def test_a_touch_a_hover_and_keys_tell_of_a_cell(page, one):
    page.tap(*middle(page, 1, 0))
    assert page.evaluate(TOLD) == told(one, 1, 0)
    page.key("ArrowDown")
    page.key("ArrowRight")
    assert page.evaluate(TOLD) == told(one, 2, 1)
    page.show(1280)
    page.mouse(*middle(page, 0, 3))
    assert page.evaluate(TOLD) == told(one, 0, 3)


def test_the_switch_changes_what_colours_show(page, one):
    painted = "[...document.querySelectorAll('#matrix td[role]')].map(c => c.style.background)"
    first = page.evaluate(painted)
    page.evaluate("document.querySelector('input[value=means]').click()")
    second = page.evaluate(painted)
    assert all("--mean" in each for each in second) and "--mean" not in str(first)
    signs = ["adds" if x > 0 else "takes" for x in one.edge_contributions.ravel()]
    assert all(f"--{sign}" in each for sign, each in zip(signs, first, strict=True))
    assert "0" in page.evaluate(
        "[...document.querySelectorAll('#scale span')].map(s => s.textContent)"
    )


def test_hostile_names_stay_inert(page):
    assert page.evaluate("document.title").startswith("metro station – ")
    assert page.evaluate("document.images.length") == 0
    assert page.evaluate("document.scripts.length") == 2


def test_text_can_be_read_on_light_and_on_dark(page, path):
    found = []
    for dark in (False, True):
        page.show(375, dark=dark)
        found.append(
            page.evaluate(
                "['color', 'background-color'].map(name => getComputedStyle(document.body)[name])"
                ".concat(getComputedStyle(document.querySelector("
                "'#timeline svg [style*=\"fill: currentColor\"]')).fill)"
            )
        )
    shades = [[sum(map(int, c[4:-1].split(","))) for c in colours] for colours in found]
    (ink, paper, drawn), (dark_ink, dark_paper, dark_drawn) = shades
    assert ink + 400 < paper and drawn == ink
    assert dark_paper + 400 < dark_ink and dark_drawn == dark_ink


def test_a_click_on_the_timeline_moves_the_sound_and_the_cursor(page):
    page.show(1280)
    box = page.evaluate(
        "(({x, y, width, height}) => [x, y, width, height])"
        "(document.getElementById('timeline').getBoundingClientRect())"
    )
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
    x = box[0] + box[2] * (data["left"] + data["right"]) / 2
    for kind in ("mousePressed", "mouseReleased"):
        page.command(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=box[1] + 60,
            button="left",
            clickCount=1,
        )
    assert page.evaluate("document.getElementById('audio').currentTime") == pytest.approx(
        1, abs=0.5
    )
    page.command(
        "Runtime.evaluate",
        expression="new Promise(done => setTimeout(done, 300))",
        awaitPromise=True,
    )
    left = page.evaluate("parseFloat(document.getElementById('cursor').style.left)")
    assert 100 * data["left"] < left < 100 * data["right"]
