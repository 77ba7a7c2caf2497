"""The fixtures of web_site for all tests here."""

from web_site import layout, site

__all__ = ["layout", "site"]
