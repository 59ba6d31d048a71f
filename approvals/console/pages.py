"""All pages behind the login."""

from __future__ import annotations

from fastapi import APIRouter

from approvals.console import charts, inbox, oversight, policy, request

router = APIRouter(include_in_schema=False)
for module in (inbox, request, oversight, policy, charts):
    router.include_router(module.router)
