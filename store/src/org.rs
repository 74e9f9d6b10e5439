//! An org and the names of its tables.

use domain::{OrgId, OrgKey};

/// An org as its rows know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrgRef {
    /// Its number, in `core.deletions` and the locks.
    pub id: OrgId,
    /// Its key, in the names of its tables.
    pub key: OrgKey,
}

impl OrgRef {
    /// `core."values_<org_key>"`. The key's rule ([`OrgKey`]) lets nothing in that needs escaping.
    pub(crate) fn values(&self) -> String {
        format!("core.\"values_{}\"", self.key)
    }

    /// `core."values_<org_key>_current"`.
    pub(crate) fn current(&self) -> String {
        format!("core.\"values_{}_current\"", self.key)
    }
}
