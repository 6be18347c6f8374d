//! What the crate does not check: every variable and function an expression names must exist, before the first record.

use std::collections::BTreeSet;

use cel::IdedExpr;
use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, EntryExpr, Expr, SourceInfo};

use super::env::{FUNCTIONS, Signature};
use crate::error::Position;

/// Variables of every record.
pub(crate) const RECORD_VARIABLES: [&str; 7] = ["key", "value", "headers", "topic", "partition", "offset", "timestamp"];
/// What the key of a view may see: a Redis key then belongs to one record key of one topic, so to one partition.
pub(crate) const VIEW_KEY_VARIABLES: [&str; 2] = ["key", "topic"];
/// Types that can be named, as in `type(x) == int`.
const TYPES: [&str; 10] = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];
/// First parts of functions with a dotted name.
const NAMESPACES: [&str; 2] = ["math", "optional"];
/// Words that CEL keeps for itself.
const KEYWORDS: [&str; 20] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
];
const OPERATORS: [&str; 22] = [
    op::CONDITIONAL,
    op::LOGICAL_AND,
    op::LOGICAL_OR,
    op::LOGICAL_NOT,
    op::SUBSTRACT,
    op::ADD,
    op::MULTIPLY,
    op::DIVIDE,
    op::MODULO,
    op::EQUALS,
    op::NOT_EQUALS,
    op::GREATER_EQUALS,
    op::LESS_EQUALS,
    op::GREATER,
    op::LESS,
    op::NEGATE,
    op::INDEX,
    op::OPT_INDEX,
    op::OPT_SELECT,
    op::IN,
    op::NOT_STRICTLY_FALSE,
    "math.@max",
];

/// Why a step cannot have a name, if it cannot: the name of a lookup is a variable.
pub(crate) fn reserved_name(name: &str) -> Option<&'static str> {
    if RECORD_VARIABLES.contains(&name) {
        Some("is a variable of every record")
    } else if KEYWORDS.contains(&name) || TYPES.contains(&name) || NAMESPACES.contains(&name) {
        Some("is a word of CEL")
    } else {
        None
    }
}

/// What is wrong, and where.
pub(crate) type Finding = (Option<Position>, String);

/// Variables of an expression, and what is wrong with it.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) variables: BTreeSet<String>,
    pub(super) findings: Vec<Finding>,
}

/// Checks a tree as it was parsed.
pub(super) fn check(expr: &IdedExpr, info: &SourceInfo, known: &[&str]) -> Checked {
    let mut checker = Checker { info, known, bound: Vec::new(), checked: Checked::default() };
    checker.visit(expr);
    checker.checked
}

struct Checker<'a> {
    info: &'a SourceInfo,
    known: &'a [&'a str],
    /// Variables of the comprehensions around.
    bound: Vec<&'a str>,
    checked: Checked,
}

impl<'a> Checker<'a> {
    fn find(&mut self, expr: &IdedExpr, message: String) {
        let position = position(self.info, expr);
        self.checked.findings.push((position, message));
    }

    fn visit(&mut self, expr: &'a IdedExpr) {
        match &expr.expr {
            Expr::Ident(name) => self.variable(expr, name),
            Expr::Call(call) => self.call(expr, call),
            Expr::Comprehension(comprehension) => {
                self.visit(&comprehension.iter_range);
                self.visit(&comprehension.accu_init);
                let outside = self.bound.len();
                self.bound.push(&comprehension.iter_var);
                self.bound.extend(comprehension.iter_var2.as_deref());
                self.bound.push(&comprehension.accu_var);
                self.visit(&comprehension.loop_cond);
                self.visit(&comprehension.loop_step);
                self.visit(&comprehension.result);
                self.bound.truncate(outside);
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.visit(element)),
            Expr::Map(map) => {
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::StructField(field) => self.visit(&field.value),
                        EntryExpr::MapEntry(entry) => {
                            self.visit(&entry.key);
                            self.visit(&entry.value);
                        }
                    }
                }
            }
            Expr::Select(select) => self.visit(&select.operand),
            Expr::Struct(_) => self.find(expr, "messages cannot be made here: use a map, {\"name\": value}".to_owned()),
            Expr::Unspecified | Expr::Literal(_) => {}
        }
    }

    fn variable(&mut self, expr: &IdedExpr, name: &str) {
        let name = name.strip_prefix('.').unwrap_or(name);
        if self.bound.contains(&name) || TYPES.contains(&name) {
            return;
        }
        if !self.known.contains(&name) {
            let known = self.known.join(", ");
            self.find(expr, format!("unknown variable {name:?}: known here are {known}"));
        }
        self.checked.variables.insert(name.to_owned());
    }

    fn call(&mut self, expr: &'a IdedExpr, call: &'a CallExpr) {
        let name = call.func_name.as_str();
        let qualified = call.target.as_deref().and_then(dotted).map(|target| format!("{target}.{name}"));
        let is_global = |name: &str| FUNCTIONS.iter().any(|known| !known.member && known.name == name);
        if let Some(global) = qualified.filter(|global| is_global(global)) {
            self.signature(expr, &global, false, call.args.len());
        } else if let Some(target) = &call.target {
            self.visit(target);
            self.signature(expr, name, true, call.args.len());
        } else if !OPERATORS.contains(&name) && name != "math.@min" {
            self.signature(expr, name, false, call.args.len());
        }
        call.args.iter().for_each(|arg| self.visit(arg));
    }

    fn signature(&mut self, expr: &IdedExpr, name: &str, member: bool, count: usize) {
        let same_name: Vec<&Signature> = FUNCTIONS.iter().filter(|known| known.name == name).collect();
        let message = match same_name.iter().find(|known| known.member == member) {
            Some(known) if (known.least..=known.most).contains(&count) => return,
            Some(known) if known.least == known.most => {
                format!("{name} takes {} arguments, not {count}", known.least)
            }
            Some(known) => format!("{name} takes {} to {} arguments, not {count}", known.least, known.most),
            None if same_name.is_empty() => format!("unknown function {name:?}"),
            None if member => format!("{name} is called as {name}(x), not as x.{name}()"),
            None => format!("{name} is called as x.{name}(), not as {name}(x)"),
        };
        self.find(expr, message);
    }
}

fn dotted(expr: &IdedExpr) -> Option<String> {
    match &expr.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => Some(format!("{}.{}", dotted(&select.operand)?, select.field)),
        _ => None,
    }
}

/// Line and column of a node, from its offset in bytes.
pub(super) fn position(info: &SourceInfo, expr: &IdedExpr) -> Option<Position> {
    let (start, _) = info.offset_for(expr.id)?;
    // Of a call, the offset is that of the bracket after its name.
    let name = match &expr.expr {
        Expr::Call(call) if !OPERATORS.contains(&call.func_name.as_str()) => call.func_name.len(),
        _ => 0,
    };
    let start = (start as usize).saturating_sub(name);
    let mut position = Position { line: 1, column: 1 };
    for (at, character) in info.source.char_indices() {
        if at >= start {
            break;
        }
        if character == '\n' {
            position = Position { line: position.line + 1, column: 1 };
        } else {
            position.column += 1;
        }
    }
    Some(position)
}
