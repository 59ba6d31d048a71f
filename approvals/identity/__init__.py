"""Who somebody is: OpenID Connect tokens, the login with them, and the console's sessions.

Owns the identity provider's keys, the verification of its tokens, the mapping of their claims to a
`Reviewer`, the authorization code flow and the table of web sessions. Knows nothing of HTTP routes or
cookies; those are `approvals.api`.

Invariants:

1. Nobody is let in unverified. A provider that does not answer lets keys fetched before go on for a day, and
   nothing else; an unknown key is a refusal, never a fallback.
2. The algorithm comes from the configuration and from the key, never from the token alone; symmetric
   algorithms and `none` are no choice at all (RFC 8725, 3.1 and 3.2).
3. What a token claims is an identity; who that is, is looked up at each request, so that a reviewer who is
   removed is out at once.
4. A web session's secret is stored as a hash; whoever reads the store cannot become anybody.

Rejected: sessions as signed cookies. They need no table, and cannot be revoked.
"""
