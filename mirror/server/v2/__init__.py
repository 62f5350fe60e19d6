"""The registry protocol on the mirror's port."""
