"""What is known of the way to a host follows from what its answers have shown."""

import pytest

from byteatlas.sources.line import LARGE, Line

MIB = 2**20


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def line(clock):
    return Line(clock, busy=lambda: 0.0)


def flow(line, clock, size, seconds, *, bodies=1, is_large=True, step=MIB):
    """Let a body come, evenly, while so many large ones are waited for."""
    for _ in range(bodies):
        line.begin(clock())
    for start in range(0, size, step):
        count = min(step, size - start)
        clock.now += seconds * count / size
        line.came(count, is_large=is_large)
    for _ in range(bodies):
        line.end()


def test_nothing_is_known_before_there_were_answers(line):
    assert (line.latency_s, line.bandwidth) == (None, None)


def answers(line, clock, seconds, *waits):
    """Let answers begin after some times, over and over."""
    for number in range(int(100 * seconds)):
        clock.now += 0.01
        line.first_byte(waits[number % len(waits)])


def test_the_latency_is_that_of_answers_that_waited_for_no_other(line, clock):
    answers(line, clock, 0.31, 0.02)
    assert line.latency_s is None  # a few answers may have been lucky, or not
    line.first_byte(0.05)
    assert line.latency_s == 0.02
    answers(line, clock, 5, 0.08, 0.5, 0.02)
    assert line.latency_s == 0.02


def test_a_full_line_does_not_seem_further_away(line, clock):
    answers(line, clock, 3, 0.02)
    answers(line, clock, 20, 0.4)
    assert line.latency_s == 0.02


def test_a_single_answer_that_came_from_nearer_does_not_count(line, clock):
    answers(line, clock, 5, 0.02)
    line.first_byte(0.001)
    answers(line, clock, 5, 0.02)
    assert line.latency_s == 0.02


def test_the_latency_follows_a_line_that_has_become_slower(line, clock):
    answers(line, clock, 5, 0.02)
    answers(line, clock, 60, 0.05)
    assert line.latency_s == 0.05


def test_the_bandwidth_is_that_of_all_bodies_together(line, clock):
    flow(line, clock, 8 * MIB, 0.08, bodies=5)
    assert line.bandwidth == pytest.approx(100 * MIB)


def test_time_in_which_no_body_is_waited_for_does_not_count(line, clock):
    for _ in range(16):
        flow(line, clock, MIB // 2, 0.005)
        clock.now += 10
    assert line.bandwidth == pytest.approx(100 * MIB)


def test_bytes_of_small_bodies_show_no_bandwidth(line, clock):
    line.came(4 * MIB, is_large=False)
    assert line.bandwidth is None
    flow(line, clock, 4 * MIB, 1, is_large=False)
    assert line.bandwidth is None


def test_small_bodies_beside_large_ones_are_counted(line, clock):
    line.begin(clock())
    for _ in range(12):
        clock.now += 0.01
        line.came(int(0.6 * MIB))
        line.came(int(0.4 * MIB) + 1, is_large=False)
    line.end()
    assert line.bandwidth == pytest.approx(100 * MIB, rel=0.01)


def test_bytes_that_were_received_late_do_not_look_like_bandwidth(line, clock):
    line.first_byte(0.02)
    for _ in range(8):
        asked_at = clock.now
        clock.now += 0.02 + 0.04  # this process was busy, and four MiB have come meanwhile
        line.begin(asked_at)
        line.came(2 * MIB)
        line.came(2 * MIB)
        line.end()
    assert line.bandwidth == pytest.approx(100 * MIB)


def test_bytes_that_came_before_they_were_received_do_not_make_a_line_fast(line, clock):
    line.begin(clock())
    line.came(4 * MIB, is_late=True)
    assert line.bandwidth is None
    for _ in range(12):
        clock.now += 0.01
        line.came(MIB, is_late=True)
    assert line.bandwidth == pytest.approx(16 / 12 * 100 * MIB)
    assert line.is_wider
    line.end()
    flow(line, clock, MIB, 0.01)
    assert not line.is_wider


def test_a_process_that_is_busy_with_answers_does_not_make_a_line_slow(line, clock):
    line.begin(clock())
    for _ in range(16):
        for _ in range(100):
            clock.now += 0.0004
            line.first_byte(0.02)
        line.came(MIB)
    assert line.bandwidth == pytest.approx(25 * MIB)
    assert line.is_wider
    line.end()
    for _ in range(16):
        flow(line, clock, MIB, 0.01)
    assert line.bandwidth == pytest.approx(100 * MIB)
    assert not line.is_wider


def test_a_process_that_is_late_to_receive_does_not_make_a_line_slow(line, clock):
    flow(line, clock, 16 * MIB, 0.16)
    line.begin(clock())
    for _ in range(100):
        clock.now += 0.1
        line.came(MIB, is_late=True)
    assert line.bandwidth == pytest.approx(100 * MIB)
    for _ in range(1600):  # but not for ever
        clock.now += 0.1
        line.came(MIB, is_late=True)
    assert line.bandwidth == pytest.approx(10 * MIB)


def test_too_few_bytes_show_no_bandwidth(line, clock):
    flow(line, clock, LARGE, 0.1)
    assert line.bandwidth is None


def test_a_burst_at_the_beginning_is_not_believed(line, clock):
    flow(line, clock, MIB, 0.002)
    assert line.bandwidth is None
    flow(line, clock, 6 * MIB, 0.06)
    assert line.bandwidth is None
    flow(line, clock, MIB, 0.01)
    assert line.bandwidth == pytest.approx(100 * MIB)


def test_a_loop_that_computes_does_not_make_a_line_slow(clock):
    line = Line(clock, busy=lambda: 0.5 * clock.now)
    flow(line, clock, 64 * MIB, 0.64)
    assert line.bandwidth == pytest.approx(100 * MIB)
    assert line.is_wider


def test_some_slow_spells_do_not_make_a_line_slow(line, clock):
    for number in range(32):
        flow(line, clock, MIB, 0.05 if number % 2 else 0.01)
    assert line.bandwidth == pytest.approx(100 * MIB)


def test_the_bandwidth_follows_a_line_that_has_become_narrower(line, clock):
    for seconds in (0.01, 0.1):
        flow(line, clock, 16 * MIB, 16 * seconds)
    assert line.bandwidth == pytest.approx(10 * MIB)
