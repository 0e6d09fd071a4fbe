"""Text of ours and of users' in Markdown."""

from __future__ import annotations

import pytest

from tracking.markdown_text import literal


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("val_accuracy 0.9 | <b> [x](y) *z*", r"val_accuracy 0.9 \| \<b\> \[x\](y) \*z\*"),
        ("`keras-sweeps finalize my_sweep` compares", "`keras-sweeps finalize my_sweep` compares"),
        ("a_b `my_sweep` c_d", r"a_b `my_sweep` c_d"),
        ("one ` alone_", r"one \` alone\_"),
        ("plain", "plain"),
        ("val_accuracy 0.9 (n = 5), 3x3, a-b", "val_accuracy 0.9 (n = 5), 3x3, a-b"),
        ("_a_ <b>\nhttps://x", r"\_a\_ \<b\> https:\//x"),
        ("```<img>``", r"\`\`\`\<img\>\`\`"),
        ("`a|b`", r"\`a\|b\`"),
        ("R&D &lt; \x1b[31m", r"R&D \&lt; \\x1b\[31m"),
    ],
)
def test_only_code_in_backticks_is_taken_as_markdown(text, written):
    assert literal(text) == written
