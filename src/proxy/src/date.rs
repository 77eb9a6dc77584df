use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use http::HeaderValue;

thread_local! {
    static LAST: RefCell<(Duration, HeaderValue)> =
        const { RefCell::new((Duration::ZERO, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))) };
}

/// The time as `Date` has it (RFC 9110 5.6.7), written out once a second.
pub(crate) fn now() -> HeaderValue {
    let time = SystemTime::now();
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    LAST.with_borrow_mut(|(written, value)| {
        if written.as_secs() != since.as_secs()
            && let Ok(new) = HeaderValue::try_from(httpdate::fmt_http_date(time))
        {
            (*written, *value) = (since, new);
        }
        value.clone()
    })
}
