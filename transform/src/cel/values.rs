//! Our values: they borrow the record, and convert a leaf only when an expression reads it.

use std::sync::OnceLock;

use cel::ExecutionError;
use cel::common::traits::{Adder, Container, Indexer, Iterable, Iterator as ValIterator, Sizer, Zeroer};
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelNull, CelString, CelUInt, Kind as TypeKind, LIST_TYPE, MAP_TYPE,
    Type,
};
use cel::common::value::{CowVal, StaticVal, Val};

use super::equality::{equal, equal_lists, equal_maps};
use crate::json::{Kind, Node};
use crate::record::Header;

static TRUE: CelBool = CelBool::TRUE;
static FALSE: CelBool = CelBool::FALSE;
static NULL: CelNull = CelNull;

pub(super) fn bool_val<'b, 'v>(value: bool) -> CowVal<'b, 'v> {
    CowVal::Borrowed(if value { &TRUE } else { &FALSE })
}

pub(super) fn null_val<'b, 'v>() -> CowVal<'b, 'v> {
    CowVal::Borrowed(&NULL)
}

/// A string where the bytes are UTF-8, else bytes.
pub(super) fn text_or_bytes<'b>(bytes: &[u8]) -> CowVal<'b, '_> {
    match std::str::from_utf8(bytes) {
        Ok(text) => CowVal::owned(CelString::from(text)),
        Err(_) => CowVal::owned(CelBytes::from(bytes)),
    }
}

/// A JSON value: integers are int, or uint where only that fits; other numbers are double; a number that none of
/// them holds is a [`BigNumber`].
pub(super) fn node_val<'b>(node: Node<'_>) -> CowVal<'b, '_> {
    match node.kind() {
        Kind::Null => null_val(),
        Kind::True => bool_val(true),
        Kind::False => bool_val(false),
        Kind::Integer => integer(node.raw()),
        Kind::Number => match node.raw().parse::<f64>() {
            Ok(number) if number.is_finite() => CowVal::owned(CelDouble::from(number)),
            _ => CowVal::owned(BigNumber(node.raw().to_owned())),
        },
        Kind::String | Kind::EscapedString | Kind::Name | Kind::EscapedName => {
            CowVal::owned(CelString::from(node.string()))
        }
        Kind::Array => CowVal::owned(ListVal::new(node)),
        Kind::Object => CowVal::owned(MapVal::new(Fields::Json(node))),
    }
}

fn integer<'b, 'v>(text: &str) -> CowVal<'b, 'v> {
    if let Ok(number) = text.parse::<i64>() {
        CowVal::owned(CelInt::from(number))
    } else if let Ok(number) = text.parse::<u64>() {
        CowVal::owned(CelUInt::from(number))
    } else {
        CowVal::owned(BigNumber(text.to_owned()))
    }
}

/// A value without members, operators or iteration: its type, a copy of it, itself, and what the last argument adds.
macro_rules! opaque_val {
    ($val:ty, $of:ident, {$($more:tt)*}) => {
        impl Val for $val {
            fn get_type(&self) -> &Type {
                &$of
            }

            fn cel_type() -> &'static Type {
                &$of
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
            where
                Self: 'v,
            {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn std::any::Any> {
                Some(self)
            }

            $($more)*
        }

        impl StaticVal for $val {}
    };
}
pub(super) use opaque_val;

/// Type of [`BigNumber`].
pub(super) const BIG_NUMBER: Type = Type::new_unspecified_type("number beyond 64 bits");
static BIG_NUMBER_TYPE: Type = BIG_NUMBER;

/// A number that no 64-bit type holds. It can be copied, compared for equality, and made a double or a string on
/// request; it is never rounded behind the user's back.
#[derive(Clone, Debug)]
pub(super) struct BigNumber(String);

impl BigNumber {
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

opaque_val!(BigNumber, BIG_NUMBER_TYPE, {
    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| other.0 == self.0)
    }
});

/// Index that asks one of our maps or lists for its JSON text. Values that borrow cannot be downcast, so a result
/// is asked through its indexer; no expression can make this index.
#[derive(Clone, Debug)]
struct RawText;

opaque_val!(RawText, BIG_NUMBER_TYPE, {});

/// The JSON text of a map or list that is part of a record or a lookup.
pub(super) fn with_raw_text<R>(val: &dyn Val, f: impl FnOnce(Option<&str>) -> R) -> R {
    let text = val.as_indexer().and_then(|indexer| indexer.get(&RawText).ok());
    f(text.as_deref().and_then(<dyn Val>::downcast_ref::<CelString<'_>>).map(CelString::inner))
}

fn wrong_index(idx: &dyn Val, want: &str) -> ExecutionError {
    ExecutionError::UnexpectedType { got: idx.get_type().name().to_owned(), want: want.to_owned() }
}

/// Where a map's fields are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fields<'a> {
    Json(Node<'a>),
    /// The last header of a name counts.
    Headers(&'a [Header<'a>]),
    /// Sorted by name.
    Hash(&'a [(String, Vec<u8>)]),
}

/// A map with string keys.
#[derive(Debug)]
pub(super) struct MapVal<'a> {
    fields: Fields<'a>,
    /// The keys, made when an expression iterates over them: the interpreter wants to borrow them from the map.
    keys: OnceLock<Vec<CelString<'a>>>,
}

impl<'a> MapVal<'a> {
    pub(super) fn new(fields: Fields<'a>) -> Self {
        Self { fields, keys: OnceLock::new() }
    }

    pub(super) fn find<'b>(&self, name: &str) -> Option<CowVal<'b, 'a>> {
        match self.fields {
            Fields::Json(node) => node.get(name).map(node_val),
            Fields::Headers(headers) => headers
                .iter()
                .rfind(|(header, _)| *header == name)
                .map(|(_, value)| value.map_or_else(null_val, text_or_bytes)),
            Fields::Hash(fields) => fields
                .binary_search_by(|(field, _)| field.as_str().cmp(name))
                .ok()
                .map(|at| text_or_bytes(&fields[at].1)),
        }
    }

    fn keys(&self) -> &[CelString<'a>] {
        self.keys.get_or_init(|| match self.fields {
            Fields::Json(node) => node.members().map(|member| CelString::from(member.name.string())).collect(),
            Fields::Headers(headers) => {
                let mut names: Vec<&'a str> = headers.iter().map(|(name, _)| *name).collect();
                names.sort_unstable();
                names.dedup();
                names.into_iter().map(CelString::from).collect()
            }
            Fields::Hash(fields) => fields.iter().map(|(name, _)| CelString::from(name.as_str())).collect(),
        })
    }
}

impl Val for MapVal<'_> {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        static TYPE: Type = MAP_TYPE;
        &TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn as_zeroer(&self) -> Option<&dyn Zeroer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.get_type().kind() == TypeKind::Map && equal_maps(self, other).unwrap_or(false)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(Self::new(self.fields))
    }
}

impl Indexer for MapVal<'_> {
    fn get<'b, 'v>(&'b self, idx: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        if let Some(name) = idx.downcast_ref::<CelString<'_>>() {
            return self.find(name.inner()).ok_or_else(|| ExecutionError::no_such_key(name.inner()));
        }
        match self.fields {
            Fields::Json(node) if idx.downcast_ref::<RawText>().is_some() => {
                Ok(CowVal::owned(CelString::from(node.raw())))
            }
            _ => Err(wrong_index(idx, "string")),
        }
    }

    fn steal<'v>(self: Box<Self>, idx: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(idx).map(CowVal::into_owned)
    }
}

impl Container for MapVal<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        match value.downcast_ref::<CelString<'_>>() {
            Some(name) => Ok(self.find(name.inner()).is_some()),
            None => Ok(false),
        }
    }
}

impl Sizer for MapVal<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.keys().len()).unwrap_or(i64::MAX))
    }
}

impl Zeroer for MapVal<'_> {
    fn is_zero_value(&self) -> bool {
        self.keys().is_empty()
    }
}

impl Iterable for MapVal<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn ValIterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Keys(self.keys().iter()))
    }
}

struct Keys<'b, 'a>(std::slice::Iter<'b, CelString<'a>>);

impl<'b, 'a: 'v, 'v> ValIterator<'b, 'v> for Keys<'b, 'a> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|key| key as &(dyn Val + 'v))
    }
}

/// A JSON array.
#[derive(Debug)]
pub(super) struct ListVal<'a> {
    node: Node<'a>,
    /// The elements, made when an expression needs them.
    elements: OnceLock<Vec<CowVal<'a, 'a>>>,
}

impl<'a> ListVal<'a> {
    pub(super) fn new(node: Node<'a>) -> Self {
        Self { node, elements: OnceLock::new() }
    }

    fn elements(&self) -> &[CowVal<'a, 'a>] {
        self.elements.get_or_init(|| self.node.elements().map(node_val).collect())
    }
}

impl Val for ListVal<'_> {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        static TYPE: Type = LIST_TYPE;
        &TYPE
    }

    fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn Adder + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn as_zeroer(&self) -> Option<&dyn Zeroer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.get_type().kind() == TypeKind::List && equal_lists(self, other).unwrap_or(false)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(Self::new(self.node))
    }
}

impl Adder for ListVal<'_> {
    fn add<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let mut others = match (rhs.get_type().kind(), rhs.as_iterable()) {
            (TypeKind::List, Some(list)) => list.iter(),
            _ => return Err(wrong_index(rhs, "list")),
        };
        let mut sum: Vec<Box<dyn Val + 'v>> = self.elements().iter().map(|item| item.clone_as_boxed()).collect();
        while let Some(item) = others.next() {
            sum.push(item.clone_as_boxed());
        }
        Ok(CowVal::owned(CelList::from(sum)))
    }
}

impl Indexer for ListVal<'_> {
    fn get<'b, 'v>(&'b self, idx: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        if idx.downcast_ref::<RawText>().is_some() {
            return Ok(CowVal::owned(CelString::from(self.node.raw())));
        }
        let position = if let Some(int) = idx.downcast_ref::<CelInt>() {
            usize::try_from(*int.inner()).ok()
        } else if let Some(uint) = idx.downcast_ref::<CelUInt>() {
            usize::try_from(*uint.inner()).ok()
        } else {
            return Err(wrong_index(idx, "int"));
        };
        position
            .and_then(|position| self.node.elements().nth(position))
            .map(node_val)
            .ok_or_else(|| ExecutionError::IndexOutOfBounds(cel::Value::Null))
    }

    fn steal<'v>(self: Box<Self>, idx: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(idx).map(CowVal::into_owned)
    }
}

impl Container for ListVal<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.elements().iter().any(|item| equal(item.as_ref(), value)))
    }
}

impl Sizer for ListVal<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.node.elements().count()).unwrap_or(i64::MAX))
    }
}

impl Zeroer for ListVal<'_> {
    fn is_zero_value(&self) -> bool {
        self.node.elements().next().is_none()
    }
}

impl Iterable for ListVal<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn ValIterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Elements(self.elements().iter()))
    }
}

struct Elements<'b, 'a>(std::slice::Iter<'b, CowVal<'a, 'a>>);

impl<'b, 'a: 'v, 'v> ValIterator<'b, 'v> for Elements<'b, 'a> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|item| &**item as &(dyn Val + 'v))
    }
}
