//! The rights of a worker as ACL rules. Pure.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::RedisAdminError;

/// What all keys of a view, of a lookup or of watermark records start with. Not empty, no white space, no control
/// characters (Redis takes neither in a key pattern).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    /// Checks the text.
    pub fn new(text: impl Into<String>) -> Result<Self, RedisAdminError> {
        let text = text.into();
        let reason = if text.is_empty() {
            "it must not be empty: an empty prefix would give every key"
        } else if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            "white space and control characters cannot be written in an acl pattern"
        } else {
            return Ok(Self(text));
        };
        Err(RedisAdminError::InvalidArgument { what: "key prefix", value: text, reason })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The glob that matches exactly the keys with this prefix.
    pub fn pattern(&self) -> String {
        let mut pattern = String::with_capacity(self.0.len() + 4);
        for c in self.0.chars() {
            if matches!(c, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push('*');
        pattern
    }
}

/// SHA-256 of a password, as ACL rules take it (`#hash`): the text itself never goes to a server's log or ACL file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Of a password.
    pub fn of(password: &SecretString) -> Self {
        use std::fmt::Write as _;
        let digest = Sha256::digest(password.expose_secret().as_bytes());
        let mut hex = String::with_capacity(64);
        for byte in digest {
            write!(hex, "{byte:02x}").expect("writing to a string should not fail");
        }
        Self(hex)
    }
}

/// Not printed: a hash of a weak password can be reversed.
impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// The rules of a worker's user, in the order `ACL SETUSER` must take them.
///
/// Lookups read `read`; views and watermark records read and write `write`. During a rotation there are two `hashes`.
/// Without `write` the user gets no write command and no scripts. The order is meaning: `reset` first, so that no right
/// of an earlier spec stays; whole categories next; then what of them a tenant must not have; then the few commands the
/// worker needs although their category was taken (`INFO` and `ROLE` are in `@dangerous`, `EVAL` in `@scripting`).
/// `SCAN` and `RANDOMKEY` show names of keys outside the patterns. Function libraries are global to a server: one
/// tenant could replace another's.
pub fn worker_user_rules(read: &[KeyPrefix], write: &[KeyPrefix], hashes: &[PasswordHash]) -> Vec<String> {
    let mut rules: Vec<String> = vec!["reset".to_owned(), "on".to_owned()];
    rules.extend(hashes.iter().map(|hash| format!("#{}", hash.0)));
    rules.push("resetchannels".to_owned());
    rules.extend(sorted(read).into_iter().map(|prefix| format!("%R~{}", prefix.pattern())));
    rules.extend(sorted(write).into_iter().map(|prefix| format!("%RW~{}", prefix.pattern())));
    rules.extend(["-@all", "+@read", "+@connection"].map(str::to_owned));
    if !write.is_empty() {
        rules.push("+@write".to_owned());
    }
    rules.extend(["-@dangerous", "-@scripting", "-scan", "-randomkey"].map(str::to_owned));
    if !write.is_empty() {
        rules.extend(["+eval", "+evalsha", "+script|load"].map(str::to_owned));
    }
    rules.extend(["+cluster|shards", "+info", "+role", "+time"].map(str::to_owned));
    rules
}

fn sorted(prefixes: &[KeyPrefix]) -> Vec<&KeyPrefix> {
    let mut sorted: Vec<&KeyPrefix> = prefixes.iter().collect();
    sorted.sort();
    sorted.dedup();
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<KeyPrefix> {
        texts.iter().map(|text| KeyPrefix::new(*text).expect("should be a prefix")).collect()
    }

    #[test]
    fn a_worker_with_lookups_and_views_gets_both_kinds_of_patterns() {
        let hashes = [PasswordHash::of(&SecretString::from("x"))];
        let rules = worker_user_rules(&prefixes(&["stock:{", "price:", "price:"]), &prefixes(&["order:{"]), &hashes);
        assert_eq!(
            rules.join(" "),
            "reset on #2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 resetchannels %R~price:* \
             %R~stock:{* %RW~order:{* -@all +@read +@connection +@write -@dangerous -@scripting -scan -randomkey +eval \
             +evalsha +script|load +cluster|shards +info +role +time"
        );
    }

    #[test]
    fn a_worker_with_lookups_only_gets_no_write_command_and_no_script() {
        let rules = worker_user_rules(&prefixes(&["price:"]), &[], &[]);
        assert_eq!(
            rules.join(" "),
            "reset on resetchannels %R~price:* -@all +@read +@connection -@dangerous -@scripting -scan -randomkey \
             +cluster|shards +info +role +time"
        );
    }

    #[test]
    fn two_passwords_live_side_by_side_in_a_rotation() {
        let hashes = ["a", "b"].map(|text| PasswordHash::of(&SecretString::from(text)));
        let rules = worker_user_rules(&[], &[], &hashes);
        assert_eq!(rules.iter().filter(|rule| rule.starts_with('#')).count(), 2);
    }

    #[test]
    fn glob_characters_of_a_prefix_stand_for_themselves() {
        let cases = [("a*", r"a\**"), ("a?[b]", r"a\?\[b\]*"), (r"a\", r"a\\*"), ("a^-{b}", "a^-{b}*")];
        for (prefix, pattern) in cases {
            assert_eq!(prefixes(&[prefix])[0].pattern(), pattern);
        }
    }

    #[test]
    fn a_prefix_that_gives_everything_or_breaks_the_rule_is_refused() {
        for text in ["", "a b", "a\tb", "a\nb", "a\u{0}b", "a\u{a0}b"] {
            let error = KeyPrefix::new(text).expect_err("should be refused");
            assert_eq!(error.category(), "InvalidArgument");
        }
    }

    #[test]
    fn a_password_hash_is_not_printed() {
        assert_eq!(format!("{:?}", PasswordHash::of(&SecretString::from("x"))), "PasswordHash(…)");
    }
}
