"""The admin port: /metrics and health for machines, a page for people, an API for programs.

Nothing is imported here: templates and their engine are for the one process that has the port.
"""
