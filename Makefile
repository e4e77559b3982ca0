# Short names for `go run ./tools/dev COMMAND`, which works without make.
DEV = go run ./tools/dev

.PHONY: build run test bench chaos generate fuzz clean

build run test bench generate clean:
	@$(DEV) $@

fuzz:
	@$(DEV) fuzz $(or $(FUZZTIME),10s)

chaos:
	@$(DEV) chaos $(CHAOS)
