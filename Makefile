# The same verbs for people and CI. `make serve` and `make test` set up what they need on a machine
# that has only Python 3.11 or newer and make.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RECIPE ?= digits
OUT    ?= out/$(RECIPE)
TARGET ?= cpu
PRECISION ?= int8

.PHONY: help setup check test full fuzz cluster openapi serve train export variant bench overload image clean
.DEFAULT_GOAL := help

help: ## list the verbs
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# Two environments' worth of packages in one folder: serving needs no torch, so `make serve` on a
# fresh machine is quick; the rest comes when a verb asks for it.
$(VENV)/.serve: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[serve,cpu]' --constraint constraints.txt
	touch $@

$(VENV)/.dev: $(VENV)/.serve
	$(BIN)/python -m pip install --quiet --editable '.[serve,cpu,otel,score,ray,train,tune,dev]' --constraint constraints.txt
	touch $@

setup: $(VENV)/.dev ## install everything into .venv

check: $(VENV)/.dev ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.dev ## the test suite, in two processes: most tests wait for a server more than they compute
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile $(ARGS)

full: $(VENV)/.dev ## the test suite, and what repeats a like test: every fusion, encoder and count (an hour)
	$(BIN)/python -m pip install --quiet --editable '.[spark]' --constraint constraints.txt
	OMP_NUM_THREADS=1 $(BIN)/pytest --thorough -n 2 --dist loadfile $(ARGS)

fuzz: $(VENV)/.dev ## the full counts: 20,000 hostile requests, every rule of the OpenAPI document, 20 stops under load
	$(BIN)/pytest --thorough -s tests/fuzz tests/api/test_stopping.py $(ARGS)

# Spark is large and only one example needs it, so it is not among what every developer installs.
cluster: $(VENV)/.dev ## Ray and Spark on this machine, with drivers, actors and replicas that are killed (Java 17)
	$(BIN)/python -m pip install --quiet --editable '.[spark]' --constraint constraints.txt
	$(BIN)/pytest --thorough tests/deploy tests/score/test_ray.py tests/score/test_same_answers.py $(ARGS)

openapi: $(VENV)/.dev ## write docs/openapi.json as the server now says it
	$(BIN)/python -m tests.openapi

serve: $(VENV)/.serve ## serve ./models (TRICHORD_PORT=8000, TRICHORD_HOST=127.0.0.1)
	exec $(BIN)/trichord serve

# Threads that wait for each other must not spin: beside other work that takes twice the time.
train: $(VENV)/.dev ## train, evaluate, export, verify: RECIPE=digits DATA=dir OUT=dir (several GPUs: docs/training.md)
	OMP_WAIT_POLICY=passive $(BIN)/python -m training train $(RECIPE) --out $(OUT) $(if $(DATA),--data $(DATA))

export: $(VENV)/.dev ## export OUT's checkpoint again as a bundle: RECIPE=digits OUT=dir
	$(BIN)/python -m training export $(RECIPE) --out $(OUT) $(if $(DATA),--data $(DATA))

variant: $(VENV)/.dev ## a smaller bundle made from OUT's own, if it passes its gates: RECIPE=digits OUT=dir PRECISION=int8
	$(BIN)/python -m training variant $(RECIPE) --out $(OUT) --precision $(PRECISION) $(if $(DATA),--data $(DATA))

bench: $(VENV)/.dev ## what batching, subsets and the engine are worth, as ratios
	$(BIN)/python -m benchmarks.batching
	$(BIN)/python -m benchmarks.mixed
	$(BIN)/python -m benchmarks.plain

overload: $(VENV)/.dev ## a table of goodput at one, two and four times what can be served
	$(BIN)/python -m benchmarks.overload

image: ## build the container image: TARGET=cpu or gpu, with docker or buildah
	deploy/image.sh $(TARGET)

clean: ## remove what the verbs made, except trained models
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
