"""Registers of the 82540EM: offsets, bits, values after reset.

Source: Intel, PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual
(317453-005), chapter 13.
"""

CTRL, STATUS, EECD, EERD, CTRL_EXT, MDIC = 0x00, 0x08, 0x10, 0x14, 0x18, 0x20
FCAL, FCAH, FCT, VET, FCTTV, TXCW, RXCW, LEDCTL = (
    *(0x28, 0x2C, 0x30, 0x38),
    *(0x170, 0x178, 0x180, 0xE00),
)
ICR, ITR, ICS, IMS, IMC = 0xC0, 0xC4, 0xC8, 0xD0, 0xD8
RCTL, TCTL, TIPG, AIFS, PBA = 0x100, 0x400, 0x410, 0x458, 0x1000
FCRTL, FCRTH = 0x2160, 0x2168
RDBAL, RDBAH, RDLEN, RDH, RDT, RDTR, RXDCTL, RADV, RSRPD = (
    *(0x2800, 0x2804, 0x2808, 0x2810, 0x2818),
    *(0x2820, 0x2828, 0x282C, 0x2C00),
)
TDBAL, TDBAH, TDLEN, TDH, TDT, TIDV, TXDCTL, TADV, TSPMT = (
    *(0x3800, 0x3804, 0x3808, 0x3810, 0x3818),
    *(0x3820, 0x3828, 0x382C, 0x3830),
)
RXCSUM, MTA, RA, VFTA = 0x5000, 0x5200, 0x5400, 0x5600
WUC, WUFC, WUS, MANC, IPAV, WUPL = 0x5800, 0x5808, 0x5810, 0x5820, 0x5838, 0x5900
MTA_WORDS, RA_WORDS, VFTA_WORDS = 128, 32, 128
STATISTICS, STATISTICS_END = 0x4000, 0x4100
GPRC, BPRC, MPRC, GPTC, GORCL, GORCH, GOTCL, GOTCH = (
    *(0x4074, 0x4078, 0x407C, 0x4080),
    *(0x4088, 0x408C, 0x4090, 0x4094),
)
MPC, TORL, TORH, TOTL, TOTH, TPR, TPT, MPTC, BPTC, TSCTC = (
    *(0x4010, 0x40C0, 0x40C4, 0x40C8, 0x40CC),
    *(0x40D0, 0x40D4, 0x40F0, 0x40F4, 0x40F8),
)

CTRL_FD, CTRL_LRST, CTRL_ASDE, CTRL_SLU, CTRL_RST, CTRL_VME, CTRL_PHY_RST = (
    *(1 << 0, 1 << 3, 1 << 5, 1 << 6),
    *(1 << 26, 1 << 30, 1 << 31),
)
#: Full duplex, link up, 1000 Mbit/s.
STATUS_VALUE = 1 << 0 | 1 << 1 | 2 << 6
EECD_SK, EECD_CS, EECD_DI, EECD_DO, EECD_REQ, EECD_GNT, EECD_PRES = (
    1 << bit for bit in (0, 1, 2, 3, 6, 7, 8)
)
EERD_START, EERD_DONE = 1 << 0, 1 << 4
MDIC_WRITE, MDIC_READ, MDIC_READY, MDIC_ERROR = 1 << 26, 2 << 26, 1 << 28, 1 << 30
CTRL_EXT_EE_RST = 1 << 13

ICR_TXDW, ICR_TXQE, ICR_LSC, ICR_RXDMT0, ICR_RXO, ICR_RXT0, ICR_MDAC, ICR_TXD_LOW = (
    *(1 << 0, 1 << 1, 1 << 2, 1 << 4),
    *(1 << 6, 1 << 7, 1 << 9, 1 << 15),
)
ICR_ALL = 0x1F6DF

RCTL_EN, RCTL_SBP, RCTL_UPE, RCTL_MPE, RCTL_LPE, RCTL_BAM, RCTL_VFE, RCTL_SECRC = (
    *(1 << 1, 1 << 2, 1 << 3, 1 << 4),
    *(1 << 5, 1 << 15, 1 << 18, 1 << 26),
)
RCTL_BSEX, RCTL_LBM, RCTL_LBM_MAC = 1 << 25, 3 << 6, 1 << 6
TCTL_EN, TCTL_PSP = 1 << 1, 1 << 3
RXCSUM_IPOFL, RXCSUM_TUOFL = 1 << 8, 1 << 9
RAH_AV = 1 << 31

#: Registers that keep what is written: offset and bits.
KEPT: dict[int, int] = {
    **dict.fromkeys((FCAL, FCAH, FCT, VET, FCTTV, TXCW, LEDCTL, ITR, TIPG, AIFS, PBA), 0xFFFFFFFF),
    **dict.fromkeys((FCRTL, FCRTH, RDTR, RXDCTL, RADV, RSRPD, RCTL, TCTL, RXCSUM), 0xFFFFFFFF),
    **dict.fromkeys((TIDV, TXDCTL, TADV, TSPMT, WUC, WUFC, WUS, MANC, IPAV), 0xFFFFFFFF),
    **dict.fromkeys((RDBAH, TDBAH, CTRL_EXT), 0xFFFFFFFF),
    **dict.fromkeys((RDBAL, TDBAL), 0xFFFFFFF0),
    **dict.fromkeys((RDLEN, TDLEN), 0xFFF80),
    **dict.fromkeys((RDH, RDT, TDH, TDT), 0xFFFF),
}
#: Values after reset other than zero.
RESET: dict[int, int] = {
    CTRL: CTRL_FD | CTRL_ASDE | 2 << 8,
    PBA: 0x00100030,
    LEDCTL: 0x07061302,
    VET: 0x8100,
    TIPG: 0x00602008,
    RXDCTL: 0x00010000,
    TXDCTL: 0,
    RXCSUM: 0,
    MANC: 0x00000020,
}
#: Older places of the ring registers (13.4, "alias").
ALIASES: dict[int, int] = {
    0x108: RDTR,
    0x110: RDBAL,
    0x114: RDBAH,
    0x118: RDLEN,
    0x120: RDH,
    0x128: RDT,
    0x420: TDBAL,
    0x424: TDBAH,
    0x428: TDLEN,
    0x430: TDH,
    0x438: TDT,
    0x440: TIDV,
}
