"""What goes on: each process watches its own bus, and one of them puts together what all have seen.

A process tells once a second what it has seen (`Watch`, `News`); the one that holds the store
gathers that of all (`Board`). Every table is bounded, and shared between clients: one that asks for
much pushes out what is told of itself.
"""
