"""Progress in a terminal and in a log file."""

import io

import pytest

from ergl_jax import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where a test lets them."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("more", [{}, {"total": 100}, {"total": 100, "leave": True}])
def test_a_log_file_has_a_line_every_30_seconds_and_the_last(monkeypatch, clock, more):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    with progress.bar(desc="clips", unit="clip", mininterval=0, **more) as bar:
        for number in range(100):
            clock[0] = number
            bar.update()
            bar.set_postfix_str(f"step {number}")
            if number == 40:
                progress.say("left out: a.wav")
        assert len(log.getvalue().splitlines()) == 4
    lines = log.getvalue().split("\n")
    assert "\r" not in log.getvalue() and lines.pop() == ""
    assert lines.pop(1) == "left out: a.wav"
    assert len(lines) == 4 and all(line.startswith("clips: ") for line in lines)
    assert [" 31/" in lines[0], " 61/" in lines[1], " 91/" in lines[2]] == [True] * 3
    assert " 100/" in lines[3] and "step 99" in lines[3]


def test_a_terminal_has_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert list(progress.bar(range(3), desc="clips")) == [0, 1, 2]
    assert "\rclips: 100%|" in terminal.getvalue()


def test_what_is_disabled_prints_nothing(capsys):
    assert list(progress.bar(range(3), desc="epochs", disable=True)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
