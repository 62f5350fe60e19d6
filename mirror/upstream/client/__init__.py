"""One registry over HTTP, in its own words: the pull API, logins, tokens, quota."""
