//! What a network card does to packets for its guest: checksums and segmentation.
//!
//! Sources: RFC 1071 (checksum); VIRTIO 1.2, section 5.1.6 (what a driver leaves to the device).

/// What a driver asked for one packet (`struct virtio_net_hdr`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// VIRTIO_NET_HDR_F_NEEDS_CSUM: a checksum is to be completed.
    pub checksum: bool,
    /// Where summing starts.
    pub start: usize,
    /// Where the checksum goes, from `start`.
    pub offset: usize,
    /// Segments of TCP over IPv4 or IPv6 to cut the packet into; 0: it is one.
    pub segment: usize,
    /// The IP version whose header precedes TCP: 4 or 6.
    pub version: u8,
}

/// A packet that a device can't do what is asked for with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {length} bytes that asks for what can't be done with it")]
pub struct BadPacket {
    /// Its length.
    pub length: usize,
}

const ETHERNET: usize = 14;
const TCP_SEQUENCE: usize = 4;
const TCP_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const TCP_MINIMUM: usize = 20;
/// FIN and PSH belong to the last segment, CWR to the first (RFC 3168, 6.1.2).
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// One's complement sum of the 16-bit words of `data`, of which an odd last byte is one, added to
/// `sum`; not folded.
pub fn add(sum: u64, data: &[u8]) -> u64 {
    // The sum is the same in either byte order but for a swap, so words go eight bytes at a time.
    let (chunks, rest) = data.as_chunks::<8>();
    let mut total = 0u128;
    for chunk in chunks {
        total += u128::from(u64::from_be_bytes(*chunk));
    }
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    total += u128::from(u64::from_be_bytes(tail));
    let mut low = total;
    while low >> 32 != 0 {
        low = (low & 0xffff_ffff) + (low >> 32);
    }
    sum + low as u64
}

/// The 16-bit one's complement sum of `sum`.
pub fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Completes the checksum of a packet whose field holds the sum of the pseudo header.
///
/// # Errors
/// [`BadPacket`] when the positions are outside of it.
pub fn complete(packet: &mut [u8], start: usize, offset: usize) -> Result<(), BadPacket> {
    let bad = BadPacket {
        length: packet.len(),
    };
    let at = start.checked_add(offset).ok_or(bad)?;
    if at.checked_add(2).ok_or(bad)? > packet.len() {
        return Err(bad);
    }
    let sum = !fold(add(0, &packet[start..]));
    // Zero is what UDP uses for none (RFC 768); to TCP both are the same.
    let sum = if sum == 0 { 0xffff } else { sum };
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Makes the frames for the wire of one packet of a driver.
///
/// # Errors
/// [`BadPacket`] when its headers do not fit what is asked for.
pub fn frames(packet: &[u8], offload: &Offload) -> Result<Vec<Vec<u8>>, BadPacket> {
    if offload.segment == 0 {
        let mut frame = packet.to_vec();
        if offload.checksum {
            complete(&mut frame, offload.start, offload.offset)?;
        }
        return Ok(vec![frame]);
    }
    segment(packet, offload).ok_or(BadPacket {
        length: packet.len(),
    })
}

fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

fn put16(data: &mut [u8], at: usize, value: u16) {
    data[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Cuts a TCP packet into segments (5.1.6.2.1): `None` when its headers are no such thing.
fn segment(packet: &[u8], offload: &Offload) -> Option<Vec<Vec<u8>>> {
    let tcp = offload.start;
    let ip = ip_header(packet)?;
    let least = if offload.version == 4 { 20 } else { 40 };
    if !offload.checksum || offload.offset != TCP_CHECKSUM || tcp < ip + least {
        return None;
    }
    if packet.get(ip)? >> 4 != offload.version {
        return None;
    }
    let length = usize::from(packet.get(tcp + TCP_OFFSET)? >> 4) * 4;
    let head = tcp.checked_add(length)?;
    if length < TCP_MINIMUM || head >= packet.len() {
        return None;
    }
    let (header, payload) = packet.split_at(head);
    let sequence = u32::from_be_bytes(
        header[tcp + TCP_SEQUENCE..tcp + TCP_SEQUENCE + 4]
            .try_into()
            .ok()?,
    );
    let pseudo = pseudo_header(header, ip, tcp, offload.version)?;
    let count = payload.len().div_ceil(offload.segment);
    let mut frames = Vec::with_capacity(count);
    for (number, part) in payload.chunks(offload.segment).enumerate() {
        let mut frame = Vec::with_capacity(head + part.len());
        frame.extend_from_slice(header);
        frame.extend_from_slice(part);
        let offset = (number * offload.segment) as u32;
        let at = tcp + TCP_SEQUENCE;
        frame[at..at + 4].copy_from_slice(&sequence.wrapping_add(offset).to_be_bytes());
        if number + 1 != count {
            frame[tcp + TCP_FLAGS] &= !FIN_PSH;
        }
        if number != 0 {
            frame[tcp + TCP_FLAGS] &= !CWR;
        }
        fix_ip(&mut frame, ip, tcp, offload.version, number as u16)?;
        let length = (frame.len() - tcp) as u64;
        let sum = fold(pseudo + (length >> 16) + (length & 0xffff));
        put16(&mut frame, tcp + TCP_CHECKSUM, sum);
        complete(&mut frame, tcp, TCP_CHECKSUM).ok()?;
        frames.push(frame);
    }
    Some(frames)
}

/// Where the IP header begins, behind VLAN tags.
fn ip_header(packet: &[u8]) -> Option<usize> {
    let mut at = ETHERNET;
    while matches!(be16(packet, at - 2)?, 0x8100 | 0x88a8) {
        at += 4;
        if at > ETHERNET + 8 {
            return None;
        }
    }
    Some(at)
}

/// Sum of addresses and protocol: of the pseudo header but for the length.
fn pseudo_header(header: &[u8], ip: usize, tcp: usize, version: u8) -> Option<u64> {
    let addresses = if version == 4 {
        ip + 12..ip + 20
    } else {
        ip + 8..ip + 40
    };
    if addresses.end > tcp {
        return None;
    }
    Some(add(6, header.get(addresses)?))
}

/// Sets the lengths, and for IPv4 identification and header checksum, of a segment.
fn fix_ip(frame: &mut [u8], ip: usize, tcp: usize, version: u8, number: u16) -> Option<()> {
    let length = u16::try_from(frame.len() - ip).ok()?;
    if version == 6 {
        put16(frame, ip + 4, length - 40);
        return Some(());
    }
    let header = usize::from(frame[ip] & 15) * 4;
    if header < 20 || ip + header > tcp {
        return None;
    }
    put16(frame, ip + 2, length);
    let identification = be16(frame, ip + 4)?.wrapping_add(number);
    put16(frame, ip + 4, identification);
    put16(frame, ip + 10, 0);
    let sum = !fold(add(0, &frame[ip..ip + header]));
    put16(frame, ip + 10, sum);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in data.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn sums_are_those_of_rfc_1071() {
        assert_eq!(
            fold(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])),
            0xddf2
        );
        let data: Vec<u8> = (0..255).collect();
        for end in 0..data.len() {
            assert_eq!(fold(add(0, &data[..end])), reference(&data[..end]));
        }
    }

    fn tcp4(payload: usize) -> Vec<u8> {
        let mut packet = vec![0u8; 54 + payload];
        packet[12..14].copy_from_slice(&[8, 0]);
        packet[14] = 0x45;
        packet[18..20].copy_from_slice(&[0xff, 0xff]);
        packet[23] = 6;
        packet[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[38..42].copy_from_slice(&0xffff_fff0u32.to_be_bytes());
        packet[46] = 5 << 4;
        packet[47] = 0x99;
        for (index, byte) in packet[54..].iter_mut().enumerate() {
            *byte = index as u8;
        }
        packet
    }

    #[test]
    fn segments_are_whole_packets() {
        let packet = tcp4(2500);
        let offload = Offload {
            checksum: true,
            start: 34,
            offset: 16,
            segment: 1000,
            version: 4,
        };
        let frames = frames(&packet, &offload).unwrap();
        assert_eq!(
            frames.iter().map(Vec::len).collect::<Vec<_>>(),
            [1054, 1054, 554]
        );
        let payload: Vec<u8> = frames.iter().flat_map(|f| f[54..].to_vec()).collect();
        assert_eq!(payload, packet[54..]);
        for (number, frame) in frames.iter().enumerate() {
            assert_eq!(fold(add(0, &frame[14..34])), 0xffff);
            let pseudo = add(6 + (frame.len() - 34) as u64, &frame[26..34]);
            assert_eq!(fold(add(pseudo, &frame[34..])), 0xffff);
            assert_eq!(be16(frame, 18), Some(0xffffu16.wrapping_add(number as u16)));
            let sequence = u32::from_be_bytes(frame[38..42].try_into().unwrap());
            assert_eq!(sequence, 0xffff_fff0u32.wrapping_add(1000 * number as u32));
        }
        let flags: Vec<u8> = frames.iter().map(|f| f[47]).collect();
        assert_eq!(flags, [0x90, 0x10, 0x19]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let offload = Offload {
            checksum: true,
            start: 34,
            offset: 16,
            segment: 10,
            version: 6,
        };
        assert!(frames(&tcp4(100), &offload).is_err());
        let beyond = Offload {
            checksum: true,
            start: 60,
            offset: usize::MAX,
            ..Offload::default()
        };
        assert!(frames(&[0; 61], &beyond).is_err());
        for length in 0..55 {
            let offload = Offload {
                start: 34,
                version: 4,
                ..offload
            };
            assert!(frames(&tcp4(100)[..length], &offload).is_err());
        }
    }
}
