"""The configuration: with `policyfile` the only reader of files and environment variables.

A key that is not known, and a control that this version cannot carry out, are refused with file, line, key and
reason; nothing is ignored, since whoever wrote it believes that it protects them. Secrets are resolved here
(`{env: NAME}`) and appear in no error, no `repr` and no ordinary JSON; only `Settings.to_wire` reveals them, to
our own processes.

Order of precedence: environment (`PGPROXY_UPSTREAM__DSN`) over file over default. A `PGPROXY_` variable that is
no key is refused too, unless something else is known to set it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pgproxy import policyfile
from pgproxy.certificates import CertificateName
from pgproxy.configcheck import approvers_of, problems_of
from pgproxy.document import Document, DocumentError, Place, parse
from pgproxy.dsn import WITH_SECRETS, Dsn, Secret
from pgproxy.identitycheck import identity_problems
from pgproxy.identityconfig import AgentJwt, HostName, Identities, Network, Oidc, Origin, Role, WebSessions
from pgproxy.notifycheck import notifier_problems, targets_of
from pgproxy.notifyconfig import Notifiers

ENV_PREFIX = "PGPROXY_"
# Set for other purposes under our prefix: the terminal commands, builds, tests, our own children.
ENV_RESERVED = frozenset({"API", "TOKEN", "CONFIG", "IMPL", "NO_COMPILE", "CHANNEL_FD", "DEBUG"})
# Kubernetes gives every container these for a service that is called pgproxy ("Environment variables").
_ENV_KUBERNETES = re.compile(r"SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?")

ConfigError = DocumentError


class Mode(StrEnum):
    """`observe` classifies and records, and never stops anything."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


class AuthMode(StrEnum):
    """Who authenticates the client: the server (`passthrough`), or pgproxy, which then logs in itself (`broker`)."""

    PASSTHROUGH = "passthrough"
    BROKER = "broker"


class Replication(StrEnum):
    """What becomes of replication connections in `enforce`: refused, or parked for a human."""

    DENY = "deny"
    APPROVE = "approve"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Address(_Section):
    """A place to listen. `127.0.0.1:6432`, `[::1]:6432`, `*:6432` (every address)."""

    host: str
    port: int = Field(ge=0, le=65535)  # 0: any free one

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        host, separator, port = value.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError("an IPv6 address needs brackets: [::1]:6432")
        if not separator or not host or not re.fullmatch(r"[0-9]{1,5}", port):
            raise ValueError("must be HOST:PORT")
        return {"host": "0.0.0.0" if host == "*" else host, "port": int(port)}  # noqa: S104 (asked for)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# Relative to where pgproxy was started, wherever its processes go.
File = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class Tls(_Section):
    """Towards agents. `client_ca`: whose client certificates are taken; `client_cert`: whether every client needs
    one."""

    mode: Literal["disable", "prefer", "require"] = "disable"
    cert: File | None = None
    key: File | None = None
    client_ca: File | None = None
    client_cert: Literal["optional", "required"] = "optional"


class ApiTls(_Section):
    cert: File
    key: File


class Api(_Section):
    """`behind_proxy`: a proxy in front speaks TLS to reviewers, so plain HTTP beyond loopback is meant; `proxies` are
    the addresses whose X-Forwarded headers are believed. `external_url` is the origin people use; `hosts` further
    names that lead here. `static_login`: the console takes reviewers' tokens."""

    listen: Address = Address(host="127.0.0.1", port=8432)
    tls: ApiTls | None = None
    behind_proxy: bool = False
    proxies: tuple[Network, ...] = ()
    external_url: Origin | None = None
    hosts: tuple[HostName, ...] = ()
    static_login: bool = True
    sessions: WebSessions = WebSessions()
    oidc: Oidc | None = None


class Login(_Section):
    user: str = Field(min_length=1)
    password: Secret | None = None


class Upstream(_Section):
    """The server whose statements are guarded."""

    dsn: Dsn = Dsn()
    observer: Login | None = None


class Auth(_Section):
    mode: AuthMode = AuthMode.PASSTHROUGH
    default_owner: str | None = Field(default=None, min_length=1)
    jwt: AgentJwt | None = None


class Certificate(_Section):
    """The name a client certificate must have, to the letter: its CN (what a text alone means), its whole subject as
    `clientname=DN` in pg_hba.conf writes it, or an alternative name (DNS, e-mail, URI)."""

    cn: str | None = Field(default=None, min_length=1)
    dn: str | None = Field(default=None, min_length=1)
    san: str | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"cn": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self._said()) != 1:
            raise ValueError("must be one of cn, dn and san")
        return self

    def _said(self) -> list[CertificateName]:
        kinds: tuple[Literal["cn", "dn", "san"], ...] = ("cn", "dn", "san")
        return [CertificateName(kind, value) for kind in kinds if (value := getattr(self, kind)) is not None]

    @property
    def name(self) -> CertificateName:
        return self._said()[0]


class Agent(_Section):
    """Who may connect. `databases`: those it may name; left out, all. `certificate`: the client certificate it must
    show, beside its password where it has one. `jwt_subject`: it logs in with tokens of `auth.jwt` that say so, not
    with a password."""

    name: str = Field(min_length=1)
    owner: str | None = Field(default=None, min_length=1)
    password: Secret | None = None
    certificate: Certificate | None = None
    jwt_subject: str | None = Field(default=None, min_length=1)
    upstream: Login | None = None
    databases: tuple[str, ...] | None = None


class Reviewer(_Section):
    """Who may read and decide. `machine`: a program, which never decides. `identities`: the same person elsewhere."""

    name: str = Field(min_length=1)
    token: Secret | None = None
    groups: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ("reviewer",)
    machine: bool = False
    identities: Identities = Identities()


class Store(_Section):
    """Without a DSN the embedded PostgreSQL under `data_dir`."""

    dsn: Secret | None = None

    @field_validator("dsn")
    @classmethod
    def _is_dsn(cls, value: Secret | None) -> Secret | None:
        if value is not None:
            Dsn.parse(value.get_secret_value())
        return value


class Limits(_Section):
    """What one client may cost us. Bytes and seconds."""

    message_bytes: int = Field(default=64 * 1024 * 1024, ge=64 * 1024, le=1024**3)  # of one that is kept whole
    statement_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, le=1024**3)
    parked_backlog_bytes: int = Field(default=16 * 1024 * 1024, ge=64 * 1024)
    startups: int = Field(default=500, ge=1)
    sessions: int = Field(default=1000, ge=1)
    sessions_per_agent: int = Field(default=500, ge=0)  # 0: no limit of its own
    parked: int = Field(default=1000, ge=1)
    parked_per_agent: int = Field(default=100, ge=0)
    open_per_agent: int = Field(default=100, ge=0)  # in the whole store
    startup_timeout_s: float = Field(default=60.0, gt=0, le=3600)  # PostgreSQL's authentication_timeout is 60 s
    idle_timeout_s: float = Field(default=0.0, ge=0)  # 0: never, as the server's idle_session_timeout
    idle_in_transaction_timeout_s: float = Field(default=0.0, ge=0)
    approval_timeout_s: float = Field(default=600.0, gt=0, le=30 * 86400)
    drain_timeout_s: float = Field(default=30.0, ge=0, le=3600)


class Settings(_Section):
    """Everything that can be configured, checked. Frozen: a reload makes a new one."""

    listen: Address = Address(host="127.0.0.1", port=6432)
    api: Api = Api()
    mode: Mode = Mode.ENFORCE
    notice: bool = True
    replication: Replication = Replication.DENY
    tls: Tls = Tls()
    upstream: Upstream = Upstream()
    auth: Auth = Auth()
    agents: tuple[Agent, ...] = ()
    reviewers: tuple[Reviewer, ...] = ()
    notifiers: Notifiers = Notifiers()
    store: Store = Store()
    data_dir: Path = Path("pgproxy-data")
    policy: Any = None  # a file's name (from the configuration's directory), or the document inline, which it becomes
    workers: int = Field(default=1, ge=1, le=256)
    analysers: int = Field(default=1, ge=1, le=256)  # a worker
    limits: Limits = Limits()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def agent(self, name: str) -> Agent | None:
        return next((agent for agent in self.agents if agent.name == name), None)

    def owner_of(self, agent_name: str) -> str | None:
        """Who owns an agent: its own entry, else (passthrough) the default; None means no privileged statement."""
        agent = self.agent(agent_name)
        if agent is not None and agent.owner is not None:
            return agent.owner
        return self.auth.default_owner

    def to_wire(self) -> str:
        """JSON with the secrets in it: for a channel between our own processes, nothing else."""
        return self.model_dump_json(context=WITH_SECRETS)

    @classmethod
    def from_wire(cls, text: str) -> Self:
        return cls.model_validate_json(text)


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings of one file. Raises `ConfigError` with every problem found."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([Document(str(path), {}).problem((), f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Document(str(path), {}).problem((), "is not UTF-8")]) from None
    document = parse(text, str(path))
    _override(document, environ)
    return build(document, environ)


def build(document: Document, environ: Mapping[str, str]) -> Settings:
    """The settings of data that did not come from a file (`pgproxy up`), with all the same checks."""
    data = _resolve(document, document.data, (), environ)
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigError([document.problem(*_explain(found)) for found in error.errors()]) from None
    found = problems_of(settings) + identity_problems(settings) + notifier_problems(settings)
    problems = [document.problem(place, reason) for place, reason in found]
    if settings.policy is not None:
        try:
            read = policyfile.within(document, settings.policy, Path(document.source).parent)
        except ConfigError as error:
            raise ConfigError(problems + error.problems) from None
        problems += [
            read.document.problem((*read.place, *at), reason)
            for at, reason in (*approvers_of(settings, read.rules), *targets_of(settings, read.rules))
        ]
        settings = settings.model_copy(update={"policy": read.data})
    if problems:
        raise ConfigError(problems)
    return settings.model_copy(update={"data_dir": settings.data_dir.expanduser().absolute()})


def _override(document: Document, environ: Mapping[str, str]) -> None:
    """Puts each PGPROXY_ variable in its place. `{…}` and `[…]` are read as YAML, `null` as nothing."""
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX):
            continue
        rest = name.removeprefix(ENV_PREFIX)
        parts = [part.lower() for part in rest.split("__")]
        if rest in ENV_RESERVED or _ENV_KUBERNETES.fullmatch(rest):
            continue
        source = f"environment variable {name}"
        value: Any = environ[name]
        if value[:1] in "{[" and value:
            try:
                value = yaml.safe_load(value)
            except yaml.YAMLError:
                raise ConfigError([Document(source, {}).problem((), "not YAML")]) from None
        elif value == "null":
            value = None
        _put(document, parts, value, source)


def _put(document: Document, parts: list[str], value: Any, source: str) -> None:
    at: Any = document.data
    place: Place = ()
    for depth, part in enumerate(parts):
        key: str | int = part
        if isinstance(at, list):
            if not part.isascii() or not part.isdigit() or int(part) > len(at):
                raise ConfigError([Document(source, {}).problem(place, f"{part!r} is not a position of this list")])
            key = int(part)
            if key == len(at):
                at.append(None)
        elif not isinstance(at, dict):
            raise ConfigError([Document(source, {}).problem(place, "has a value, so it has no keys below it")])
        place = (*place, key)
        document.marks[place] = (source, None)
        if depth == len(parts) - 1:
            at[key] = value
            return
        below = at.get(key) if isinstance(at, dict) else at[key]
        if below is None:
            below = [] if parts[depth + 1].isdigit() else {}
            at[key] = below
        at = below


def _resolve(document: Document, value: Any, place: Place, environ: Mapping[str, str]) -> Any:
    """Replaces every `{env: NAME}` by that variable's value."""
    if isinstance(value, list):
        return [_resolve(document, item, (*place, index), environ) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"env"}:
        name = value["env"]
        if not isinstance(name, str) or not name:
            raise ConfigError([document.problem(place, "env must name an environment variable")])
        if not environ.get(name):
            state = "is empty" if name in environ else "is not set"
            raise ConfigError([document.problem(place, f"the environment variable {name} {state}")])
        return environ[name]
    return {key: _resolve(document, item, (*place, key), environ) for key, item in value.items()}


def _explain(found: Any) -> tuple[Place, str]:
    """One of pydantic's errors in our words. Its `input` is never shown: it may be a secret."""
    place: Place = tuple(part for part in found["loc"] if not str(part).startswith(("dict[", "function-")))
    message = str(found["msg"]).removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        known = _keys_at(place[:-1])
        close = difflib.get_close_matches(str(place[-1]), known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return place, f"unknown key; {hint}"
    if found["type"] == "missing":
        return place, "is required"
    if found["type"] == "string_type":
        return place, "must be text (quote a number)"
    return place, message[:1].lower() + message[1:]


def _keys_at(place: Place) -> list[str]:
    """The keys the model knows in the section at `place`."""
    model: Any = Settings
    for part in place:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if model is None:
            return []
    return sorted(model.model_fields)
