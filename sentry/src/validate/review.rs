//! Token reviews: what the API server says about a token. There is one for each certificate, so only what counts of its answer is
//! decoded: most of that is the token again, and who has written which field of the review.

use http::{Request, header};
use kube::{Client, Error};
use serde::{Deserialize, Serialize};

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    audiences: &'a [String],
}

#[derive(Deserialize)]
struct Reviewed {
    status: Option<Status>,
}

/// The verdict.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Status {
    authenticated: Option<bool>,
    audiences: Option<Vec<String>>,
    error: Option<String>,
    user: Option<User>,
}

#[derive(Debug, Deserialize)]
struct User {
    username: Option<String>,
}

/// Has a token reviewed for any of these audiences.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub(super) async fn ask(client: &Client, token: &str, audiences: &[String]) -> Result<Status, Error> {
    let review = Review {
        api_version: "authentication.k8s.io/v1",
        kind: "TokenReview",
        spec: Spec { token, audiences },
    };
    let body = serde_json::to_vec(&review).map_err(Error::SerdeError)?;
    let request = Request::post(PATH)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(Error::HttpError)?;
    let reviewed: Reviewed = client.request(request).await?;
    Ok(reviewed.status.unwrap_or_default())
}

impl Status {
    /// The user name that the API server vouches for.
    ///
    /// # Errors
    /// Why it does not, or for whom else the token is.
    pub(super) fn user(self, audiences: &[String]) -> Result<String, String> {
        if let Some(error) = self.error.filter(|error| !error.is_empty()) {
            return Err(format!("invalid token: {error}"));
        }
        if self.authenticated != Some(true) {
            return Err("authentication failed".to_owned());
        }
        // API servers that know audiences say which of ours the token has; others say nothing.
        if let Some(accepted) = self.audiences.filter(|accepted| !accepted.is_empty())
            && !accepted.iter().any(|audience| audiences.contains(audience))
        {
            return Err(format!(
                "invalid token: its audience is none of {}",
                audiences.join(", ")
            ));
        }
        Ok(self.user.and_then(|user| user.username).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_review_has_to_be_positive_and_for_us() {
        let ours = ["dapr.io/sentry".to_owned()];
        let user = |status: serde_json::Value| {
            let reviewed = json!({"metadata": {"managedFields": []}, "spec": {"token": "x"}, "status": status});
            let reviewed: Reviewed = serde_json::from_value(reviewed).unwrap();
            reviewed.status.unwrap_or_default().user(&ours)
        };
        let pod = "system:serviceaccount:shop:default";
        let good = |audiences: serde_json::Value| {
            let user = json!({"username": pod, "uid": "u", "groups": ["g"], "extra": {"a/b": ["c"]}});
            json!({"authenticated": true, "audiences": audiences, "user": user})
        };
        assert_eq!(user(good(json!(["dapr.io/sentry"]))).as_deref(), Ok(pod));
        assert_eq!(
            user(good(json!(null))).as_deref(),
            Ok(pod),
            "old API servers name no audiences"
        );
        assert!(user(good(json!(["other"]))).unwrap_err().contains("audience"));
        for (status, text) in [
            (json!({"authenticated": false}), "authentication failed"),
            (json!(null), "authentication failed"),
            (json!({"user": {"username": pod}}), "authentication failed"),
            (
                json!({"authenticated": false, "error": "expired"}),
                "invalid token: expired",
            ),
        ] {
            assert_eq!(user(status).unwrap_err(), text);
        }
        // A user without a name is no service account, which the next step says.
        assert_eq!(user(json!({"authenticated": true, "error": ""})).as_deref(), Ok(""));
    }
}
