"""Templates and generators expand as the reference specification says, and do nothing else."""

from __future__ import annotations

from typing import Any

import fsspec
import pytest

from byteatlas.errors import ByteatlasError, LimitExceeded, Malformed
from byteatlas.index import read_json
from byteatlas.index.templates import Templates

# The example of the reference specification, version 1.
SPECIFICATION = {
    "version": 1,
    "templates": {"u": "server.domain/path", "f": "{{c}}"},
    "gen": [
        {
            "key": "gen_key{{i}}",
            "url": "http://{{u}}_{{i}}",
            "offset": "{{(i + 1) * 1000}}",
            "length": "1000",
            "dimensions": {"i": {"stop": 5}},
        }
    ],
    "refs": {
        "key0": "data",
        "key1": ["http://target_url", 10000, 100],
        "key2": ["http://{{u}}", 10000, 100],
        "key3": ["http://{{f(c='text')}}", 10000, 100],
        "key4": ["http://target_url"],
    },
}


def test_the_example_of_the_specification_expands_by_hand() -> None:
    templates = Templates(SPECIFICATION["templates"])
    urls = [ref[0] for ref in SPECIFICATION["refs"].values() if isinstance(ref, list)]

    assert [templates.expand(url) for url in urls] == [
        "http://target_url",
        "http://server.domain/path",
        "http://text",
        "http://target_url",
    ]
    assert templates.generate(SPECIFICATION["gen"]) == {
        f"gen_key{i}": [f"http://server.domain/path_{i}", (i + 1) * 1000, 1000] for i in range(5)
    }


GENERATORS: list[dict[str, Any]] = [
    {
        "key": "temp/{{i}}.{{j}}",
        "url": "http://{{u}}/{{'%03d'|format(i)}}_{{j}}.nc",
        "offset": "{{(i + 1) * 1000 - j // 2 % 3}}",
        "length": "{{1000 + j}}",
        "dimensions": {"i": {"start": 2, "stop": 9, "step": 3}, "j": [5, 3, 4]},
    },
    {
        "key": "{{name}}/{{ 2 * i }}",
        "url": "http://{{f(c=name)}}/{{ '%02x' % i }}",
        "dimensions": {"name": ["a", "b"], "i": {"stop": 20}},
    },
    {
        "key": "x/{{i}}",
        "url": "http://h/{{ i / 2 }}{{ -i }}{{ u }}",
        "offset": "7",
        "length": "{{i}}",
        "dimensions": {"i": {"start": 5, "stop": 0, "step": -1}},
    },
]


EXPECTED: list[dict[str, Any]] = [
    {
        f"temp/{i}.{j}": [
            f"http://server/path/{i:03}_{j}.nc",
            (i + 1) * 1000 - j // 2 % 3,
            1000 + j,
        ]
        for i in (2, 5, 8)
        for j in (5, 3, 4)
    },
    {f"{name}/{2 * i}": [f"http://<{name}>/{i:02x}"] for name in "ab" for i in range(20)},
    {f"x/{i}": [f"http://h/{i / 2}{-i}server/path", 7, i] for i in (5, 4, 3, 2, 1)},
]

TEMPLATES = {"u": "server/path", "f": "<{{c}}>"}


@pytest.mark.parametrize(
    ("generator", "expected"),
    list(zip(GENERATORS, EXPECTED, strict=True)),
    ids=["numbers", "text", "backwards"],
)
def test_generators_expand_over_the_product_of_their_dimensions(
    generator: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert Templates(TEMPLATES).generate([generator]) == expected


@pytest.mark.parametrize("generator", GENERATORS, ids=["numbers", "text", "backwards"])
def test_generators_expand_as_jinja_expands_them(generator: dict[str, Any]) -> None:
    pytest.importorskip("jinja2", reason="fsspec expands generators with jinja2")
    filesystem = fsspec.filesystem(
        "reference",
        fo={"version": 1, "templates": dict(TEMPLATES), "gen": [generator], "refs": {}},
        simple_templates=False,
        remote_protocol="http",
        skip_instance_cache=True,
    )

    assert Templates(TEMPLATES).generate([generator]) == filesystem.references


@pytest.mark.parametrize("simple", [True, False])
def test_urls_expand_in_both_dialects_of_fsspec(simple: bool) -> None:
    pytest.importorskip("jinja2", reason="fsspec needs it for any template")
    url = "http://{{u}}/{{v}}.nc" if simple else "http://{{ u }}/{{v}}.nc"
    document = {
        "version": 1,
        "templates": {"u": "a/b", "v": "x"},
        "refs": {"k": [url, 1, 2]},
    }
    filesystem = fsspec.filesystem(
        "reference", fo=document, simple_templates=simple, remote_protocol="http"
    )

    assert [Templates(document["templates"]).expand(url), 1, 2] == filesystem.references["k"]


def test_a_whole_index_of_templates_and_generators_is_read() -> None:
    zarray = {
        "zarr_format": 2,
        "shape": [4],
        "chunks": [1],
        "dtype": "<i4",
        "fill_value": None,
        "order": "C",
        "filters": None,
        "compressor": None,
    }
    generator = {
        "key": "t/{{i}}",
        "url": "{{u}}/{{i}}.bin",
        "offset": "{{ i * 10 }}",
        "length": "4",
        "dimensions": {"i": {"start": 1, "stop": 4}},
    }
    group = read_json(
        {
            "version": 1,
            "templates": {"u": "https://example.org"},
            "gen": [generator],
            "refs": {".zgroup": '{"zarr_format":2}', "t/.zarray": zarray, "t/0": ["{{u}}/0", 9, 4]},
        }
    )
    manifest = group.arrays["t"].manifest

    assert manifest.offset.tolist() == [9, 10, 20, 30]
    assert [group.sources[s].url for s in manifest.source] == [
        "https://example.org/0",
        *(f"https://example.org/{i}.bin" for i in (1, 2, 3)),
    ]


@pytest.mark.parametrize(
    "expression",
    [
        "u.__class__",
        "u.upper()",
        "u[0]",
        "__import__('os').system('true')",
        "[1, 2]",
        "lambda: 1",
        "(i for i in u)",
        "1 if u else 2",
        "2 ** 99999",
        "u * 1000000",
        "'%999999999d'|format(1)",
        "'{}'|format(1)",
        "1 / 0",
        "9223372036854775807 * 9223372036854775807",
        "f(c='x', *u)",
        "f('x')",
        "missing",
        "u|upper",
        "u:>10",
        "(" * 500,
        "1.5",
        "True",
        "",
    ],
)
def test_an_expression_that_is_not_known_is_refused(expression: str) -> None:
    templates = Templates({"u": "server", "f": "{{c}}"})

    with pytest.raises(ByteatlasError):
        templates.expand("http://{{" + expression + "}}")


def test_other_braces_are_refused() -> None:
    templates = Templates({"u": "server"})

    for text in ("{{u}}/{% for i in x %}", "{{u}}{x}", "{{u}}{#", "{{u"):
        with pytest.raises(ByteatlasError):
            templates.expand(text)
    assert templates.expand("http://h/{x}") == "http://h/{x}"
    assert Templates().expand("http://h/{{x}}") == "http://h/{{x}}"


def test_templates_that_grow_are_refused() -> None:
    bomb = {"a": "x" * 5000, "b": "{{a}}{{a}}", "c": "{{b}}", "d": "{{c}}", "e": "{{d}}"}

    with pytest.raises(LimitExceeded, match="the limit is 8192"):
        Templates(bomb).expand("{{b}}")
    with pytest.raises(LimitExceeded, match="nested, takes 3, the limit is 2"):
        Templates({**bomb, "a": "x"}).expand("{{e}}")
    with pytest.raises(LimitExceeded, match="nested, takes 3, the limit is 2"):
        Templates({"a": "{{a}}"}).expand("{{a}}")


def test_a_generator_is_counted_before_it_is_expanded() -> None:
    huge = {
        "key": "{{i}}.{{j}}",
        "url": "u",
        "dimensions": {"i": {"stop": 2**40}, "j": {"stop": 2**40}},
    }

    with pytest.raises(LimitExceeded, match="the limit is 10000000"):
        Templates().generate([huge])


@pytest.mark.parametrize(
    "generator",
    [
        {"key": "a", "url": "u", "dimensions": {"i": {"stop": 2}}},
        {"key": "{{i}}", "url": "u", "offset": "1", "dimensions": {"i": {"stop": 2}}},
        {"key": "{{i}}", "url": "u", "dimensions": {"i": {"start": 2}}},
        {"key": "{{i}}", "url": "u", "dimensions": {"i": {"stop": True}}},
        {"key": "{{i}}", "url": "u", "dimensions": {"i": {"stop": 2, "step": 0}}},
        {"key": "{{i}}", "url": "u", "dimensions": {"i": [1.5]}},
        {"key": "{{i}}", "url": "u", "dimensions": {"i": "ab"}},
        {"key": "{{i}}", "url": "u", "dimensions": {"i": {"stop": 2}}, "extra": 1},
        {"key": "{{i}}", "url": 5, "dimensions": {"i": {"stop": 2}}},
        {"key": "{{i}}", "dimensions": {"i": {"stop": 2}}},
        {
            "key": "{{i}}",
            "url": "u",
            "offset": "{{i/2}}",
            "length": "1",
            "dimensions": {"i": {"stop": 2}},
        },
        "text",
    ],
)
def test_a_generator_that_is_wrong_is_refused(generator: Any) -> None:
    with pytest.raises(ByteatlasError):
        Templates().generate([generator])


def test_a_key_both_generated_and_listed_is_refused() -> None:
    generator = {"key": "t/{{i}}", "url": "u", "dimensions": {"i": {"stop": 2}}}

    with pytest.raises(Malformed, match="'t/1' is in 'refs' and in 'gen'"):
        read_json({"version": 1, "gen": [generator], "refs": {"t/1": ["v"]}})
