"""From a token's claims to a person: what they claim, and who of the configured reviewers that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from approvals.errors import Forbidden
from approvals.model import Reviewer, person_key

if TYPE_CHECKING:
    from approvals.store import Connection

_MAX_GROUPS = 1000
_MAX_NAME = 320  # an e-mail address at its longest


class ClaimsRefused(Exception):
    """A genuine token that does not say who its subject is; the message is safe to show."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What an issuer says of somebody. `aliases` are names that are only ever used against them."""

    issuer: str
    subject: str
    name: str
    email: str | None = None
    groups: tuple[str, ...] = ()
    machine: bool = False
    aliases: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Identity:
        return cls(**{**stored, "groups": tuple(stored["groups"]), "aliases": tuple(stored["aliases"])})


@dataclass(frozen=True, slots=True)
class Claims:
    """How claims are read. `roles_of` maps a group to roles; `default_roles` has everybody whom the issuer
    knows. With neither, somebody who is no configured reviewer may log in and see nothing."""

    name_claim: str = "email"
    require_verified_email: bool = True
    groups_claim: str | None = None
    machine_claim: str | None = None
    roles_of: Mapping[str, Sequence[str]] = field(default_factory=dict)
    default_roles: Sequence[str] = ()

    def identity(self, claims: dict[str, Any]) -> Identity:
        """Who the issuer says this is.

        Raises:
            ClaimsRefused
        """
        machine = self._is_machine(claims)
        email = _text(claims, "email")
        if email is not None and self.require_verified_email and claims.get("email_verified") not in (True, "true"):
            email = None
        name = email if self.name_claim == "email" else _text(claims, self.name_claim)
        if name is None and machine:
            name = _text(claims, "azp") or _text(claims, "client_id") or claims["sub"]
        if name is None:
            wanted = "verified e-mail address" if self.name_claim == "email" else f"claim {self.name_claim}"
            raise ClaimsRefused(f"the token has no {wanted}, so nobody can tell whose it is")
        names = (claims["sub"], _text(claims, "email"), _text(claims, "preferred_username"), _text(claims, "upn"))
        return Identity(
            str(claims["iss"]),
            claims["sub"],
            name,
            email,
            self._groups(claims),
            machine,
            tuple(dict.fromkeys(other for other in names if other and other != name)),
        )

    def _groups(self, claims: dict[str, Any]) -> tuple[str, ...]:
        if self.groups_claim is None:
            return ()
        found = _at(claims, self.groups_claim)
        if isinstance(found, str):
            found = [found]
        if not isinstance(found, list):
            return ()
        return tuple(group for group in found[:_MAX_GROUPS] if isinstance(group, str) and "\0" not in group)

    def _is_machine(self, claims: dict[str, Any]) -> bool:
        """Whether a program got this token with credentials of its own. RFC 9068, 2.2: its subject is then the
        client; the rest is how providers in wide use mark such tokens."""
        if self.machine_claim is not None and _at(claims, self.machine_claim) not in (None, False, ""):
            return True
        client = claims.get("azp") or claims.get("client_id") or claims.get("appid")
        subject = claims["sub"]
        return (
            (client is not None and subject in (client, f"{client}@clients"))
            or claims.get("gty") == "client-credentials"
            or claims.get("idtyp") == "app"
            or str(claims.get("preferred_username", "")).startswith("service-account-")
            or (client is not None and _text(claims, self.name_claim) is None and _text(claims, "email") is None)
        )

    def roles(self, groups: Sequence[str]) -> frozenset[str]:
        mapped = (role for group in groups for role in self.roles_of.get(group, ()))
        return frozenset((*self.default_roles, *mapped))


_SAME = """
SELECT name, name_key, oidc, oidc_key, groups, roles, machine, aliases FROM approvals.reviewers
WHERE NOT disabled AND (oidc = $1 OR oidc_key = $2 OR name_key = $3)
"""


async def resolve(connection: Connection, identity: Identity, claims: Claims) -> tuple[Reviewer, bool]:
    """The person as they stand now, and whether the configuration links them.

    A configured reviewer to whom the identity is linked: their roles are the configuration's, their groups
    its and the issuer's. Otherwise whoever the claims alone make them.

    A configured name alone is no link: somebody who can choose their name at the provider would get another's
    roles. Who then bears the name of a reviewer linked to someone else is refused.

    Raises:
        Forbidden: linked to two reviewers, or the name is another's.
    """
    email_key = person_key(identity.email) if identity.email else None
    key = person_key(identity.name)
    rows = await connection.fetch(_SAME, identity.subject, email_key, key)
    linked = [row for row in rows if row["oidc"] == identity.subject or (email_key and row["oidc_key"] == email_key)]
    if len(linked) > 1:
        raise Forbidden("this identity is linked to two reviewers")
    aliases = frozenset((*identity.aliases, identity.name))
    if linked:
        row = linked[0]
        reviewer = Reviewer(
            row["name"],
            frozenset((*row["groups"], *identity.groups)),
            frozenset(row["roles"]),
            row["machine"] or identity.machine,
            aliases | frozenset(row["aliases"]),
        )
        return reviewer, True
    namesake = next((row for row in rows if row["name_key"] == key), None)
    if namesake is not None and namesake["oidc"] is not None:
        raise Forbidden("the name belongs to a reviewer who is linked to another identity")
    machine = identity.machine or (namesake is not None and namesake["machine"])
    known = frozenset(namesake["aliases"]) if namesake is not None else frozenset()
    # The namesake's own spelling, so that both are one person on every record.
    name = namesake["name"] if namesake is not None else identity.name
    groups = frozenset(identity.groups)
    return Reviewer(name, groups, claims.roles(identity.groups), machine, aliases | known), False


def _text(claims: dict[str, Any], name: str) -> str | None:
    value = _at(claims, name)
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_NAME or not value.isprintable():
        return None
    return value.strip()


def _at(claims: dict[str, Any], path: str) -> Any:
    """The claim of that name (which may be a URL), else the one at that dotted path."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(part)
    return found
