//! Network addresses as dm-worker takes and refuses them.

/// Splits `host:port` as Go does: an IPv6 host stands in brackets, the host may be empty. The port must be a number.
pub(super) fn split_host_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.strip_suffix(']')?,
        None if host.contains([':', '[', ']']) => return None,
        None => host,
    };
    // from_str would take a sign.
    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())?.map(|port| (host, port))
}

/// dm-worker's texts for a listen and an advertised address, in the order it checks them. Empty if all is well.
pub(super) fn listen_problems(worker_addr: &str, advertise_addr: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let is_any = |host: &str| host.is_empty() || host == "0.0.0.0";
    let listen = split_host_port(worker_addr);
    if listen.is_none() {
        problems.push(format!("host:port '{worker_addr}' not valid"));
    }
    if advertise_addr.is_empty() {
        if listen.is_some_and(|(host, _)| is_any(host)) {
            problems.push(format!(
                "worker-addr ({worker_addr}) must include the 'host' part (should not be '0.0.0.0') when advertise-addr is not set"
            ));
        }
    } else {
        match split_host_port(advertise_addr) {
            None => problems.push(format!("host:port '{advertise_addr}' not valid")),
            // With dm-worker's slip in it: tools compare it.
            Some((host, _)) if is_any(host) => problems.push(format!(
                "host:port 'advertise-addr (%s) must include the 'host' part and should not be '0.0.0.0'' not \
                 valid%!(EXTRA string={advertise_addr})"
            )),
            Some(_) => {}
        }
    }
    problems
}

/// The masters of a `join` list, without scheme; and those entries that are no addresses.
pub(super) fn join_addresses(list: &str) -> (Vec<String>, Vec<String>) {
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let bare = entries.map(|entry| {
        let bare = entry.strip_prefix("http://").or_else(|| entry.strip_prefix("https://")).unwrap_or(entry);
        bare.trim_end_matches('/').to_owned()
    });
    bare.partition(|entry| split_host_port(entry).is_some_and(|(host, port)| !host.is_empty() && port != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_go_does() {
        assert_eq!(split_host_port("127.0.0.1:8262"), Some(("127.0.0.1", 8262)));
        assert_eq!(split_host_port(":8262"), Some(("", 8262)));
        assert_eq!(split_host_port("[::1]:1"), Some(("::1", 1)));
        for text in ["", "127.0.0.1", "a:b", "a:", "a:70000", "::1:80", "[::1:80", "a:+1"] {
            assert_eq!(split_host_port(text), None, "{text}");
        }
    }

    #[test]
    fn joins_with_or_without_scheme() {
        let (good, bad) = join_addresses("127.0.0.1:8261, http://h:1/,https://i:2,x,:9");
        assert_eq!(good, ["127.0.0.1:8261", "h:1", "i:2"]);
        assert_eq!(bad, ["x", ":9"]);
    }
}
