"""Pictures, summary and HTML report of runs, drawn from the files of a model_dir. No TensorFlow.

matplotlib is imported when something is drawn, so that importing this package costs nothing.
"""

from neas_tf.report.page import Table, make_page, write_page
from neas_tf.report.reading import RunFiles, read_run
from neas_tf.report.records import Candidate
from neas_tf.report.summary import format_markdown, format_summary, summarise
from neas_tf.report.writing import Report, draw_architecture, write_report

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
