use fairlead_contract::KeyType;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize};

/// Makes a new key.
pub(crate) fn generate(kind: KeyType) -> Result<KeyPair, rcgen::Error> {
    let rsa = |size| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size);
    match kind {
        KeyType::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyType::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        KeyType::Rsa2048 => rsa(RsaKeySize::_2048),
        KeyType::Rsa3072 => rsa(RsaKeySize::_3072),
        KeyType::Rsa4096 => rsa(RsaKeySize::_4096),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateParams;

    use super::*;
    use crate::pair::Pair;

    #[test]
    fn a_key_of_every_kind_signs_and_reads_back() {
        for kind in [
            KeyType::P256,
            KeyType::P384,
            KeyType::Rsa2048,
            KeyType::Rsa3072,
            KeyType::Rsa4096,
        ] {
            let pem = generate(kind).unwrap().serialize_pem();
            let key = KeyPair::from_pem(&pem).unwrap();
            let parameters = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
            let chain = parameters.self_signed(&key).unwrap().pem();
            assert!(Pair::parse(chain.as_bytes(), pem.as_bytes()).is_ok(), "{kind:?}");
        }
    }
}
