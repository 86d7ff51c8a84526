# Two commands do everything on a fresh Debian 12 or 13 with a Rust toolchain:
#   make demo    shows what Tintype does, on a real guest
#   make test    proves it
# NO_INSTALL=1 checks what is installed and installs nothing.

.PHONY: demo test setup build guest
CARGO ?= cargo

demo: guest
	$(CARGO) build --quiet --package tintype --package tintype-e2e
	$${CARGO_TARGET_DIR:-target}/debug/demo $(DEMO_ARGS)

test: guest
	scripts/test

guest: setup
	$(CARGO) xtask guest

build: setup
	$(CARGO) build

setup:
	scripts/setup
