# The Transformer Workbook. Two commands matter: `make` builds everything, `make test` tests it.
# Each sets up what it needs first, and does only what has changed.

PYTHON  ?= python3
EDITION ?= public
PORT    ?= 8000

VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.installed
SAMPLE  := _build/sample
GRADES  := $(SAMPLE)/graded/grades.csv
PAGES   := _build/html$(if $(filter-out public,$(EDITION)),-$(EDITION))

# Whatever the grades of the sample class depend on.
GRADED_FROM := $(wildcard autograder/*.py autograder/exercises/*.py autograder/references/* \
	workbook/*.py workbook/ready/*.py solutions/*/*.md chapters/*/*.ipynb nbgrader_config.py)

.DEFAULT_GOAL := all
.PHONY: all setup release record book pdf screenshots linkcheck grade test serve lab bench clean help
# The steps follow one another; the tools use the cores themselves.
.NOTPARALLEL:
.DELETE_ON_ERROR:

all: release book grade  ## set up, release the chapters, build the book, grade the sample class
	@echo
	@printf '  %-10s %s\n' \
		'chapters' 'chapters/' \
		'book' '$(PAGES)/index.html   (make serve)' \
		'grades' '$(GRADES)' \
		'feedback' '$(SAMPLE)/graded/feedback/' \
		'report' '$(SAMPLE)/graded/report.html'

setup: $(READY)  ## make .venv from requirements.lock

$(READY): requirements.lock pyproject.toml book/package.json book/package-lock.json
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
		echo "make: there is no '$(PYTHON)'. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1); 3.11 or newer is needed. Name one: make PYTHON=python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' >/dev/null 2>&1 || { \
		echo "make: '$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@"$(BIN)/python" -m pip --version >/dev/null 2>&1 || { \
		echo "Setting up $(VENV) from requirements.lock"; "$(PYTHON)" -m venv --clear $(VENV); }
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@# Fonts, icons and the formulas' style, for the pages of the book.
	@mkdir -p $(VENV)/npm && cp book/package.json book/package-lock.json $(VENV)/npm/
	@cd $(VENV)/npm && ../bin/npm ci --no-audit --no-fund --loglevel=error
	@touch $@

release: $(READY)  ## solutions/ -> chapters/
	@$(BIN)/autograder release

record: $(READY)  ## the reference packs, from the solutions
	@$(BIN)/autograder record

book: release  ## the book; EDITION=instructor adds the solutions
	@$(BIN)/python book/build.py --edition $(EDITION)

pdf: book  ## the book as one PDF; needs Chromium
	@$(BIN)/python book/pdf.py --edition $(EDITION)

screenshots: book  ## pictures of every page, and the README's; needs Chromium
	@$(BIN)/python book/pictures.py

linkcheck: release  ## ask the other sites whether they have the pages that the book links to
	@$(BIN)/python book/build.py --edition $(EDITION) --check-links

grade: release  ## grade the sample class
	@$(MAKE) --no-print-directory --quiet $(GRADES)

$(GRADES): $(READY) $(GRADED_FROM)
	@rm -rf $(SAMPLE)
	@$(BIN)/python -m autograder.sample --to $(SAMPLE)/submitted
	@# The sample class is this repository's own, so it is graded on every machine.
	@$(BIN)/autograder grade $(SAMPLE)/submitted --to $(SAMPLE)/graded --trust-submissions
	@$(BIN)/autograder report $(SAMPLE)/graded
	@touch $@

test: $(READY)  ## the whole suite
	@# As many processes as cores; what one set-up serves stays together (tests/conftest.py).
	@$(BIN)/python -m pytest -n logical --maxprocesses 8

serve: book  ## serve the book on PORT
	@echo "http://localhost:$(PORT)/  (stop with Ctrl-C)"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory $(PAGES)

lab: $(READY)  ## JupyterLab in chapters/
	@cd chapters && ../$(BIN)/jupyter lab

bench: release  ## the side-by-side measurements; writes benchmarks/RESULTS.md
	@$(BIN)/python benchmarks/run.py

clean:  ## remove what was built; .venv stays
	@rm -rf _build .pytest_cache .ruff_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

help:  ## this list
	@sed -n 's/^\([a-z]*\):[^#]*##  *\(.*\)/  make \1\t\2/p' Makefile | expand -t 20
