"""The console: pages that this process renders, and the little they load.

* `login` is how people come in and go: by a static token, or at the identity provider. `PageSession` is the
  dependency of every page: it sends whoever has no session to the login, and back afterwards.
* `rendering` makes pages from `templates`; everything put into one is escaped, for SQL is hostile text.
* `pages` are those behind the login, `frame` what each has around it: `inbox`, `request` (with `differences`),
  `oversight` (grants, sessions, audit), `policy`, `charts` (drawn from `figures`). `forms` reads what they post.
* `sqltext` makes hostile text HTML: coloured by PostgreSQL's lexical rules, with nothing in it that stays hidden.
* `assets` serves scripts and styles under names that carry their content's hash.

Invariants:

1. No inline script, style or handler: the content security policy forbids them, so that text which escapes
   its place still does nothing.
2. A page is whole without scripts; those keep it up to date and add keys. A vote carries the hash of the text that
   the page showed, and a text on a page never changes under its reader.
3. Pages change nothing by GET, but for the provider's way back at `/oidc/callback`, which needs what only
   the browser that began has.
"""
