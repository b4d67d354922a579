//! Which file systems cannot be trusted with the locks of a store.

use std::path::Path;

/// Magic numbers of file systems over a network, from `statfs(2)` and the kernel's `magic.h`.
#[cfg(target_os = "linux")]
const NETWORK: &[(u64, &str)] = &[
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x00c3_6400, "ceph"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "afs"),
    (0x7375_7245, "coda"),
    (0x564c, "ncp"),
    (0x0102_1997, "9p"),
    (0x0bd0_0bd0, "lustre"),
    (0x0116_1970, "gfs2"),
    (0x7461_636f, "ocfs2"),
    (0x4750_4653, "gpfs"),
    (0x1983_0326, "beegfs"),
    (0x2030_528a, "orangefs"),
];

/// The name of the network file system on which a folder lies; `None` where it is a local one, or nobody can tell.
#[cfg(target_os = "linux")]
pub(super) fn network_name(folder: &Path) -> Option<&'static str> {
    let kind = rustix::fs::statfs(folder).ok()?.f_type;
    // Some architectures have a signed field, in which the upper half is the sign.
    named(kind as u64 & 0xffff_ffff)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn network_name(_folder: &Path) -> Option<&'static str> {
    None
}

#[cfg(target_os = "linux")]
fn named(kind: u64) -> Option<&'static str> {
    NETWORK.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_told_from_local_ones() {
        assert_eq!(named(0x6969), Some("nfs"));
        assert_eq!(named(0xff53_4d42), Some("cifs"));
        for local in [0xef53, 0x0102_1994, 0x9123_683e, 0x5846_5342, 0x794c_7630] {
            assert_eq!(named(local), None, "{local:#x}");
        }
        assert_eq!(network_name(Path::new("/proc")), None);
    }
}
