//! Generated passwords: derived, not stored. Pure.
//!
//! HKDF-SHA-256 (RFC 5869) of one install key over who the password is for. The operator can therefore crash anywhere
//! and come to the same password again, needs to read no Secret, and `build` stays pure. Who holds the install key
//! holds every generated password: it is a mounted file in the operator's own namespace and goes nowhere else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;
use sluice_crds::names::{ResourceId, Slot};

/// Shortest install key, in bytes.
pub const INSTALL_KEY_MIN: usize = 32;

/// What a password opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Kafka.
    Kafka,
    /// Redis.
    Redis,
}

/// The key all generated passwords come from.
#[derive(Clone)]
pub struct InstallKey(SecretSlice<u8>);

/// Why a file is no install key.
#[derive(Debug, thiserror::Error)]
#[error("the install key has {bytes} bytes: at least {INSTALL_KEY_MIN} random bytes are needed")]
pub struct WeakInstallKey {
    /// Bytes found.
    pub bytes: usize,
}

impl InstallKey {
    /// From the bytes of its file; surrounding white space is not part of it.
    pub fn new(bytes: &[u8]) -> Result<Self, WeakInstallKey> {
        let bytes = bytes.trim_ascii();
        if bytes.len() < INSTALL_KEY_MIN {
            return Err(WeakInstallKey { bytes: bytes.len() });
        }
        Ok(Self(bytes.to_vec().into()))
    }

    /// The password of a resource's user: 43 characters of the base64url alphabet (256 bits).
    pub fn password(&self, id: &ResourceId, purpose: Purpose, slot: Slot, generation: u32) -> SecretString {
        let bytes: [u8; 32] = self.derive("password", id, purpose, slot, generation);
        SecretString::from(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The salt of a SCRAM credential: other for each user and each password, the same at every attempt.
    pub fn salt(&self, id: &ResourceId, slot: Slot, generation: u32) -> Vec<u8> {
        let bytes: [u8; 32] = self.derive("salt", id, Purpose::Kafka, slot, generation);
        bytes.to_vec()
    }

    fn derive<const N: usize>(
        &self,
        what: &str,
        id: &ResourceId,
        purpose: Purpose,
        slot: Slot,
        generation: u32,
    ) -> [u8; N] {
        let purpose = match purpose {
            Purpose::Kafka => "kafka",
            Purpose::Redis => "redis",
        };
        // None of the parts can hold a zero byte, so no two lists of parts give the same text.
        let generation = generation.to_string();
        let parts = [
            "sluice v1",
            what,
            purpose,
            id.instance.as_str(),
            id.namespace.as_str(),
            id.kind.as_str(),
            id.name.as_str(),
            slot.as_str(),
            &generation,
        ];
        let mut bytes = [0; N];
        Hkdf::<Sha256>::new(None, self.0.expose_secret())
            .expand(parts.join("\0").as_bytes(), &mut bytes)
            .expect("a few dozen bytes should be within what HKDF gives");
        bytes
    }
}

impl std::fmt::Debug for InstallKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InstallKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use sluice_crds::names::{InstanceId, Kind, Namespace, ResourceName};

    use super::*;

    fn id(namespace: &str, name: &str) -> ResourceId {
        ResourceId {
            instance: InstanceId::parse("demo").unwrap(),
            namespace: Namespace::parse(namespace).unwrap(),
            kind: Kind::EventPipeline,
            name: ResourceName::parse(name).unwrap(),
        }
    }

    #[test]
    fn a_password_is_the_same_every_time_and_other_for_everybody_else() {
        let key = InstallKey::new(&[b'k'; 32]).unwrap();
        let of = |id: &ResourceId, purpose, slot, generation| {
            key.password(id, purpose, slot, generation).expose_secret().to_owned()
        };
        let orders = id("shop", "orders");
        let base = of(&orders, Purpose::Kafka, Slot::A, 0);
        assert_eq!(base.len(), 43);
        assert_eq!(base, of(&orders, Purpose::Kafka, Slot::A, 0));
        let others = [
            of(&orders, Purpose::Redis, Slot::A, 0),
            of(&orders, Purpose::Kafka, Slot::B, 0),
            of(&orders, Purpose::Kafka, Slot::A, 1),
            of(&id("shop", "order"), Purpose::Kafka, Slot::A, 0),
            of(&id("sho", "porders"), Purpose::Kafka, Slot::A, 0),
        ];
        assert!(others.iter().all(|other| *other != base));
        let another = InstallKey::new(&[b'l'; 32]).unwrap();
        assert_ne!(another.password(&orders, Purpose::Kafka, Slot::A, 0).expose_secret(), base);
    }

    #[test]
    fn a_short_key_is_refused_and_no_key_is_printed() {
        assert_eq!(InstallKey::new(b"  short \n").unwrap_err().bytes, 5);
        assert_eq!(format!("{:?}", InstallKey::new(&[b'k'; 32]).unwrap()), "InstallKey(…)");
    }
}
