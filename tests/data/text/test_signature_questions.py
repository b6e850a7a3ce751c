import ast

from lightning_distill.data import SignatureQuestions
from lightning_distill.data.text.stdlib_signatures import stdlib_signatures


def test_every_default_is_what_python_takes_for_it():
    found = stdlib_signatures()
    assert len(found) > 500
    for text, defaults in found[::7]:
        arguments = ast.parse(f"def {text}: ...").body[0].args
        pairs = zip(reversed(arguments.args), reversed(arguments.defaults), strict=False)
        expected = {a.arg: ast.unparse(d) for a, d in pairs}
        for name, start, value in defaults:
            assert expected[name] == value == text[start : start + len(value)]


def test_a_function_is_in_one_split_alone():
    data = SignatureQuestions(vocab_size=400, max_length=128, stride=16)
    given = data.load()
    contexts = [set(split["context"]) for split in given.values()]
    assert not contexts[0] & contexts[1] and not contexts[0] & contexts[2]
    assert len(given["test"]) > 300
