"""Registries over HTTP: transport, token negotiation, pools of endpoints."""
