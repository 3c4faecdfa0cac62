"""The lexer must never take a comment or a literal for code, nor the other way round."""

from __future__ import annotations

import pytest
from rustlex import code_only, tokens


@pytest.mark.parametrize(
    "source",
    [
        "// unsafe",
        "/// [`crate::server`] unsafe",
        "/* outer /* unsafe */ still unsafe */",
        'let a = "unsafe \\" unsafe";',
        'let a = r#"unsafe " unsafe"#;',
        'let a = b"unsafe";',
        'let a = br"unsafe";',
        'let a = c"unsafe";',
        'let q = \'"\'; let a = "unsafe";',
        "let q = '\\''; // unsafe",
    ],
)
def test_comments_and_literals_are_blanked(source: str) -> None:
    assert "unsafe" not in code_only(source)


@pytest.mark.parametrize(
    "source",
    [
        "fn f<'a>(x: &'a str) { unsafe {} }",
        "let b = b'\"'; unsafe {}",
        '"//"; unsafe {}',
        'r"\\"; unsafe {}',
        "/* */ unsafe {}",
        "let r#type = 1; unsafe {}",
    ],
)
def test_code_survives(source: str) -> None:
    assert "unsafe" in code_only(source)


def test_lines_and_columns_stay() -> None:
    source = 'a /* x\ny */ b "c\nd" e'
    blanked = code_only(source)
    assert len(blanked) == len(source)
    assert [(token.text, token.line) for token in tokens(source)] == [("a", 1), ("b", 2), ("e", 3)]


def test_strings_are_kept_on_request() -> None:
    assert code_only('"kept" // gone', keep_strings=True).strip() == '"kept"'
