"""Where Debian packages come from: the host's apt, a mirror, or nowhere but the user's files."""
