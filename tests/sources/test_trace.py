import pytest

from byteatlas.sources import LogEntry, Trace


def test_a_trace_is_one_line():
    trace = Trace()
    trace.add(rounds=3, requests=1200, bytes_read=4_560_000)
    assert str(trace) == "3 rounds, 1,200 requests, 4.56 MB"


def test_repeats_and_concurrency_show_when_there_are_any():
    trace = Trace()
    trace.begin()
    trace.begin()
    trace.end(LogEntry("u", 0, 10, 206, 3, 0.1))
    assert str(trace) == "0 rounds, 1 request, 10 bytes, at most 2 in flight, 2 repeats"
    assert trace.log == []


def test_the_log_is_kept_on_demand():
    trace = Trace(keep_log=True)
    trace.begin()
    trace.end(LogEntry("u", 5, 10, 206, 1, 0.1))
    assert trace.log == [LogEntry("u", 5, 10, 206, 1, 0.1)]


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 bytes"), (1000, "1 kB"), (999_600, "1 MB"), (2.5e12, "2.5 TB")]
)
def test_sizes_have_three_digits(count, text):
    trace = Trace(bytes_read=int(count))
    assert str(trace).endswith(text)
