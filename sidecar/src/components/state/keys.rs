//! How the keys of an application become keys in a store that it may share with others.

/// Between prefix and key.
const SEPARATOR: &str = "||";

/// What is put in front of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Option<String>);

/// A key or prefix that would be ambiguous.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("input key/keyPrefix '{0}' can't contain '||'")]
pub struct IllegalKey(pub String);

impl Prefix {
    /// `strategy` is the component's `keyPrefix`: `appid` (the default), `name`, `namespace`, `none`, or a literal text.
    ///
    /// # Errors
    /// When a literal text contains the separator.
    pub fn new(strategy: Option<&str>, app_id: &str, namespace: &str, store: &str) -> Result<Self, IllegalKey> {
        let prefix = match strategy.unwrap_or("appid") {
            "none" => return Ok(Self(None)),
            "name" => store.to_owned(),
            "namespace" if !namespace.is_empty() => format!("{namespace}.{app_id}"),
            "appid" | "namespace" => app_id.to_owned(),
            literal => literal.to_owned(),
        };
        if prefix.contains(SEPARATOR) {
            return Err(IllegalKey(prefix));
        }
        Ok(Self(Some(prefix)))
    }

    /// The key in the store.
    ///
    /// # Errors
    /// When the key contains the separator.
    pub fn apply(&self, key: &str) -> Result<String, IllegalKey> {
        if key.contains(SEPARATOR) {
            return Err(IllegalKey(key.to_owned()));
        }
        Ok(match &self.0 {
            None => key.to_owned(),
            Some(prefix) => format!("{prefix}{SEPARATOR}{key}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies() {
        let key = |strategy: Option<&str>, namespace: &str| {
            Prefix::new(strategy, "cart", namespace, "store")
                .unwrap()
                .apply("k")
                .unwrap()
        };
        assert_eq!(key(None, "shop"), "cart||k");
        assert_eq!(key(Some("appid"), "shop"), "cart||k");
        assert_eq!(key(Some("name"), "shop"), "store||k");
        assert_eq!(key(Some("namespace"), "shop"), "shop.cart||k");
        assert_eq!(key(Some("namespace"), ""), "cart||k");
        assert_eq!(key(Some("none"), "shop"), "k");
        assert_eq!(key(Some("shared"), "shop"), "shared||k");
    }

    #[test]
    fn the_separator_is_refused() {
        assert_eq!(
            Prefix::new(Some("a||b"), "cart", "", "store"),
            Err(IllegalKey("a||b".into()))
        );
        let error = Prefix::new(None, "cart", "", "store")
            .unwrap()
            .apply("a||b")
            .unwrap_err();
        assert_eq!(error.to_string(), "input key/keyPrefix 'a||b' can't contain '||'");
    }
}
