"""Checks of a configuration that look at several keys at once, at the files they name, or at what this version can do.

Each answer names the key to blame and says in one sentence why, and where possible what to do instead.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pgproxy.certificates import CertificateError, client_context, server_context
from pgproxy.document import Place
from pgproxy.dsn import Dsn
from pgproxy.policy import RuleSet

if TYPE_CHECKING:
    from pgproxy.config import Agent, Settings

Finding = tuple[Place, str]

TOKEN_MIN_CHARACTERS = 20
# A verifier as PostgreSQL keeps it ("pg_authid", rolpassword): SCRAM-SHA-256$iterations:salt$stored:server
_VERIFIER = re.compile(r"SCRAM-SHA-256\$[1-9][0-9]*:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=")


def problems_of(settings: Settings) -> list[Finding]:
    """Everything wrong, in the order of the contract's keys."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _listeners,
        _tls,
        _api_tls,
        _upstream,
        _names,
        _agents,
        _reviewers,
        _store,
    )
    return [finding for check in checks for finding in check(settings)]


def is_verifier(password: str) -> bool:
    """Whether a password is kept as a SCRAM-SHA-256 verifier."""
    return password.startswith("SCRAM-SHA-256$")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a listener on `host`. A name other than localhost may be anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def same_person(one: str, other: str) -> bool:
    """Whether two names would be taken for one by a person reading them."""
    return folded(one) == folded(other)


def folded(name: str) -> str:
    """The same for all spellings of one name."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _listeners(settings: Settings) -> Iterator[Finding]:
    if not is_loopback(settings.api.listen.host) and settings.api.tls is None and not settings.api.behind_proxy:
        yield (
            ("api", "listen"),
            "tokens and SQL would cross the network in the clear: set api.tls, listen on loopback, or declare a TLS "
            "proxy in front with api.behind_proxy: true",
        )
    if settings.listen.port == 0 and settings.workers > 1:
        yield ("listen",), "several workers cannot share a port chosen by chance (port 0)"
    if settings.listen.port and settings.listen == settings.api.listen:
        yield ("api", "listen"), "is the agents' address already (listen)"


def _tls(settings: Settings) -> Iterator[Finding]:
    tls = settings.tls
    if tls.mode == "disable":
        for name in ("cert", "key", "client_ca"):
            if getattr(tls, name) is not None:
                yield ("tls", name), "goes unused, for tls.mode is disable: say prefer or require"
    else:
        for name in ("cert", "key"):
            if getattr(tls, name) is None:
                yield ("tls", name), f"is required with tls.mode: {tls.mode}"
    if tls.client_ca is None or tls.mode == "disable":
        if tls.client_cert == "required":
            yield ("tls", "client_cert"), "needs tls.client_ca: whose certificates are taken?"
        for index, agent in enumerate(settings.agents):
            if agent.certificate is not None:
                yield (
                    ("agents", index, "certificate"),
                    "needs TLS (tls.mode) and tls.client_ca: whose certificates are taken?",
                )
    cert, key = tls.cert, tls.key
    if tls.mode != "disable" and cert is not None and key is not None:
        yield from _usable(("tls",), lambda: server_context(cert, key, tls.client_ca))
    if tls.mode != "disable" and settings.auth.mode == "passthrough" and settings.upstream.dsn.may_use_tls:
        yield (
            ("tls", "mode"),
            "with auth.mode passthrough, SCRAM fails when both connections are in TLS: the client takes pgproxy's "
            "silence about channel binding for an attack, and the server refuses it. Use auth.mode: broker, or a "
            "plaintext connection to the server (sslmode=disable in upstream.dsn, or a Unix socket)",
        )


def _api_tls(settings: Settings) -> Iterator[Finding]:
    tls = settings.api.tls
    if tls is not None:
        yield from _usable(("api", "tls"), lambda: server_context(tls.cert, tls.key, None))


def _usable(section: Place, build: Callable[[], object]) -> Iterator[Finding]:
    """The files, tried: a connection would need the same of them."""
    try:
        build()
    except CertificateError as error:
        yield (*section, error.role), error.reason


def _dsn_tls(dsn: Dsn, place: Place) -> Iterator[Finding]:
    """What libpq would not do, or only seem to do."""
    if dsn.sslmode in ("verify-ca", "verify-full") and dsn.sslrootcert is None:
        yield place, f"sslmode={dsn.sslmode} needs sslrootcert, the file of the authorities to trust"
        return
    if dsn.sslrootcert == "system":
        yield place, "sslrootcert=system is not supported: name the file (/etc/ssl/certs/ca-certificates.crt)"
        return
    if dsn.sslrootcert is not None and dsn.sslmode in ("disable", "allow", "prefer"):
        yield place, f"sslrootcert protects nothing with sslmode={dsn.sslmode}: say verify-full (or verify-ca)"
    if (dsn.sslcert is None) != (dsn.sslkey is None):
        yield place, "sslcert and sslkey need each other"
    if dsn.sslnegotiation == "direct" and dsn.sslmode in ("disable", "allow", "prefer"):
        yield place, f"sslnegotiation=direct cannot go with sslmode={dsn.sslmode}: say require or stricter"
    if dsn.is_unix and dsn.sslmode in ("require", "verify-ca", "verify-full"):
        yield place, f"is a Unix socket, on which there is no TLS: leave out sslmode={dsn.sslmode}"
    if dsn.may_use_tls:
        root, cert, key = (Path(name) if name else None for name in (dsn.sslrootcert, dsn.sslcert, dsn.sslkey))
        yield from ((place, reason) for _, reason in _usable((), lambda: client_context(dsn.sslmode, root, cert, key)))


def _upstream(settings: Settings) -> Iterator[Finding]:
    dsn = settings.upstream.dsn
    yield from _dsn_tls(dsn, ("upstream", "dsn"))
    if dsn.password is not None and is_verifier(dsn.password.get_secret_value()):
        yield ("upstream", "dsn"), "a verifier cannot log in; the server needs the password itself"
    if dsn.password is not None and dsn.user is None:
        yield ("upstream", "dsn"), "has a password without a user"


def _names(settings: Settings) -> Iterator[Finding]:
    """Nobody decides their own request: that rests on names, so no two may be mistaken for each other."""
    agents = {folded(agent.name): index for index, agent in enumerate(settings.agents)}
    for index, agent in enumerate(settings.agents):
        if agents[folded(agent.name)] != index:
            yield ("agents", index, "name"), f"agent {agent.name!r} appears twice"
        if agent.owner is not None and folded(agent.owner) in agents:
            yield ("agents", index, "owner"), f"{agent.owner!r} is an agent; an owner is a person"
    default_owner = settings.auth.default_owner
    if default_owner is not None and folded(default_owner) in agents:
        yield ("auth", "default_owner"), f"{default_owner!r} is an agent; an owner is a person"
    owners = [agent.owner for agent in settings.agents] + [default_owner]
    seen: dict[str, int] = {}
    for index, reviewer in enumerate(settings.reviewers):
        place = ("reviewers", index, "name")
        if folded(reviewer.name) in agents:
            yield place, f"{reviewer.name!r} is an agent, and agents never approve"
        if seen.setdefault(folded(reviewer.name), index) != index:
            yield place, f"reviewer {reviewer.name!r} appears twice"
        for owner in owners:
            if owner is not None and owner != reviewer.name and same_person(owner, reviewer.name):
                yield place, f"is an owner spelled differently ({owner!r}): they could approve their own requests"
                break


def _agents(settings: Settings) -> Iterator[Finding]:
    broker = settings.auth.mode == "broker"
    if broker and not settings.agents:
        yield ("agents",), "auth.mode is broker and nobody may connect: list the agents"
    if broker and settings.auth.default_owner is not None:
        yield ("auth", "default_owner"), "is for auth.mode passthrough; in broker mode each agent names its owner"
    for index, agent in enumerate(settings.agents):
        check = _broker_agent if broker else _passthrough_agent
        for key, reason in check(agent, settings.upstream.dsn):
            yield ("agents", index, *key), reason


def _broker_agent(agent: Agent, upstream: Dsn) -> Iterator[Finding]:
    if agent.owner is None:
        yield ("owner",), f"agent {agent.name!r} needs an owner: who may never approve its requests?"
    if agent.password is None:
        if agent.certificate is None and agent.jwt_subject is None:
            yield (
                ("password",),
                f"agent {agent.name!r} needs a password (or its SCRAM-SHA-256 verifier), or a certificate",
            )
    elif not agent.password.get_secret_value():
        yield ("password",), "is empty"
    elif is_verifier(agent.password.get_secret_value()) and not _VERIFIER.fullmatch(agent.password.get_secret_value()):
        yield ("password",), "is not a whole verifier (SCRAM-SHA-256$iterations:salt$stored:server)"
    if agent.upstream is None and upstream.user is None:
        yield ("upstream",), f"says with which credentials agent {agent.name!r} logs in (or put them in upstream.dsn)"
    if agent.upstream and agent.upstream.password and is_verifier(agent.upstream.password.get_secret_value()):
        yield ("upstream", "password"), "a verifier cannot log in; the server needs the password itself"
    if agent.databases is not None and not agent.databases:
        yield ("databases",), f"is empty, so agent {agent.name!r} could connect to nothing; leave it out for all"


def _passthrough_agent(agent: Agent, _: Dsn) -> Iterator[Finding]:
    for key in ("password", "jwt_subject", "upstream"):
        if getattr(agent, key) is not None:
            yield (key,), "has no effect: auth.mode is passthrough, so the server itself authenticates the client"
    if agent.databases is not None and not agent.databases:
        yield ("databases",), f"is empty, so agent {agent.name!r} could connect to nothing; leave it out for all"


def _reviewers(settings: Settings) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for index, reviewer in enumerate(settings.reviewers):
        place = ("reviewers", index, "token")
        if not reviewer.roles:
            yield ("reviewers", index, "roles"), "is empty, so this reviewer could do nothing"
        if reviewer.token is None:
            if not reviewer.identities.given():
                yield place, f"reviewer {reviewer.name!r} needs a token, or an identity to log in with (identities)"
            continue
        token = reviewer.token.get_secret_value()
        if len(token) < TOKEN_MIN_CHARACTERS:
            yield place, f"is shorter than {TOKEN_MIN_CHARACTERS} characters, so it could be guessed"
        if not token.isascii() or not token.isprintable() or " " in token:
            yield place, "holds characters that an HTTP header cannot carry"
        other = seen.setdefault(token, reviewer.name)
        if other != reviewer.name:
            yield place, f"is the token of {other!r} too"


def approvers_of(settings: Settings, rules: RuleSet) -> Iterator[Finding]:
    """Requirements of rules that nobody could ever meet; places are the policy's own. With OIDC people come with their
    groups when they log in."""
    if settings.api.oidc is not None:
        return
    people = [r for r in settings.reviewers if "reviewer" in r.roles and not r.machine]
    for index, rule in enumerate(rules.rules):
        for asked, below in rule.asks():
            found = [p for p in people if not asked.groups or not set(asked.groups).isdisjoint(p.groups)]
            if len(found) < asked.count:
                where = f" of {' or '.join(asked.groups)}" if asked.groups else ""
                yield (
                    ("rules", index, *below, "approvers"),
                    f"asks for {asked.count} reviewer{'s' if asked.count > 1 else ''}{where}, "
                    f"and {len(found) or 'none'} is configured (reviewers)",
                )


def _store(settings: Settings) -> Iterator[Finding]:
    """The same server is seen only where it is spelled the same; `pgproxy.app` compares the clusters themselves."""
    if settings.store.dsn is None:
        return
    yield from _dsn_tls(Dsn.parse(settings.store.dsn.get_secret_value()), ("store", "dsn"))
    store, upstream = Dsn.parse(settings.store.dsn.get_secret_value()), settings.upstream.dsn
    places = [("127.0.0.1" if dsn.host == "localhost" else dsn.host, dsn.port) for dsn in (store, upstream)]
    if places[0] == places[1]:
        yield ("store", "dsn"), "is the upstream's server: the audited must not reach the evidence"
