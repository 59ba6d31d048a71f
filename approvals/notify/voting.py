"""A decision that comes from a chat: by whoever the configuration links, on what the message showed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from approvals.decisions import decide
from approvals.errors import Conflict, Forbidden, NotFound
from approvals.model import is_id
from approvals.notify.content import Content, content_of
from approvals.reading import load
from approvals.reviewers import linked_reviewer
from approvals.store import store_connection

if TYPE_CHECKING:
    from approvals.store import Pool

Link = Callable[[str], str]
"""The console's page about an approval."""

_SHA256_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Booth:
    """Where a chat's decisions are taken. `limit`: how much of a statement this chat's messages show."""

    pool: Pool
    via: Literal["slack", "teams"]
    link: Link
    limit: int

    def content(self, approval: dict[str, Any], *, escalated: bool = False, limit: int | None = None) -> Content:
        return content_of(approval, self.via, self.link(approval["id"]), limit=limit or self.limit, escalated=escalated)

    async def look(self, approval_id: str) -> dict[str, Any]:
        """Raises:
        NotFound, StoreUnavailable
        """
        async with store_connection(self.pool) as connection:
            approval = await load(connection, approval_id) if is_id(approval_id) else None
        if approval is None:
            raise NotFound("no such approval")
        return approval

    async def vote(
        self, identity: str, approval_id: str, sha256: str, decision: str, comment: str | None = None
    ) -> dict[str, Any]:
        """The approval object after it.

        Raises:
            ApprovalError: nothing was voted; the message is for who pressed.
        """
        reviewer = await linked_reviewer(self.pool, self.via, identity) if identity else None
        if reviewer is None:
            raise Forbidden("this account is not linked to a reviewer (reviewers: identities)")
        if decision not in ("approve", "deny") or len(sha256) != _SHA256_LENGTH:
            raise Forbidden("this is not a decision that can be taken here")
        approval = await self.look(approval_id)
        if approval["statement"]["sha256"] != sha256:
            raise Conflict("this is another statement than the one you have read: read it again")
        if approval["status"] == "pending" and decision == "approve" and self.content(approval).cut is not None:
            raise Forbidden("the statement is not shown whole here: read and approve it in the console")
        chosen: Literal["approve", "deny"] = "approve" if decision == "approve" else "deny"
        return await decide(self.pool, approval_id, reviewer, chosen, comment or None, via=self.via, sha256=sha256)
