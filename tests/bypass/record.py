"""Prints corpus entries for what psql asks a server, as far as the corpus has nothing of the same shape.

    python -m tests.bypass.record PSQL DSN LABEL >> tests/bypass/must_not_park_recorded.txt

PSQL is the program, of any version; the DSN is of a database that holds objects of many kinds, so that the commands
which look closer at one object (`\\d name`) ask all they can. What psql sends is what its `-E` shows.
"""

from __future__ import annotations

import re
import subprocess
import sys

from classifier import grammar
from tests.bypass.corpus import must_not_park

# Every backslash command of "psql" that asks the server something and changes nothing; `{}` is an object's name.
COMMANDS = r"""
\d {} \d+ {} \d \d+ \dS \da \da+ \dA \dA+ \dAc \dAc+ \dAf \dAf+ \dAo \dAo+ \dAp \dAp+ \db \db+ \dc \dc+ \dconfig
\dconfig+ \dC \dC+ \dd \ddS \dD \dD+ \ddp \dE \di \di+ \dm \dm+ \ds \ds+ \dt \dt+ \dv \dv+ \des \des+ \det \det+
\deu \deu+ \dew \dew+ \df \df+ \dfa \dfn \dfp \dft \dfw \dF \dF+ \dFd \dFd+ \dFp \dFp+ \dFt \dFt+ \dg \dg+ \dl \dl+
\dL \dL+ \dn \dn+ \do \do+ \dO \dO+ \dp \dP \dP+ \dPi \dPin \dPt+ \drds \drg \dRp \dRp+ \dRs \dRs+ \dT \dT+ \dTS+
\du \du+ \dx \dx+ \dX \dy \dy+ \l \l+ \sf {f} \sf+ \sv {v} \z \encoding \conninfo
"""
OBJECTS = """
select c.oid::regclass from pg_class c where relkind = 'r' and relhastriggers order by relname limit 3;
select c.oid::regclass from pg_class c where relkind = 'p' order by relname limit 3;
select c.oid::regclass from pg_class c where relispartition order by relname limit 2;
select c.oid::regclass from pg_class c where relkind = 'v' order by relname limit 1;
select c.oid::regclass from pg_class c where relkind = 'm' order by relname limit 1;
select c.oid::regclass from pg_class c where relkind = 'S' order by relname limit 1;
select c.oid::regclass from pg_class c where relkind = 'i' order by relname limit 1;
select c.oid::regclass from pg_class c where relkind = 'I' order by relname limit 1;
select c.oid::regclass from pg_class c where relkind = 'f' order by relname limit 1;
select c.oid::regclass from pg_class c where relkind = 'c' order by relname limit 1;
select c.oid::regclass from pg_class c where relkind = 't' order by relname limit 1;
select polrelid::regclass from pg_policy limit 1;
select stxrelid::regclass from pg_statistic_ext limit 1;
select inhparent::regclass from pg_inherits limit 1;
"""
_SHOWN = re.compile(r"^(?:/\*+ QUERY \*+/|\*+ QUERY \*+)\n(.*?)\n(?:/\*+/|\*+)$", re.DOTALL | re.MULTILINE)


def psql(program: str, dsn: str, text: str) -> str:
    done = subprocess.run([program, "-XEAt", dsn], input=text, capture_output=True, text=True, check=False)
    return done.stdout


def commands(program: str, dsn: str) -> list[str]:
    names = [line for line in psql(program, dsn, OBJECTS).splitlines() if line]
    views = psql(program, dsn, "select c.oid::regclass from pg_class c where relkind = 'v' limit 1").split()
    lines: list[str] = []
    for command in re.findall(r"\\[^\\]+", COMMANDS):
        command = " ".join(command.split())
        if "{}" in command:
            lines += [command.format(name) for name in names]
        elif "{f}" in command:
            lines.append(command.format(f="pg_catalog.obj_description(oid)"))
        elif "{v}" in command:
            lines += [command.format(v=view) for view in views]
        else:
            lines += [command, *([f"{command} *.*"] if re.fullmatch(r"\\d[a-zA-Z]*\+?", command) else [])]
    return lines


def main() -> None:
    program, dsn, label = sys.argv[1:4]
    known = {grammar.fingerprint(sql.encode()) for _, sql in must_not_park()}
    for query in _SHOWN.findall(psql(program, dsn, "\n".join(commands(program, dsn)))):
        shape = grammar.fingerprint(query.encode())
        if shape and shape not in known:
            known.add(shape)
            print(f"== {label}\n{query.strip()}")


if __name__ == "__main__":
    main()
