//! Users of this machine that processes may run as.

/// The user and group of this name in a file like `/etc/passwd`.
pub fn find(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (found, _password, user, group) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (found == name).then(|| Some((user.parse().ok()?, group.parse().ok()?)))?
    })
}

/// Whether this process is root's.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\npost:x:7:8::/:\npostgres:x:104:105:,,,:/var/lib:/bin/sh\nbad:x:a:b::/:\n";
        assert_eq!(find(passwd, "postgres"), Some((104, 105)));
        assert_eq!(find(passwd, "nobody"), None);
        assert_eq!(find(passwd, "bad"), None);
    }
}
