//! ACL bindings.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::time::Duration;

use rdkafka_sys as sys;

use super::AdminHandle;
use super::native::{ErrorText, Native, array, c_text, object_failure, raw, text};
use crate::kafka::admin::{
    AclBinding, AclFilter, AclOperation, AclPermission, AclResource, AdminError, PatternType, Principal,
};

use sys::rd_kafka_AclOperation_t as operation;
use sys::rd_kafka_AclPermissionType_t as permission;
use sys::rd_kafka_ResourcePatternType_t as pattern;
use sys::rd_kafka_ResourceType_t as resource;
use sys::rd_kafka_admin_op_t as op;

type NativeBinding = Native<sys::rd_kafka_AclBinding_t>;

impl AdminHandle {
    pub async fn create_acls(
        &self,
        bindings: &[AclBinding],
        deadline: Duration,
    ) -> Result<Vec<Result<(), AdminError>>, AdminError> {
        if bindings.is_empty() {
            return Ok(Vec::new());
        }
        let (places, distinct) = number(bindings);
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_CREATEACLS, deadline)?;
            let list = distinct.iter().map(|binding| native_binding(binding)).collect::<Result<Vec<_>, _>>()?;
            let mut pointers = Native::pointers(&list);
            self.start("CreateAcls", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe { sys::rd_kafka_CreateAcls(client, pointers.as_mut_ptr(), pointers.len(), options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items =
            event.items("CreateAcls", sys::rd_kafka_event_CreateAcls_result, sys::rd_kafka_CreateAcls_result_acls)?;
        // SAFETY: each item and its error live as long as the event.
        let outcomes: Vec<_> =
            items.iter().map(|item| unsafe { object_failure(sys::rd_kafka_acl_result_error(*item)) }).collect();
        Ok(places.into_iter().map(|place| at(&outcomes, place, "CreateAcls")).collect())
    }

    pub async fn describe_acls(&self, filter: &AclFilter, deadline: Duration) -> Result<Vec<AclBinding>, AdminError> {
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_DESCRIBEACLS, deadline)?;
            let filter = native_filter(filter)?;
            self.start("DescribeAcls", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe { sys::rd_kafka_DescribeAcls(client, filter.ptr(), options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "DescribeAcls",
            sys::rd_kafka_event_DescribeAcls_result,
            sys::rd_kafka_DescribeAcls_result_acls,
        )?;
        // SAFETY: each item lives as long as the event.
        Ok(items.iter().filter_map(|item| unsafe { binding(*item) }).collect())
    }

    pub async fn delete_acls(
        &self,
        bindings: &[AclBinding],
        deadline: Duration,
    ) -> Result<Vec<Result<usize, AdminError>>, AdminError> {
        if bindings.is_empty() {
            return Ok(Vec::new());
        }
        let (places, distinct) = number(bindings);
        let pending = {
            let options = self.options(op::RD_KAFKA_ADMIN_OP_DELETEACLS, deadline)?;
            let list = distinct.iter().map(|binding| exact_filter(binding)).collect::<Result<Vec<_>, _>>()?;
            let mut pointers = Native::pointers(&list);
            self.start("DeleteAcls", &options, |client, options, queue| {
                // SAFETY: all are alive until the call returns, which copies what it needs.
                unsafe { sys::rd_kafka_DeleteAcls(client, pointers.as_mut_ptr(), pointers.len(), options, queue) }
            })?
        };
        let event = pending.finish().await?;
        let items = event.items(
            "DeleteAcls",
            sys::rd_kafka_event_DeleteAcls_result,
            sys::rd_kafka_DeleteAcls_result_responses,
        )?;
        // SAFETY: each item lives as long as the event.
        let outcomes: Vec<_> = items.iter().map(|item| unsafe { deletion(*item) }).collect();
        Ok(places.into_iter().map(|place| at(&outcomes, place, "DeleteAcls")).collect())
    }
}

/// librdkafka refuses a call that names a binding twice: the distinct ones, and where each of the caller's stands.
fn number(bindings: &[AclBinding]) -> (Vec<usize>, Vec<&AclBinding>) {
    let mut distinct = Vec::new();
    let mut seen = BTreeMap::new();
    let places = bindings
        .iter()
        .map(|binding| {
            *seen.entry(binding).or_insert_with(|| {
                distinct.push(binding);
                distinct.len() - 1
            })
        })
        .collect();
    (places, distinct)
}

fn at<T: Clone>(outcomes: &[Result<T, AdminError>], place: usize, call: &'static str) -> Result<T, AdminError> {
    outcomes.get(place).cloned().unwrap_or(Err(AdminError::Incomplete(call)))
}

fn native_resource(kind: AclResource) -> resource {
    match kind {
        AclResource::Topic => resource::RD_KAFKA_RESOURCE_TOPIC,
        AclResource::Group => resource::RD_KAFKA_RESOURCE_GROUP,
        AclResource::TransactionalId => resource::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID,
        // Kafka's CLUSTER has the number that librdkafka calls BROKER.
        AclResource::Cluster => resource::RD_KAFKA_RESOURCE_BROKER,
    }
}

fn native_pattern(kind: PatternType) -> pattern {
    match kind {
        PatternType::Literal => pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
        PatternType::Prefixed => pattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED,
    }
}

const OPERATIONS: [(AclOperation, operation); 11] = [
    (AclOperation::All, operation::RD_KAFKA_ACL_OPERATION_ALL),
    (AclOperation::Read, operation::RD_KAFKA_ACL_OPERATION_READ),
    (AclOperation::Write, operation::RD_KAFKA_ACL_OPERATION_WRITE),
    (AclOperation::Create, operation::RD_KAFKA_ACL_OPERATION_CREATE),
    (AclOperation::Delete, operation::RD_KAFKA_ACL_OPERATION_DELETE),
    (AclOperation::Alter, operation::RD_KAFKA_ACL_OPERATION_ALTER),
    (AclOperation::Describe, operation::RD_KAFKA_ACL_OPERATION_DESCRIBE),
    (AclOperation::ClusterAction, operation::RD_KAFKA_ACL_OPERATION_CLUSTER_ACTION),
    (AclOperation::DescribeConfigs, operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS),
    (AclOperation::AlterConfigs, operation::RD_KAFKA_ACL_OPERATION_ALTER_CONFIGS),
    (AclOperation::IdempotentWrite, operation::RD_KAFKA_ACL_OPERATION_IDEMPOTENT_WRITE),
];

fn native_operation(wanted: AclOperation) -> operation {
    OPERATIONS
        .iter()
        .find(|(ours, _)| *ours == wanted)
        .map_or(operation::RD_KAFKA_ACL_OPERATION_UNKNOWN, |(_, theirs)| *theirs)
}

fn native_permission(kind: AclPermission) -> permission {
    match kind {
        AclPermission::Allow => permission::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
        AclPermission::Deny => permission::RD_KAFKA_ACL_PERMISSION_TYPE_DENY,
    }
}

struct BindingTexts {
    name: CString,
    principal: CString,
    host: CString,
}

fn texts(binding: &AclBinding) -> Result<BindingTexts, AdminError> {
    Ok(BindingTexts {
        name: c_text("acl resource", &binding.name)?,
        principal: c_text("acl principal", &binding.principal.to_string())?,
        host: c_text("acl host", &binding.host)?,
    })
}

fn native_binding(binding: &AclBinding) -> Result<NativeBinding, AdminError> {
    native(binding, sys::rd_kafka_AclBinding_new)
}

/// A filter that matches one binding.
fn exact_filter(binding: &AclBinding) -> Result<NativeBinding, AdminError> {
    native(binding, sys::rd_kafka_AclBindingFilter_new)
}

/// What librdkafka makes bindings and filters with: both take the same, and make the same type.
type NewBinding = unsafe extern "C" fn(
    resource,
    *const c_char,
    pattern,
    *const c_char,
    *const c_char,
    operation,
    permission,
    *mut c_char,
    usize,
) -> *mut sys::rd_kafka_AclBinding_t;

fn native(binding: &AclBinding, new: NewBinding) -> Result<NativeBinding, AdminError> {
    let texts = texts(binding)?;
    let mut error = ErrorText::default();
    // SAFETY: the texts are alive until the call returns, which copies them; the buffer and its size are of a live one.
    let ptr = unsafe {
        new(
            native_resource(binding.resource),
            texts.name.as_ptr(),
            native_pattern(binding.pattern),
            texts.principal.as_ptr(),
            texts.host.as_ptr(),
            native_operation(binding.operation),
            native_permission(binding.permission),
            error.as_mut_ptr(),
            error.capacity(),
        )
    };
    if ptr.is_null() {
        return Err(error.invalid("acl on", &binding.name));
    }
    Native::new(ptr, sys::rd_kafka_AclBinding_destroy, "acl on", &binding.name)
}

fn native_filter(filter: &AclFilter) -> Result<NativeBinding, AdminError> {
    let principal = match &filter.principal {
        Some(principal) => Some(c_text("acl principal", &principal.to_string())?),
        None => None,
    };
    let (kind, pattern_type, name) = match &filter.resource {
        Some((kind, pattern, name)) => {
            (native_resource(*kind), native_pattern(*pattern), Some(c_text("acl resource", name)?))
        }
        None => (resource::RD_KAFKA_RESOURCE_ANY, pattern::RD_KAFKA_RESOURCE_PATTERN_ANY, None),
    };
    let mut error = ErrorText::default();
    // SAFETY: the texts are alive until the call returns, which copies them; null matches everything; the buffer and
    // its size are of a live one.
    let ptr = unsafe {
        sys::rd_kafka_AclBindingFilter_new(
            kind,
            name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr()),
            pattern_type,
            principal.as_ref().map_or(std::ptr::null(), |principal| principal.as_ptr()),
            std::ptr::null(),
            operation::RD_KAFKA_ACL_OPERATION_ANY,
            permission::RD_KAFKA_ACL_PERMISSION_TYPE_ANY,
            error.as_mut_ptr(),
            error.capacity(),
        )
    };
    if ptr.is_null() {
        return Err(error.invalid("acl filter", ""));
    }
    Native::new(ptr, sys::rd_kafka_AclBinding_destroy, "acl filter", "")
}

/// Copies a binding; `None` when it has a kind we do not know.
///
/// # Safety
/// `acl` points to a live binding.
unsafe fn binding(acl: *const sys::rd_kafka_AclBinding_t) -> Option<AclBinding> {
    // SAFETY: alive by the caller's promise; texts are copied.
    unsafe {
        let resource = match raw::rd_kafka_AclBinding_restype(acl) {
            n if n == resource::RD_KAFKA_RESOURCE_TOPIC as i32 => AclResource::Topic,
            n if n == resource::RD_KAFKA_RESOURCE_GROUP as i32 => AclResource::Group,
            n if n == resource::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID as i32 => AclResource::TransactionalId,
            n if n == resource::RD_KAFKA_RESOURCE_BROKER as i32 => AclResource::Cluster,
            _ => return None,
        };
        let pattern = match raw::rd_kafka_AclBinding_resource_pattern_type(acl) {
            n if n == pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL as i32 => PatternType::Literal,
            n if n == pattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED as i32 => PatternType::Prefixed,
            _ => return None,
        };
        let permission = match raw::rd_kafka_AclBinding_permission_type(acl) {
            n if n == permission::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW as i32 => AclPermission::Allow,
            n if n == permission::RD_KAFKA_ACL_PERMISSION_TYPE_DENY as i32 => AclPermission::Deny,
            _ => return None,
        };
        let number = raw::rd_kafka_AclBinding_operation(acl);
        let operation = OPERATIONS.iter().find(|(_, theirs)| *theirs as i32 == number)?.0;
        Some(AclBinding {
            resource,
            pattern,
            name: text(sys::rd_kafka_AclBinding_name(acl)),
            principal: Principal::parse(&text(sys::rd_kafka_AclBinding_principal(acl)))?,
            host: text(sys::rd_kafka_AclBinding_host(acl)),
            operation,
            permission,
        })
    }
}

/// # Safety
/// `response` points to a live response.
unsafe fn deletion(response: *const sys::rd_kafka_DeleteAcls_result_response_t) -> Result<usize, AdminError> {
    // SAFETY: alive by the caller's promise, with its error and its bindings.
    unsafe {
        object_failure(sys::rd_kafka_DeleteAcls_result_response_error(response))?;
        let mut len = 0;
        let acls = array(sys::rd_kafka_DeleteAcls_result_response_matching_acls(response, &raw mut len), len);
        for acl in acls {
            object_failure(sys::rd_kafka_AclBinding_error(*acl))?;
        }
        Ok(acls.len())
    }
}
