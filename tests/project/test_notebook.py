"""docs/notebooks/quickstart.ipynb: stored without outputs, and it runs as it stands."""

import pytest

from neas_tf.common.paths import project_file

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra dev)")
pytest.importorskip("ipykernel", reason="ipykernel is not installed (extra dev)")

NOTEBOOK = project_file("docs", "notebooks", "quickstart.ipynb")


def printed(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_the_quickstart_runs_as_it_stands(tmp_path, monkeypatch):
    for name, value in {
        "PYTHONPATH": project_file(),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_DATA_DIR": str(tmp_path / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    work = tmp_path / "work"
    work.mkdir()
    client = nbclient.NotebookClient(
        notebook, kernel_name="python3", resources={"metadata": {"path": str(work)}}
    )
    client.execute()
    _, _, _, numbers, predictions, card, device, _ = code
    share = float(printed(predictions).split()[-1])
    assert share > 0.5 and f"accuracy {share:.2%}" in printed(numbers)
    assert "judged on 200 validation pictures" in printed(code[2])
    assert f"{share:.2%} of 400 test images" in printed(card)
    assert float(printed(device).split()[-1].rstrip("%")) > 50
    assert (work / "quickstart_exports" / "digits.tflite.labels.txt").is_file()
