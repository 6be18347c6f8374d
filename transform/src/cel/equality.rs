//! `==` and `in`, whichever of our and the crate's lists and maps meet.

use cel::ExecutionError;
use cel::common::types::Kind as TypeKind;
use cel::common::value::Val;

/// CEL equality, whichever of our and the crate's lists and maps meet: the crate's own lists and maps are only equal
/// to each other.
pub(super) fn equal(one: &dyn Val, other: &dyn Val) -> bool {
    match (one.get_type().kind(), other.get_type().kind()) {
        (TypeKind::List, TypeKind::List) => equal_lists(one, other).unwrap_or(false),
        (TypeKind::Map, TypeKind::Map) => equal_maps(one, other).unwrap_or(false),
        _ => one.equals(other),
    }
}

pub(super) fn equal_lists(one: &dyn Val, other: &dyn Val) -> Option<bool> {
    let (mut ones, mut others) = (one.as_iterable()?.iter(), other.as_iterable()?.iter());
    loop {
        match (ones.next(), others.next()) {
            (None, None) => return Some(true),
            (Some(one), Some(other)) if equal(one, other) => {}
            _ => return Some(false),
        }
    }
}

pub(super) fn equal_maps(one: &dyn Val, other: &dyn Val) -> Option<bool> {
    if one.as_sizer()?.size() != other.as_sizer()?.size() {
        return Some(false);
    }
    let (ones, others) = (one.as_indexer()?, other.as_indexer()?);
    let mut keys = one.as_iterable()?.iter();
    while let Some(key) = keys.next() {
        match (ones.get(key), others.get(key)) {
            (Ok(one), Ok(other)) if equal(one.as_ref(), other.as_ref()) => {}
            _ => return Some(false),
        }
    }
    Some(true)
}

/// `item in all`, with the equality of [`equal`].
pub(super) fn contains(all: &dyn Val, item: &dyn Val) -> Result<bool, ExecutionError> {
    let types = || vec![item.get_type().name().to_owned(), all.get_type().name().to_owned()];
    if all.get_type().kind() == TypeKind::List
        && let Some(list) = all.as_iterable()
    {
        let mut elements = list.iter();
        while let Some(element) = elements.next() {
            if equal(element, item) {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    all.as_container().ok_or_else(|| ExecutionError::no_such_overload("@in", types()))?.contains(item)
}
