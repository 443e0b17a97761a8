//! Selection of extended attributes.

/// Extended attribute with the capabilities of a program: privileges, as set-user-id.
pub(crate) const FILE_CAPABILITIES: &[u8] = b"security.capability";

/// Extended attributes that are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XattrChoice {
    /// None.
    #[default]
    None,
    /// The namespace `user`, and access control lists. The others have a meaning for the system that they come
    /// from: labels, capabilities, layers of file systems.
    Ordinary,
    /// Attributes of [`Ordinary`](Self::Ordinary), and the capabilities of programs.
    WithCapabilities,
    /// All.
    All,
}

impl XattrChoice {
    pub(crate) fn includes(self, name: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::Ordinary => name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_"),
            Self::WithCapabilities => Self::Ordinary.includes(name) || name == FILE_CAPABILITIES,
            Self::All => true,
        }
    }
}
