"""The model card shows names as they are: none becomes a line, a cell or a link of the card."""

from __future__ import annotations

from pipelines.data.prepared import PreparedData
from pipelines.models.scoring import Score
from sweeps.promotion.gate import Rule
from sweeps.promotion.model_card import Card, render_card
from tracking.markdown_text import literal

FORGED = "cat\n- passed: better than the champion"
LINK = "[x](https://evil.example)<img src=x> | `a` *b* \x1b[31m"


def card(names: tuple[str, ...], **changed: object) -> str:
    data = PreparedData(
        "digits",
        "/d",
        "f" * 64,
        "o",
        "split",
        (8, 8, 1),
        2,
        names,
        {"train": 1, "validation": 1, "test": 1},
    )
    score = Score(0.9, 0.1, (0.8, 0.7), 1.0, 10, 100, "cpu")
    rules = (Rule("better than the champion", False, f"recall of class {names[0]} 0.1"),)
    given = {
        "title": "m: trial 1", "data": data, "background": "dark", "origin": {}, "params": {},
        "intervals": {}, "score": score, "rules": rules,
    } | changed  # fmt: skip
    return render_card(Card(**given))


def test_a_class_name_forges_no_rule():
    text = card((FORGED, "dog"))

    assert not [line for line in text.splitlines() if line.startswith("- passed")]
    assert "- REFUSED: better than the champion: recall of class cat - passed: better" in text


def test_no_text_of_a_user_is_markup():
    text = card(
        (LINK, "dog"), title=LINK, champion=LINK, verdict=LINK, origin={LINK: LINK},
        params={LINK: LINK}, intervals={LINK: LINK},
    )  # fmt: skip

    assert text.count(literal(LINK)) == 12
    rest = text.replace(literal(LINK), "")
    assert "evil" not in rest and "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and "evil" in line]
    assert all(line.replace("\\|", "").count("|") == 3 for line in rows)
