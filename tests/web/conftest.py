"""The fixtures of web_site for all tests here."""

from web_site import browser, layout, site

__all__ = ["browser", "layout", "site"]
