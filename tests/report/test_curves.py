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
    assert titles == ["train/loss", "train/loss", "train/soft_target", "val/accuracy"]
    # A loss sums other terms in each run, so each has a frame of its own.
    assert lines == ["distilled", "alone", "distilled", "distilled"]
    picture = imread(tmp_path / "curves.png")
    assert picture.shape[0] > 100 and picture.std() > 0


def test_a_run_without_curves_leaves_no_picture(tmp_path):
    draw_curves({"a": [(0, tmp_path / "nothing.csv")]}, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
