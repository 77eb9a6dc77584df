use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::{Response, StatusCode};
use serde_json::Value;

/// Completes the answer to an order that says which certificate it replaces, if the authority made the order and left that
/// out (RFC 9773 5).
///
/// The library would take it for refused, and a second order would be spent that does not say it.
pub(crate) fn complete(sent: &[u8], response: Response<Bytes>) -> Response<Bytes> {
    if response.status() != StatusCode::CREATED {
        return response;
    }
    match say_what_is_replaced(sent, response.body()) {
        Some(body) => response.map(|_| body),
        None => response,
    }
}

fn say_what_is_replaced(sent: &[u8], answer: &[u8]) -> Option<Bytes> {
    let signed: Value = serde_json::from_slice(sent).ok()?;
    let payload = BASE64URL_NOPAD
        .decode(signed["payload"].as_str()?.as_bytes())
        .ok()?;
    let payload: Value = serde_json::from_slice(&payload).ok()?;
    let replaces = payload.get("replaces")?;
    let mut order: Value = serde_json::from_slice(answer).ok()?;
    let order = order.as_object_mut()?;
    if order.get("replaces").is_some_and(|said| !said.is_null()) {
        return None;
    }
    order.insert("replaces".to_owned(), replaces.clone());
    serde_json::to_vec(order).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_order_is_said_to_replace_what_was_asked_for_unless_something_is_said_of_it() {
        let sent = |payload: &Value| {
            let payload = BASE64URL_NOPAD.encode(payload.to_string().as_bytes());
            json!({ "payload": payload }).to_string()
        };
        let replacing = sent(&json!({ "replaces": "a.b" }));
        let plain = sent(&json!({ "identifiers": [] }));
        let silent = json!({ "status": "pending" }).to_string();
        let completed = json!({ "status": "pending", "replaces": "a.b" }).to_string();
        let other = json!({ "replaces": "c.d" }).to_string();
        for (sent, status, answer, expected) in [
            (&replacing, 201, silent.as_str(), completed.as_str()),
            (&replacing, 201, r#"{"replaces":null}"#, r#"{"replaces":"a.b"}"#),
            (&replacing, 201, &other, &other),
            (&replacing, 201, "<html>", "<html>"),
            (&replacing, 200, &silent, &silent),
            (&replacing, 409, &silent, &silent),
            (&plain, 201, &silent, &silent),
            (&String::new(), 201, &silent, &silent),
        ] {
            let response = Response::builder().status(status);
            let response = response.body(Bytes::copy_from_slice(answer.as_bytes())).unwrap();
            let completed = complete(sent.as_bytes(), response);
            let read = |text: &[u8]| serde_json::from_slice::<Value>(text).ok();
            assert_eq!(
                read(completed.body()),
                read(expected.as_bytes()),
                "{status} {answer}"
            );
        }
    }
}
