"""A configuration that came with a run cannot grow without end, nor ask to run code."""

import pytest

from lightning_distill.run.read_config import read_config

JOB = "job: {_target_: lightning_distill.jobs.distill}\n"
LAUGHS = "a: &a [x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
GROWING = "a0: xxxxxxxxxx\n" + "".join(f"a{i + 1}: {f'${{a{i}}}' * 10}\n" for i in range(12))
RELATIVE = "b:\n  a0: xxxxxxxxxx\n" + "".join(
    f"  a{i + 1}: {f'${{.a{i}}}' * 10}\n" for i in range(12)
)
NODES = "a0: [1, 2]\n" + "".join(f"a{i + 1}: ['${{a{i}}}', '${{a{i}}}']\n" for i in range(40))
RESOLVED = "a0: xxxxxxxxxx\n" + "".join(
    f"a{i + 1}: {f'${{oc.select:a{i}}}' * 10}\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "alias .* in line 3, which a run does not write"),
        (GROWING, "refer to each other until they would have"),
        (RELATIVE, "refer to each other until they would have"),
        (NODES, "refer to each other until they would have"),
        (RESOLVED, "refer to each other until they would have"),
        (f"a: {'[' * 20000}{']' * 20000}", "more than 50 levels deep"),
        ("# " + "x" * 2**20, "has 1,048,"),
        ("a: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        ("a: [", "cannot be read as YAML"),
        ("teacher: {of: {trust_remote_code: true}}", r"sets teacher.of.trust_remote_code"),
        ("yes: true\nteacher: {trust_remote_code: '${yes}'}", r"sets teacher.trust_remote_code"),
    ],
)
def test_it_is_refused_before_it_grows(tmp_path, text, words):
    path = tmp_path / "config.yaml"
    path.write_text(JOB + text)
    with pytest.raises(ValueError, match=words):
        read_config(path)


def test_code_of_a_model_runs_when_the_user_says_so_again(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"{JOB}teacher: {{trust_remote_code: true}}")
    assert read_config(path, trusted=True).teacher.trust_remote_code


@pytest.mark.parametrize("content", [b"", b"hello", b"- 1\n", b"a: 1\n", b"\xff\xfe", b"\x00"])
def test_what_is_no_configuration(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"config.yaml (cannot be read|is not the configuration)"):
        read_config(path)


def test_what_a_run_writes_is_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"{JOB}lr: 0.1\noptimizer: {{lr: '${{lr}}', name: 'é'}}\nitself: ${{itself}}")
    found = read_config(path)
    assert found.optimizer.lr == 0.1 and found.optimizer.name == "é"
