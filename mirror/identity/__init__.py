"""Who a client is, and what it may do with repositories of one's own.

Imported only where hosting is configured: bcrypt and PyJWT come with it.
"""
