//! Glob patterns with the meaning of Go's `path.Match`: the whole text has to match, `*` and `?` stop at `/`, classes are
//! `[a-z]` and `[^a-z]`, a backslash takes the next character literally.

/// A pattern that was checked when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

/// The pattern cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    #[error("'[' is not closed")]
    UnclosedClass,
    #[error("a character class is empty")]
    EmptyClass,
    #[error("a range in a character class has no valid end")]
    BadRange,
    #[error("it ends in a backslash")]
    TrailingBackslash,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// `*`: any run of characters but `/`.
    Run,
    /// `?`: one character but `/`.
    Any,
    Literal(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// # Errors
    /// Says what is wrong with the pattern.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        let mut tokens = Vec::new();
        let mut rest = pattern.chars().peekable();
        while let Some(c) = rest.next() {
            tokens.push(match c {
                '*' => Token::Run,
                '?' => Token::Any,
                '[' => class(&mut rest)?,
                '\\' => Token::Literal(rest.next().ok_or(GlobError::TrailingBackslash)?),
                c => Token::Literal(c),
            });
        }
        Ok(Self { tokens })
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut token, mut at) = (0, 0);
        // Where to go on when a later token fails: behind the last `*`, which then takes one character more.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.tokens.get(token) {
                Some(Token::Run) => {
                    retry = Some((token, at));
                    token += 1;
                    continue;
                }
                Some(wanted) if text.get(at).is_some_and(|c| wanted.accepts(*c)) => {
                    token += 1;
                    at += 1;
                    continue;
                }
                None if at == text.len() => return true,
                _ => {}
            }
            match retry {
                Some((run, from)) if text.get(from).is_some_and(|c| *c != '/') => {
                    retry = Some((run, from + 1));
                    token = run + 1;
                    at = from + 1;
                }
                _ => return false,
            }
        }
    }
}

impl Token {
    fn accepts(&self, c: char) -> bool {
        match self {
            Self::Run => false,
            Self::Any => c != '/',
            Self::Literal(literal) => *literal == c,
            Self::Class { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
        }
    }
}

/// Reads a class behind its `[`.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, GlobError> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if rest.next_if_eq(&']').is_some() {
            break;
        }
        let low = class_character(rest)?;
        let high = match rest.next_if_eq(&'-') {
            Some(_) => class_character(rest)?,
            None => low,
        };
        ranges.push((low, high));
    }
    if ranges.is_empty() {
        return Err(GlobError::EmptyClass);
    }
    Ok(Token::Class { negated, ranges })
}

fn class_character(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, GlobError> {
    match rest.next() {
        None => Err(GlobError::UnclosedClass),
        Some('-' | ']') => Err(GlobError::BadRange),
        Some('\\') => rest.next().ok_or(GlobError::TrailingBackslash),
        Some(c) => Ok(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_path_match_does() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b", false),
            ("*c", "abc", true),
            ("a*", "ab/c", false),
            ("a*b*c*d", "aXXbYYcZZd", true),
            ("a*b?c", "abbbxc", true),
            ("a*b?c", "abbbc", true),
            ("a*b?c", "abxbbxdbxebxczzx", false),
            ("?", "/", false),
            ("?", "ü", true),
            ("staging-?", "staging-1", true),
            ("sa-[dt]*", "sa-test", true),
            ("sa-[dt]*", "sa-prod", false),
            ("a[b-d]e", "ace", true),
            ("a[^b-d]e", "ace", false),
            ("a[^b-d]e", "aze", true),
            ("a[!b]c", "a!c", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("[\\]x]", "]", true),
            ("[\\-x]", "-", true),
            ("a[^x]b", "a/b", true),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for (pattern, expected) in [
            ("[]a]", GlobError::EmptyClass),
            ("[^]", GlobError::EmptyClass),
            ("[-]", GlobError::BadRange),
            ("[x-]", GlobError::BadRange),
            ("[a-]b]", GlobError::BadRange),
            ("[-x]", GlobError::BadRange),
            ("a[", GlobError::UnclosedClass),
            ("a[b", GlobError::UnclosedClass),
            ("[a-", GlobError::UnclosedClass),
            ("a\\", GlobError::TrailingBackslash),
        ] {
            assert_eq!(Glob::new(pattern), Err(expected), "{pattern}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let glob = Glob::new(&"*a".repeat(40)).unwrap();
        assert!(!glob.matches(&"a".repeat(39)));
        assert!(!glob.matches(&format!("{}b", "a".repeat(5000))));
    }
}
