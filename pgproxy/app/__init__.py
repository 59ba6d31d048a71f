"""The composition root: the only place that knows `pgproxy`, `classifier` and `approvals` alike.

* `launch` starts what a run needs, in this order, and stops it in the reverse: embedded servers, the store's tables,
  the supervisor with its children. `up` and `serve` are here.
* `worker` puts together one data-plane process, `control` the process of HTTP API, expiry and shipped evidence.
* `adapters` translates between packages that declare Protocols for each other.

`python -m pgproxy.app ROLE INDEX` is what the supervisor runs; it is no command for people.
"""
