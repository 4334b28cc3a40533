# `make demo` and `make test` need no preparation, not even on a fresh machine.

# Elixir reads and writes UTF-8, and warns if the locale does not.
export LC_ALL := C.UTF-8

SYSTEMS ?= bookworm trixie sid

.PHONY: help demo test test-systems bench setup fmt precompile

help:
	@echo "make demo          start two services behind the gateway (PORT=4000, NODES=1), Ctrl-C stops it"
	@echo "make test          run all tests and checks"
	@echo "make test-systems  run both on fresh Debian systems (as root; SYSTEMS=\"$(SYSTEMS)\")"
	@echo "make bench         measure the gateway and other proxies (bench/README.md; ARGS=...)"
	@echo "make setup         install the missing tools, and nothing else"
	@echo "make fmt           format all sources"
	@echo "make precompile    build the NIF for the package (TARGET=..., a target of Rust)"

demo:
	@scripts/setup scripts/demo

test:
	@scripts/setup --checks scripts/test

test-systems:
	@scripts/systems $(SYSTEMS)

bench:
	@scripts/setup bench/bench $(ARGS)

setup:
	@scripts/setup --checks

fmt:
	@scripts/setup --checks cargo fmt --all
	@for crate in fuzz bench; do cargo fmt --manifest-path native/$$crate/Cargo.toml; done
	@mix format

precompile:
	@scripts/setup scripts/precompile $(TARGET)
