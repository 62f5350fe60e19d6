"""What a client sees after how long: docs/time.md, measured in virtual time."""
