#!/bin/sh
# libpq_pipeline.sh DIR: builds PostgreSQL's test of libpq's pipeline mode as DIR/libpq_pipeline (Debian, gcc, libpq-dev).
#
# The source is the Debian package's, of the newest version that apt has; the lists with source packages are DIR's own, so
# that nothing of the machine's apt changes. The server's headers are only unpacked: their package would draw in LLVM.
set -eu
dir=$(realpath "$1")
mkdir -p "$dir/sources" "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/source" "$dir/headers"
cd "$dir"
for list in /etc/apt/sources.list.d/*.sources; do
  [ ! -e "$list" ] || sed 's/^Types:.*/Types: deb deb-src/' "$list" > "sources/$(basename "$list")"
done
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
  [ ! -e "$list" ] || sed -n 's/^deb \(.*\)/deb \1\ndeb-src \1/p' "$list" > "sources/$(basename "$list")"
done
apt_own() {
  command=$1
  shift
  "$command" -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$dir/sources" \
    -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root "$@"
}
fetch() {
  apt_own apt-get source --download-only --tar-only "postgresql-15=$1" &&
    apt_own apt-get download "postgresql-server-dev-15=$1"
}
apt_own apt-get update
# Newest first; a mirror may list a source that it does not have.
for version in $(apt_own apt-cache madison postgresql-15 | awk -F'|' '/ Packages/ {print $2}'); do
  if fetch "$version"; then break; fi
  rm -f postgresql-*15_*
done
tar xf postgresql-15_*.orig.tar.* -C source --strip-components=1 --wildcards '*/src/test/modules/libpq_pipeline/*'
# Its server may be newer: PostgreSQL 16 gave this setting another name, and nothing else that it uses.
sed -i 's/force_parallel_mode/debug_parallel_query/g' source/src/test/modules/libpq_pipeline/libpq_pipeline.c
dpkg -x postgresql-server-dev-15_*.deb headers
include=headers/usr/include/postgresql/15/server library=headers/usr/lib/postgresql/15/lib
gcc -O1 -w -I"$include" -I"$(pg_config --includedir)" -I"$(pg_config --includedir)/internal" -o libpq_pipeline \
  source/src/test/modules/libpq_pipeline/libpq_pipeline.c -lpq "$library/libpgcommon.a" "$library/libpgport.a"
