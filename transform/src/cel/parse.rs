//! Parsing, guarded: the crate's parser recurses as deep as the text is long, and running recurses as deep as the tree.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, SourceInfo};

use super::check::Finding;
use super::env::env;
use crate::error::Position;

/// Stack for parsing the longest expression, however it is nested. Only what is used of it costs memory.
const PARSER_STACK: usize = 128 << 20;
/// Deepest tree we run. A chain of n operators is n deep.
const MAX_TREE_DEPTH: usize = 40;

/// Runs the compiler on a thread of its own with a stack that no expression exhausts: an overflow would end the
/// process, and the operator compiles what anybody writes.
pub(super) fn on_large_stack<R: Send>(
    compile: impl FnOnce() -> Result<R, Vec<Finding>> + Send,
) -> Result<R, Vec<Finding>> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("compile-cel".to_owned())
            .stack_size(PARSER_STACK)
            .spawn_scoped(scope, compile)
            .map_err(|error| vec![(None, format!("no thread to compile the expression on: {error}"))])?;
        thread.join().unwrap_or_else(|_| Err(vec![(None, "the expression cannot be parsed".to_owned())]))
    })
}

/// Parses an expression. Reports the first mistake only: what follows it is noise.
pub(super) fn parse(source: &str) -> Result<(IdedExpr, SourceInfo), Vec<Finding>> {
    let (tree, info) = env().parser().parse_with_source_info(source).map_err(|errors| match errors.errors.first() {
        Some(error) => vec![(place(error.pos), message(&error.msg))],
        None => vec![(None, "syntax error".to_owned())],
    })?;
    if depth(&tree) > MAX_TREE_DEPTH {
        return Err(vec![(None, TOO_DEEP.to_owned())]);
    }
    Ok((tree, info))
}

const TOO_DEEP: &str = "the expression is nested deeper, or chains more operators, than 40 levels";

fn place(at: (isize, isize)) -> Option<Position> {
    let (line, column) = (usize::try_from(at.0).ok()?, usize::try_from(at.1).ok()?);
    (line > 0).then_some(Position { line, column: column.max(1) })
}

fn message(message: &str) -> String {
    if message.contains("Recursion limit") {
        return TOO_DEEP.to_owned();
    }
    let line = message.lines().next().unwrap_or_default();
    let line = line.strip_prefix("Syntax error: ").unwrap_or(line);
    let short: String = line.chars().take(200).collect();
    format!("syntax error: {short}")
}

fn depth(expr: &IdedExpr) -> usize {
    let deepest = |children: &mut dyn Iterator<Item = &IdedExpr>| children.map(depth).max().unwrap_or(0);
    1 + match &expr.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => 0,
        Expr::Call(call) => deepest(&mut call.target.iter().map(Box::as_ref).chain(&call.args)),
        Expr::Comprehension(inner) => deepest(
            &mut [&inner.iter_range, &inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result].into_iter(),
        ),
        Expr::List(list) => deepest(&mut list.elements.iter()),
        Expr::Map(map) => map.entries.iter().map(|entry| entry_depth(&entry.expr)).max().unwrap_or(0),
        Expr::Select(select) => depth(&select.operand),
        Expr::Struct(inner) => inner.entries.iter().map(|entry| entry_depth(&entry.expr)).max().unwrap_or(0),
    }
}

fn entry_depth(entry: &EntryExpr) -> usize {
    match entry {
        EntryExpr::StructField(field) => depth(&field.value),
        EntryExpr::MapEntry(entry) => depth(&entry.key).max(depth(&entry.value)),
    }
}
