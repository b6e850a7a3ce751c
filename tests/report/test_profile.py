import json
from itertools import pairwise

import pytest
from matplotlib.image import imread

from lightning_distill.callbacks.step_profile import PHASES, StepTimes
from lightning_distill.report import Profile
from lightning_distill.report.profile import draw_profile


def times(padding: float = 0.0, **shares: float) -> StepTimes:
    """Ten steps of 100 ms each; what no share names is the student's."""
    seconds = dict.fromkeys(PHASES, 0.0) | shares
    seconds["student"] += 1.0 - sum(seconds.values())
    tokens = {"student": 1000, "teacher": 1000}
    padded = {role: round(1000 * padding) for role in tokens}
    return StepTimes(seconds, 10, 5, 15, 0.4, 80, tokens, padded, "cuda", 1)


def advice(measured: StepTimes, **settings) -> str:
    options = {"num_workers": 0, "length_bucketing": False, "cacheable": True, "cores": 8}
    return " ".join(Profile(measured, **(options | settings)).advice())


TEACHER = "teacher 51% of the time: `lightning-distill job=cache ...` and then `teacher=cached`"


@pytest.mark.parametrize(
    ("measured", "settings", "words"),
    [
        (times(teacher=0.51), {}, f"{TEACHER} computes it once."),
        (times(teacher=0.24), {}, ""),
        (times(teacher=0.51), {"cacheable": False}, ""),
        (times(data=0.3), {}, "data 30% of the time: data.num_workers=2."),
        (times(data=0.3), {"num_workers": None}, "data 30% of the time: num_workers=2."),
        (times(data=0.09), {}, ""),
        # It takes four times as long as the rest: four workers, and one to spare.
        (times(data=0.8), {}, "data 80% of the time: data.num_workers=5."),
        (times(data=0.95), {}, "data.num_workers=8."),
        # Two that take twice as long as a step may: four, and one to spare.
        (times(data=0.5), {"num_workers": 2}, "data.num_workers=5."),
        (times(data=1.0), {"num_workers": 2}, "data.num_workers=8."),
        (times(data=0.3), {"num_workers": 8}, "more than the 8 cores here can prepare in time"),
        (times(data=0.3), {"cores": 1}, "make a row cheaper to read."),
        (times(0.45), {}, "padding 45% of the tokens: data.length_bucketing=true."),
        (times(0.45), {"length_bucketing": True}, ""),
        (times(0.45), {"length_bucketing": None}, "give rows of similar length one batch"),
        (times(0.09), {}, ""),
        # Much padding costs little where models take little of the time.
        (times(0.45, optimizer=0.8), {}, ""),
        (times(0.45, optimizer=0.7), {}, "padding 45%"),
        (times(other=0.4), {}, "other 40% of the time: it is paid for every batch"),
        (times(other=0.3), {}, ""),
        (times(backward=0.9), {}, ""),
    ],
)
def test_advice_follows_where_it_saves_enough(measured, settings, words):
    found = advice(measured, **settings)
    assert words in found
    assert bool(words) == bool(found)


def test_workers_on_the_cpu_take_its_cores_away():
    measured = times(data=0.3)
    measured.device = "cpu"
    assert "data.num_workers=2, which share the cores with the training." in advice(measured)


def test_nothing_that_stands_out_is_said_to_be_so():
    assert "Nothing stands out" in Profile(times(backward=0.5)).sentences()[-1]
    said = " ".join(Profile(times(data=0.5), num_workers=0).sentences())
    assert "data 50%" in said and "Nothing stands out" not in said


def test_the_sentences_hold_what_was_measured():
    said = " ".join(Profile(times(0.25)).sentences())
    assert "Mean of 10 steps (batches) after 5 to warm up, on cuda: 100.0 ms a step" in said
    # 80 rows and 750 tokens that are no padding, in one second.
    assert "80 samples/s, 750 tokens/s of text" in said
    assert "Padding is 25% of the student's and 25% of the teacher's tokens." in said
    assert "Validation and the ends of epochs took 0.4 s more" in said
    assert "without a profile a step is shorter" in said
    assert "processes" not in said


def test_a_cpu_was_not_waited_for_and_many_processes_are_named():
    measured = times()
    measured.device, measured.processes = "cpu", 2
    said = " ".join(Profile(measured).sentences())
    assert "waited for" not in said
    assert "This is the first of 2 processes." in said


def test_what_is_written_is_what_is_shown(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    profile = Profile(times(0.45, teacher=0.51, data=0.3), 0, False, True, 4)
    (tmp_path / "report.md").write_text("# Report\n\n- seed: 0\n")
    profile.show()
    profile.save(tmp_path)
    profile.append_to(tmp_path / "report.md")
    shown, written = capsys.readouterr().out, (tmp_path / "report.md").read_text()
    assert "…" not in shown
    assert written.startswith("# Report\n\n- seed: 0\n\n## Where the time went\n\n| part |")
    for words in ("51.0%", "30.0%", "19.0%", "51.00", *PHASES, *PHASES.values()):
        assert words in shown and words in written, words
    for sentence in profile.sentences():
        assert sentence in " ".join(shown.split())
        assert f"- {sentence}\n" in written
    assert "![where the time went](profile.png)" in written
    table = [line for line in written.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(PHASES)
    assert len({line.count("|") for line in table}) == 1, "a broken table"
    found = json.loads((tmp_path / "profile.json").read_text())
    assert found["shares"]["teacher"] == pytest.approx(0.51)
    assert found["advice"] == profile.advice() and len(found["advice"]) == 3
    assert imread(tmp_path / "profile.png").std() > 0
    assert Profile.load(tmp_path) == profile
    assert Profile.load(tmp_path / "elsewhere") is None


def test_too_few_steps_are_said_to_be_so_instead_of_a_table(tmp_path, capsys):
    profile = Profile(StepTimes(warmup=5, seen=3))
    profile.show()
    profile.save(tmp_path)
    profile.append_to(tmp_path / "report.md")
    written = (tmp_path / "report.md").read_text()
    for text in (written, " ".join(capsys.readouterr().out.split())):
        assert "Too few steps for a profile: 3, and the first 5 only warm up." in text
        assert "6 or more (trainer.max_steps)" in text
        assert "share" not in text and "profile.png" not in text
    assert not (tmp_path / "profile.png").exists()
    assert json.loads((tmp_path / "profile.json").read_text())["times"]["seen"] == 3
    assert Profile.load(tmp_path) == profile


def test_the_bar_is_cut_where_the_phases_end(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    barh = Axes.barh

    def spy(self, y, width, **options):
        drawn.append((options["label"], options["left"], width))
        return barh(self, y, width, **options)

    monkeypatch.setattr(Axes, "barh", spy)
    draw_profile(times(data=0.3, backward=0.2), tmp_path / "a.png")
    assert [label for label, _, width in drawn if width > 0] == [
        "data 30%",
        "student 50%",
        "backward 20%",
    ]
    for (_, left, width), (_, following, _) in pairwise(drawn):
        assert left + width == pytest.approx(following)
    assert drawn[0][1] == 0.0 and drawn[-1][1] + drawn[-1][2] == pytest.approx(100.0)
