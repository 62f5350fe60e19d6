"""The contracts between the rooms, by domain."""
