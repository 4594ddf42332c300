// Verifies certificate chains as the Go programs of upstream do. Standard library only.
module outrigger.dev/sentry/verify

go 1.26
