"""PostgreSQL connection URIs as values ("Connection Strings", URI form). Pure; no message ever shows the URI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote, urlencode, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    model_validator,
)

WITH_SECRETS: Mapping[str, bool] = {"secrets": True}


def _serialize_secret(value: SecretStr, info: SerializationInfo) -> str:
    """Stars, unless the caller says that the other side is one of our own processes (`WITH_SECRETS`)."""
    revealed = bool(info.context and info.context.get("secrets"))
    return value.get_secret_value() if revealed else str(value)


Secret = Annotated[SecretStr, PlainSerializer(_serialize_secret, return_type=str)]

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TLS_PARAMETERS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslnegotiation")
_PARAMETERS = frozenset({"host", "port", "user", "password", "dbname", *_TLS_PARAMETERS})


class Dsn(BaseModel):
    """Where a server is and how to log in. `host` is a name, an address, or the directory of a Unix socket."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=5432, ge=1, le=65535)
    user: str | None = None
    password: Secret | None = None
    database: str | None = None
    sslmode: str = "prefer"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    sslnegotiation: Literal["postgres", "direct"] = "postgres"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return _fields(value) if isinstance(value, str) else value

    @classmethod
    def parse(cls, text: str) -> Dsn:
        """Raises ValueError (pydantic's, or ours with a plain reason)."""
        return cls.model_validate(text)

    @property
    def is_unix(self) -> bool:
        return self.host.startswith("/")

    @property
    def may_use_tls(self) -> bool:
        """Whether TLS can come about; never on a Unix socket, whatever sslmode says, as in libpq."""
        return not self.is_unix and self.sslmode != "disable"

    @property
    def socket_path(self) -> str:
        """The Unix socket's path; only when `is_unix`."""
        return f"{self.host}/.s.PGSQL.{self.port}"

    def uri(self, *, password: bool = True) -> str:
        """As libpq, asyncpg and psycopg read it; `password=False` leaves that out."""
        login = quote(self.user, safe="") if self.user else ""
        if self.user and self.password is not None and password:
            login += ":" + quote(self.password.get_secret_value(), safe="")
        query = {}
        if self.is_unix:
            place = ""
            query = {"host": self.host, "port": str(self.port)}
        else:
            place = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        defaults = Dsn.model_fields
        for name in _TLS_PARAMETERS:
            value = getattr(self, name)
            if value and value != defaults[name].default:
                query[name] = value
        at = f"{login}@" if login else ""
        database = quote(self.database, safe="") if self.database else ""
        return f"postgresql://{at}{place}/{database}" + (
            f"?{urlencode(query, safe='', quote_via=quote)}" if query else ""
        )


def _fields(text: str) -> dict[str, Any]:
    """The URI's parts. urlsplit alone would take `/` in a password for a path, as libpq does: it must be %2F."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("not a connection URI: host or port is malformed") from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("not a connection URI: it must begin with postgresql://")
    if parts.fragment:
        raise ValueError("not a connection URI: # must be written %23")
    if "," in parts.netloc:
        raise ValueError("several hosts in one URI are not supported")
    fields: dict[str, Any] = {}
    if host:
        # urlsplit lowers the host's case, and an encoded socket directory has one: take it as written.
        written = parts.netloc.rpartition("@")[2]
        fields["host"] = written.partition("]")[0][1:] if written[:1] == "[" else unquote(written.partition(":")[0])
    if port is not None:
        fields["port"] = port
    if parts.username:
        fields["user"] = unquote(parts.username)
    if parts.password is not None:
        fields["password"] = unquote(parts.password)
    if len(parts.path) > 1:
        fields["database"] = unquote(parts.path[1:])
    for pair in filter(None, parts.query.split("&")):
        name, separator, value = pair.partition("=")
        name = unquote(name)
        if name not in _PARAMETERS or not separator:
            raise ValueError(f"parameter {name!r} is not supported (supported: {', '.join(sorted(_PARAMETERS))})")
        fields["database" if name == "dbname" else name] = unquote(value)
    if "," in fields.get("host", ""):
        raise ValueError("several hosts in one URI are not supported")
    if fields.get("sslmode", "prefer") not in SSL_MODES:
        raise ValueError(f"sslmode must be one of {', '.join(SSL_MODES)}")
    if fields.get("sslnegotiation", "postgres") not in ("postgres", "direct"):
        raise ValueError("sslnegotiation must be postgres or direct")
    return fields
