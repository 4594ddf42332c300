//! Kubeconfig files that carry their certificates, so that they work wherever they are copied.

use base64::prelude::{BASE64_STANDARD, Engine};

use crate::certs::Pair;

/// A kubeconfig with one cluster, one user and one context, all called `name`, which is the current one.
pub fn render(name: &str, server: &str, authority_pem: &str, client: &Pair) -> String {
    let authority = BASE64_STANDARD.encode(authority_pem);
    let certificate = BASE64_STANDARD.encode(&client.certificate);
    let key = BASE64_STANDARD.encode(&client.key);
    format!(
        "apiVersion: v1
kind: Config
current-context: {name}
clusters:
- name: {name}
  cluster:
    server: {server}
    certificate-authority-data: {authority}
contexts:
- name: {name}
  context:
    cluster: {name}
    user: {name}
users:
- name: {name}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}

#[cfg(test)]
mod tests {
    use kube::config::Kubeconfig;

    use super::*;

    #[test]
    fn is_what_clients_read() {
        let client = Pair {
            certificate: "CERT".into(),
            key: "KEY".into(),
        };
        let read = Kubeconfig::from_yaml(&render("blue", "https://127.0.0.1:6443", "CA", &client)).expect("parses");
        assert_eq!(read.current_context.as_deref(), Some("blue"));
        let cluster = read.clusters[0].cluster.as_ref().expect("cluster");
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:6443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("Q0E="));
        assert_eq!(
            read.contexts[0].context.as_ref().expect("context").user.as_deref(),
            Some("blue")
        );
    }
}
