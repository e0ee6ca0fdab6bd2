"""Pictures of an explanation: they show its numbers, and labels don't overlap."""

import dataclasses
import itertools

import numpy as np
import pytest
from made_explanations import FRONT_END, LONGEST, PICTURES, bundle, explanation
from matplotlib import colors
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from ergl_jax.audio import get_front_end
from ergl_jax.audio.mel import mel_filters
from ergl_jax.inference import explanation_page, pictures, strips
from ergl_jax.inference.activity import frames_per_step


def boxes(figure, texts):
    """Bounding boxes of texts, each inside the figure."""
    found = [Text.get_window_extent(text) for text in texts if text.get_text()]
    for box in found:
        assert box.x0 >= 0 and box.y0 >= 0, box
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, box
    return found


def test_labels_are_inside_and_do_not_overlap():
    for n in (1, 2, 25):
        figure = pictures.graph(explanation(n))
        figure.draw_without_rendering()
        axes = figure.axes[0]
        labels = boxes(figure, axes.texts)
        assert len(labels) == n
        centres = axes.transData.transform(axes.collections[0].get_offsets())
        radii = np.sqrt(axes.collections[0].get_sizes()) / 2 * figure.dpi / 72
        nodes = [Bbox([c - r, c + r]) for c, r in zip(centres, radii, strict=True)]
        for a, b in itertools.combinations([*labels, *nodes], 2):
            assert Bbox.intersection(a, b) is None
        figure = pictures.matrix(explanation(n))
        figure.draw_without_rendering()
        left, right = figure.axes[:2]
        rows = boxes(figure, left.get_yticklabels())
        assert len(rows) == n
        for each in (rows, *(boxes(figure, axes.get_xticklabels()) for axes in (left, right))):
            for a, b in itertools.pairwise(each):
                assert Bbox.intersection(a, b) is None


def test_arrows_lead_from_sender_to_receiver_and_are_coloured_by_sign():
    values = np.zeros((5, 5))
    values[1, 3], values[3, 1], values[2, 2] = 0.5, -0.25, 9.0  # 3 → 1 raises, 1 → 3 lowers
    axes = pictures.graph(explanation(5, edge_contributions=values)).axes[0]
    weak, strong = (text for text in axes.texts if not text.get_text())
    places = axes.collections[0].get_offsets()
    for arrow, i, j, colour in (
        (strong, 1, 3, pictures.POSITIVE),
        (weak, 3, 1, pictures.NEGATIVE),
    ):
        assert np.allclose(arrow.xy, places[i]) and np.allclose(arrow.xyann, places[j])
        assert colors.to_hex(arrow.arrow_patch.get_edgecolor()) == colour
    assert strong.arrow_patch.get_linewidth() > weak.arrow_patch.get_linewidth()


def test_the_matrix_shows_its_arrays():
    one = explanation(5)
    left, right = pictures.matrix(one).axes[:2]
    assert np.array_equal(left.images[0].get_array(), one.activations.edges.mean(axis=-1))
    assert np.array_equal(right.images[0].get_array(), one.edge_contributions)
    assert right.images[0].norm.vmin == -right.images[0].norm.vmax < 0


def test_the_timeline_shows_all_events_over_seconds_and_hides_silence_and_padding():
    one = explanation(25)
    one.activations.event_times[7, 3] = 1.5
    one.waveform[round(0.96 * 16000) : round(1.28 * 16000)] = 0  # the fourth token
    window = dataclasses.replace(one.classification.timeline[0], stop=1.5)
    short = dataclasses.replace(one.classification, timeline=(window,), stop=1.5)
    one = dataclasses.replace(one, classification=short)
    above, below = strips.timeline(one, FRONT_END).axes[:2]
    labels = [text.get_text() for text in below.get_yticklabels()]
    assert len(labels) == 25 and labels[0] == LONGEST[7][:21] + "…"
    assert above.get_xlim() == below.get_xlim() == (0, 1.5)
    # 201 frames of 10 ms are 6 tokens of 32 frames; 1.5 s end in the fifth.
    image = below.images[0]
    assert image.get_extent()[1] == pytest.approx(6 * 0.32)
    assert (image.get_array().mask == [False, False, False, True, False, True]).all()
    for hertz, band in zip((200, 500, 1000, 2000, 5000), above.get_yticks(), strict=True):
        fft_bin = round(hertz * FRONT_END.n_fft / FRONT_END.sample_rate)
        assert abs(mel_filters(FRONT_END)[fft_bin].argmax() - band) <= 1


def test_nodes_of_events_that_are_not_detected_are_faint():
    p, contributions = [0.9, 0.5, 0.1, 0.0], np.array([1.0, -1.0, 1.0, -1.0])
    one = explanation(4, event_probabilities=p, node_contributions=contributions)
    nodes = pictures.graph(one).axes[0].collections[0]
    for opacity in (nodes.get_facecolors()[:, 3], nodes.get_edgecolors()[:, 3]):
        assert opacity[0] == opacity[1] == 1 > opacity[2] > opacity[3] > 0


def test_the_timeline_of_natural_logarithms_is_in_db_and_frames_start_inside():
    one, kong = explanation(3), get_front_end("kong")
    image = strips.timeline(one, kong).axes[0].images[0]
    expected = one.activations.log_mel * 20 / np.log(10)
    np.testing.assert_allclose(image.get_array(), expected.T, rtol=1e-6)
    assert image.get_extent()[0] == pytest.approx((1024 - 688) / 44100)


def test_frames_per_step():
    for frames, steps, expected in ((1001, 31, 32), (501, 31, 16), (95, 2, 32), (501, 1, 501)):
        assert frames_per_step(frames, steps) == expected


def test_curves_show_all_orders():
    one = explanation(5)
    panels = [each for c in (one.event_curves, one.edge_curves) for each in (c.delete, c.insert)]
    for axes, curves in zip(pictures.curves(one).axes, panels, strict=True):
        for line, values in zip(axes.lines, curves.values(), strict=True):
            assert np.array_equal(line.get_ydata(), values)


def test_hostile_names_are_drawn_and_files_are_reproducible(tmp_path):
    events = ("$\\frac{", '"><script>alert(1)</script>', "x" * 500, "a $b$ c\x07 犬\n")
    one = explanation(4, events=events, scenes=("$x", "y$", "z"))
    contents = {}
    for _ in range(2):
        figures = explanation_page.draw(one, bundle())
        for name, kind in itertools.product(PICTURES, ("png", "svg")):
            path = tmp_path / f"{name}.{kind}"
            pictures.save(figures[name], path)
            assert contents.setdefault(path, path.read_bytes()) == path.read_bytes()
    assert not any(b"<script" in content for content in contents.values())
    with Image.open(tmp_path / "graph.png") as image:
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
