"""The configuration's part about people, agents' tokens and the API's TLS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pgproxy.app.identity import api_url, oidc_of, web_options
from pgproxy.app.terms import console_url
from pgproxy.config import ConfigError, Settings, load
from tests.certificates import make_pair

Load = Callable[[str], Settings]
OIDC = "issuer: https://id.example.com, client_id: pgproxy, default_roles: [auditor]"
JWT = "issuer: https://id.example.com, audience: pgproxy"


@pytest.fixture
def read(tmp_path: Path) -> Load:
    def read(text: str) -> Settings:
        path = tmp_path / "pgproxy.yaml"
        path.write_text(text)
        return load(path, {})

    return read


def reviewers(*entries: str) -> str:
    return f"api: {{oidc: {{{OIDC}}}}}\nreviewers: [{', '.join(f'{{{entry}}}' for entry in entries)}]"


def broker(agent: str, jwt: str = JWT, more: str = "") -> str:
    return (
        f"auth: {{mode: broker, jwt: {{{jwt}}}}}\nupstream: {{dsn: 'postgresql://u:p@h'}}\n"
        f"agents: [{{name: bot, owner: al, {agent}}}]\n{more}"
    )


CASES = [
    ("api: {oidc: {issuer: x, client_id: y}}", "api.oidc.issuer: must be an https:// URL"),
    ("api: {oidc: {issuer: 'http://id.example.com', client_id: y}}", "api.oidc.issuer: must be https: over plain"),
    ("api: {oidc: {issuer: 'https://id.example.com?x', client_id: y}}", "api.oidc.issuer: must have neither"),
    ("api: {oidc: {issuer: 'https://id.example.com'}}", "api.oidc.client_id: is required"),
    (f"api: {{oidc: {{{OIDC}, algorithms: [HS256]}}}}", "api.oidc.algorithms[0]: input should be 'RS256'"),
    (f"api: {{oidc: {{{OIDC}, algorithms: [none]}}}}", "api.oidc.algorithms[0]: input should be 'RS256'"),
    (f"api: {{oidc: {{{OIDC}, algorithms: []}}}}", "api.oidc.algorithms:"),
    (f"api: {{oidc: {{{OIDC}, leeway_s: 3600}}}}", "api.oidc.leeway_s:"),
    (f"api: {{oidc: {{{OIDC}, role_map: {{dba: [boss]}}}}}}", "api.oidc.role_map.dba[0]:"),
    (f"api: {{oidc: {{{OIDC}, role_map: {{dba: [admin]}}}}}}", "api.oidc.role_map: has no effect without groups_claim"),
    (f"api: {{oidc: {{{OIDC}, ca: /nowhere.pem}}}}", "api.oidc.ca: /nowhere.pem cannot be read"),
    (f"api: {{oidc: {{{OIDC}, isuer: x}}}}", "api.oidc.isuer: unknown key; did you mean 'issuer'?"),
    ("api: {oidc: {issuer: 'https://id.example.com', client_id: p}}", "api.oidc: would give nobody a role"),
    (
        f"api: {{listen: '*:8432', behind_proxy: true, oidc: {{{OIDC}}}}}",
        "api.oidc: needs api.external_url",
    ),
    (f"api: {{behind_proxy: true, oidc: {{{OIDC}}}}}", "api.oidc: needs api.external_url"),
    ("api: {external_url: 'http://pgproxy.example.com'}", "api.external_url: must be https"),
    ("api: {external_url: 'https://pgproxy.example.com/x'}", "api.external_url: must be scheme, host and port alone"),
    ("api: {external_url: 'https://u@pgproxy.example.com'}", "api.external_url: must be an https:// URL"),
    ("api: {hosts: ['https://x']}", "api.hosts[0]: must be a host's name"),
    ("api: {proxies: [10.0.0.1]}", "api.proxies: has no effect without api.behind_proxy"),
    ("api: {behind_proxy: true, proxies: ['*']}", "api.proxies[0]: must be an address or a network"),
    ("api: {static_login: false}", "api.static_login: is off and there is no api.oidc"),
    ("api: {sessions: {idle_s: 7200, absolute_s: 3600}}", "api.sessions.idle_s: is longer than absolute_s"),
    ("api: {tls: {cert: /nowhere.crt, key: /nowhere.key}}", "api.tls: cert /nowhere.crt cannot be read: No such file"),
    ("api: {tls: {cert: x}}", "api.tls.key: is required"),
    ("reviewers: [{name: r}]", "reviewers[0].token: reviewer 'r' needs a token, or an identity"),
    ("reviewers: [{name: r, identities: {oidc: u1}}]", "reviewers[0].identities.oidc: has no effect without api.oidc"),
    ("reviewers: [{name: r, identities: {irc: u1}}]", "reviewers[0].identities.irc: unknown key; known here: oidc"),
    (reviewers("name: a, identities: {slack: U1}", "name: b, identities: {slack: u1}"), "is linked to 'a' already"),
    (
        reviewers("name: a@x, identities: {oidc: al@x}", "name: AL@x, identities: {slack: U1}"),
        "reviewers[0].identities.oidc: is the name of another reviewer, 'AL@x'",
    ),
    (reviewers("name: a, identities: {teams: ' '}"), "reviewers[0].identities.teams: is blank"),
    (reviewers("name: a, token: eyJhbGciOiJFUzI1NiJ9.e30.x"), "reviewers[0].token: looks like a JWT"),
    ("{agents: [{name: bot}], reviewers: [{name: a, identities: {slack: BOT}}]}", "'BOT' is an agent"),
    (f"auth: {{jwt: {{{JWT}}}}}", "auth.jwt: is for auth.mode broker"),
    ("agents: [{name: a, jwt_subject: s}]", "agents[0].jwt_subject: has no effect: auth.mode is passthrough"),
    (broker("password: p"), "auth.jwt: lets nobody in"),
    (broker("jwt_subject: s, password: p"), "agents[0].jwt_subject: agent 'bot' has a password too"),
    (broker("jwt_subject: s"), "auth.jwt: a token crosses the network as a password does"),
    (broker("jwt_subject: s", "issuer: 'http://x.example', audience: y"), "auth.jwt.issuer: must be https"),
    (broker("jwt_subject: s}, {name: b2, owner: al, jwt_subject: s"), "agents[1].jwt_subject: is the subject of 'bot'"),
    (
        broker("jwt_subject: svc", more=reviewers("name: r, identities: {oidc: svc}")),
        "reviewers[0].identities.oidc: 'svc' is an agent",
    ),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_control_that_cannot_work_is_refused(read: Load, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert expected in str(caught.value)


def test_a_certificate_must_fit_its_key(read: Load, tmp_path: Path) -> None:
    one, other = make_pair(tmp_path, "one"), make_pair(tmp_path, "other")
    settings = read(f"api: {{listen: '*:8432', tls: {{cert: {one.cert}, key: {one.key}}}}}")
    assert settings.api.tls is not None
    for cert, key in ((one.cert, other.key), (one.key, one.key)):
        with pytest.raises(ConfigError, match="cannot be used together"):
            read(f"api: {{tls: {{cert: {cert}, key: {key}}}}}")


def test_what_people_are_told_and_browsers_may_ask_for(read: Load) -> None:
    settings = read(
        "api: {listen: '0.0.0.0:8432', behind_proxy: true, proxies: [10.0.0.0/8], "
        f"external_url: 'https://PGproxy.example.com:443/', hosts: [Other.example.com], oidc: {{{OIDC}}}}}"
    )
    assert console_url(settings) == api_url(settings) == "https://pgproxy.example.com"
    options = web_options(settings)
    for host, admitted in (
        ("pgproxy.example.com", True),
        ("other.example.com:8432", True),
        ("10.2.3.4:8432", True),
        ("localhost", True),
        ("evil.example.com", False),
    ):
        assert options.admits_host(host) is admitted, host
    oidc = oidc_of(settings)
    assert oidc is not None
    assert oidc.flow.redirect_uri == "https://pgproxy.example.com/oidc/callback"
    assert oidc.bearer.audience == oidc.flow.verifier.audience == "pgproxy"
    assert (oidc.bearer.id_tokens, oidc.flow.verifier.id_tokens) == (False, True)
    plain = web_options(read(""))
    assert [plain.admits_host(host) for host in ("127.0.0.1:8432", "10.2.3.4", "pgproxy.example.com")] == [
        True,
        False,
        False,
    ]


def test_secrets_stay_secret(read: Load) -> None:
    settings = read(f"api: {{oidc: {{{OIDC}, client_secret: hunter2hunter2}}}}")
    assert "hunter2" not in repr(settings) + settings.model_dump_json()
    again = Settings.from_wire(settings.to_wire())
    assert again == settings
    oidc = oidc_of(again)
    assert oidc is not None and oidc.flow.client_secret == "hunter2hunter2"
