"""Every architecture is answered rightly or refused by name (see `zoo`); a third of them a day."""

import datetime

import pytest
from zoo import SMALL, examine, zoo

ANIMALS = zoo()
TODAY = datetime.date.today().toordinal() % 3
CHOSEN = sorted(name for name, animal in ANIMALS.items() if animal.small)[TODAY::3]


ALWAYS = [
    "plain/affine",
    "plain/selections",
    "plain/smallestofrows",
    "plain/shapebranch",
    "plain/decoded",
    "plain/enlarged",
    "torchvision/swin3d_slim",
]  # rows that few networks have


@pytest.mark.parametrize("name", dict.fromkeys(ALWAYS + CHOSEN))
def test_right_or_refused_by_name(name):
    answers = examine(ANIMALS[name], SMALL)
    wrong = {question: said for question, said in answers.items() if said.startswith("wrong")}
    assert not wrong
