//! The grammar of CEL, as far as it takes to tell an expression from a text that is none. Types and functions are the
//! sidecar's business.

/// Depth of nesting that is followed; what is deeper counts as an expression.
const DEEPEST: usize = 100;

/// The names that an expression refers to, or `None` when the text is no expression.
pub(super) fn names(text: &str) -> Option<Vec<&str>> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        names: Vec::new(),
    };
    match parser.expression(0) {
        Ok(()) if parser.at == parser.tokens.len() => Some(parser.names),
        Err(Stop::TooDeep) => Some(parser.names),
        Ok(()) | Err(Stop::Malformed) => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a str),
    /// A number or a string.
    Literal,
    Sign(&'a str),
}

/// Longer ones first.
const SIGNS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ",", ".", "(", ")", "[", "]",
    "{", "}", "`",
];
const BINARY: [&str; 13] = ["==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%"];

fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let length = match string(rest) {
            Some(length) => {
                tokens.push(Token::Literal);
                length?
            }
            None if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            None if rest.starts_with(|c: char| c.is_ascii_digit()) => {
                tokens.push(Token::Literal);
                number(rest)
            }
            None if rest.starts_with(word) => {
                let length = rest.find(|c| !word(c)).unwrap_or(rest.len());
                tokens.push(Token::Name(&rest[..length]));
                length
            }
            None => {
                let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign))?;
                tokens.push(Token::Sign(sign));
                sign.len()
            }
        };
        rest = rest[length..].trim_start();
    }
    Some(tokens)
}

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Digits, a fraction, an exponent and suffixes, in whatever order: a wrong number is not what people get wrong.
fn number(text: &str) -> usize {
    let bytes = text.as_bytes();
    let part = |at: usize| match bytes[at] {
        b'.' => bytes.get(at + 1).is_some_and(u8::is_ascii_digit),
        b'+' | b'-' => matches!(bytes[at - 1], b'e' | b'E') && !text.starts_with("0x"),
        byte => byte.is_ascii_alphanumeric(),
    };
    (1..bytes.len()).find(|at| !part(*at)).unwrap_or(bytes.len())
}

/// The length of the string that a text begins with: `None` for no string, `Some(None)` for one without an end.
fn string(text: &str) -> Option<Option<usize>> {
    let prefix = text
        .find(|c| !matches!(c, 'r' | 'R' | 'b' | 'B'))
        .filter(|length| *length <= 2)?;
    let raw = text[..prefix].contains(['r', 'R']);
    let body = &text[prefix..];
    let quote = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|quote| body.starts_with(quote))?;
    let mut at = quote.len();
    while at < body.len() {
        if body[at..].starts_with(quote) {
            return Some(Some(prefix + at + quote.len()));
        }
        let mut characters = body[at..].chars();
        let first = characters.next().unwrap_or_default();
        at += first.len_utf8();
        match first {
            '\\' if !raw => at += characters.next().map_or(0, char::len_utf8),
            '\n' if quote.len() == 1 => return Some(None),
            _ => {}
        }
    }
    Some(None)
}

enum Stop {
    Malformed,
    TooDeep,
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    names: Vec<&'a str>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    /// Goes past the sign if it comes next.
    fn skip(&mut self, sign: &str) -> bool {
        let found = self.peek() == Some(Token::Sign(sign));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Stop> {
        if self.skip(sign) { Ok(()) } else { Err(Stop::Malformed) }
    }

    /// Operands with operators between them; which binds how does not matter here.
    fn expression(&mut self, depth: usize) -> Result<(), Stop> {
        if depth > DEEPEST {
            return Err(Stop::TooDeep);
        }
        loop {
            while self.skip("!") || self.skip("-") {}
            self.member(depth)?;
            match self.peek() {
                Some(Token::Sign(sign)) if BINARY.contains(&sign) => self.at += 1,
                Some(Token::Name("in")) => self.at += 1,
                Some(Token::Sign("?")) => {
                    self.at += 1;
                    self.expression(depth + 1)?;
                    self.expect(":")?;
                }
                _ => return Ok(()),
            }
        }
    }

    /// A value, and what is selected from it.
    fn member(&mut self, depth: usize) -> Result<(), Stop> {
        self.skip(".");
        let token = self.peek();
        self.at += 1;
        match token {
            Some(Token::Literal) => {}
            Some(Token::Sign("(")) => {
                self.expression(depth + 1)?;
                self.expect(")")?;
            }
            Some(Token::Sign("[")) => self.list("]", depth)?,
            Some(Token::Sign("{")) => self.list("}", depth)?,
            Some(Token::Name(name)) if name != "in" => {
                if self.peek() != Some(Token::Sign("(")) && !matches!(name, "true" | "false" | "null") {
                    self.names.push(name);
                }
            }
            _ => return Err(Stop::Malformed),
        }
        loop {
            if self.skip(".") {
                self.skip("?");
                let quoted = self.skip("`");
                while quoted && self.peek().is_some_and(|token| token != Token::Sign("`")) {
                    self.at += 1;
                }
                match self.peek() {
                    Some(Token::Sign("`")) if quoted => self.at += 1,
                    Some(Token::Name(_)) if !quoted => self.at += 1,
                    _ => return Err(Stop::Malformed),
                }
            } else if self.skip("(") {
                self.list(")", depth)?;
            } else if self.skip("{") {
                self.list("}", depth)?;
            } else if self.skip("[") {
                self.skip("?");
                self.expression(depth + 1)?;
                self.expect("]")?;
            } else {
                return Ok(());
            }
        }
    }

    /// Items, or keys with values, up to the sign that ends them.
    fn list(&mut self, end: &str, depth: usize) -> Result<(), Stop> {
        while !self.skip(end) {
            self.skip("?");
            self.expression(depth + 1)?;
            if self.skip(":") {
                self.expression(depth + 1)?;
            }
            if !self.skip(",") {
                return self.expect(end);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_and_the_names_in_them() {
        for (text, expected) in [
            ("consecutiveFailures >= 5", &["consecutiveFailures"][..]),
            (
                "requests > 10 && totalFailures/requests > 0.5",
                &["requests", "totalFailures", "requests"],
            ),
            (r#"event.type == "order.created""#, &["event"]),
            (
                r#"event.data["x"].startsWith('a') ? true : !(has(event.data.y))"#,
                &["event", "event"],
            ),
            ("event.data.n in [1, 2, 3,] || -1.5e-3 < size({'a': 1})", &["event"]),
            ("[].size() == 0 // nothing", &[]),
            (r####"r"\" == '''it's''' + b"\"""####, &[]),
            ("event.?data[?0].`x-y` == 0x1Fu", &["event"]),
        ] {
            assert_eq!(names(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_are_none() {
        for text in [
            "",
            " ",
            "5 >",
            "> 5",
            "a = 5",
            "a and b",
            "a greater than 5",
            "(a > 5",
            "a > 5)",
            "a > 5;",
            "a & b",
            "a | b",
            "\"open",
            "'open",
            "f(a",
            "[1, 2",
            "a ? b",
            "a.",
            "event.type == 'a' or x",
        ] {
            assert_eq!(names(text), None, "{text}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        assert!(names(&"(".repeat(1_000_000)).is_some());
        assert!(names(&"a?".repeat(1_000_000)).is_some());
        assert!(names(&"!".repeat(1_000_000)).is_none());
    }
}
