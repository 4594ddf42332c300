//! Scopes: the app ids that may see a resource.

/// An empty list means every app in the namespace; otherwise the app id must be listed exactly.
pub fn in_scope(scopes: &[String], app_id: &str) -> bool {
    scopes.is_empty() || scopes.iter().any(|scope| scope == app_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_exactly() {
        assert!(in_scope(&[], "cart"));
        assert!(in_scope(&["cart".into()], "cart"));
        assert!(!in_scope(&["Cart".into(), "cart2".into()], "cart"));
    }
}
