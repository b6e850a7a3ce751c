import pytest
from matplotlib.image import imread

from lightning_distill.report import draw_curves
from lightning_distill.report.curves import read_metrics

CSV = """epoch,step,train/loss,train/soft_target,val/accuracy,test/accuracy
0,0,1.5,1.0,,
0,9,1.0,0.5,,
0,9,,,0.6,
1,19,,,0.7,
1,20,,,,0.65
"""


def test_every_quantity_is_read_with_its_steps(tmp_path):
    (tmp_path / "metrics.csv").write_text(CSV)
    found = read_metrics(tmp_path / "metrics.csv")
    assert found["train/loss"] == [(0, 1.5), (9, 1.0)]
    assert found["val/accuracy"] == [(9, 0.6), (19, 0.7)]
    assert set(found) == {"train/loss", "train/soft_target", "val/accuracy", "test/accuracy"}


def test_a_panel_for_each_term_and_metric(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    titles, lines = [], []
    monkeypatch.setattr(Axes, "set_title", lambda self, title, **_: titles.append(title))
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda self, *a, **k: lines.append(k["label"]) or plot(self, *a, **k)
    )
    (tmp_path / "metrics.csv").write_text(CSV)
    alone = tmp_path / "alone.csv"
    alone.write_text("epoch,step,train/loss\n0,0,2.0\n")
    draw_curves(
        {"distilled": [(0, tmp_path / "metrics.csv")], "alone": [(0, alone)]},
        tmp_path / "curves.png",
    )
    # A title says whose it is where not all have it.
    panels = ["train/loss, distilled", "train/loss, alone"]
    assert titles == [*panels, "train/soft_target, distilled", "val/accuracy, distilled"]
    # A loss sums other terms in each run, so each has a frame of its own.
    assert lines == ["distilled", "alone", "distilled", "distilled"]
    picture = imread(tmp_path / "curves.png")
    assert picture.shape[0] > 100 and picture.std() > 0


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: figures.append(self) or save(self, *a, **k)
    )
    return figures


def test_steps_are_whole_numbers_and_no_text_leaves_its_place(tmp_path, drawn):
    rows = [f"0,{step},{0.69127 + step * 1e-7},{10.0**-step}" for step in range(3)]
    (tmp_path / "a.csv").write_text("\n".join(["epoch,step,train/a,train/b", *rows]))
    (tmp_path / "b.csv").write_text("epoch,step,train/a,train/b\n0,0,1e-9,-2e6\n")
    runs = {"student": [(0, tmp_path / "a.csv")], "alone": [(0, tmp_path / "b.csv")]}
    draw_curves(runs, tmp_path / "both.png", ("train/a", "min"), 0.5)
    for name, path in runs.items():
        draw_curves({name: path}, tmp_path / f"{name}.png")
    for figure in drawn:
        width, height = figure.get_size_inches() * figure.dpi
        boxes = [axes.get_tightbbox() for axes in figure.axes]
        for i, axes in enumerate(figure.axes):
            assert all(step == round(step) for step in axes.get_xticks())
            assert boxes[i].x0 >= 0 and boxes[i].y0 >= 0
            assert boxes[i].x1 <= width and boxes[i].y1 <= height
            assert not any(boxes[i].overlaps(other) for other in boxes[:i])
            offset = axes.yaxis.get_offset_text().get_window_extent()
            assert not offset.width or not offset.overlaps(axes.title.get_window_extent())
    # One legend: in the first panel of all runs.
    draw_curves(runs, tmp_path / "none.png")
    assert [sum(axes.get_legend() is not None for axes in f.axes) for f in drawn] == [1, 0, 0, 1]


def test_a_run_without_curves_leaves_no_picture(tmp_path):
    draw_curves({"a": [(0, tmp_path / "nothing.csv")]}, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
