//! App ids: what the injector accepts, and the names derived from them.

/// Why an app id cannot be used. The texts are those that upstream's injector returns to the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppIdError {
    #[error("value for the dapr.io/app-id annotation is empty")]
    Empty,
    #[error("invalid app id (input: '{id}', service: '{service}'): {details}")]
    Invalid {
        id: String,
        service: String,
        details: String,
    },
}

const TOO_LONG: &str = "must be no more than 63 characters";
const BAD_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
'[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

/// Name of the Service that the operator creates for an app.
pub fn service_name(app_id: &str) -> String {
    format!("{app_id}-dapr")
}

/// Checks an app id the way upstream does: through the name of its Service.
///
/// # Errors
/// Names the app id, the Service name and each rule that it breaks.
pub fn validate(app_id: &str) -> Result<(), AppIdError> {
    if app_id.is_empty() {
        return Err(AppIdError::Empty);
    }
    let service = service_name(app_id);
    let mut details = Vec::new();
    if service.len() > 63 {
        details.push(TOO_LONG);
    }
    if !is_dns_label(&service) {
        details.push(BAD_LABEL);
    }
    if details.is_empty() {
        return Ok(());
    }
    Err(AppIdError::Invalid {
        id: app_id.to_owned(),
        service,
        details: details.join("\n"),
    })
}

/// `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`, without the length rule.
fn is_dns_label(text: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(*first) && alphanumeric(*last) && bytes.iter().all(|c| alphanumeric(*c) || *c == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_up_to_58_characters() {
        assert_eq!(validate("cart"), Ok(()));
        assert_eq!(validate(&"a".repeat(58)), Ok(()));
        assert!(validate(&"a".repeat(59)).unwrap_err().to_string().ends_with(TOO_LONG));
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(validate(""), Err(AppIdError::Empty));
        let message = validate("My_App").unwrap_err().to_string();
        assert!(message.starts_with("invalid app id (input: 'My_App', service: 'My_App-dapr'): a lowercase RFC 1123"));
        assert!(
            validate(&"A".repeat(70))
                .unwrap_err()
                .to_string()
                .contains("63 characters\na lowercase")
        );
    }
}
