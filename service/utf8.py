"""JSON as editors and shells write it: with a byte order mark, or in UTF-16, which no browser reads."""

from typing import Final

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class NotUTF8Error(ValueError):
    """A text in UTF-16 or UTF-32."""

    def __init__(self) -> None:
        super().__init__("it is in UTF-16 or UTF-32, and JSON is in UTF-8 (in PowerShell: Out-File -Encoding utf8)")


def utf8(text: bytes) -> bytes:
    """Return JSON without the byte order mark that it may have (RFC 8259, section 8.1). Raises NotUTF8Error."""
    if text.startswith((b"\xff\xfe", b"\xfe\xff")) or 0 in text[:4]:  # JSON begins with ASCII characters
        raise NotUTF8Error
    return text.removeprefix(BYTE_ORDER_MARK)
