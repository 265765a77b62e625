//! Judges the login: R6, the layout of challenges and who gets in.
//!
//! RFC 7616 and RFC 2617 in the form that live555 and FFmpeg read: realm and nonce first, MD5 last,
//! one nonce per reply, no `qop`, no Basic.

use std::collections::BTreeSet;

use crate::digest;

use super::session::{Exchange, Session};
use super::{Expect, Findings};

pub(super) fn check(session: &Session<'_>, expect: &Expect<'_>, findings: &mut Findings) {
    let mut nonces = BTreeSet::new();
    for exchange in &session.exchanges {
        check_admission(exchange, expect, &nonces, findings);
        if exchange.reply.status() == 401 {
            check_challenges(exchange, &mut nonces, findings);
        }
    }
}

/// Right credentials are never refused, wrong or missing ones always.
fn check_admission(
    exchange: &Exchange,
    expect: &Expect<'_>,
    nonces: &BTreeSet<String>,
    findings: &mut Findings,
) {
    let Exchange { request, reply, answered, .. } = exchange;
    let method = request.method();
    let refused = reply.status() == 401;
    let Some(authorization) = request.header("Authorization") else {
        let open = !matches!(method, "DESCRIBE" | "SETUP") || request.version() != "RTSP/1.0";
        let what = format!("{method} without credentials was answered {}", reply.status());
        findings.check(open || refused, "R6", *answered, what);
        return;
    };
    let right = digest::is_right(authorization, &expect.credentials, method) == Some(true);
    let parameters = digest::parameters(authorization).unwrap_or_default();
    let fresh = parameters.iter().any(|(name, value)| name == "nonce" && nonces.contains(value));
    let what = format!("{} with right credentials: {right}, refused: {refused}", request.start);
    let admitted_anyway = method == "OPTIONS" && !refused;
    findings.check((right && fresh) != refused || admitted_anyway, "R6", *answered, what);
}

fn check_challenges(exchange: &Exchange, nonces: &mut BTreeSet<String>, findings: &mut Findings) {
    let mut require = |holds: bool, what: &str| {
        findings.check(holds, "R6", exchange.answered, what);
    };
    let challenges: Vec<&str> = exchange.reply.all("WWW-Authenticate").collect();
    let mut own = BTreeSet::new();
    for challenge in &challenges {
        let parameters = digest::parameters(challenge).unwrap_or_default();
        let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        require(names.starts_with(&["realm", "nonce"]), "not `Digest realm=, nonce=` first");
        require(challenge.starts_with("Digest realm=\""), "realm is not quoted");
        require(challenge.contains("\", nonce=\""), "nonce is not quoted after `, `");
        require(!names.contains(&"qop"), "qop is offered");
        let nonce = parameters.iter().find(|(name, _)| name == "nonce").map(|(_, value)| value);
        let nonce = nonce.cloned().unwrap_or_default();
        let is_hex = !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
        require(is_hex, "the nonce is not plain hex");
        own.insert(nonce);
    }
    require(own.len() == 1, "not one nonce in all challenges");
    let last = challenges.last().and_then(|challenge| digest::Challenge::parse(challenge));
    let is_md5 = last.is_some_and(|last| last.algorithm == digest::Algorithm::Md5);
    require(is_md5, "the last challenge is not MD5");
    nonces.extend(own);
}
