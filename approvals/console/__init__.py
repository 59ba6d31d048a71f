"""The console: pages that this process renders, and the little they load.

* `login` is how people come in and go: by a static token, or at the identity provider. `PageSession` is the
  dependency of every page: it sends whoever has no session to the login, and back afterwards.
* `rendering` makes pages from `templates`; everything put into one is escaped, for SQL is hostile text.
* `assets` serves scripts and styles under names that carry their content's hash.

Invariants:

1. No inline script, style or handler: the content security policy forbids them, so that text which escapes
   its place still does nothing.
2. Pages change nothing by GET, but for the provider's way back at `/oidc/callback`, which needs what only
   the browser that began has.
"""
