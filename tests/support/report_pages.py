"""Reads report.html without a browser."""

import base64
import gzip
import html.parser
import json


class Page(html.parser.HTMLParser):
    """The elements of a page, and the texts of its style and scripts."""

    def __init__(self, data: bytes):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self._open = [], {}, None
        self.feed(data.decode("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open = dict(attrs).get("id", tag)

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open:
            self.texts[self._open] = self.texts.get(self._open, "") + data

    @property
    def data(self):
        return json.loads(gzip.decompress(base64.b64decode(self.texts["data"])))
