//! Our own authority and serving certificate, and when the next ones take over. No IO: randomness is in the keys only.
//!
//! A *generation* is an authority, and one serving certificate signed by it. The authority's key is thrown away at once:
//! nothing else will ever be signed by it. What is told to the API server (`caBundle`) holds the authorities of all generations
//! there are, so that a new one is trusted a day before it serves and an old one a day after it has served.
//!
//! ```text
//! day 0        day 60                day 61           day 62
//! a serves     b is made, trusted    b serves         a is forgotten
//! ```

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use secrecy::{ExposeSecret, SecretString};

const DAY: i64 = 86_400;
/// A generation is valid for so long, in seconds.
const VALID: i64 = 90 * DAY;
/// The next one is made when the newest is so old, in seconds.
const RENEWED: i64 = 60 * DAY;
/// Between a generation is trusted and it serves, and between it has served and it is forgotten, in seconds. The API server
/// sees a new `caBundle` at once; the day is for operators and API servers that do not see anything for a while.
const OVERLAP: i64 = DAY;
/// Clocks differ.
const SKEW: i64 = 3_600;

/// An authority and its one serving certificate.
#[derive(Clone, Debug)]
pub struct Generation {
    /// When it was made, Unix seconds; also its name.
    pub made: i64,
    /// PEM of the authority.
    pub authority: String,
    /// PEM of the serving certificate.
    pub certificate: String,
    /// PEM of its key.
    pub key: SecretString,
}

/// All generations there are, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Generations(Vec<Generation>);

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
#[error("a certificate could not be made: {0}")]
pub struct CertificateError(#[from] rcgen::Error);

impl Generations {
    /// From the data of the Secret. What is not whole is left out: it is made anew.
    pub fn read(data: &BTreeMap<String, ByteString>) -> Self {
        let text =
            |key: String| String::from_utf8(data.get(&key)?.0.clone()).ok().filter(|text| !text.trim().is_empty());
        let names = data.keys().filter_map(|key| key.strip_suffix(".ca.crt"));
        let mut all: Vec<Generation> = names
            .filter_map(|name| {
                Some(Generation {
                    made: name.parse().ok()?,
                    authority: text(format!("{name}.ca.crt"))?,
                    certificate: text(format!("{name}.tls.crt"))?,
                    key: text(format!("{name}.tls.key"))?.into(),
                })
            })
            .collect();
        all.sort_by_key(|generation| generation.made);
        Self(all)
    }

    /// For the data of the Secret.
    pub fn write(&self) -> BTreeMap<String, ByteString> {
        let entry = |generation: &Generation| {
            let made = generation.made;
            let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
            [
                (format!("{made}.ca.crt"), bytes(&generation.authority)),
                (format!("{made}.tls.crt"), bytes(&generation.certificate)),
                (format!("{made}.tls.key"), bytes(generation.key.expose_secret())),
            ]
        };
        self.0.iter().flat_map(entry).collect()
    }

    /// The generations as they should be now, if these are not: one more, or fewer. `name`: what the serving certificate is
    /// for. `now`: Unix seconds.
    pub fn due(&self, names: &[String], now: i64) -> Result<Option<Self>, CertificateError> {
        let usable = |generation: &&Generation| generation.made <= now + SKEW && now < generation.made + VALID;
        let mut all: Vec<Generation> = self.0.iter().filter(usable).cloned().collect();
        if all.last().is_none_or(|newest| now >= newest.made + RENEWED) {
            all.push(generate(names, now)?);
        }
        let next = Self(all);
        let serving = next.serving(now).map(|serving| serving.made);
        let keep = |generation: &Generation| {
            // Older than what has served for a day.
            serving.is_none_or(|serving| generation.made >= serving || now < serving + 2 * OVERLAP)
        };
        let next = Self(next.0.into_iter().filter(keep).collect());
        let names = |all: &Self| all.0.iter().map(|generation| generation.made).collect::<Vec<_>>();
        Ok((names(&next) != names(self)).then_some(next))
    }

    /// What is served with now: the newest that has been trusted for a day, or the oldest there is.
    pub fn serving(&self, now: i64) -> Option<&Generation> {
        let trusted = self.0.iter().rev().find(|generation| now >= generation.made + OVERLAP);
        trusted.or(self.0.first())
    }

    /// PEM of all authorities.
    pub fn bundle(&self) -> String {
        self.0.iter().map(|generation| generation.authority.as_str()).collect()
    }
}

fn generate(names: &[String], now: i64) -> Result<Generation, CertificateError> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.distinguished_name.push(DnType::CommonName, format!("sluice external metrics {now}"));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    valid(&mut authority, now);
    let authority_key = KeyPair::generate()?;
    let authority_pem = authority.self_signed(&authority_key)?.pem();

    let mut serving = CertificateParams::new(names.to_vec())?;
    serving.distinguished_name.push(DnType::CommonName, "sluice external metrics");
    serving.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    serving.use_authority_key_identifier_extension = true;
    valid(&mut serving, now);
    let key = KeyPair::generate()?;
    let certificate = serving.signed_by(&key, &Issuer::new(authority, authority_key))?.pem();
    let key = key.serialize_pem().into();
    Ok(Generation { made: now, authority: authority_pem, certificate, key })
}

/// In whole days, a little longer than we count on.
fn valid(params: &mut CertificateParams, now: i64) {
    let midnight = |seconds: i64| {
        let day = jiff::Timestamp::from_second(seconds).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC).date();
        rcgen::date_time_ymd(day.year().into(), day.month().unsigned_abs(), day.day().unsigned_abs())
    };
    (params.not_before, params.not_after) = (midnight(now - SKEW), midnight(now + VALID + DAY));
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_700_000_000;

    fn names() -> Vec<String> {
        vec!["sluice-external-metrics.sluice-system.svc".to_owned()]
    }

    fn made(generations: &Generations) -> Vec<i64> {
        generations.0.iter().map(|generation| (generation.made - START) / DAY).collect()
    }

    /// Goes through days as the operator does.
    fn live(generations: &mut Generations, days: impl IntoIterator<Item = i64>) -> Vec<(i64, Vec<i64>, i64)> {
        let (mut changes, mut served) = (Vec::new(), None);
        for day in days {
            let now = START + day * DAY;
            let due = generations.due(&names(), now).unwrap();
            let any = due.is_some();
            *generations = due.unwrap_or_else(|| generations.clone());
            let serving = generations.serving(now).unwrap().made;
            if served.replace(serving) != Some(serving) || any {
                changes.push((day, made(generations), (serving - START) / DAY));
            }
        }
        changes
    }

    #[test]
    fn the_next_one_is_trusted_before_it_serves_and_the_last_one_after() {
        let mut generations = Generations::default();
        let changes = live(&mut generations, 0..=123);
        let expected = [
            (0, vec![0], 0),
            (60, vec![0, 60], 0),
            (61, vec![0, 60], 60),
            (62, vec![60], 60),
            (120, vec![60, 120], 60),
            (121, vec![60, 120], 120),
            (122, vec![120], 120),
        ];
        assert_eq!(changes, expected);
    }

    #[test]
    fn after_a_long_sleep_nothing_that_has_expired_is_served() {
        let mut generations = Generations::default();
        live(&mut generations, [0]);
        assert_eq!(live(&mut generations, [95]), [(95, vec![95], 95)]);
        // Asleep while the next one waited for its day.
        let mut generations = Generations::default();
        live(&mut generations, [0, 60]);
        assert_eq!(live(&mut generations, [89]), [(89, vec![60], 60)]);
        // The clock was far ahead when it was made.
        assert_eq!(live(&mut generations, [10]), [(10, vec![10], 10)]);
    }

    #[test]
    fn a_secret_keeps_them_and_what_is_broken_is_made_anew() {
        let mut generations = Generations::default();
        live(&mut generations, [0, 60]);
        let data = generations.write();
        assert_eq!(made(&Generations::read(&data)), [0, 60]);
        for key in data.keys().filter(|key| key.starts_with(&format!("{}.", START + 60 * DAY))) {
            let mut broken = data.clone();
            broken.insert(key.clone(), ByteString(Vec::new()));
            assert_eq!(made(&Generations::read(&broken)), [0], "{key}");
        }
        assert!(!format!("{generations:?}").contains("PRIVATE"));
        assert_eq!(generations.bundle().matches("BEGIN CERTIFICATE").count(), 2);
    }

    #[test]
    fn the_certificate_is_for_the_service_and_of_its_authority() {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
        let generation = generate(&names(), START).unwrap();
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (authority, certificate) = (der(&generation.authority), der(&generation.certificate));
        let anchors = [webpki::anchor_from_trusted_cert(&authority).unwrap()];
        let certificate = webpki::EndEntityCert::try_from(&certificate).unwrap();
        let at = |seconds: i64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds.unsigned_abs()));
        let check = |seconds, usage| {
            certificate
                .verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &[], at(seconds), usage, None, None)
                .is_ok()
        };
        let server = webpki::KeyUsage::server_auth;
        assert!(check(START, server()) && check(START + VALID - 1, server()) && !check(START + VALID + DAY, server()));
        assert!(!check(START, webpki::KeyUsage::client_auth()), "it opens nothing as a client");
        let named =
            |name: &str| certificate.verify_is_valid_for_subject_name(&ServerName::try_from(name.to_owned()).unwrap());
        assert!(named(&names()[0]).is_ok() && named("other.svc").is_err());
    }
}
