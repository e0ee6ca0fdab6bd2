"""Pictures of an explanation: what they show, and that nothing in them lies upon anything else."""

import dataclasses
import itertools

import numpy as np
import pytest
from made_explanations import FRONT_END, LONGEST, explanation
from matplotlib import colors
from matplotlib.patches import FancyArrowPatch
from matplotlib.transforms import Bbox
from PIL import Image

from ergl_jax.audio import get_front_end
from ergl_jax.inference import pictures

DRAWN = {
    "matrix": pictures.matrix,
    "graph": pictures.graph,
    "timeline": lambda e: pictures.timeline(e, FRONT_END),
    "curves": pictures.curves,
}


def inside(box, figure):
    whole = figure.bbox
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= whole.x1 and box.y1 <= whole.y1


def apart(boxes):
    return [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(boxes.items(), 2)
        if Bbox.intersection(a, b) is not None
    ]


def circles(figure):
    """Bounding boxes of the nodes."""
    axes = figure.axes[0]
    (nodes,) = axes.collections
    centres = axes.transData.transform(nodes.get_offsets())
    radii = np.sqrt(nodes.get_sizes()) / 2 * figure.dpi / 72
    return {
        f"node {k}": Bbox([centre - radius, centre + radius])
        for k, (centre, radius) in enumerate(zip(centres, radii, strict=True))
    }


@pytest.mark.parametrize("n", [1, 2, 5, 14, 25, 60])
@pytest.mark.parametrize("probability", [None, 1.0])
def test_labels_of_the_graph_touch_neither_each_other_nor_nodes_nor_the_border(n, probability):
    one = explanation(n, **({} if probability is None else {"event_probabilities": [1.0] * n}))
    figure = pictures.graph(one)
    figure.canvas.draw()
    axes = figure.axes[0]
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert len(boxes) == n
    boxes |= circles(figure)
    boxes["legend"] = axes.get_legend().get_window_extent()
    boxes["colour bar"] = figure.axes[1].get_tightbbox()
    assert not apart(boxes)
    assert not [name for name, box in boxes.items() if not inside(box, figure)]


def test_the_check_of_overlaps_sees_one():
    figure = pictures.graph(explanation(5))
    first, second, *_ = figure.axes[0].texts
    first.set_position(second.get_position())
    first.set_ha(second.get_ha())
    assert apart({text.get_text(): text.get_window_extent() for text in figure.axes[0].texts})


def arrows(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]


def test_arrows_lead_from_sender_to_receiver_and_are_coloured_by_sign():
    values = np.zeros((5, 5))
    values[1, 3], values[3, 1], values[2, 2] = 0.5, -0.25, 9.0  # 3 → 1 adds, 1 → 3 takes
    figure = pictures.graph(explanation(5, edge_contributions=values))
    places = figure.axes[0].collections[0].get_offsets()
    weak, strong = arrows(figure)  # the strongest is drawn last
    assert np.allclose(strong._posA_posB, [places[3], places[1]])
    assert np.allclose(weak._posA_posB, [places[1], places[3]])
    assert strong.get_linewidth() > weak.get_linewidth()
    colours = [colors.to_hex(a.get_edgecolor()) for a in (strong, weak)]
    assert colours == [pictures.ADDS, pictures.TAKES]
    middles = [a.get_path().vertices[1] for a in (strong, weak)]
    assert not np.allclose(*middles)  # there and back apart


def test_no_more_arrows_than_can_be_told_apart():
    assert len(arrows(pictures.graph(explanation(25)))) == pictures.SHOWN_RELATIONS
    none = explanation(5, edge_contributions=np.zeros((5, 5)), node_contributions=np.zeros(5))
    assert not arrows(pictures.graph(none))


@pytest.mark.parametrize("n", [1, 10, 25, 60])
def test_tick_labels_of_the_matrix_are_apart_and_inside(n):
    figure = pictures.matrix(explanation(n))
    figure.canvas.draw()
    one, two = figure.axes[:2]
    rows = {text.get_text(): text.get_window_extent() for text in one.get_yticklabels()}
    assert len(rows) == n and not apart(rows)
    for text in (*one.get_yticklabels(), *one.get_xticklabels(), *two.get_xticklabels()):
        assert inside(text.get_window_extent(), figure)
    centres = [axes.transData.transform([[0, 0], [1, 1]]) for axes in (one, two)]
    font = max(text.get_fontsize() for text in one.get_xticklabels()) * figure.dpi / 72
    for (left, _), (right, _) in centres:  # at 45 degrees the distance between lines is less
        assert (right - left) * (np.sqrt(0.5) if n <= 12 else 1) > font
    for axes in (one, two):
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            assert inside(text.get_window_extent(), figure)


def test_the_matrix_shows_its_arrays_and_marks_zero():
    one = explanation(5)
    means, contributions = pictures.matrix(one).axes[:2]
    assert np.array_equal(means.images[0].get_array(), one.edge_means)
    shown = contributions.images[0]
    assert np.array_equal(shown.get_array(), one.edge_contributions)
    assert shown.norm.vmin == -shown.norm.vmax < 0
    bar = contributions.child_axes[0]
    assert [line.get_ydata()[0] for line in bar.lines] == [0]
    positive = dataclasses.replace(one.opened, edges=np.abs(one.opened.edges) + 1)
    means = pictures.matrix(dataclasses.replace(one, opened=positive)).axes[0]
    assert not means.child_axes[0].lines


def test_the_timeline_shows_the_likeliest_events_and_time_in_seconds():
    one = explanation(25)
    one.opened.event_times[7, 3] = 1.5
    figure = pictures.timeline(one, FRONT_END)
    figure.canvas.draw()
    above, below = figure.axes[:2]
    labels = [text.get_text() for text in below.get_yticklabels()]
    assert labels[0] == LONGEST[7] and len(labels) == pictures.SHOWN_EVENTS
    assert above.get_xlim() == below.get_xlim() == (0, 2.0)
    # 201 frames of 10 ms are 6 tokens of 32 frames.
    assert below.images[0].get_extent()[1] == pytest.approx(6 * 0.32)
    ticks = zip(above.get_yticklabels(), above.get_yticks(), strict=True)
    hertz = {text.get_text(): y for text, y in ticks}
    assert list(hertz) == ["200", "500", "1000", "2000", "5000"]
    assert all(np.diff(list(hertz.values())) > 0)
    assert not apart({t.get_text(): t.get_window_extent() for t in above.get_yticklabels()})


def test_the_timeline_of_natural_logarithms_is_in_db_and_between_its_frames():
    """A frame that lies in the waveform is shown around its middle."""
    one, kong = explanation(4), get_front_end("kong")
    image = pictures.timeline(one, kong).axes[0].images[0]
    expected = one.opened.log_mel * 20 / np.log(10)
    np.testing.assert_allclose(image.get_array(), expected.T, rtol=1e-6)
    assert image.get_clim()[0] >= expected.max() - 80.001
    assert image.get_extent()[0] == pytest.approx((1024 - 688) / 44100)


def test_a_mel_band_is_labelled_where_its_filter_is_loudest():
    from ergl_jax.audio.mel import mel_filters

    figure = pictures.timeline(explanation(3), FRONT_END)
    places = dict(zip((200, 500, 1000, 2000, 5000), figure.axes[0].get_yticks(), strict=True))
    for hertz, place in places.items():
        bin_of_fft = round(hertz * FRONT_END.n_fft / FRONT_END.sample_rate)
        assert abs(mel_filters(FRONT_END)[bin_of_fft].argmax() - place) <= 1


@pytest.mark.parametrize(
    "frames, tokens, per_token", [(1001, 31, 32), (501, 31, 16), (95, 2, 32), (501, 1, 501)]
)
def test_frames_of_a_token(frames, tokens, per_token):
    assert pictures.token_frames(frames, tokens) == per_token


def test_curves_show_all_orders():
    one = explanation(5)
    figure = pictures.curves(one)
    panels = [one.event_curves.delete, one.event_curves.insert]
    panels += [one.edge_curves.delete, one.edge_curves.insert]
    for axes, curves in zip(figure.axes, panels, strict=True):
        for line, values in zip(axes.lines[:3], curves.values(), strict=True):
            assert np.array_equal(line.get_ydata(), values)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "in the order of the explanation",
        "in random orders (mean)",
        "in the reverse order",
    ]


@pytest.mark.parametrize("name", DRAWN)
def test_hostile_names_are_drawn_as_they_are(name, tmp_path):
    events = ("$\\frac{", '"><script>alert(1)</script>', "x" * 500, "a $b$ c\x07 犬\n")
    figure = DRAWN[name](explanation(4, events=events, scenes=("$x", "y$", "z")))
    path = tmp_path / f"{name}.svg"
    pictures.save(figure, path)
    assert "<script" not in path.read_text()
    assert "<script" not in pictures.svg(figure)


@pytest.mark.parametrize("name", DRAWN)
def test_saved_whole_as_png_and_svg_the_same_each_time(name, tmp_path):
    one = explanation(5)
    for suffix in ("png", "svg"):
        twice = []
        for k in range(2):
            path = tmp_path / f"{k}.{suffix}"
            pictures.save(DRAWN[name](one), path)
            twice.append(path.read_bytes())
        assert twice[0] == twice[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "0.svg", "1.png", "1.svg"]
    with Image.open(tmp_path / "0.png") as image:
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert min(image.size) > 300
