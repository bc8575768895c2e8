"""Detection and redaction of passwords in addresses."""

import re

# Matches user:password@ only: a single name before @ is an Azure container or an HDFS user. AWS
# keys may contain slashes; digits and a slash after the colon are a port and a path.
_PASSWORD = re.compile(r"(://[^/\s:@]*):(?:[^/\s]*|(?!\d{1,5}/)[^\s@]*)@")


def holds_password(address: str) -> bool:
    """Whether a URI has the form scheme://user:password@host."""
    return _PASSWORD.search(address) is not None


def redacted(text: str) -> str:
    """Replaces the password of every URI in a text by ***."""
    return _PASSWORD.sub(r"\1:***@", text)
