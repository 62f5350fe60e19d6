"""Registries of vendors, emulated from their documentation and from reports of their users.

profile.py      what tells one registry from another, as a value
emulated.py     the one server that behaves as a profile says
cloud.py        profiles: what cloud providers and public registries run
own.py          profiles: what people run themselves
"""
