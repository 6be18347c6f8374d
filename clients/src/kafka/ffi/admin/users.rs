//! SCRAM-SHA-512 users.

use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as sys;
use secrecy::ExposeSecret;

use super::AdminHandle;
use super::native::{Native, c_text, c_texts, complete, object_failure, raw, text};
use super::topics::distinct;
use crate::kafka::admin::{AdminError, ByName, ScramChange, ScramOutcome, ScramUser, error_code};

use sys::rd_kafka_admin_op_t as op;

const MECHANISM: sys::rd_kafka_ScramMechanism_t = sys::rd_kafka_ScramMechanism_t::RD_KAFKA_SCRAM_MECHANISM_SHA_512;

impl AdminHandle {
    pub async fn alter_scram_users(
        &self,
        changes: &[ScramChange],
        deadline: Duration,
    ) -> Result<ByName<ScramOutcome>, AdminError> {
        if changes.is_empty() {
            return Ok(ByName::new());
        }
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_ALTERUSERSCRAMCREDENTIALS, deadline)?;
            let list = changes.iter().map(alteration).collect::<Result<Vec<_>, _>>()?;
            let mut pointers = Native::pointers(&list);
            self.start("AlterUserScramCredentials", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe {
                    let (list, len) = (pointers.as_mut_ptr(), pointers.len());
                    sys::rd_kafka_AlterUserScramCredentials(client, list, len, options, queue);
                }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "AlterUserScramCredentials",
            sys::rd_kafka_event_AlterUserScramCredentials_result,
            sys::rd_kafka_AlterUserScramCredentials_result_responses,
        )?;
        // SAFETY: each item lives as long as the event.
        let outcomes = items.iter().map(|item| unsafe { outcome(*item) }).collect();
        Ok(complete("AlterUserScramCredentials", changes.iter().map(|change| change.user().to_owned()), outcomes))
    }

    pub async fn describe_scram_users(
        &self,
        users: Option<&[String]>,
        deadline: Duration,
    ) -> Result<ByName<Option<ScramUser>>, AdminError> {
        if users.is_some_and(<[String]>::is_empty) {
            return Ok(ByName::new());
        }
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_DESCRIBEUSERSCRAMCREDENTIALS, deadline)?;
            let (_texts, mut pointers) = c_texts("user", distinct(users.unwrap_or_default()))?;
            self.start("DescribeUserScramCredentials", &options, |client, options, queue| {
                let list = if pointers.is_empty() { std::ptr::null_mut() } else { pointers.as_mut_ptr() };
                // SAFETY: all are alive until the call returns, which copies what it needs; null with 0 means all.
                unsafe { sys::rd_kafka_DescribeUserScramCredentials(client, list, pointers.len(), options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "DescribeUserScramCredentials",
            sys::rd_kafka_event_DescribeUserScramCredentials_result,
            sys::rd_kafka_DescribeUserScramCredentials_result_descriptions,
        )?;
        // SAFETY: each item lives as long as the event.
        let outcomes = items.iter().map(|item| unsafe { description(*item) }).collect();
        Ok(complete("DescribeUserScramCredentials", users.unwrap_or_default().iter().cloned(), outcomes))
    }
}

fn alteration(change: &ScramChange) -> Result<Native<sys::rd_kafka_UserScramCredentialAlteration_t>, AdminError> {
    let invalid = |reason: &str| AdminError::InvalidArgument {
        what: "scram user",
        value: change.user().to_owned(),
        reason: reason.to_owned(),
    };
    if change.user().is_empty() {
        return Err(invalid("it is empty"));
    }
    let user = c_text("scram user", change.user())?;
    let ptr = match change {
        ScramChange::Delete { .. } => {
            // SAFETY: the name is alive until the call returns, which copies it.
            unsafe { sys::rd_kafka_UserScramCredentialDeletion_new(user.as_ptr(), MECHANISM) }
        }
        ScramChange::Upsert { password, iterations, salt, .. } => {
            let password = password.expose_secret().as_bytes();
            if password.is_empty() || salt.is_empty() {
                return Err(invalid("its password or salt is empty"));
            }
            let iterations = i32::try_from(*iterations).map_err(|_| invalid("too many iterations"))?;
            // SAFETY: the name, password and salt are alive until the call returns, which copies them.
            unsafe {
                sys::rd_kafka_UserScramCredentialUpsertion_new(
                    user.as_ptr(),
                    MECHANISM,
                    iterations,
                    password.as_ptr(),
                    password.len(),
                    salt.as_ptr(),
                    salt.len(),
                )
            }
        }
    };
    Native::new(ptr, sys::rd_kafka_UserScramCredentialAlteration_destroy, "scram user", change.user())
}

/// # Safety
/// `response` points to a live response.
unsafe fn outcome(
    response: *const sys::rd_kafka_AlterUserScramCredentials_result_response_t,
) -> (String, Result<ScramOutcome, AdminError>) {
    // SAFETY: alive by the caller's promise, with its error; texts are copied.
    unsafe {
        let user = text(sys::rd_kafka_AlterUserScramCredentials_result_response_user(response));
        let error = sys::rd_kafka_AlterUserScramCredentials_result_response_error(response);
        (user, is_known(error).map(|known| if known { ScramOutcome::Changed } else { ScramOutcome::NotFound }))
    }
}

/// # Safety
/// `description` points to a live description.
unsafe fn description(
    description: *const sys::rd_kafka_UserScramCredentialsDescription_t,
) -> (String, Result<Option<ScramUser>, AdminError>) {
    // SAFETY: alive by the caller's promise, with its error and its `count` credentials; texts are copied.
    unsafe {
        let user = text(sys::rd_kafka_UserScramCredentialsDescription_user(description));
        let error = sys::rd_kafka_UserScramCredentialsDescription_error(description);
        let count = sys::rd_kafka_UserScramCredentialsDescription_scramcredentialinfo_count(description);
        let found = (0..count)
            .map(|index| sys::rd_kafka_UserScramCredentialsDescription_scramcredentialinfo(description, index))
            .find(|info| raw::rd_kafka_ScramCredentialInfo_mechanism(*info) == MECHANISM as i32)
            .map(|info| sys::rd_kafka_ScramCredentialInfo_iterations(info));
        let found = found.map(|rounds| ScramUser { iterations: u32::try_from(rounds).unwrap_or(0) });
        (user, is_known(error).map(|known| if known { found } else { None }))
    }
}

/// False when the error says that there is no such credential.
///
/// # Safety
/// `error` is null or points to a live error object.
unsafe fn is_known(error: *const sys::rd_kafka_error_t) -> Result<bool, AdminError> {
    // SAFETY: by the caller's promise.
    unsafe {
        if !error.is_null() && error_code(raw::rd_kafka_error_code(error)) == RDKafkaErrorCode::ResourceNotFound {
            return Ok(false);
        }
        object_failure(error).map(|()| true)
    }
}
