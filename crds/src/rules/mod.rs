//! Every rule about the resources, in one place.
//!
//! [`upstream`] and [`rejections`] are part of the definitions: the API server refuses an object that breaks one. The
//! first are upstream's own; the second are ours, and refuse only what no stock program can use. [`warnings`] are found
//! by the operator and end up in the status. The pages under `docs/reference` are written from these tables.

mod apply;
pub mod rejections;
pub mod upstream;
pub mod warnings;

pub(crate) use apply::{apply, bound};

/// What must hold for a field, and what happens otherwise.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Kinds that have the rule.
    pub kinds: &'static [&'static str],
    /// Paths of the fields; `[]` stands for each item of a list and `{}` for each value of a map.
    pub fields: &'static [&'static str],
    /// What is wrong and what was expected. In a message it follows what was found.
    pub says: &'static str,
    /// What stock programs do when it is broken.
    pub effect: &'static str,
    pub enforcement: Enforcement,
}

/// How a rule is enforced.
#[derive(Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// The API server refuses the object.
    Reject(Check),
    /// The condition `Accepted` lists it.
    Warn,
}

/// How the API server finds out.
#[derive(Debug, PartialEq, Eq)]
pub enum Check {
    /// A CEL expression that must be true, over the field itself.
    Field {
        rule: &'static str,
        /// CEL expression for the text that was found, unless the message cannot hold it.
        found: Option<&'static str>,
    },
    /// The same over the object that the field is in.
    Parent {
        rule: &'static str,
        found: Option<&'static str>,
    },
    /// A CEL expression and its fixed message, as upstream has them.
    Upstream(&'static str),
    /// A keyword of the schema, whose message the API server writes.
    Keyword(&'static str, Value),
}

/// Value of a keyword.
#[derive(Debug, PartialEq, Eq)]
pub enum Value {
    Number(i64),
    Text(&'static str),
    Words(&'static [&'static str]),
}

/// Declares rules as statics, and lists all of them.
macro_rules! table {
    ($($(#[$doc:meta])* $name:ident = $rule:expr;)*) => {
        $($(#[$doc])* pub static $name: $crate::rules::Rule = $rule;)*

        /// All of them, in the order of the reference.
        pub static ALL: &[&$crate::rules::Rule] = &[$(&$name),*];
    };
}
pub(crate) use table;
