import pytest

from byteatlas.errors import SourceChanged
from byteatlas.model import Source
from byteatlas.sources.identity import check_identity

URL = "http://h/a.nc?signature=secret"
MONDAY = "Mon, 02 Nov 2026 00:00:00 GMT"
TUESDAY = "Tue, 03 Nov 2026 00:00:00 GMT"


def source(size=None, etag=None, last_modified=None):
    return Source(URL, size, etag, last_modified)


def test_what_is_seen_first_is_recorded():
    assert check_identity(source(), source(7, '"a"', MONDAY)) == source(7, '"a"', MONDAY)


def test_what_is_recorded_stays_when_an_answer_is_silent():
    assert check_identity(source(7, '"a"', MONDAY), source()) == source(7, '"a"', MONDAY)


@pytest.mark.parametrize(
    ("recorded", "seen"),
    [
        (source(7), source(8)),
        (source(7, '"a"'), source(7, '"b"')),
        (source(7, '"a"', MONDAY), source(8, '"a"', MONDAY)),
        (source(7, None, MONDAY), source(7, None, TUESDAY)),
        (source(7, 'W/"a"', MONDAY), source(7, 'W/"a"', TUESDAY)),
        (source(7, '"a"', MONDAY), source(7, None, TUESDAY)),
    ],
)
def test_a_difference_is_a_changed_source(recorded, seen):
    with pytest.raises(SourceChanged) as caught:
        check_identity(recorded, seen)
    assert "secret" not in str(caught.value.at(url=URL))


@pytest.mark.parametrize(
    ("recorded", "seen"),
    [
        (source(7, '"a"', MONDAY), source(7, '"a"', TUESDAY)),  # a strong ETag decides
        (source(7, 'W/"a"'), source(7, 'W/"b"')),  # weak ones do not
        (source(7, None, "1795384669772716253"), source(7, None, MONDAY)),  # file and web
    ],
)
def test_what_proves_nothing_is_no_change(recorded, seen):
    check_identity(recorded, seen)


def test_the_message_tells_what_was_and_what_is():
    with pytest.raises(SourceChanged, match='ETag was "a" and is "b"'):
        check_identity(source(7, '"a"'), source(7, '"b"'))
