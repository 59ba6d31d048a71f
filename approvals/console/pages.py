"""All pages behind the login, each module with its `router`."""

from __future__ import annotations

from approvals.console import charts, inbox, oversight, policy, request

# Not one router made here: with a page's module imported first, the API's is complete before that page is.
MODULES = (inbox, request, oversight, policy, charts)
