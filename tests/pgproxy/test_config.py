"""The configuration: what is read from where, and that nothing that cannot work is accepted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pgproxy.certificates import CertificateName
from pgproxy.config import ConfigError, Limits, Mode, Settings, build, load
from pgproxy.document import Document
from tests.pki import Authority

BROKER = """\
auth: {mode: broker}
upstream:
  dsn: postgresql://db.internal:5433
agents:
  - name: etl-bot
    owner: alice@example.com
    password: {env: ETL_BOT_PASSWORD}
    upstream: {user: app, password: {env: APP_PASSWORD}}
    databases: [shop]
reviewers:
  - name: alice@example.com
    token: {env: ALICE_TOKEN}
    groups: [dba]
  - name: bob@example.com
    token: bobs-token-0123456789abcdef
    roles: [reviewer, admin]
"""
ENVIRON = {"ETL_BOT_PASSWORD": "s3cret-etl", "APP_PASSWORD": "s3cret-app", "ALICE_TOKEN": "alices-token-0123456789"}
VERIFIER = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$" + "A" * 43 + "=:" + "B" * 43 + "="

Load = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    def read(text: str, **environ: str) -> Settings:
        path = tmp_path / "pgproxy.yaml"
        path.write_text(text)
        return load(path, environ)

    return read


def refusal(read: Load, text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, **environ)
    return str(caught.value)


def test_empty_file_is_the_defaults(read: Load) -> None:
    settings = read("")
    assert str(settings.listen) == "127.0.0.1:6432"
    assert str(settings.api.listen) == "127.0.0.1:8432"
    assert settings.mode is Mode.ENFORCE
    assert settings.notice is True
    assert (settings.upstream.dsn.host, settings.upstream.dsn.port) == ("127.0.0.1", 5432)
    assert settings.auth.mode == "passthrough"
    assert settings.store.dsn is None
    assert settings.data_dir == Path.cwd() / "pgproxy-data"
    assert settings.limits.parked_backlog_bytes == 16 * 1024 * 1024


def test_broker_configuration(read: Load) -> None:
    settings = read(BROKER, **ENVIRON)
    agent = settings.agent("etl-bot")
    assert agent is not None
    assert agent.password is not None and agent.password.get_secret_value() == "s3cret-etl"
    assert agent.upstream is not None and agent.upstream.user == "app"
    assert agent.databases == ("shop",)
    assert settings.owner_of("etl-bot") == "alice@example.com"
    assert settings.reviewers[0].roles == ("reviewer",)
    assert settings.reviewers[1].token is not None


def test_yaml_words_for_booleans(read: Load) -> None:
    assert read("notice: off").notice is False
    assert read("", PGPROXY_NOTICE="off").notice is False


def test_wire_round_trip_keeps_secrets(read: Load) -> None:
    settings = read(BROKER.replace("db.internal:5433", "u:p%40ss@db.internal:5433"), **ENVIRON)
    again = Settings.from_wire(settings.to_wire())
    assert again == settings
    assert again.agents[0].password is not None
    assert again.agents[0].password.get_secret_value() == "s3cret-etl"
    assert again.upstream.dsn.password is not None
    assert again.upstream.dsn.password.get_secret_value() == "p@ss"


def test_secrets_stay_out_of_repr_and_ordinary_json(read: Load) -> None:
    settings = read(BROKER, **ENVIRON)
    for text in (
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        json.dumps(settings.model_dump(mode="json")),
    ):
        assert "s3cret" not in text
        assert "bobs-token" not in text


def test_environment_overrides_nested_keys(read: Load) -> None:
    settings = read(
        BROKER,
        **ENVIRON,
        PGPROXY_UPSTREAM__DSN="postgresql://other:1234",
        PGPROXY_AGENTS__0__OWNER="carol@example.com",
        PGPROXY_AGENTS__0__DATABASES="[shop, sales]",
        PGPROXY_WORKERS="3",
        PGPROXY_LIMITS__SESSIONS="7",
    )
    assert (settings.upstream.dsn.host, settings.upstream.dsn.port) == ("other", 1234)
    assert settings.agents[0].owner == "carol@example.com"
    assert settings.agents[0].databases == ("shop", "sales")
    assert settings.workers == 3
    assert settings.limits.sessions == 7


def test_environment_can_add_a_list_entry_and_whole_lists(read: Load) -> None:
    assert read("", PGPROXY_AGENTS__0__NAME="etl").agents[0].name == "etl"
    assert read("", PGPROXY_AGENTS="[{name: one}, {name: two}]").agent("two") is not None
    assert read("auth: {default_owner: eve}", PGPROXY_AUTH__DEFAULT_OWNER="null").auth.default_owner is None


def test_foreign_variables_under_our_prefix_are_left_alone(read: Load) -> None:
    read("", PGPROXY_API="http://127.0.0.1:8432", PGPROXY_TOKEN="t", PGPROXY_PORT_6432_TCP_ADDR="10.0.0.1")
    read("", PGPROXY_SERVICE_HOST="10.0.0.1", PGPROXY_SERVICE_PORT_PGPROXY="6432", PGPROXY_PORT="tcp://10.0.0.1:6432")


def test_misspelt_variable_is_refused_and_named(read: Load) -> None:
    assert "environment variable PGPROXY_MOED: moed: unknown key; did you mean 'mode'?" in refusal(
        read, "", PGPROXY_MOED="observe"
    )
    assert "environment variable PGPROXY_AGENTS__4__NAME" in refusal(read, "", PGPROXY_AGENTS__4__NAME="x")
    assert "environment variable PGPROXY_MODE__X" in refusal(read, "mode: enforce", PGPROXY_MODE__X="1")
    assert "environment variable PGPROXY_AGENTS" in refusal(read, "", PGPROXY_AGENTS="[{name: ")


def test_unknown_key_names_file_line_key_and_reason(read: Load, tmp_path: Path) -> None:
    text = refusal(read, BROKER.replace("    owner:", "    ownr:"), **ENVIRON)
    assert f"{tmp_path}/pgproxy.yaml:6: agents[0].ownr: unknown key; did you mean 'owner'?" in text


def test_every_problem_is_told_at_once(read: Load) -> None:
    text = refusal(read, "mode: enfroce\nworkers: none\nlisten: 6432\n")
    assert "pgproxy.yaml:1: mode: input should be 'enforce' or 'observe'" in text
    assert "pgproxy.yaml:2: workers:" in text
    assert "pgproxy.yaml:3: listen:" in text


def test_missing_secret_names_file_line_key_and_variable(read: Load) -> None:
    text = refusal(read, BROKER, **{**ENVIRON, "APP_PASSWORD": ""})
    assert "pgproxy.yaml:8: agents[0].upstream.password: the environment variable APP_PASSWORD is empty" in text
    without = {k: v for k, v in ENVIRON.items() if k != "ETL_BOT_PASSWORD"}
    assert ":7: agents[0].password: the environment variable ETL_BOT_PASSWORD is not set" in refusal(
        read, BROKER, **without
    )


def test_unreadable_files(read: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load(tmp_path / "nowhere.yaml", {})
    (tmp_path / "latin.yaml").write_bytes(b"data_dir: caf\xe9\n")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load(tmp_path / "latin.yaml", {})
    assert ":2: not YAML" in refusal(read, "mode: enforce\nlisten: }\n")
    assert ":2: mode: said twice" in refusal(read, "mode: enforce\nmode: observe\n")


CASES = [
    ("tls: {mode: require}", "tls.cert: is required with tls.mode: require"),
    ("tls: {mode: prefer, cert: a.crt}", "tls.key: is required with tls.mode: prefer"),
    ("tls: {mode: require, cert: /no.crt, key: /no.key}", "tls.cert: /no.crt cannot be read: No such file"),
    ("tls: {cert: a.crt}", "tls.cert: goes unused, for tls.mode is disable"),
    ("tls: {client_ca: a.crt}", "tls.client_ca: goes unused, for tls.mode is disable"),
    ("tls: {client_cert: required}", "tls.client_cert: needs tls.client_ca"),
    ("agents: [{name: a, certificate: a}]", "agents[0].certificate: needs TLS (tls.mode) and tls.client_ca"),
    ("agents: [{name: a, certificate: {cn: a, dn: CN=a}}]", "agents[0].certificate: must be one of cn, dn and san"),
    ("agents: [{name: a, certificate: {}}]", "agents[0].certificate: must be one of cn, dn and san"),
    ("tls: {mode: require}", "tls.mode: with auth.mode passthrough, SCRAM fails when both connections are in TLS"),
    ("api: {tls: {cert: /no.crt, key: b}}", "api.tls.cert: /no.crt cannot be read"),
    ("api: {tls: {cert: /no.crt}}", "api.tls.key: is required"),
    ("api: {listen: '0.0.0.0:8432'}", "api.listen: tokens and SQL would cross the network in the clear"),
    ("api: {listen: 'somehost:8432'}", "api.listen: tokens and SQL would cross the network in the clear"),
    ("api: {listen: '*:8432'}", "api.listen: tokens and SQL"),
    ("api: {listen: '127.0.0.1:6432'}", "api.listen: is the agents' address already"),
    ("listen: ::1:6432", "listen: an IPv6 address needs brackets"),
    ("listen: localhost", "listen: must be HOST:PORT"),
    ("listen: 127.0.0.1:99999", "listen.port: input should be less than or equal to 65535"),
    ("{listen: '127.0.0.1:0', workers: 2}", "listen: several workers cannot share a port chosen by chance"),
    ("upstream: {dsn: 'postgresql://h/?sslmode=verify-full'}", "sslmode=verify-full needs sslrootcert"),
    ("upstream: {dsn: 'postgresql://h/?sslmode=verify-ca'}", "sslmode=verify-ca needs sslrootcert"),
    ("upstream: {dsn: 'postgresql://h/?sslmode=verify-full&sslrootcert=/no'}", "upstream.dsn: /no cannot be read"),
    ("upstream: {dsn: 'postgresql://h/?sslmode=verify-full&sslrootcert=system'}", "name the file"),
    ("upstream: {dsn: 'postgresql://h/?sslrootcert=x'}", "sslrootcert protects nothing with sslmode=prefer"),
    ("upstream: {dsn: 'postgresql://h/?sslcert=x'}", "upstream.dsn: sslcert and sslkey need each other"),
    ("upstream: {dsn: 'postgresql://h/?sslcert=/x&sslkey=/no'}", "upstream.dsn: /x cannot be read"),
    ("upstream: {dsn: 'postgresql://h/?sslnegotiation=direct'}", "sslnegotiation=direct cannot go with sslmode=prefer"),
    ("upstream: {dsn: 'postgresql:///?host=/run&sslmode=require'}", "is a Unix socket, on which there is no TLS"),
    ("store: {dsn: 'postgresql://h/?sslmode=verify-full'}", "store.dsn: sslmode=verify-full needs sslrootcert"),
    ("upstream: {dsn: 'mysql://h/'}", "upstream.dsn: not a connection URI"),
    ("store: {dsn: 'host=x'}", "store.dsn: not a connection URI"),
    ("store: {dsn: 'postgresql://localhost:5432/audit'}", "store.dsn: is the upstream's server"),
    ("auth: {mode: broker}", "agents: auth.mode is broker and nobody may connect"),
    ("agents: [{name: a, owner: x, password: p}]", "agents[0].password: has no effect: auth.mode is passthrough"),
    ("agents: [{name: a, upstream: {user: u}}]", "agents[0].upstream: has no effect"),
    ("agents: [{name: a}, {name: A}]", "agents[0].name: agent 'a' appears twice"),
    ("agents: [{name: a, owner: b}, {name: b}]", "agents[0].owner: 'b' is an agent; an owner is a person"),
    ("agents: [{name: a, owner: A}]", "agents[0].owner: 'A' is an agent"),
    ("agents: [{name: a, databases: []}]", "agents[0].databases: is empty"),
    ("{auth: {default_owner: a}, agents: [{name: a}]}", "auth.default_owner: 'a' is an agent"),
    ("agents: [{owner: x}]", "agents[0].name: is required"),
    ("agents: [{name: 12}]", "agents[0].name: must be text (quote a number)"),
    ("reviewers: [{name: r, token: short}]", "reviewers[0].token: is shorter than 20 characters"),
    ("reviewers: [{name: r}]", "reviewers[0].token: reviewer 'r' needs a token"),
    ("reviewers: [{name: r, token: 'a token with spaces in it'}]", "reviewers[0].token: holds characters"),
    ("reviewers: [{name: r, token: aaaaaaaaaaaaaaaaaaaaa, roles: []}]", "reviewers[0].roles: is empty"),
    ("reviewers: [{name: r, token: aaaaaaaaaaaaaaaaaaaaa, roles: [boss]}]", "reviewers[0].roles[0]:"),
    (
        "reviewers: [{name: r, token: aaaaaaaaaaaaaaaaaaaaa}, {name: s, token: aaaaaaaaaaaaaaaaaaaaa}]",
        "reviewers[1].token: is the token of 'r' too",
    ),
    (
        "reviewers: [{name: r, token: aaaaaaaaaaaaaaaaaaaaa}, {name: R, token: bbbbbbbbbbbbbbbbbbbbb}]",
        "reviewers[1].name: reviewer 'R' appears twice",
    ),
    (
        "{agents: [{name: bot}], reviewers: [{name: Bot, token: aaaaaaaaaaaaaaaaaaaaa}]}",
        "reviewers[0].name: 'Bot' is an agent, and agents never approve",
    ),
    (
        "{agents: [{name: bot, owner: Al@x.org}], reviewers: [{name: al@x.org, token: aaaaaaaaaaaaaaaaaaaaa}]}",
        "reviewers[0].name: is an owner spelled differently",
    ),
    (
        "{auth: {default_owner: al}, reviewers: [{name: AL, token: aaaaaaaaaaaaaaaaaaaaa}]}",
        "reviewers[0].name: is an owner spelled differently",
    ),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_control_that_cannot_work_is_refused(read: Load, text: str, expected: str) -> None:
    assert expected in refusal(read, text)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    owner: alice@example.com\n", "", "agents[0].owner: agent 'etl-bot' needs an owner"),
        ("    password: {env: ETL_BOT_PASSWORD}\n", "", "agents[0].password: agent 'etl-bot' needs a password"),
        ("{env: ETL_BOT_PASSWORD}", "''", "agents[0].password: is empty"),
        ("{env: ETL_BOT_PASSWORD}", "SCRAM-SHA-256$4096:xx", "agents[0].password: is not a whole verifier"),
        ("    upstream: {user: app, password: {env: APP_PASSWORD}}\n", "", "agents[0].upstream: says with which"),
        ("{env: APP_PASSWORD}", VERIFIER, "agents[0].upstream.password: a verifier cannot log in"),
        ("db.internal:5433", f"u:{VERIFIER.replace('/', '%2F')}@h", "upstream.dsn: a verifier cannot log in"),
        ("{mode: broker}", "{mode: broker, default_owner: eve}", "auth.default_owner: is for auth.mode passthrough"),
    ],
)
def test_broker_agent_that_cannot_work_is_refused(read: Load, old: str, new: str, expected: str) -> None:
    assert old in BROKER
    assert expected in refusal(read, BROKER.replace(old, new), **ENVIRON)


def test_what_is_allowed_beyond_the_defaults(read: Load) -> None:
    assert read("api: {listen: '0.0.0.0:8432', behind_proxy: true}").api.listen.host == "0.0.0.0"
    assert read("api: {listen: '[::1]:8432'}").api.listen.host == "::1"
    assert str(read("listen: '[::]:6432'").listen) == "[::]:6432"
    assert read("listen: '*:6432'").listen.host == "0.0.0.0"
    assert read("upstream: {dsn: 'postgresql://h/?sslmode=disable'}").upstream.dsn.sslmode == "disable"
    agents = read(BROKER.replace("{env: ETL_BOT_PASSWORD}", VERIFIER), **ENVIRON).agents
    assert agents[0].password is not None and agents[0].password.get_secret_value() == VERIFIER


def test_tls_in_both_directions(read: Load, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("proxy.test")
    files = f"cert: {pair.cert}, key: {pair.key}"
    tls = f"tls: {{mode: require, {files}, client_ca: {authority.path}, client_cert: required}}\n"
    api = f"api: {{listen: '0.0.0.0:8432', tls: {{{files}}}}}\n"
    query = f"sslmode=verify-full&sslrootcert={authority.path}&sslnegotiation=direct"
    text = tls + api + BROKER.replace("db.internal:5433", f"db.internal:5433/?{query}")
    by_certificate = text.replace("password: {env: ETL_BOT_PASSWORD}", "certificate: {dn: 'CN=etl,O=x'}")
    settings = read(by_certificate, **ENVIRON)
    assert settings.agents[0].certificate is not None
    assert settings.agents[0].certificate.name == CertificateName("dn", "CN=etl,O=x")
    assert Settings.from_wire(settings.to_wire()) == settings
    assert settings.upstream.dsn.sslnegotiation == "direct"
    both = read(text.replace("    password: {env", "    certificate: etl\n    password: {env"), **ENVIRON).agents[0]
    assert both.certificate is not None and both.certificate.name == CertificateName("cn", "etl")
    # passthrough, where only one of the connections may be in TLS
    prefer = f"tls: {{mode: prefer, {files}}}\n"
    assert read(prefer + "upstream: {dsn: 'postgresql://h/?sslmode=disable'}").tls.mode == "prefer"
    assert read(prefer + "upstream: {dsn: 'postgresql:///?host=/run'}").tls.mode == "prefer"
    assert read("upstream: {dsn: 'postgresql://h/?sslmode=require'}").upstream.dsn.sslmode == "require"
    for mode in ("", "?sslmode=allow", "?sslmode=require"):
        assert "auth.mode: broker" in refusal(read, prefer + f"upstream: {{dsn: 'postgresql://h/{mode}'}}")


def test_a_key_open_to_others_is_refused(read: Load, tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("proxy.test")
    pair.key.chmod(0o644)
    files = f"{{cert: {pair.cert}, key: {pair.key}}}"
    said = refusal(read, f"tls: {{mode: require, {files[1:-1]}}}\napi: {{tls: {files}}}")
    assert f"tls.key: {pair.key} has group or world access" in said
    assert f"api.tls.key: {pair.key} has group or world access" in said


def test_relative_names_of_files_are_taken_from_where_pgproxy_starts(read: Load) -> None:
    assert f"tls.cert: {Path.cwd()}/no.crt cannot be read" in refusal(
        read, "tls: {mode: require, cert: no.crt, key: no.key}"
    )


def test_owner_is_the_entry_then_the_default(read: Load) -> None:
    settings = read("{auth: {default_owner: eve}, agents: [{name: a, owner: al}, {name: b}]}")
    assert [settings.owner_of(name) for name in ("a", "b", "c")] == ["al", "eve", "eve"]
    assert read("").owner_of("anyone") is None


def test_no_refusal_shows_a_secret(read: Load) -> None:
    for old, new in (("db.internal:5433", "u:hunter2@h:port"), ("db.internal:5433", "u:hunter2@h/?x=hunter2")):
        assert "hunter2" not in refusal(read, BROKER.replace(old, new), **ENVIRON)
    assert "hunter2" not in refusal(read, "reviewers: [{name: r, token: hunter2}]")
    assert "hunter2" not in refusal(read, "agents: [{name: r, password: {hunter2: hunter2}}]").replace(".hunter2:", "")


def test_build_checks_what_did_not_come_from_a_file() -> None:
    with pytest.raises(ConfigError, match=r"pgproxy up: api\.oidc"):
        build(Document("pgproxy up", {"api": {"oidc": {}}}), {})
    assert build(Document("pgproxy up", {"workers": 2}), {}).workers == 2


def test_every_limit_stands_in_the_readme_with_its_default() -> None:
    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(\w+)` \| ([0-9.]+) \|", readme, re.MULTILINE))
    assert {name: float(value) for name, value in table.items()} == Limits().model_dump()
