"""Passwords in addresses: where they are refused, and how text is freed of them."""

import re

# Only user:password@. A part before @ alone is a container of Azure, a user of HDFS. Keys of AWS
# may hold slashes; digits and a slash after the colon are a port and a path.
_PASSWORD = re.compile(r"(://[^/\s:@]*):(?:[^/\s]*|(?!\d{1,5}/)[^\s@]*)@")


def holds_password(address: str) -> bool:
    """Whether a URI has the form scheme://user:password@host."""
    return _PASSWORD.search(address) is not None


def redacted(text: str) -> str:
    """Text with *** for the password of every URI in it."""
    return _PASSWORD.sub(r"\1:***@", text)
