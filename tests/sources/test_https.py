"""Ranges over TLS, from a server whose certificate only the test trusts."""

import shutil
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from byteatlas.errors import SourceError
from byteatlas.model import ByteRange
from byteatlas.sources import Policy, open_source

DATA = bytes(np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8))
HASTY = Policy(patience_s=0.5, idle_s=5, tries=2, first_pause_s=0.01)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    directory = tmp_path_factory.mktemp("tls")
    key, made = directory / "key.pem", directory / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(key), "-out", str(made)],
        check=True, capture_output=True,
    )  # fmt: skip
    return made, key


class Ranges(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(DATA)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(DATA[first : last + 1])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def port(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_certificate_that_is_trusted_lets_ranges_be_read(port, certificate):
    trusting = ssl.create_default_context(cafile=certificate[0])
    source = open_source(f"https://localhost:{port}/a", storage_options={"ssl": trusting})
    for _ in range(2):
        large, small = source.read([ByteRange(5, 2_000_000), ByteRange(2_500_000, 100)])
        assert bytes(large) == DATA[5:2_000_005]
        assert bytes(small) == DATA[2_500_000:2_500_100]


@pytest.mark.parametrize(
    ("host", "trusts", "problem"),
    [("localhost", False, "self.signed"), ("127.0.0.1", True, "not valid for '127.0.0.1'")],
)
def test_another_certificate_is_refused_at_once(port, certificate, host, trusts, problem):
    options = {"ssl": ssl.create_default_context(cafile=certificate[0])} if trusts else {}
    source = open_source(f"https://{host}:{port}/a", storage_options=options, policy=HASTY)
    with pytest.raises(SourceError, match=f"certificate is refused: .*{problem}"):
        source.read([ByteRange(0, 10)])


def test_a_certificate_may_be_left_unchecked(port):
    source = open_source(f"https://127.0.0.1:{port}/a", storage_options={"ssl": False})
    assert bytes(source.read([ByteRange(7, 9)])[0]) == DATA[7:16]


def test_a_server_that_does_not_speak_tls_is_an_error():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        source = open_source(f"https://127.0.0.1:{server.server_port}/a", policy=HASTY)
        with pytest.raises(SourceError, match="tried 2 times"):
            source.read([ByteRange(0, 10)])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
