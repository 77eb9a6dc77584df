use fairlead_contract::Window;
use instant_acme::{Account, CertificateIdentifier, Error};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::Der;

use crate::acme::AcmeError;
use crate::pair::Leaf;
use crate::renewal::Answer;

/// Asks for a certificate's renewal info. A window that the certificate could not be renewed in is an
/// error: it counts as no answer (RFC 9773 4.2).
pub(crate) async fn ask(account: &Account, leaf: &Leaf) -> Result<Answer, AcmeError> {
    let Some(certificate) = identify(leaf) else {
        return Ok(Answer::NotOffered);
    };
    let (info, wait) = match account.renewal_info(&certificate).await {
        Err(Error::Unsupported(_)) => return Ok(Answer::NotOffered),
        asked => asked?,
    };
    let suggested = info.suggested_window;
    let window = Window {
        start: to_timestamp(suggested.start.unix_timestamp()),
        end: to_timestamp(suggested.end.unix_timestamp()),
        explanation: info.explanation_url,
    };
    if window.end <= window.start || window.end > leaf.not_after {
        return Err(AcmeError::Window {
            start: window.start,
            end: window.end,
        });
    }
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    Ok(Answer::Window(window, wait))
}

/// How a certificate is named to its authority (RFC 9773 4.1); `None` if it does not say who signed it.
pub(crate) fn identify(leaf: &Leaf) -> Option<CertificateIdentifier<'static>> {
    let authority_key = leaf.authority_key.as_deref()?;
    let identifier =
        CertificateIdentifier::new(Der::from_slice(authority_key), Der::from_slice(&leaf.serial));
    Some(identifier.into_owned())
}

fn to_timestamp(seconds: i64) -> Timestamp {
    let nearest = match seconds {
        ..0 => Timestamp::MIN,
        _ => Timestamp::MAX,
    };
    Timestamp::from_second(seconds).unwrap_or(nearest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn leaf(authority_key: Option<&[u8]>, serial: &[u8]) -> Leaf {
        Leaf {
            names: BTreeSet::new(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::UNIX_EPOCH,
            authority_key: authority_key.map(<[u8]>::to_vec),
            serial: serial.to_vec(),
        }
    }

    #[test]
    fn a_certificate_is_named_by_its_issuers_key_and_its_serial_with_the_leading_zero() {
        // The example of RFC 9773 4.1.
        let key = [
            0x69, 0x88, 0x5b, 0x6b, 0x87, 0x46, 0x40, 0x41, 0xe1, 0xb3, 0x7b, 0x84, 0x7b, 0xa0, 0xae, 0x2c,
            0xde, 0x01, 0xc8, 0xd4,
        ];
        let leaf = |key| leaf(key, &[0x00, 0x87, 0x65, 0x43, 0x21]);
        let identified = identify(&leaf(Some(&key))).unwrap().to_string();
        assert_eq!(identified, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
        assert_eq!(identify(&leaf(None)), None);
    }
}
