"""Pictures, summary and HTML report of runs, drawn from the files of a model_dir. No TensorFlow."""

from neas_tf.common.moved import face

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
