"""Images that are brought here before a client asks for them: which ones, when, and how that goes.

What brings them, and where the last runs are kept, is behind the Protocols of
`mirror/contracts/sync.py`.
"""
