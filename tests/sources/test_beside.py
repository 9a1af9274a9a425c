"""Where a source may be that another source names."""

import pytest

from byteatlas.errors import NotAllowed, SourceMissing
from byteatlas.sources.beside import url_beside


def nothing(_url):
    return False


def everything(_url):
    return True


@pytest.mark.parametrize(
    ("base", "name", "url"),
    [
        ("https://h/d/a.h5", "b.h5", "https://h/d/b.h5"),
        ("https://h/d/a.h5", "./e/../b c.h5", "https://h/d/b%20c.h5"),
        ("https://h/d%20e/a.h5?sig=1", "b.h5", "https://h/d%20e/b.h5?sig=1"),
        ("https://h:8000/a.h5", "b/c.h5", "https://h:8000/b/c.h5"),
        ("https://h/d/a.h5", "50%.h5", "https://h/d/50%25.h5"),
        ("https://h/d/a.h5", "a?b#c.h5", "https://h/d/a%3Fb%23c.h5"),
        ("https://h/d/a.h5", "%2e%2e/b.h5", "https://h/d/%252e%252e/b.h5"),
        ("https://h/d/a.h5", "@evil.org/b.h5", "https://h/d/%40evil.org/b.h5"),
        ("https://h?file=a.h5", "b.h5", "https://h/b.h5?file=a.h5"),
        ("s3://bucket/d/a b.h5", "c d.h5", "s3://bucket/d/c d.h5"),
        ("s3://bucket/a.h5", "b.h5", "s3://bucket/b.h5"),
        ("zip://a.h5::https://h/x.zip", "b.h5", "zip://b.h5::https://h/x.zip"),
        ("zip://d/a.h5::file:///x.zip", "e/b.h5", "zip://d/e/b.h5::file:///x.zip"),
    ],
)
def test_remote_names_count_from_the_directory(base, name, url):
    assert url_beside(base, name, is_allowed=nothing) == url


@pytest.mark.parametrize(
    ("base", "name", "url", "prefix"),
    [
        ("https://h/d/e/a.h5", "../b.h5", "https://h/d/b.h5", "https://h/d/"),
        ("https://h/d/a.h5", "../b/c.h5", "https://h/b/c.h5", "https://h/b/"),
        ("s3://bucket/d/a.h5", "../b.h5", "s3://bucket/b.h5", "s3://bucket/"),
        (
            "zip://d/a.h5::https://h/x.zip",
            "../b.h5",
            "zip://b.h5::https://h/x.zip",
            "zip://b.h5::https://h/x.zip",
        ),
    ],
)
def test_remote_names_outside_the_directory_need_permission(base, name, url, prefix):
    asked = []
    with pytest.raises(NotAllowed) as caught:
        url_beside(base, name, is_allowed=asked.append)
    assert asked == [url]
    assert f"pass allow=[{prefix!r}]" in caught.value.hint
    assert url_beside(base, name, is_allowed=everything) == url


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("https://h/d/a.h5", "../../b.h5"),
        ("https://h/d/a.h5", "../../../evil.org/b.h5"),
        ("https://h/a.h5", "../b.h5"),
        ("s3://bucket/a.h5", "../other/b.h5"),
        ("zip://a.h5::https://h/x.zip", "../b.h5"),
        ("https://h/d/a.h5", "https://evil.org/b.h5"),
        ("https://h/d/a.h5", "file:///etc/passwd"),
        ("https://h/d/a.h5", "/etc/passwd"),
        ("https://h/d/a.h5", "C:\\data\\b.h5"),
        ("https://h/d/a.h5", "."),
        ("https://h/d/a.h5", ".."),
        ("/d/a.h5", "https://evil.org/b.h5"),
        ("file:///d/a.h5", "s3://bucket/b.h5"),
    ],
)
def test_no_permission_lets_names_lead_to_another_origin(base, name):
    with pytest.raises(NotAllowed):
        url_beside(base, name, is_allowed=everything)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000])
def test_impossible_names_are_of_nothing(name):
    with pytest.raises(SourceMissing):
        url_beside("/d/a.h5", name, is_allowed=everything)


def test_a_path_of_another_machine_stands_for_a_neighbour():
    for name in ("/data/run 5/b c.h5", "C:\\data\\b c.h5"):
        url = url_beside("https://h/d/a.h5", name, is_allowed=nothing, finds_moved=True)
        assert url == "https://h/d/b%20c.h5"


def test_local_names_count_from_the_directory(tmp_path):
    base = str(tmp_path / "a.h5")
    assert url_beside(base, "b/c.h5", is_allowed=nothing) == f"{tmp_path}/b/c.h5"
    assert url_beside(base, "b/../c.h5", is_allowed=nothing) == f"{tmp_path}/c.h5"
    assert url_beside(base, f"{tmp_path}/c.h5", is_allowed=nothing) == f"{tmp_path}/c.h5"
    folder = tmp_path / "with %41 and space"
    folder.mkdir()
    (folder / "a.h5").touch()
    found = url_beside(f"file://{folder}/a.h5", "b c.h5", is_allowed=nothing)
    assert found.startswith("file:///")
    assert found.endswith("/with%20%2541%20and%20space/b%20c.h5")


def test_local_names_outside_the_directory_need_permission(tmp_path):
    base = str(tmp_path / "d" / "a.h5")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "out").symlink_to("/etc")
    for name in ("../b.h5", "/etc/passwd", "out/passwd", "../d2/x"):
        with pytest.raises(NotAllowed, match=r"is outside the directory"):
            url_beside(base, name, is_allowed=nothing)
        assert url_beside(base, name, is_allowed=everything)


def test_only_a_path_that_does_not_exist_stands_for_a_neighbour(tmp_path):
    base = str(tmp_path / "a.h5")
    options = {"is_allowed": nothing, "finds_moved": True}
    assert url_beside(base, "/no/such/b.h5", **options) == f"{tmp_path}/b.h5"
    with pytest.raises(NotAllowed):
        url_beside(base, "/etc/passwd", **options)
    with pytest.raises(NotAllowed):
        url_beside(base, "/no/such/b.h5", is_allowed=nothing)
