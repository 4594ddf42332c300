//! The cluster's DNS domain, when nobody configured it: from the search list of the resolver.

/// Used when the search list says nothing.
pub const DEFAULT: &str = "cluster.local";

/// The domain behind `svc.` in the last `search` line of a `resolv.conf`. Without one, the first of its domains in
/// alphabetical order, which is all that upstream looks at.
pub fn from_resolv_conf(text: &str) -> String {
    let search = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .filter_map(|line| line.trim().strip_prefix("search"))
        .rfind(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        .unwrap_or_default();
    let domains = || search.split_whitespace();
    domains()
        .find_map(|domain| domain.strip_prefix("svc."))
        .or_else(|| domains().min())
        .unwrap_or(DEFAULT)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefers_the_service_domain() {
        let text = "nameserver 10.96.0.10\n\
                    search dapr-system.svc.corp.example svc.corp.example corp.example c.project.internal # x\n\
                    options ndots:5\n";
        assert_eq!(from_resolv_conf(text), "corp.example");
    }

    #[test]
    fn otherwise_the_first_of_the_last_line_or_the_default() {
        assert_eq!(
            from_resolv_conf("search x y\nsearch b.example a.example\n"),
            "a.example"
        );
        assert_eq!(from_resolv_conf("search svc.a\n#search svc.b"), "a");
        for empty in ["", "search\n", "# search a\n", "searching a\n"] {
            assert_eq!(from_resolv_conf(empty), "cluster.local", "{empty:?}");
        }
    }
}
