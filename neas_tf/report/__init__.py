"""Pictures and a summary of a run, drawn from the files of its model_dir. No TensorFlow.

matplotlib is imported when something is drawn, so that importing this package costs nothing.
"""

from neas_tf.report.reading import Candidate, RunFiles, read_run
from neas_tf.report.summary import format_markdown, format_summary, summarise
from neas_tf.report.writing import Report, draw_architecture, write_report

__all__ = [
    "Candidate",
    "Report",
    "RunFiles",
    "draw_architecture",
    "format_markdown",
    "format_summary",
    "read_run",
    "summarise",
    "write_report",
]
