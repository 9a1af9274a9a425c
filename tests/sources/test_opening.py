import re
import subprocess
import sys
from pathlib import Path

import pytest

import byteatlas.sources
from byteatlas.errors import Unsupported
from byteatlas.sources import Policy, open_source


def test_opening_makes_no_request():
    for url in ("/no/such/file", "http://no-such-host.invalid/x", "s3://bucket/key", "ftp://h/x"):
        source = open_source(url)
        assert source.url == url
        assert source.facts.size is None
        source.close()


def test_the_gap_is_a_parameter():
    source = open_source("http://h/x", gap=5, policy=Policy(tries=2))
    assert (source.policy.gap, source.policy.tries) == (5, 2)


def test_secrets_do_not_show():
    assert repr(open_source("https://u:p@h/x?sig=s")) == "RemoteSource('https://h/x')"


def test_storage_options_of_a_local_file_are_refused():
    with pytest.raises(Unsupported, match="anon"):
        open_source("/x", storage_options={"anon": True})


def test_local_files_need_no_client():
    script = (
        "import sys, byteatlas.sources as s; s.open_source('/x');"
        "print({'aiohttp', 'fsspec', 'obstore'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_the_public_names():
    assert sorted(byteatlas.sources.__all__) == [
        "ByteSource", "CachedReader", "LogEntry", "Policy", "Trace", "open_source",
    ]  # fmt: skip


def test_the_page_on_transport_runs(capsys):
    page = Path(__file__).parents[2] / "docs" / "transport.md"
    blocks = re.findall(r"^```python run\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    code = "\n".join(blocks)
    exec(code, {})
    said = re.search(r"print\(source.trace\) +# (.*)", code)[1]
    assert capsys.readouterr().out.strip() == said
