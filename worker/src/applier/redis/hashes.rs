//! The hashes of records as they are asked for and read. Pure, but for one call.

use redis::{Cmd, Pipeline, Value, cmd};
use sluice_clients::redis::{NodeLink, RedisFault};

use crate::applier::engine::OpenError;
use crate::applier::record::{HEADER_FIELD, Header, RecordError};

/// Fields of a hash, without its header once that was taken out.
pub(super) type Fields = Vec<(String, String)>;

pub(super) async fn headers_at(
    link: &NodeLink,
    keys: &[String],
    asking: bool,
) -> Result<Vec<Option<Header>>, RedisFault> {
    let mut pipeline = Pipeline::new();
    for key in keys {
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(get_header(key));
    }
    let answers = link.pipeline(&pipeline).await?;
    let step = if asking { 2 } else { 1 };
    let headers = answers.chunks(step).map(|answers| {
        let value = answers.last()?.as_ref().ok()?;
        Header::parse(&text(value).ok()?).ok()
    });
    Ok(headers.collect())
}

pub(super) fn get_all(key: &str) -> Cmd {
    let mut command = cmd("HGETALL");
    command.arg(key);
    command
}

pub(super) fn get_header(key: &str) -> Cmd {
    let mut command = cmd("HGET");
    command.arg(key).arg(HEADER_FIELD);
    command
}

/// The header apart from the records. A hash without one is not ours.
pub(super) fn take_header(mut fields: Fields) -> Result<Option<(Header, Fields)>, OpenError> {
    if fields.is_empty() {
        return Ok(None);
    }
    let at = fields.iter().position(|(field, _)| field == HEADER_FIELD);
    let (_, text) = fields.swap_remove(at.ok_or(OpenError::Unreadable(RecordError::Malformed))?);
    Ok(Some((Header::parse(&text).map_err(OpenError::Unreadable)?, fields)))
}

pub(super) fn fields(value: &Value) -> Result<Fields, OpenError> {
    let pairs = value.as_map_iter().ok_or(OpenError::Fault(RedisFault::Malformed("HGETALL")))?;
    pairs.map(|(field, value)| Ok((text(field)?, text(value)?))).collect()
}

pub(super) fn text(value: &Value) -> Result<String, OpenError> {
    let bytes = match value {
        Value::BulkString(bytes) => bytes.clone(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => return Ok(text.clone()),
        _ => return Err(OpenError::Fault(RedisFault::Malformed("not a text"))),
    };
    String::from_utf8(bytes).map_err(|_| OpenError::Fault(RedisFault::Malformed("not UTF-8")))
}

/// The value of `name:value` in an answer of INFO.
pub(super) fn info<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Seconds and microseconds → milliseconds.
pub(super) fn read_clock(value: &Value) -> Option<u64> {
    let [seconds, micros] = value.as_sequence()? else { return None };
    let number = |value: &Value| text(value).ok()?.parse::<u64>().ok();
    Some(number(seconds)? * 1_000 + number(micros)? / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read_by_whole_names() {
        let answer = "# Replication\r\nrole:master\r\nmaster_replid2:0\r\nmaster_replid:ab\r\n";
        assert_eq!(info(answer, "master_replid"), Some("ab"));
        assert_eq!(info(answer, "role"), Some("master"));
        assert_eq!(info(answer, "replid"), None);
    }

    #[test]
    fn a_hash_without_a_header_is_not_taken_for_empty() {
        assert_eq!(take_header(Vec::new()), Ok(None));
        let stray = vec![("t:0".to_owned(), "1".to_owned())];
        assert_eq!(take_header(stray), Err(OpenError::Unreadable(RecordError::Malformed)));
    }
}
