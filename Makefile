# Everything runs in its own virtual environment, .venv.
PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check
ARGS ?=

.PHONY: demo test test-fast endurance check image-check docs clean

demo: .venv/demo
	.venv/bin/cdal demo $(ARGS)

# For two cores: a third process works while the others wait for servers.
test: .venv/test
	.venv/bin/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# Before each commit: without servers, browsers and trainings of more than a second.
test-fast: .venv/test
	.venv/bin/pytest --numprocesses 2 --dist loadfile -m 'not slow and not endurance' $(ARGS)

endurance: .venv/test
	.venv/bin/pytest -m endurance $(ARGS)

check: .venv/test
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

# The documentation as a site, in site/; a dead link is an error.
docs: .venv/test
	.venv/bin/zensical build --clean --strict

# Checks docker/ without a container engine; the dry run needs root and takes minutes.
image-check: .venv/test
	.venv/bin/hadolint docker/Dockerfile
	npx --yes dclint@3.1.0 --quiet docker/compose.yaml docker/compose.gpu.yaml
	.venv/bin/python docker/dry_run.py $(or $(ROOT),/tmp/cdal-image) $(ARGS)

clean:
	rm -rf .demo site

.venv/%: pyproject.toml requirements.txt
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "Installing; a few minutes the first time (about 7 GB with torch and Label Studio)."
	$(PIP) install -c requirements.txt -e '.[$*]'
	@touch $@
