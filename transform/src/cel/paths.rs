//! Paths, resolved in one step.
//!
//! The interpreter reads `value.customer.email` by joining names, asking for each prefix as a variable and a type, and
//! making a value for each member on the way. Here each such path becomes one variable that leads straight to the
//! member. It is there exactly when the path could be read; when it cannot, the expression fails, and is run again as
//! it was written for the right message.

use cel::IdedExpr;
use cel::common::ast::{Expr, SelectExpr};

use super::rewrite::each_child;

/// A variable and at least one member.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) variable: String,
    pub(super) members: Vec<String>,
}

/// Index of the path that a variable stands for. No expression can write such a name.
pub(super) fn index(variable: &str) -> Option<usize> {
    variable.strip_prefix('@')?.parse().ok()
}

/// Replaces the paths of a tree by variables; gives the paths.
pub(super) fn take_paths(expr: &mut IdedExpr) -> Vec<Path> {
    let mut taker = Taker { paths: Vec::new(), bound: Vec::new() };
    taker.visit(expr);
    taker.paths
}

struct Taker {
    paths: Vec<Path>,
    /// Variables of the comprehensions around: they are not ours.
    bound: Vec<String>,
}

impl Taker {
    fn visit(&mut self, expr: &mut IdedExpr) {
        match &mut expr.expr {
            Expr::Select(select) if !select.test => {
                if let Some(path) = self.path(select) {
                    expr.expr = Expr::Ident(format!("@{}", self.paths.len()));
                    self.paths.push(path);
                    return;
                }
                self.visit(&mut select.operand);
            }
            Expr::Comprehension(comprehension) => {
                self.visit(&mut comprehension.iter_range);
                self.visit(&mut comprehension.accu_init);
                let outside = self.bound.len();
                self.bound.push(comprehension.iter_var.clone());
                self.bound.extend(comprehension.iter_var2.clone());
                self.bound.push(comprehension.accu_var.clone());
                self.visit(&mut comprehension.loop_cond);
                self.visit(&mut comprehension.loop_step);
                self.visit(&mut comprehension.result);
                self.bound.truncate(outside);
            }
            other => each_child(other, &mut |child| self.visit(child)),
        }
    }

    fn path(&self, select: &SelectExpr) -> Option<Path> {
        let mut members = vec![select.field.clone()];
        let mut operand = &select.operand.expr;
        loop {
            match operand {
                Expr::Select(inner) if !inner.test => {
                    members.push(inner.field.clone());
                    operand = &inner.operand.expr;
                }
                Expr::Ident(variable) if !variable.starts_with('.') && !self.bound.contains(variable) => {
                    members.reverse();
                    return Some(Path { variable: variable.clone(), members });
                }
                _ => return None,
            }
        }
    }
}
