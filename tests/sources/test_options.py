import json

import aiohttp
import pytest

from byteatlas.errors import Unsupported
from byteatlas.sources.options import azure_config, gcs_config, http_options, s3_config


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({}, {}),
        ({"anon": True}, {"skip_signature": True}),
        ({"anon": False}, {}),
        ({"key": "k", "secret": "s", "token": "t"},
         {"access_key_id": "k", "secret_access_key": "s", "session_token": "t"}),
        ({"key": None, "token": None}, {}),
        ({"endpoint_url": "https://minio/"}, {"endpoint": "https://minio"}),
        ({"client_kwargs": {"endpoint_url": "http://minio:9000", "region_name": "eu-west-1"}},
         {"endpoint": "http://minio:9000", "allow_http": True, "region": "eu-west-1"}),
        ({"requester_pays": True}, {"request_payer": True}),
        ({"config_kwargs": {"s3": {"addressing_style": "virtual"}}},
         {"virtual_hosted_style_request": True}),
        ({"config_kwargs": {"signature_version": object()}}, {"skip_signature": True}),
        ({"client_kwargs": {"verify": False}}, {"allow_invalid_certificates": True}),
        ({"default_fill_cache": False, "default_cache_type": "first", "asynchronous": True}, {}),
        ({"profile": "p"}, {"profile": "p"}),
    ],
)  # fmt: skip
def test_s3_options_are_translated(options, config):
    assert s3_config(options) == config


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({"token": "anon"}, {"skip_signature": True}),
        ({"token": None, "project": "p"}, {}),
        ({"token": "google_default"}, {}),
        ({"token": {"a": 1}}, {"service_account_key": json.dumps({"a": 1})}),
        ({"endpoint_url": "http://fake:1"}, {"base_url": "http://fake:1", "allow_http": True}),
    ],
)
def test_gcs_options_are_translated(options, config):
    assert gcs_config(options) == config


def test_a_gcs_token_may_be_a_file(tmp_path):
    (tmp_path / "key.json").write_text("{}")
    path = str(tmp_path / "key.json")
    assert gcs_config({"token": path}) == {"application_credentials": path}


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({"account_name": "a"}, {"account_name": "a", "skip_signature": True}),
        ({"account_name": "a", "anon": False}, {"account_name": "a"}),
        ({"account_name": "a", "account_key": "k"}, {"account_name": "a", "account_key": "k"}),
        ({"account_name": "a", "sas_token": "?sv=1&sig=2"},
         {"account_name": "a", "sas_key": "sv=1&sig=2"}),
        ({"account_name": "a", "credential": "sig=2"}, {"account_name": "a", "sas_key": "sig=2"}),
        ({"account_name": "a", "credential": "k=="}, {"account_name": "a", "account_key": "k=="}),
        ({"connection_string": "AccountName=a;AccountKey=k==;BlobEndpoint=http://h:1/a;X=1"},
         {"account_name": "a", "account_key": "k==", "endpoint": "http://h:1/a",
          "allow_http": True}),
        ({"tenant_id": "t", "client_id": "c", "client_secret": "s"},
         {"tenant_id": "t", "client_id": "c", "client_secret": "s"}),
    ],
)  # fmt: skip
def test_azure_options_are_translated(options, config):
    assert azure_config(options) == config


@pytest.mark.parametrize(
    ("translate", "options", "message"),
    [
        (s3_config, {"secrte": "s"}, "did you mean 'secret'"),
        (s3_config, {"client_kwargs": {"region": "x"}}, "'client_kwargs.region' is not known"),
        (s3_config, {"client_kwargs": {"verify": "/ca.pem"}}, "takes no file"),
        (gcs_config, {"token": "browser"}, "neither"),
        (azure_config, {"credential": object()}, "as text"),
        (azure_config, {"key": "k"}, "not known"),
        (http_options, {"hedaers": {}}, "did you mean 'headers'"),
        (http_options, {"client_kwargs": {"connector": 1}}, "'client_kwargs.connector'"),
        (http_options, {"get_client": 1}, "not known"),
    ],
)
def test_an_unknown_option_is_refused_by_name(translate, options, message):
    with pytest.raises(Unsupported) as caught:
        translate(options)
    assert message in str(caught.value)


def test_http_options_may_be_nested_or_not():
    options = http_options(
        {
            "headers": {"A": "1"},
            "client_kwargs": {"headers": {"A": "0", "B": "2"}, "trust_env": True, "timeout": 7},
            "ssl": False,
            "block_size": 5,
        }
    )
    assert options.headers == (("A", "1"), ("B", "2"))
    assert (options.trust_env, options.ssl) == (True, False)
    assert options.timeout == aiohttp.ClientTimeout(total=7)


@pytest.mark.parametrize("auth", ["me:pw", ("me", "pw"), ["me", "pw"]])
def test_a_login_becomes_a_header(auth):
    assert http_options({"auth": auth}).headers == (("Authorization", "Basic bWU6cHc="),)


@pytest.mark.filterwarnings("ignore:.*BasicAuth.*:DeprecationWarning")
def test_a_login_may_be_of_aiohttp():
    options = http_options({"client_kwargs": {"auth": aiohttp.BasicAuth("me", "pw")}})
    assert options.headers == (("Authorization", "Basic bWU6cHc="),)


def test_secrets_do_not_show():
    assert "pw" not in repr(http_options({"auth": "me:pw", "headers": {"X-Key": "pw"}}))
    assert http_options({}).with_login("me:pw").headers[0][0] == "Authorization"
    kept = http_options({"headers": {"authorization": "Bearer x"}}).with_login("me:pw")
    assert kept.headers == (("authorization", "Bearer x"),)
