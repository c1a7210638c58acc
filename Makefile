# What CI runs, one word each. The environment: pip install -c constraints.txt -e '.[dev]'
.PHONY: check test

check: ## style, types and layers; nothing is run
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-logo

test: ## the fast tests, and then the long ones
	pytest
	pytest -m long
