//! Reading a status that anybody may have written.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::Status;

/// Reads a status as far as it can be read: what another version of the operator or somebody else wrote must not make the object
/// unusable, nor hide what is ours in it.
pub(crate) fn readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Status>, D::Error> {
    let Value::Object(mut fields) = Value::deserialize(deserializer)? else {
        return Ok(None);
    };
    Ok(Some(Status {
        observed_generation: field(&mut fields, "observedGeneration"),
        conditions: field::<Vec<Value>>(&mut fields, "conditions").map(each),
        sidecars: field(&mut fields, "sidecars"),
        rejections: field::<Vec<Value>>(&mut fields, "rejections").map(each),
    }))
}

fn field<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(fields.remove(name)?).ok()
}

/// Those that fit.
fn each<T: DeserializeOwned>(values: Vec<Value>) -> Vec<T> {
    let read = values.into_iter().map(serde_json::from_value);
    read.filter_map(Result::ok).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_back_what_was_written() {
        let status = json!({
            "observedGeneration": 3,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "NoSidecars", "message": "m", "observedGeneration": 3,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "sidecars": {"matching": 2, "loaded": 1, "rejected": 1},
            "rejections": [{"app": "a", "pod": "p", "reason": "R", "message": "m", "at": "2026-01-01T00:00:00Z"}],
        });
        let read = readable(status.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), status);
    }

    #[test]
    fn what_does_not_fit_counts_as_absent_and_the_rest_stays() {
        for foreign in [json!("fine"), json!(7), json!([]), json!(null)] {
            assert_eq!(readable(foreign).unwrap(), None);
        }
        for foreign in [json!({"conditions": "none"}), json!({"sidecars": "none"})] {
            assert_eq!(readable(foreign).unwrap(), Some(Status::default()));
        }
        let half = json!({"observedGeneration": 2, "conditions": [
            {"type": "Synced"},
            {"type": "Ready", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]});
        let read = readable(half).unwrap().unwrap();
        assert_eq!(read.observed_generation, Some(2));
        let types: Vec<_> = read
            .conditions
            .unwrap()
            .into_iter()
            .map(|condition| condition.type_)
            .collect();
        assert_eq!(types, ["Ready"]);
    }
}
