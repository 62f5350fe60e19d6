"""What the nodes that share a Redis tell one another, beside what tags point to.

Nothing of it is needed: without it each node asks for itself. So it is written behind, and read
only where an upstream would be asked otherwise.
"""
