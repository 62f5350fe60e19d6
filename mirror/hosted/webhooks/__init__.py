"""Webhooks: what receivers are sent, when it is tried again, and who sends it."""
