//! Interrupt messages between I/O APIC, message-signalled devices and local APICs.

/// How a local APIC treats a message (SDM vol. 3A, 11.6.1, table 11-1 "Delivery Mode").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// To every processor of the destination.
    Fixed,
    /// To the processor of the destination that runs at the lowest priority.
    LowestPriority,
    /// System-management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up IPI.
    Startup,
    /// The 8259A supplies the vector.
    ExtInt,
}

impl DeliveryMode {
    /// From the 3-bit field of ICR, LVT, redirection entry and MSI data; `None`: reserved.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        match bits & 7 {
            0 => Some(Self::Fixed),
            1 => Some(Self::LowestPriority),
            2 => Some(Self::Smi),
            4 => Some(Self::Nmi),
            5 => Some(Self::Init),
            6 => Some(Self::Startup),
            7 => Some(Self::ExtInt),
            _ => None,
        }
    }
}

/// Which local APICs a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The APIC with an ID; all ones is a broadcast.
    Physical {
        /// APIC ID.
        id: u32,
        /// 32 bits as an x2APIC sends them, rather than 8.
        wide: bool,
    },
    /// The APICs whose logical destination register matches.
    Logical {
        /// Message destination address.
        mda: u32,
        /// 32 bits as an x2APIC sends them, rather than 8.
        wide: bool,
    },
    /// The sender alone.
    Myself,
    /// Every APIC.
    All,
    /// Every APIC but the sender.
    Others,
}

/// A message on the system bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// How it is to be treated.
    pub mode: DeliveryMode,
    /// Interrupt vector; for a start-up IPI the page of its entry point.
    pub vector: u8,
    /// Level-triggered: its EOI is reported to the I/O APIC.
    pub level: bool,
    /// For whom.
    pub target: Target,
    /// The local APIC that sent it, if one did.
    pub sender: Option<u32>,
}

impl Message {
    /// Decodes a message-signalled interrupt (SDM vol. 3A, 11.11); `None` when the address is not
    /// in the APIC's range or the delivery mode is reserved.
    pub fn from_msi(address: u64, data: u32) -> Option<Self> {
        if address >> 20 != 0xfee {
            return None;
        }
        let destination = (address >> 12 & 0xff) as u32;
        let (redirect, logical) = (address & 1 << 3 != 0, address & 1 << 2 != 0);
        let mut mode = DeliveryMode::from_bits(data >> 8)?;
        if redirect && logical && mode == DeliveryMode::Fixed {
            mode = DeliveryMode::LowestPriority;
        }
        Some(Self {
            mode,
            vector: data as u8,
            level: data & 1 << 15 != 0,
            target: Target::narrow(destination, logical),
            sender: None,
        })
    }
}

impl Target {
    /// The target of an 8-bit destination field.
    pub const fn narrow(destination: u32, logical: bool) -> Self {
        if logical {
            Self::Logical {
                mda: destination & 0xff,
                wide: false,
            }
        } else {
            Self::Physical {
                id: destination & 0xff,
                wide: false,
            }
        }
    }

    /// The target of a 32-bit x2APIC destination field.
    pub const fn wide(destination: u32, logical: bool) -> Self {
        if logical {
            Self::Logical {
                mda: destination,
                wide: true,
            }
        } else {
            Self::Physical {
                id: destination,
                wide: true,
            }
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Delivery {
    /// No APIC took it.
    Refused,
    /// The vector was requested already: the two became one.
    Coalesced,
    /// It was taken.
    Accepted,
}
