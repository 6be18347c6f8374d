//! Who asks: the API server speaks for its users, and nobody else is believed. Pure.
//!
//! `X-Remote-User` and its like are text that anybody can send. They count only on a connection whose client certificate is
//! signed by the front-proxy authority of this cluster (TLS has checked that, and that its key is held) and carries one of the
//! allowed names.

use std::collections::BTreeMap;

use axum::http::HeaderMap;

/// What `kube-system/extension-apiserver-authentication` says of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// PEM of the authorities that sign its certificate.
    pub authorities: String,
    /// Names it may have; empty = any that is signed so.
    allowed_names: Vec<String>,
    user_headers: Vec<String>,
    uid_headers: Vec<String>,
    group_headers: Vec<String>,
    extra_prefixes: Vec<String>,
}

/// Why the cluster's words cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The cluster has no front proxy.
    #[error("{0:?} is missing: the API server has no front-proxy certificate, and nobody could be believed")]
    Missing(&'static str),
    /// Not a list.
    #[error("{0:?} is not a JSON list of texts")]
    NotAList(&'static str),
}

/// Whom the API server speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    /// Name.
    pub name: String,
    /// Uid, if the API server says one.
    pub uid: Option<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// The rest.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Why nobody is believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBelieved {
    /// No certificate of the front proxy.
    #[error("only the API server may ask: the connection has no front-proxy client certificate")]
    NoCertificate,
    /// Signed, but for another name.
    #[error("the client certificate is not for one of the allowed names of the front proxy")]
    Name,
    /// The API server named nobody.
    #[error("the request names no user")]
    NoUser,
}

impl Trust {
    /// From the data of the `ConfigMap`.
    pub fn parse(data: &BTreeMap<String, String>) -> Result<Self, TrustError> {
        const CA: &str = "requestheader-client-ca-file";
        let list = |key: &'static str| match data.get(key).map(|text| text.trim()).filter(|text| !text.is_empty()) {
            None => Ok(Vec::new()),
            Some(text) => serde_json::from_str::<Vec<String>>(text).map_err(|_| TrustError::NotAList(key)),
        };
        let required = |key: &'static str| {
            list(key).and_then(|names| if names.is_empty() { Err(TrustError::Missing(key)) } else { Ok(names) })
        };
        let authorities = data.get(CA).filter(|pem| !pem.trim().is_empty()).ok_or(TrustError::Missing(CA))?;
        Ok(Self {
            authorities: authorities.clone(),
            allowed_names: list("requestheader-allowed-names")?,
            user_headers: required("requestheader-username-headers")?,
            uid_headers: list("requestheader-uid-headers")?,
            group_headers: list("requestheader-group-headers")?,
            extra_prefixes: list("requestheader-extra-headers-prefix")?,
        })
    }

    /// Whom a request speaks for. `peer`: the client certificate's subject, DER without its outer sequence; none = the
    /// connection has no certificate, or none that TLS could check.
    pub fn identify(&self, peer: Option<&[u8]>, headers: &HeaderMap) -> Result<User, NotBelieved> {
        let subject = peer.ok_or(NotBelieved::NoCertificate)?;
        if !self.allowed_names.is_empty() {
            let name = common_name(subject).ok_or(NotBelieved::Name)?;
            if !self.allowed_names.contains(&name) {
                return Err(NotBelieved::Name);
            }
        }
        let all = |name: &String| headers.get_all(name.as_str()).iter().filter_map(|value| text(value.as_bytes()));
        let first = |names: &[String]| names.iter().flat_map(all).find(|value| !value.is_empty());
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (header, value) in headers {
            let name = header.as_str();
            let mut prefixes = self.extra_prefixes.iter().map(|prefix| prefix.to_ascii_lowercase());
            let Some(key) = prefixes.find_map(|prefix| name.strip_prefix(&prefix).map(str::to_owned)) else { continue };
            let key = percent_encoding::percent_decode_str(&key).decode_utf8_lossy().into_owned();
            extra.entry(key).or_default().extend(text(value.as_bytes()));
        }
        Ok(User {
            name: first(&self.user_headers).ok_or(NotBelieved::NoUser)?,
            uid: first(&self.uid_headers),
            groups: self.group_headers.iter().flat_map(all).collect(),
            extra,
        })
    }
}

/// Names of users may be any text, so header values are UTF-8 here.
fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// The one common name of a subject; none when there are several, or it is no text. The certificate's signature has been
/// checked, so this is what the authority wrote; still nothing is read beyond its end.
fn common_name(subject: &[u8]) -> Option<String> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const OBJECT_ID: u8 = 0x06;
    const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
    // UTF8String, PrintableString, T61String, IA5String: all of which are read as UTF-8 or refused.
    const TEXTS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];
    let (mut found, mut sets) = (None, subject);
    while !sets.is_empty() {
        let (tag, mut attributes, rest) = element(sets)?;
        if tag != SET {
            return None;
        }
        sets = rest;
        while !attributes.is_empty() {
            let (tag, attribute, rest) = element(attributes)?;
            attributes = rest;
            let (id_tag, id, value) = element(attribute)?;
            if tag != SEQUENCE || id_tag != OBJECT_ID {
                return None;
            }
            if id != COMMON_NAME {
                continue;
            }
            let (tag, value, _) = element(value)?;
            if !TEXTS.contains(&tag) || found.is_some() {
                return None;
            }
            found = Some(text(value)?);
        }
    }
    found
}

/// Tag, contents and what follows, of a DER element with a definite length of at most two bytes.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => rest.split_first_chunk::<2>().map(|(length, rest)| (usize::from(u16::from_be_bytes(*length)), rest))?,
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(edit: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut data: BTreeMap<String, String> = [
            ("requestheader-client-ca-file", "PEM"),
            ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        data.extend(edit.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        data
    }

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "system:serviceaccount:kube-system:hpa"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-uid", "u1"),
            ("x-remote-extra-scopes%2fof", "s"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    /// A subject of these common names, as DER.
    fn subject(names: &[&str]) -> Vec<u8> {
        let wrap = |tag: u8, contents: Vec<u8>| {
            let mut out = vec![tag];
            if contents.len() > 0x7f {
                out.push(0x81);
            }
            out.push(u8::try_from(contents.len()).unwrap());
            out.extend(contents);
            out
        };
        let organisation = [wrap(0x06, vec![0x55, 0x04, 0x0a]), wrap(0x0c, b"front-proxy-client".to_vec())].concat();
        let mut all = wrap(0x31, wrap(0x30, organisation));
        for name in names {
            let attribute = [wrap(0x06, vec![0x55, 0x04, 0x03]), wrap(0x0c, name.as_bytes().to_vec())].concat();
            all.extend(wrap(0x31, wrap(0x30, attribute)));
        }
        all
    }

    #[test]
    fn users_are_believed_only_with_the_front_proxys_certificate() {
        let trust = Trust::parse(&data(&[])).unwrap();
        let user = trust.identify(Some(&subject(&["front-proxy-client"])), &headers()).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_deref()), ("system:serviceaccount:kube-system:hpa", Some("u1")));
        assert_eq!(user.groups, ["a", "b"]);
        assert_eq!(user.extra, [("scopes/of".to_owned(), vec!["s".to_owned()])].into());

        assert_eq!(trust.identify(None, &headers()), Err(NotBelieved::NoCertificate));
        for other in [&["kubelet"][..], &[], &["front-proxy-client", "kubelet"], &["front-proxy-client "]] {
            assert_eq!(trust.identify(Some(&subject(other)), &headers()), Err(NotBelieved::Name), "{other:?}");
        }
        let nobody = trust.identify(Some(&subject(&["front-proxy-client"])), &HeaderMap::new());
        assert_eq!(nobody, Err(NotBelieved::NoUser));
        let any = Trust::parse(&data(&[("requestheader-allowed-names", "[]")])).unwrap();
        assert!(any.identify(Some(&subject(&["kubelet"])), &headers()).is_ok(), "the cluster allows any name");
        assert_eq!(any.identify(None, &headers()), Err(NotBelieved::NoCertificate));
    }

    #[test]
    fn other_headers_than_the_clusters_name_nobody() {
        let trust = Trust::parse(&data(&[("requestheader-username-headers", r#"["X-My-User"]"#)])).unwrap();
        let subject = subject(&["front-proxy-client"]);
        assert_eq!(trust.identify(Some(&subject), &headers()), Err(NotBelieved::NoUser));
        let mut mine = headers();
        mine.append("x-my-user", "ada".parse().unwrap());
        assert_eq!(trust.identify(Some(&subject), &mine).unwrap().name, "ada");
    }

    #[test]
    fn a_cluster_without_a_front_proxy_is_told_apart() {
        for key in ["requestheader-client-ca-file", "requestheader-username-headers"] {
            let mut data = data(&[]);
            data.remove(key);
            assert_eq!(Trust::parse(&data), Err(TrustError::Missing(key)));
        }
        let broken = data(&[("requestheader-allowed-names", "front-proxy-client")]);
        assert_eq!(Trust::parse(&broken), Err(TrustError::NotAList("requestheader-allowed-names")));
    }

    #[test]
    fn no_byte_is_read_beyond_the_end() {
        let good = subject(&["front-proxy-client"]);
        assert_eq!(common_name(&good).as_deref(), Some("front-proxy-client"));
        let long = "n".repeat(150);
        assert_eq!(common_name(&subject(&[&long])), Some(long));
        for length in 0..good.len() {
            // Cut between two sets it is a shorter subject, of an organisation only.
            assert_eq!(common_name(&good[..length]), None, "{length}");
        }
        for at in 0..good.len() {
            let mut other = good.clone();
            other[at] ^= 0xff;
            // It must come back, and never with more than it was given.
            assert!(common_name(&other).is_none_or(|name| name.len() <= good.len()));
        }
    }
}
