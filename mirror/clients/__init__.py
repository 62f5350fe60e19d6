"""What container clients read of mirrors, and how a mirror gets into it.

A file of another program is never written anew: what is to come in is inserted into its text, and
the result is read again to see that it says what it said, and that, and nothing else. So comments,
order and unknown keys stay as they are. Where that does not succeed, nothing is written.
"""
