//! Changes to the syntax tree before it is run.
//!
//! - The crate's lists and maps are only equal to each other, so `==`, `!=` and `in` between things that may be our
//!   lists and maps become calls of our own functions. Comparisons with a scalar literal, the usual case, stay.
//! - Each iteration of a comprehension draws on a budget, so that no record can keep a lane busy for long. The shapes
//!   that the interpreter knows how to run without copying (`map`, `filter`, `all`, `exists`) are kept.

use cel::IdedExpr;
use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue};
use cel::common::types::CelBool;

/// Function for `==`. No expression can write the name.
pub(super) const EQUALS: &str = "@sluice_equals";
/// Function for `in`.
pub(super) const CONTAINS: &str = "@sluice_in";
/// Variable that is true until the budget is spent, and then not there.
pub(super) const FUEL: &str = "@fuel";

pub(super) fn node(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

pub(super) fn call(function: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args })
}

/// Changes a tree in place.
pub(super) fn rewrite(expr: &mut IdedExpr) {
    each_child(&mut expr.expr, &mut rewrite);
    match &mut expr.expr {
        Expr::Call(found) if found.target.is_none() && found.args.len() == 2 => {
            if let Some(replacement) = comparison(found) {
                expr.expr = replacement;
            }
        }
        Expr::Comprehension(comprehension) => meter(comprehension),
        _ => {}
    }
}

fn comparison(found: &mut CallExpr) -> Option<Expr> {
    let scalar = |expr: &IdedExpr| matches!(expr.expr, Expr::Literal(_));
    match found.func_name.as_str() {
        op::EQUALS | op::NOT_EQUALS if found.args.iter().any(scalar) => None,
        op::EQUALS => Some(call(EQUALS, std::mem::take(&mut found.args))),
        op::NOT_EQUALS => {
            let equal = call(EQUALS, std::mem::take(&mut found.args));
            Some(call(op::LOGICAL_NOT, vec![node(equal)]))
        }
        op::IN => match &found.args[1].expr {
            Expr::List(list) if list.elements.iter().all(scalar) => None,
            _ => Some(call(CONTAINS, std::mem::take(&mut found.args))),
        },
        _ => None,
    }
}

/// Makes an expression fail once the budget is spent.
fn metered(expr: &mut IdedExpr, otherwise: Expr) {
    let inner = std::mem::take(expr);
    let id = inner.id;
    let fuel = node(Expr::Ident(FUEL.to_owned()));
    *expr = IdedExpr { id, expr: call(op::CONDITIONAL, vec![fuel, inner, node(otherwise)]) };
}

fn meter(comprehension: &mut ComprehensionExpr) {
    // `map` and `filter` have a literal as condition, and the interpreter recognises them by it.
    if !matches!(comprehension.loop_cond.expr, Expr::Literal(_)) {
        metered(&mut comprehension.loop_cond, Expr::Literal(LiteralValue::Boolean(CelBool::FALSE)));
        return;
    }
    match &mut comprehension.loop_step.expr {
        Expr::Call(step) if step.func_name == op::CONDITIONAL && step.args.len() == 3 => {
            metered(&mut step.args[0], Expr::Literal(LiteralValue::Boolean(CelBool::FALSE)));
        }
        _ => {
            let unchanged = Expr::Ident(comprehension.accu_var.clone());
            metered(&mut comprehension.loop_step, unchanged);
        }
    }
}

/// Calls `f` on the expressions right inside one.
pub(super) fn each_child(expr: &mut Expr, f: &mut impl FnMut(&mut IdedExpr)) {
    match expr {
        Expr::Call(call) => {
            if let Some(target) = &mut call.target {
                f(target);
            }
            call.args.iter_mut().for_each(f);
        }
        Expr::Comprehension(comprehension) => {
            f(&mut comprehension.iter_range);
            f(&mut comprehension.accu_init);
            f(&mut comprehension.loop_cond);
            f(&mut comprehension.loop_step);
            f(&mut comprehension.result);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(f),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                match &mut entry.expr {
                    EntryExpr::StructField(field) => f(&mut field.value),
                    EntryExpr::MapEntry(entry) => {
                        f(&mut entry.key);
                        f(&mut entry.value);
                    }
                }
            }
        }
        Expr::Select(select) => f(&mut select.operand),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => {}
    }
}
