//! TLS: the functions in whose arguments its plaintext passes.

/// Units inside a function of TLS, or with records that one of them will read, that are known at once. The least recently
/// used one is forgotten for a new one.
pub const MAX_TLS_UNITS: u32 = 32_768;
/// Sessions (`SSL *`, `*tls.Conn`) whose socket is known at once. The least recently used one is forgotten for a new one.
pub const MAX_TLS_SESSIONS: u32 = 65_536;
/// Messages of a connection before its first plaintext at most, if descry is to have seen the handshake and all behind it.
pub const MAX_HANDSHAKE_MESSAGES: u32 = 8;

/// What a probe of TLS carries (`bpf_get_attach_cookie`).
///
/// ```text
/// bits 0-7    the function
/// bits 8-23   how far the stack pointer is below what it was at the entry (bytes)
/// bits 24-27  condition of a branch: the place is an exit where it is not taken
/// bit 28      whether there is one
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct TlsCookie(pub u64);

impl TlsCookie {
    /// Of a place.
    pub const fn new(function: TlsFunction, shift: u16, unless: Option<u8>) -> Self {
        let condition = match unless {
            Some(condition) => (condition as u64 & 0xf) << 24 | 1 << 28,
            None => 0,
        };
        Self(function as u64 | (shift as u64) << 8 | condition)
    }

    /// The function, if it is one.
    #[inline(always)]
    pub const fn function(self) -> Option<TlsFunction> {
        TlsFunction::from_u8(self.0 as u8)
    }

    /// How far the stack pointer is below what it was at the entry (bytes).
    #[inline(always)]
    pub const fn shift(self) -> u64 {
        self.0 >> 8 & 0xffff
    }

    /// The condition of the branch, as in its opcode, if the place is one.
    #[inline(always)]
    pub const fn unless(self) -> Option<u8> {
        if self.0 & 1 << 28 == 0 { None } else { Some((self.0 >> 24 & 0xf) as u8) }
    }
}

/// A function of a library of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TlsFunction {
    /// `int SSL_do_handshake(SSL *)`: no plaintext, but the socket of the session.
    Handshake = 1,
    /// `int SSL_read(SSL *, void *, int)`: returns how many bytes.
    Read = 2,
    /// `int SSL_write(SSL *, const void *, int)`.
    Write = 3,
    /// `int SSL_read_ex(SSL *, void *, size_t, size_t *)`: returns 1, and writes how many.
    ReadInto = 4,
    /// `int SSL_write_ex(SSL *, const void *, size_t, size_t *)`.
    WriteFrom = 5,
    /// `void SSL_free(SSL *)`.
    Free = 6,
    /// `func (c *tls.Conn) Read([]byte) (int, error)`.
    GoRead = 7,
    /// `func (c *tls.Conn) Write([]byte) (int, error)`: writes all of it, or the connection is of no use any more.
    GoWrite = 8,
    /// `func (c *tls.Conn) Close() error`.
    GoClose = 9,
}

impl TlsFunction {
    /// The function of this number, if there is one.
    #[inline(always)]
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Handshake,
            2 => Self::Read,
            3 => Self::Write,
            4 => Self::ReadInto,
            5 => Self::WriteFrom,
            6 => Self::Free,
            7 => Self::GoRead,
            8 => Self::GoWrite,
            9 => Self::GoClose,
            _ => return None,
        })
    }

    /// Whether its arguments are where Go passes them, and its stack may move.
    #[inline(always)]
    pub const fn is_go(self) -> bool {
        matches!(self, Self::GoRead | Self::GoWrite | Self::GoClose)
    }

    /// Whether its end is of interest too.
    #[inline(always)]
    pub const fn returns(self) -> bool {
        !matches!(self, Self::Free | Self::GoWrite | Self::GoClose)
    }

    /// Whether it sends.
    #[inline(always)]
    pub const fn sends(self) -> bool {
        matches!(self, Self::Write | Self::WriteFrom | Self::GoWrite)
    }
}

/// A session, on the whole machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct TlsSessionKey {
    /// Address of the `SSL` or `tls.Conn`.
    pub address: u64,
    /// Process, in the initial pid namespace.
    pub tgid: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<TlsSessionKey>() == 16);
