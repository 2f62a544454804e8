"""Pictures, summary and HTML report of runs, drawn from the files of a model_dir. No TensorFlow.

Altair and vl-convert are imported when something is drawn, so that importing this package costs nothing.
"""

from neas_tf.report.diagram import draw_architecture
from neas_tf.report.page import Table, make_page, write_page
from neas_tf.report.reading import RunFiles, read_run
from neas_tf.report.summary import format_markdown, format_summary, summarise
from neas_tf.report.writing import Report, write_report
from neas_tf.search.history import Candidate

__all__ = [
    "Candidate",
    "Report",
    "RunFiles",
    "Table",
    "draw_architecture",
    "format_markdown",
    "format_summary",
    "make_page",
    "read_run",
    "summarise",
    "write_page",
    "write_report",
]
