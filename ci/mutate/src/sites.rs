//! Where a mutant can be planted: a mechanical change of one expression or statement.
//!
//! What is no protocol is left out: tests, constants (they are computed before the program runs), text (`Display`, `fmt`,
//! `as_str`), accessors, counters, and what only the simulated world's reader sees (labels, costs).

use std::ops::Range;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, BinOp, Block, Expr, ExprMatch, Lit, Pat, Stmt, UnOp};

/// The kinds of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A comparison with its boundary moved, or negated.
    Comparison,
    /// `&&` for `||`, and the other way round; a `!` less.
    Logic,
    /// Another arithmetical or bitwise operator.
    Arithmetic,
    /// A condition negated.
    Condition,
    /// A literal, or a named constant, with another value.
    Constant,
    /// A statement that isn't executed.
    Statement,
    /// Two arms of a `match` with each other's bodies.
    Arms,
}

/// A replacement of some bytes of a file. `{id}` stands for the mutant's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) at: Range<usize>,
    pub(crate) text: String,
}

/// A place, and the change that can be made there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) kind: Kind,
    /// The first line, from 1 on, and the last one.
    pub(crate) lines: (usize, usize),
    /// The bytes that no other mutant may touch.
    pub(crate) span: Range<usize>,
    /// What is there, and what would be there.
    pub(crate) was: String,
    pub(crate) becomes: String,
    pub(crate) edits: Vec<Edit>,
}

/// All sites of a file, in its order.
pub(crate) fn sites(text: &str) -> Result<Vec<Site>, syn::Error> {
    let file = syn::parse_file(text)?;
    let mut finder = Finder { text, found: Vec::new() };
    finder.visit_file(&file);
    finder.found.sort_by_key(|site| (site.span.start, site.span.end));
    Ok(finder.found)
}

/// Whether the mutant of a site is on, in the woven text.
const SWITCH: &str = "crate::mutants::on({id})";

struct Finder<'a> {
    text: &'a str,
    found: Vec<Site>,
}

impl Finder<'_> {
    fn of(&self, span: Span) -> &str {
        &self.text[span.byte_range()]
    }

    fn add(&mut self, kind: Kind, whole: Span, becomes: String, edits: Vec<Edit>) {
        let lines = (whole.start().line, whole.end().line);
        let was = shown(self.of(whole));
        self.found.push(Site { kind, lines, span: whole.byte_range(), was, becomes: shown(&becomes), edits });
    }

    /// One of two texts, by the switch.
    fn either(&mut self, kind: Kind, whole: Span, becomes: String) {
        let was = self.of(whole);
        let text = format!("(if {SWITCH} {{ {becomes} }} else {{ {was} }})");
        self.add(kind, whole, becomes, vec![Edit { at: whole.byte_range(), text }]);
    }

    fn binary(&mut self, binary: &syn::ExprBinary) {
        let (kind, other) = match binary.op {
            BinOp::Lt(_) => (Kind::Comparison, "<="),
            BinOp::Le(_) => (Kind::Comparison, "<"),
            BinOp::Gt(_) => (Kind::Comparison, ">="),
            BinOp::Ge(_) => (Kind::Comparison, ">"),
            BinOp::Eq(_) => (Kind::Comparison, "!="),
            BinOp::Ne(_) => (Kind::Comparison, "=="),
            BinOp::And(_) => (Kind::Logic, "||"),
            BinOp::Or(_) => (Kind::Logic, "&&"),
            BinOp::Add(_) => (Kind::Arithmetic, "-"),
            BinOp::Sub(_) => (Kind::Arithmetic, "+"),
            BinOp::Mul(_) => (Kind::Arithmetic, "/"),
            BinOp::Div(_) => (Kind::Arithmetic, "*"),
            BinOp::Rem(_) => (Kind::Arithmetic, "/"),
            BinOp::BitAnd(_) => (Kind::Arithmetic, "|"),
            BinOp::BitOr(_) => (Kind::Arithmetic, "&"),
            BinOp::Shl(_) => (Kind::Arithmetic, ">>"),
            BinOp::Shr(_) => (Kind::Arithmetic, "<<"),
            BinOp::AddAssign(_) => (Kind::Arithmetic, "-="),
            BinOp::SubAssign(_) => (Kind::Arithmetic, "+="),
            _ => return,
        };
        // A chain of `let`s is no value.
        if is_beside(self.of(binary.span())) || has_let(&binary.left) || has_let(&binary.right) {
            return;
        }
        let becomes = format!("{} {other} {}", self.of(binary.left.span()), self.of(binary.right.span()));
        self.either(kind, binary.span(), becomes);
    }

    /// The literal plus one, since one less than nothing doesn't compile.
    fn literal(&mut self, literal: &syn::ExprLit) {
        if let Lit::Int(number) = &literal.lit {
            let becomes = format!("{} + 1", self.of(number.span()));
            self.either(Kind::Constant, literal.span(), becomes);
        }
    }

    /// A constant in capitals, twice as large, or half: by its place, so that both occur.
    fn constant(&mut self, path: &syn::ExprPath) {
        let is_capital = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let Some(last) = path.path.segments.last() else { return };
        let name = last.ident.to_string();
        if name.len() < 3 || !name.chars().all(is_capital) || !last.arguments.is_empty() {
            return;
        }
        let range = path.span().byte_range();
        let was = self.of(path.span()).to_owned();
        let (how, becomes) = match range.start % 2 {
            0 => ("doubled", format!("2 * {was}")),
            _ => ("halved", format!("{was} / 2")),
        };
        let text = format!("crate::mutants::{how}({{id}}, {was})");
        self.add(Kind::Constant, path.span(), becomes, vec![Edit { at: range, text }]);
    }

    fn condition(&mut self, condition: &Expr) {
        if has_let(condition) {
            return;
        }
        let was = self.of(condition.span());
        let text = format!("({SWITCH} != ({was}))");
        let edit = Edit { at: condition.span().byte_range(), text };
        self.add(Kind::Condition, condition.span(), format!("!({was})"), vec![edit]);
    }

    fn statement(&mut self, statement: &Stmt) {
        let Stmt::Expr(expr, Some(_)) = statement else { return };
        let is_action = match expr {
            Expr::MethodCall(_) | Expr::Call(_) | Expr::Assign(_) | Expr::Try(_) | Expr::Await(_) => true,
            Expr::Binary(binary) => matches!(self.of(binary.op.span()).as_bytes(), [.., b'=']),
            _ => false,
        };
        let text = self.of(statement.span());
        if !is_action || is_beside(text) {
            return;
        }
        let range = statement.span().byte_range();
        let edits = vec![
            Edit { at: range.start..range.start, text: format!("if !{SWITCH} {{ ") },
            Edit { at: range.end..range.end, text: " }".to_owned() },
        ];
        self.add(Kind::Statement, statement.span(), String::new(), edits);
    }

    /// The first two neighbouring arms that bind nothing.
    fn arms(&mut self, expr: &ExprMatch) {
        for pair in expr.arms.windows(2) {
            let [one, other] = pair else { continue };
            let is_plain = |arm: &syn::Arm| !matches!(arm.pat, Pat::Guard(_)) && !binds(&arm.pat);
            let (a, b) = (self.of(one.body.span()), self.of(other.body.span()));
            if !is_plain(one) || !is_plain(other) || a == b {
                continue;
            }
            let becomes = format!("{b}, {a}");
            let choice = |mutant: &str, usual: &str| format!("if {SWITCH} {{ {mutant} }} else {{ {usual} }}");
            let edits = vec![
                Edit { at: one.body.span().byte_range(), text: format!("{{ {} }}", choice(b, a)) },
                Edit { at: other.body.span().byte_range(), text: format!("{{ {} }}", choice(a, b)) },
            ];
            let whole = one.span().join(other.span()).unwrap_or_else(|| expr.span());
            self.add(Kind::Arms, whole, becomes, edits);
            return;
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes: &[Attribute] = match item {
            syn::Item::Const(_) | syn::Item::Static(_) | syn::Item::Macro(_) | syn::Item::Use(_) => return,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => {
                let of = item.trait_.as_ref().and_then(|(path, _)| path.segments.last());
                let is_text = |name: &str| ["Display", "Debug", "Error", "Serialize"].contains(&name);
                if of.is_some_and(|last| is_text(&last.ident.to_string())) {
                    return;
                }
                &item.attrs
            }
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if is_of_interest(&item.attrs, &item.sig, &item.block) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if is_of_interest(&item.attrs, &item.sig, &item.block) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_path(&mut self, _: &'ast syn::Path) {}
    fn visit_pat(&mut self, pattern: &'ast Pat) {
        if let Pat::Guard(guarded) = pattern {
            self.visit_expr(&guarded.guard);
        }
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }

    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}

    fn visit_block(&mut self, block: &'ast Block) {
        block.stmts.iter().for_each(|statement| self.statement(statement));
        visit::visit_block(self, block);
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::Binary(binary) => self.binary(binary),
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                let becomes = self.of(unary.expr.span()).to_owned();
                self.either(Kind::Logic, unary.span(), becomes);
            }
            Expr::Lit(literal) => self.literal(literal),
            Expr::Path(path) => self.constant(path),
            Expr::If(conditional) => self.condition(&conditional.cond),
            Expr::Match(expr) => self.arms(expr),
            _ => {}
        }
        visit::visit_expr(self, expr);
    }
}

fn is_of_interest(attributes: &[Attribute], signature: &syn::Signature, block: &Block) -> bool {
    let name = signature.ident.to_string();
    let is_text = name == "fmt" || name == "as_str" || name == "describe";
    !is_test(attributes) && signature.constness.is_none() && !is_text && !is_accessor(block)
}

/// A function whose whole body names a part of something.
fn is_accessor(block: &Block) -> bool {
    fn is_part(expr: &Expr) -> bool {
        match expr {
            Expr::Path(_) => true,
            Expr::Field(field) => is_part(&field.base),
            Expr::Reference(reference) => is_part(&reference.expr),
            Expr::Unary(unary) => matches!(unary.op, UnOp::Deref(_)) && is_part(&unary.expr),
            Expr::MethodCall(call) => call.args.is_empty() && is_part(&call.receiver),
            _ => false,
        }
    }
    matches!(&block.stmts[..], [Stmt::Expr(expr, None)] if is_part(expr))
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string().contains("test")))
    })
}

/// Counting, and what only a reader of the simulated world's runs sees.
fn is_beside(text: &str) -> bool {
    ["stats.", "counters.", "rt::label", "rt::cost", "rt::known_as", "rt::reached", "audit::"]
        .iter()
        .any(|word| text.contains(word))
}

fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        Expr::Paren(inner) => has_let(&inner.expr),
        _ => false,
    }
}

/// Whether a pattern gives a name to a value. A lone name in capitals is a constant or a variant.
fn binds(pattern: &Pat) -> bool {
    struct Names(bool);
    impl<'ast> Visit<'ast> for Names {
        fn visit_pat_ident(&mut self, ident: &'ast syn::PatIdent) {
            self.0 |= !ident.ident.to_string().starts_with(|c: char| c.is_ascii_uppercase());
        }
    }
    let mut names = Names(false);
    names.visit_pat(pattern);
    names.0
}

/// A text in one line, and not too long.
fn shown(text: &str) -> String {
    const MOST: usize = 100;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(Kind, String, String)> {
        sites(text).unwrap().into_iter().map(|site| (site.kind, site.was, site.becomes)).collect()
    }

    #[test]
    fn each_kind_of_change_is_found() {
        let text = "fn f(&mut self, n: u8) { if n < LIMIT { self.go(); } match n { 0 => a(), 1 => b(), _ => !c }; n += 2; }";
        let expected = [
            (Kind::Condition, "n < LIMIT", "!(n < LIMIT)"),
            (Kind::Comparison, "n < LIMIT", "n <= LIMIT"),
            (Kind::Constant, "LIMIT", "2 * LIMIT"),
            (Kind::Statement, "self.go();", ""),
            (Kind::Arms, "0 => a(), 1 => b(),", "b(), a()"),
            (Kind::Logic, "!c", "c"),
            (Kind::Arithmetic, "n += 2", "n -= 2"),
            (Kind::Statement, "n += 2;", ""),
            (Kind::Constant, "2", "2 + 1"),
        ];
        let mut found = found(text);
        found.iter_mut().for_each(|(_, _, becomes)| *becomes = becomes.replace("LIMIT / 2", "2 * LIMIT"));
        for (kind, was, becomes) in expected {
            let site = (kind, was.to_owned(), becomes.to_owned());
            assert!(found.contains(&site), "{site:?} is not among {found:?}");
        }
        assert_eq!(found.len(), expected.len(), "{found:?}");
    }

    #[test]
    fn tests_text_constants_accessors_counters_and_chains_of_let_are_left_alone() {
        let text = "const A: u8 = 1 + 1; const fn g() -> u8 { 3 + 4 } impl Display for X { fn fmt(&self) { self.a(1); } } \
            fn len(&self) -> usize { self.parts.len() } #[cfg(test)] mod tests { fn t() { a(1); } } #[test] fn u() { a(1); } \
            fn h() { if let Some(x) = y && z {} self.stats.seen += x; let b = [zero(); 7]; }";
        assert_eq!(found(text), []);
    }
}
