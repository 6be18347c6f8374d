//! SASL as Kafka speaks it: PLAIN (RFC 4616) and SCRAM-SHA-512 (RFC 5802). Pure: the nonce is an argument.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use secrecy::{ExposeSecret, SecretString};

/// Fewest and most rounds of hashing that are accepted: Kafka's own bounds are 4,096 and 16,384, and an answer must not keep us
/// busy for long.
const ROUNDS: std::ops::RangeInclusive<u32> = 4_096..=100_000;

/// What every message of ours begins with: no channel binding, nobody's place is taken.
const HEADER: &str = "n,,";

/// How a user proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha512,
}

impl Mechanism {
    /// By its name in Kafka.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Plain, Self::ScramSha512].into_iter().find(|mechanism| mechanism.as_str() == name)
    }

    /// Its name in Kafka.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Who logs in.
#[derive(Clone, Debug)]
pub struct User {
    pub mechanism: Mechanism,
    pub name: String,
    pub password: SecretString,
}

/// Why a login does not go on. The text never holds a part of the password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    #[error("the broker refuses the login: {0}")]
    Refused(String),
    #[error("the broker's answer to the login is not SCRAM")]
    NotScram,
    #[error("the broker asks for {0} rounds of hashing: between {low} and {high} are accepted", low = ROUNDS.start(), high = ROUNDS.end())]
    Rounds(u32),
    #[error("the broker does not know the user's password itself: it may be somebody else")]
    Impostor,
}

/// The only message of PLAIN.
pub fn plain(user: &User) -> Vec<u8> {
    format!("\0{}\0{}", user.name, user.password.expose_secret()).into_bytes()
}

/// A SCRAM login whose first message is on its way.
#[derive(Debug)]
pub struct Scram {
    nonce: String,
    bare: String,
}

/// A SCRAM login that waits for the broker's own proof.
#[derive(Debug)]
pub struct Proven {
    key: hmac::Key,
    said: String,
}

impl Scram {
    /// `nonce`: random, printable, without a comma; never used twice.
    pub fn new(user: &User, nonce: String) -> Self {
        let name = user.name.replace('=', "=3D").replace(',', "=2C");
        Self { bare: format!("n={name},r={nonce}"), nonce }
    }

    /// The first message.
    pub fn first(&self) -> Vec<u8> {
        format!("{HEADER}{}", self.bare).into_bytes()
    }

    /// The message with our proof, for the broker's first one.
    pub fn prove(self, user: &User, challenge: &[u8]) -> Result<(Vec<u8>, Proven), LoginError> {
        let challenge = std::str::from_utf8(challenge).map_err(|_| LoginError::NotScram)?;
        let nonce = field(challenge, 'r').filter(|nonce| nonce.starts_with(&self.nonce) && *nonce != self.nonce);
        let salt = field(challenge, 's').and_then(|salt| STANDARD.decode(salt).ok());
        let rounds = field(challenge, 'i').and_then(|rounds| rounds.parse().ok());
        let (Some(nonce), Some(salt), Some(rounds)) = (nonce, salt, rounds) else { return Err(LoginError::NotScram) };
        let rounds =
            NonZeroU32::new(rounds).filter(|known| ROUNDS.contains(&known.get())).ok_or(LoginError::Rounds(rounds))?;

        let mut salted = [0; digest::SHA512_OUTPUT_LEN];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA512,
            rounds,
            &salt,
            user.password.expose_secret().as_bytes(),
            &mut salted,
        );
        let salted = hmac::Key::new(hmac::HMAC_SHA512, &salted);
        let mut proof = hmac::sign(&salted, b"Client Key").as_ref().to_vec();
        let stored = hmac::Key::new(hmac::HMAC_SHA512, digest::digest(&digest::SHA512, &proof).as_ref());
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(HEADER));
        let said = format!("{},{challenge},{without_proof}", self.bare);
        for (byte, mask) in proof.iter_mut().zip(hmac::sign(&stored, said.as_bytes()).as_ref()) {
            *byte ^= mask;
        }
        let message = format!("{without_proof},p={}", STANDARD.encode(&proof));
        let key = hmac::Key::new(hmac::HMAC_SHA512, hmac::sign(&salted, b"Server Key").as_ref());
        Ok((message.into_bytes(), Proven { key, said }))
    }
}

impl Proven {
    /// Whether the broker knows the password, too, by its last message.
    pub fn verify(&self, last: &[u8]) -> Result<(), LoginError> {
        let last = std::str::from_utf8(last).map_err(|_| LoginError::NotScram)?;
        if let Some(error) = field(last, 'e') {
            return Err(LoginError::Refused(error.to_owned()));
        }
        let signature = field(last, 'v').and_then(|signature| STANDARD.decode(signature).ok());
        let signature = signature.ok_or(LoginError::NotScram)?;
        hmac::verify(&self.key, self.said.as_bytes(), &signature).map_err(|_| LoginError::Impostor)
    }
}

/// Value of an attribute: messages are `a=…,b=…`.
fn field(message: &str, name: char) -> Option<&str> {
    message.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User { mechanism: Mechanism::ScramSha512, name: "a=b,c".to_owned(), password: "pencil".into() }
    }

    // The expected values are of an independent implementation (Python's hashlib and hmac).
    const CHALLENGE: &str = "r=abcXYZ,s=c2FsdHNhbHQ=,i=4096";
    const PROOF: &str = "4gee3a+rJufqs5udjw+hBU/SbDCybaJZuwN22TQ2+uwv6a6Ge7nibTpKHDLrLUn7W4dvv1rJv7wufAuACxCrWA==";
    const SIGNATURE: &str = "4U2b5zfyTKYokaoEAxjzorZ6r+pt/E/37Y1McTD8qBtTl3cxrbe3YqXpnGSNi5+aDHJilPHI/JaZW1Zwwy/Ltw==";

    fn proven() -> (String, Proven) {
        let scram = Scram::new(&user(), "abc".to_owned());
        assert_eq!(scram.first(), b"n,,n=a=3Db=2Cc,r=abc");
        let (message, proven) = scram.prove(&user(), CHALLENGE.as_bytes()).unwrap();
        (String::from_utf8(message).unwrap(), proven)
    }

    #[test]
    fn who_knows_the_password_proves_it_without_saying_it() {
        let (message, proven) = proven();
        assert_eq!(message, format!("c=biws,r=abcXYZ,p={PROOF}"));
        assert_eq!(proven.verify(format!("v={SIGNATURE}").as_bytes()), Ok(()));
        assert_eq!(plain(&user()), b"\0a=b,c\0pencil");
    }

    #[test]
    fn a_broker_that_does_not_know_it_is_found_out() {
        let (_, proven) = proven();
        assert_eq!(proven.verify(format!("v={PROOF}").as_bytes()), Err(LoginError::Impostor));
        assert_eq!(proven.verify(b"e=invalid-proof"), Err(LoginError::Refused("invalid-proof".to_owned())));
        assert_eq!(proven.verify(b""), Err(LoginError::NotScram));
    }

    #[test]
    fn a_challenge_must_be_for_this_login_and_cost_little() {
        for (challenge, error) in [
            ("r=abc,s=c2FsdHNhbHQ=,i=4096", LoginError::NotScram),
            ("r=xyzabc,s=c2FsdHNhbHQ=,i=4096", LoginError::NotScram),
            ("r=abcXYZ,s=%,i=4096", LoginError::NotScram),
            ("r=abcXYZ,i=4096", LoginError::NotScram),
            ("r=abcXYZ,s=c2FsdHNhbHQ=,i=1", LoginError::Rounds(1)),
            ("r=abcXYZ,s=c2FsdHNhbHQ=,i=0", LoginError::Rounds(0)),
            ("r=abcXYZ,s=c2FsdHNhbHQ=,i=4000000000", LoginError::Rounds(4_000_000_000)),
            ("r=abcXYZ,s=c2FsdHNhbHQ=,i=-1", LoginError::NotScram),
        ] {
            let found = Scram::new(&user(), "abc".to_owned()).prove(&user(), challenge.as_bytes());
            assert_eq!(found.map(drop).unwrap_err(), error, "{challenge}");
        }
    }
}
