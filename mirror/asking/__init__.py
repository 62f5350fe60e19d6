"""How the same thing is asked once, asked again, or not yet."""
