"""What a diagnosis says of servers that behave, and of those that do not."""

import json

import pytest
from click.testing import CliRunner

import byteatlas
from byteatlas.cli import main
from byteatlas.diagnosis import diagnose
from byteatlas.testing import Fault, RangeServer

DATA = b"CDF\x01" + bytes(range(256)) * 12_000
"""netCDF-3 by its first bytes, 3 MB."""

ALLOWED = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Content-Range, ETag",
    "Access-Control-Allow-Headers": "Range",
}


@pytest.fixture
def diagnosed():
    """Diagnose a server with these faults."""

    def run(*faults, name="a.nc", data=DATA, **options):
        with RangeServer({"a.nc": data, "b.nc": DATA}, faults=faults) as server:
            result = diagnose(server.url(name), **options)
        result_log.append(server.log)
        return result

    result_log = run.logs = []
    return run


def verdicts(diagnosis):
    return {check.name: check.verdict for check in diagnosis.checks}


def test_a_good_server_is_usable_in_few_requests(diagnosed):
    found = diagnosed()
    (log,) = diagnosed.logs
    assert found.requests == len(log) == 9
    assert sum(entry.bytes_sent for entry in log) < 2**22
    assert found.is_usable
    assert verdicts(found) == {
        "reach": "ok",
        "ranges": "ok",
        "compression": "ok",
        "size": "ok",
        "HEAD": "ok",
        "identity": "ok",
        "conditions": "ok",
        "authentication": "ok",
        "speed": "ok",
        "clock": "ok",
        "CORS": "warning",
        "format": "ok",
    }
    assert "strong ETag" in found["identity"].found
    assert found["format"].facts == {"format": "netcdf3"}
    assert found["speed"].facts["bandwidth"] > 0


@pytest.mark.parametrize(
    ("fault", "name", "verdict", "words"),
    [
        (Fault(ignore_range=True), "ranges", "problem", "the whole file"),
        (Fault(shift=1, after=2), "ranges", "problem", "other ones the second time"),
        (Fault(headers={"Content-Range": ""}), "ranges", "problem", "without a Content-Range"),
        (
            Fault(headers={"Content-Range": "bytes 5-9/3072004"}, after=1),
            "ranges",
            "problem",
            "Content-Range 'bytes 5-9/3072004' in answer",
        ),
        (Fault(cut=100, after=2), "ranges", "problem", "100 of 1024 bytes came"),
        (Fault(headers={"Content-Encoding": "gzip"}), "compression", "problem", "gzip"),
        (Fault(methods=("HEAD",), status=405), "HEAD", "ok", "one byte is asked for instead"),
        (
            Fault(methods=("HEAD",), headers={"Content-Length": "5"}),
            "size",
            "warning",
            "3072004 bytes by Content-Range, 5 by HEAD",
        ),
        (Fault(headers={"ETag": 'W/"1"'}), "identity", "ok", "weak ETag"),
        (
            Fault(headers={"ETag": 'W/"1"', "Last-Modified": ""}),
            "identity",
            "warning",
            "small changes",
        ),
        (
            Fault(headers={"ETag": "", "Last-Modified": ""}),
            "identity",
            "warning",
            "only a change of size",
        ),
        (Fault(status=401, headers={"WWW-Authenticate": "Basic realm=x"}), "authentication",
         "problem", "needed: Basic"),
        (Fault(status=403), "authentication", "problem", "headers.Authorization"),
        (Fault(status=404), "reach", "problem", "check its spelling"),
        (Fault(status=503), "reach", "problem", "overloaded"),
        (Fault(reset=-1), "reach", "problem", "connection reset"),
        (
            Fault(headers={"Date": "Thu, 01 Jan 2015 00:00:00 GMT", "Last-Modified": ""}),
            "clock",
            "warning",
            "differ by",
        ),
        (
            Fault(
                headers={
                    "Date": "Thu, 01 Jan 2015 00:00:00 GMT",
                    "Last-Modified": "Fri, 01 Jan 2016 00:00:00 GMT",
                }
            ),
            "clock",
            "warning",
            "after the server's own time",
        ),
        (
            Fault(headers={"Access-Control-Allow-Origin": "*"}),
            "CORS",
            "warning",
            "should send Access-Control-Expose-Headers",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_fault_is_named(diagnosed, fault, name, verdict, words):
    found = diagnosed(fault)
    check = found[name]
    assert check.verdict == verdict
    assert words in f"{check.found}; {check.meaning}"
    assert found.is_usable == all(one.verdict != "problem" for one in found.checks)
    assert found.requests <= 12


def test_a_server_for_web_pages_is_recognised(diagnosed):
    preflight = Fault(methods=("OPTIONS",), status=204, headers=ALLOWED, body=b"")
    found = diagnosed(preflight, Fault(headers=ALLOWED))
    assert found["CORS"].found == "allowed for *, ranges included"
    assert diagnosed(Fault(headers=ALLOWED))["CORS"].verdict == "warning"


def test_conditions_that_are_ignored_are_warned_of(diagnosed):
    ignored = Fault(
        methods=("GET",),
        after=5,
        times=1,
        status=206,
        body=b"C",
        headers={"Content-Range": f"bytes 0-0/{len(DATA)}"},
    )
    found = diagnosed(ignored)
    assert found["conditions"].verdict == "warning"
    assert "compared after they came" in found["conditions"].meaning


def test_a_redirect_is_followed_and_credentials_stay_behind(diagnosed):
    with RangeServer({"b.nc": DATA}) as other:
        away = Fault(path="a.nc", status=302, headers={"Location": other.url("b.nc")})
        options = {"headers": {"Authorization": "Bearer secret"}}
        found = diagnosed(away, storage_options=options)
        assert found.is_usable
        assert "1 redirect" in found["redirects"].found
        assert "stay with the first host" in found["redirects"].meaning
        assert not any("authorization" in entry.headers for entry in other.log)
        assert found["format"].verdict == "ok"
    assert "secret" not in repr(found)


def test_redirects_without_an_end_are_a_problem(diagnosed):
    found = diagnosed(Fault(status=302, headers={"Location": "/a.nc"}))
    assert "more than 5 redirects" in found["reach"].found
    assert not found.is_usable


def test_a_small_file_without_ranges_works_and_is_warned_of(diagnosed):
    found = diagnosed(Fault(ignore_range=True), data=DATA[:5000])
    assert found["ranges"].verdict == "warning"
    assert found.is_usable


def test_a_login_page_is_no_data(diagnosed):
    found = diagnosed(data=b"<!DOCTYPE html><html>" + bytes(5000))
    assert "a web page" in found["format"].found
    assert not found.is_usable


def test_a_slow_server_is_warned_of(diagnosed, monkeypatch):
    monkeypatch.setattr("byteatlas.diagnosis.checks.SLOW_LATENCY_S", -1.0)
    assert diagnosed()["speed"].verdict == "warning"


def test_a_host_that_does_not_exist_is_a_problem():
    found = diagnose("http://127.0.0.1:9/a.nc")
    assert [check.name for check in found.checks] == ["reach"]
    assert "refused" in found["reach"].found.lower()


def test_a_local_file_has_the_checks_that_make_sense(tmp_path):
    (tmp_path / "a.nc").write_bytes(DATA)
    found = diagnose(tmp_path / "a.nc")
    names = ["reach", "identity", "ranges", "speed", "format"]
    assert [check.name for check in found.checks] == names
    assert found.is_usable


def test_a_missing_local_file_is_a_problem(tmp_path):
    found = diagnose(tmp_path / "no.nc")
    assert found["reach"].meaning == "check the path"
    assert not found.is_usable


def test_an_index_is_recognised(tmp_path):
    (tmp_path / "a.json").write_text('{"version": 1, "refs": {}}')
    assert diagnose(tmp_path / "a.json")["format"].facts == {"format": "index"}


def test_other_protocols_are_asked_as_they_are_read():
    import fsspec

    with fsspec.open("memory://doctor/a.nc", "wb") as file:
        file.write(DATA)
    found = diagnose("memory://doctor/a.nc")
    assert found.is_usable
    assert found["conditions"].verdict in ("ok", "warning")


def test_the_command_prints_a_line_for_each_check_and_exits_with_its_verdict(tmp_path):
    with RangeServer({"a.nc": DATA}, faults=[Fault(path="no*", status=401)]) as server:
        result = CliRunner().invoke(main, ["doctor", server.url("a.nc")])
        assert result.exit_code == 0
        assert "byteatlas can use it (9 requests)" in result.stdout
        assert "netcdf3, by its first bytes; byteatlas scan can index it" in result.stdout
        result = CliRunner().invoke(main, ["doctor", server.url("no.nc"), "--json"])
        assert result.exit_code == 1
        said = json.loads(result.stdout)
        assert not said["is_usable"]
        assert {check["verdict"] for check in said["checks"]} == {"problem"}
    assert byteatlas.diagnose is diagnose
