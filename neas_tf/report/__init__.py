"""Pictures, summary and HTML report of runs, drawn from the files of a model_dir. No TensorFlow."""

from typing import TYPE_CHECKING

from neas_tf.common.moved import face

if TYPE_CHECKING:
    from neas_tf.report.diagram import draw_architecture
    from neas_tf.report.page import Table, make_page, write_page
    from neas_tf.report.reading import RunFiles, read_run
    from neas_tf.report.summary import format_markdown, format_summary, summarise
    from neas_tf.report.writing import Report, write_report
    from neas_tf.search.candidate import Candidate

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

__getattr__ = face(
    __name__,
    {
        "neas_tf.report.diagram": "draw_architecture",
        "neas_tf.report.page": "Table make_page write_page",
        "neas_tf.report.reading": "RunFiles read_run",
        "neas_tf.report.summary": "format_markdown format_summary summarise",
        "neas_tf.report.writing": "Report write_report",
        "neas_tf.search.history": "Candidate",
    },
)
